"""A recording that is being transcribed, as its caller sees it: `Transcription`."""

import os
import sys
import warnings
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from kiku.audio import StreamWarning
from kiku.errors import InputError
from kiku.text import Word
from kiku.transcription.batch import RecordingBatch
from kiku.transcription.recording import RecordingTask
from kiku.transcription.transcript import IncompleteTranscript, Transcript

_PACKAGE = str(Path(__file__).parents[1]) + os.sep


def _caller_level() -> int:
    """The `stacklevel` of a warning that names the line outside of kiku from which it comes."""
    level, frame = 1, sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level


class Transcription:
    """A recording that is being transcribed.

    Iterate to have each word as soon as it is decided; `result` waits for the end. If the sound
    stops in the middle (a truncated file), the words before are all there, the transcript's
    `problem` holds the error, and a warning (`IncompleteTranscript`) says so when all words were
    given. If it cannot be read at all, iterating raises that error.
    """

    def __init__(self, recording: RecordingTask, batch: RecordingBatch, model: str) -> None:
        """`Recognizer.transcription` makes them."""
        self._recording, self._batch, self._model = recording, batch, model
        self._finalizer = weakref.finalize(self, batch.abandon, recording)
        self._finalizer.atexit = False
        self._warned = False

    def __repr__(self) -> str:
        state = "done" if self._recording.so_far.done else "going on"
        return f"<Transcription {self.heard_s:.1f} s heard, {len(self.so_far)} words, {state}>"

    def __reduce__(self) -> NoReturn:
        raise InputError(
            "a transcription under way cannot be copied or sent to another process: send its "
            "result()"
        )

    def __iter__(self) -> Iterator[Word]:
        """Every word from the first, waiting for those that are not decided yet."""
        yield from self._each()
        self._warn_of_problem()

    def _each(self) -> Iterator[Word]:
        index, so_far = 0, self._recording.so_far
        while True:
            while index < len(so_far.words):
                yield so_far.words[index]
                index += 1
            if so_far.done:
                break
            self._batch.advance()
        self._finalizer.detach()  # a Ctrl-C that comes while it is dropped would be lost there
        if so_far.failure is not None:
            raise so_far.failure

    def _warn_of_problem(self) -> None:
        """Warn, once, if the sound stopped before its end; all of it is decided by now."""
        so_far = self._recording.so_far
        problem = so_far.problem
        if problem is None or self._warned:
            return
        self._warned = True
        message = f"{problem}; everything before was transcribed"
        warning = IncompleteTranscript(message, so_far.transcript(self._model))
        warnings.warn(warning, stacklevel=_caller_level())

    def stop(self) -> list[Word]:
        """Give up the rest of the recording and free its slot.

        Returns:
            The word that was open, if there was one, now decided; it stands in `so_far` too.
            Iterating again ends after the words of `so_far`.
        """
        return self._batch.stop(self._recording)

    @property
    def so_far(self) -> list[Word]:
        """The words decided until now, without waiting."""
        return list(self._recording.so_far.words)

    @property
    def heard_s(self) -> float:
        """Seconds of sound taken in until now, without waiting."""
        return self._recording.so_far.duration

    @property
    def num_channels(self) -> int:
        """Channels of the sound, silent ones too; 0 before any of it was read."""
        return self._recording.num_channels

    @property
    def done(self) -> bool:
        """Whether all has come of it that will come, without waiting."""
        return self._recording.so_far.done

    @property
    def warnings(self) -> list[StreamWarning]:
        """What was not as it should be until now, without waiting."""
        return list(self._recording.so_far.warnings)

    @property
    def problem(self) -> Exception | None:
        """Why the sound stopped before its end, as far as is known."""
        return self._recording.so_far.problem

    def result(self) -> Transcript:
        """All of it, when it is done.

        Raises:
            Exception: what stopped it, if it cannot go on.
            IncompleteTranscript: the sound stopped before its end, and warnings are errors. It
                holds the transcript, and the next call gives that.
        """
        for _ in self._each():
            pass
        self._warn_of_problem()
        return self._recording.so_far.transcript(self._model)

    def result_or_problem(self) -> Transcript:
        """As `result`, but what stopped it stands in the transcript's `problem`, and nowhere
        else."""
        try:
            for _ in self._each():
                pass
        except Exception as error:
            if self._recording.so_far.failure is not error:
                raise
        return self._recording.so_far.transcript(self._model)

    def advance(self) -> None:
        """Let it, and all that go side by side with it, come a step further.

        Raises:
            NoFreeSlot: see `Recognizer.transcribe`.
        """
        self._batch.advance()


def as_done(several: Sequence[Transcription]) -> Iterator[Transcription]:
    """Each of the recordings of one `Recognizer.transcriptions` as soon as it is done: a long one
    keeps no short one waiting."""
    pending = list(several)
    while pending:
        done = [one for one in pending if one.done]
        pending = [one for one in pending if not one.done]
        yield from done
        if not done:
            pending[0].advance()
