"""`Transcript`: what was said in a recording, in plain values."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from opcode import opmap
from pathlib import Path
from types import FrameType
from typing import Any, overload

from kiku.audio import StreamWarning
from kiku.errors import InputError, OutputError
from kiku.text import FORMATS, CaptionOptions, Segment, Word, segments
from kiku.writing import write_whole


@dataclass(frozen=True)
class Transcript:
    """What was said in a recording, in plain values: it can be pickled, compared and kept."""

    words: tuple[Word, ...]
    """The words, in the order of their starts."""
    duration: float
    """Seconds of sound, from the beginning of the recording to its end or to `end_s`."""
    warnings: tuple[StreamWarning, ...] = ()
    """Problems that did not stop the transcription, in the order of time: sound that is clipped or
    silent for long, a file that is damaged or has impossible timestamps, a decoder that had to
    re-decode."""
    problem: Exception | None = None
    """The error that stopped the sound before its end, or kept it from being read at all; None if
    all of it was transcribed."""
    model: str | None = None
    """Name of the model that transcribed it."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Transcript):
            return NotImplemented
        return self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash(self._compared())

    def _compared(self) -> tuple[object, ...]:
        # Two errors are never equal in Python, not even an error and its pickled copy.
        problem = None if self.problem is None else (type(self.problem), str(self.problem))
        return self.words, self.duration, self.warnings, problem, self.model

    @property
    def text(self) -> str:
        """All words with a space between them."""
        return " ".join(word.text for word in self.words)

    @property
    def segments(self) -> list[Segment]:
        """The words grouped into sentences and phrases (see `kiku.text.segments`)."""
        return segments(self.words)

    def __iter__(self) -> Iterator[Word]:
        # As in `segments, info = model.transcribe(...)` of faster-whisper. Python would count the
        # words, and of a recording with two of them take those for what was asked for.
        if _is_unpacked(sys._getframe(1)):  # pyright: ignore[reportPrivateUsage]
            raise InputError(
                "a transcript is one thing, and no pair of segments and info: write transcript = "
                "recognizer.transcribe(...), then transcript.segments, .words or .duration"
            )
        return iter(self.words)

    def __len__(self) -> int:
        return len(self.words)

    @overload
    def __getitem__(self, index: int) -> Word: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Word, ...]: ...
    def __getitem__(self, index: int | slice) -> Word | tuple[Word, ...]:
        name: Any = index
        if isinstance(name, str):  # as with the dictionaries that whisper returns
            known = hasattr(self, name)
            way = f"write transcript.{name}" if known else "to_dict() gives a dictionary"
            raise InputError(f"a transcript is not a dictionary and has no {name!r}: {way}")
        return self.words[index]

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        text = self.text if len(self.text) <= 60 else f"{self.text[:57]}..."
        broken = "" if self.problem is None else f", problem: {self.problem}"
        return f"<Transcript {len(self)} words in {self.duration:.1f} s: {text!r}{broken}>"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "text": self.text,
            "duration": self.duration,
            "words": [_of_word(word) for word in self.words],
            "segments": [
                {"start": one.start, "end": one.end, "text": one.text} for one in self.segments
            ],
            "warnings": [one.to_dict() for one in self.warnings],
            "problem": None if self.problem is None else str(self.problem),
            "model": self.model,
        }

    def to_srt(self) -> str:
        """SubRip captions."""
        return self._written("srt")

    def to_vtt(self) -> str:
        """WebVTT captions."""
        return self._written("vtt")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the transcript to a file, in the format of its ending: txt, json, srt, vtt or tsv.

        A reader sees the old file or the whole new one, never a part. A link is replaced, not
        followed.

        Raises:
            OutputError: the ending names no known format, or the file cannot be written.
        """
        ending = Path(path).suffix.lstrip(".").lower()
        if ending not in FORMATS:
            raise OutputError(
                f"{os.fspath(path)!r} does not end in a known format: end it in one of "
                f"{', '.join('.' + name for name in FORMATS)}"
            )
        try:
            write_whole(Path(path), self._written(ending))
        except OSError as error:
            raise OutputError(
                f"{os.fspath(path)!r} cannot be written ({error.strerror or error}): check the "
                "folder, its permissions and the disk"
            ) from error

    def _written(self, ending: str) -> str:
        warnings = [one.to_dict() for one in self.warnings]
        options = CaptionOptions(self.model or "", self.duration, warnings=warnings)
        return FORMATS[ending](self.words, options)


class IncompleteTranscript(UserWarning):
    """Warns that the sound of a recording stopped before its end. It is raised where a program
    makes warnings errors."""

    def __init__(self, message: str, transcript: Transcript) -> None:
        """A warning about a transcript with a `problem`."""
        super().__init__(message, transcript)
        self.transcript = transcript
        """What was said until the sound stopped."""

    def __str__(self) -> str:
        return self.args[0]


_UNPACK = opmap["UNPACK_SEQUENCE"]


def _is_unpacked(caller: FrameType) -> bool:
    """Whether a function is about to put parts of what it has into variables: `a, b = ...`."""
    return caller.f_code.co_code[caller.f_lasti] == _UNPACK


def _of_word(word: Word) -> dict[str, Any]:
    values: dict[str, Any] = {
        "text": word.text, "start": word.start, "end": word.end, "probability": word.probability,
    }  # fmt: skip
    return values if word.channel is None else {**values, "channel": word.channel}


def by_time(word: Word) -> tuple[float, int]:
    """A sort key: by start, then by channel, so that the words of several channels always have the
    same order."""
    return word.start, word.channel or 0
