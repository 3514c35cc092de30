"""Events -> txt, srt, vtt, json and JSON lines, written while they come."""

import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from kiku.cli import terminal
from kiku.cli.lines import LineCutter, line_text
from kiku.cli.outputs import partial_of, refuse_existing
from kiku.cli.terminal import ReaderGone
from kiku.errors import OutputError
from kiku.stream import End, Event, StreamWarning, event_to_dict
from kiku.text import CaptionOptions, Partial, Segment, TurnEnd, Word, write_json
from kiku.text.captions import (
    DEFAULTS,
    EMPTY_SRT,
    VTT_HEAD,
    Shot,
    shots_of,
    srt_shot,
    vtt_shot,
)
from kiku.text.cues import Cue, CueMaker


class Cutter:
    """Events -> lines, each as soon as nothing can be added to it: a turn is one line, or several
    if it has several sentences."""

    def __init__(self) -> None:
        """Start without a word."""
        self._lines = LineCutter()

    @property
    def open(self) -> list[tuple[Word, ...]]:
        """See `LineCutter.open`."""
        return self._lines.open

    def end(self) -> list[Segment]:
        """End the open lines, because nothing more comes, and give them."""
        return self._lines.end_all()

    def take(self, event: Event) -> list[Segment]:
        """The lines that become whole by this event."""
        match event:
            case Word():
                return self._lines.add(event)
            case TurnEnd():
                return self._lines.end(event.channel)
            case End():
                return self.end()
            case _:
                return []


class Text(Protocol):
    """Makes the text of a file, event by event."""

    def take(self, event: Event) -> str:
        """The text to append for an event."""
        ...


class Txt:
    """The words alone, one line of text for each line of words."""

    def __init__(self, options: CaptionOptions = DEFAULTS) -> None:
        """Start without a word."""
        self._cutter = Cutter()

    def take(self, event: Event) -> str:
        """The lines that are whole by now."""
        return "".join(f"{line_text(line)}\n" for line in self._cutter.take(event))


class _Cues:
    """Events -> cues, each line's as soon as the line is whole."""

    def __init__(self, options: CaptionOptions, *, room_for_label: bool) -> None:
        """Start without a cue."""
        self._options, self._room_for_label = options, room_for_label
        self._cutter = Cutter()
        self._makers: dict[int | None, CueMaker] = {}

    def take(self, event: Event) -> list[Shot]:
        """The cues that are whole by now."""
        lines = self._cutter.take(event)
        begins_s = {event.channel: event.start} if isinstance(event, Word) else {}
        following_s: list[float | None] = []
        for line in reversed(lines):
            following_s.append(begins_s.get(line.channel))
            begins_s[line.channel] = line.start
        return [
            shot
            for line, next_s in zip(lines, reversed(following_s), strict=True)
            for cue in self._of(line, next_s)
            for shot in shots_of(cue, highlight=self._options.highlight_words)
        ]

    def _of(self, line: Segment, following_s: float | None) -> list[Cue]:
        maker = self._makers.get(line.channel)
        if maker is None:
            maker = CueMaker(self._options, room_for_label=self._room_for_label)
            self._makers[line.channel] = maker
        return maker.add(line.words, following_s)


class Srt:
    """SubRip subtitles, cue after cue: what `write_srt` gives for the same lines. (If channels are
    transcribed separately, cues of two of them may change places.)"""

    def __init__(self, options: CaptionOptions = DEFAULTS) -> None:
        """Start without a cue."""
        self._cues = _Cues(options, room_for_label=True)
        self._num_cues = 0

    def take(self, event: Event) -> str:
        """The cues that are whole by now."""
        text = ""
        for shot in self._cues.take(event):
            self._num_cues += 1
            text += srt_shot(self._num_cues, shot)
        return EMPTY_SRT if isinstance(event, End) and not self._num_cues else text


class Vtt:
    """WebVTT subtitles, cue after cue, as in `Srt`."""

    def __init__(self, options: CaptionOptions = DEFAULTS) -> None:
        """Start without a cue."""
        self._cues = _Cues(options, room_for_label=False)
        self._head = VTT_HEAD

    def take(self, event: Event) -> str:
        """The cues that are whole by now."""
        head, self._head = self._head, ""
        return head + "".join(map(vtt_shot, self._cues.take(event)))


class Json:
    """One document, at the end: what `write_json` gives."""

    def __init__(self, options: CaptionOptions = DEFAULTS) -> None:
        """Start without a word."""
        self._options = options
        self._words: list[Word] = []
        self._warnings: list[StreamWarning] = []

    def take(self, event: Event) -> str:
        """Nothing before the end of the stream, and then the whole document."""
        if isinstance(event, Word):
            self._words.append(event)
        if isinstance(event, StreamWarning):
            self._warnings.append(event)
        if not isinstance(event, End):
            return ""
        words = sorted(
            self._words, key=lambda word: word.start
        )  # the words of all channels in one order
        warnings = [one.to_dict() for one in self._warnings]
        options = replace(self._options, duration=event.duration, warnings=warnings)
        return write_json(words, options)


class JsonLines:
    """Every event on a line, except for partial words."""

    def __init__(self, options: CaptionOptions = DEFAULTS) -> None:
        """Start without an event."""

    def take(self, event: Event) -> str:
        """The event as one line of JSON; nothing for a partial word."""
        if isinstance(event, Partial):
            return ""
        values = {key: _json(value) for key, value in event_to_dict(event).items()}
        return json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n"


TEXTS: Mapping[str, Callable[[CaptionOptions], Text]] = {
    "txt": Txt,
    "srt": Srt,
    "vtt": Vtt,
    "json": Json,
    "jsonl": JsonLines,
}
"""Format, which is also the ending of the file -> its text."""


class Printed:
    """Prints each line on standard output at once."""

    def __init__(self, text: Text) -> None:
        """Print what `text` makes of events."""
        self._text = text
        self._failing = False

    def take(self, event: Event) -> None:
        """Print what is whole by now. Text that a full disk does not take stays in Python's buffer,
        and is tried again with the next."""
        if text := self._text.take(event):
            self._print(text)

    def close(self, *, whole: bool) -> bool:
        """Finish; return whether all of it was printed."""
        if self._failing:
            self._print("")
        return not self._failing

    def _print(self, text: str) -> None:
        try:
            terminal.echo(text)
            self._failing = False
        except OutputError as error:
            if not self._failing:
                terminal.error(str(error))
            self._failing = True


class LiveFile:
    """A file that grows as the sound is transcribed, and is valid at every moment.

    Text that the disk does not take is kept in memory, and tried again with the next. If it still
    does not fit at the end, it is printed: no word is lost.
    """

    def __init__(self, path: Path, text: Text, *, force: bool, has_end: bool = False) -> None:
        """Begin the file.

        Args:
            path: where it will be.
            text: makes its text from events.
            force: replace a file that is there.
            has_end: whether the sound has an end, as a recording does. The file is called partial
                until the end is reached. (A microphone goes on until it is stopped, and nothing is
                missing then.)

        Raises:
            OutputError: it is there already, or cannot be written.
        """
        self._final, self._text, self._force = path, text, force
        self.path = partial_of(path) if has_end else path
        """Where the file is at the moment."""
        try:
            if not force:
                refuse_existing({"": path})
            if force or has_end:
                self.path.unlink(missing_ok=True)  # it may be a link to something else
            # No buffer: what was written stays, whatever happens to this program.
            self._file = self.path.open("xb", buffering=0)
        except FileExistsError:
            raise OutputError(f"{path} already exists; overwrite it with --force") from None
        except OSError as error:
            raise self._cannot(error) from error
        self._size = 0
        self._waiting = b""
        self._failed_with: OutputError | None = None

    def take(self, event: Event) -> None:
        """Append what is whole by now, or keep it until there is room."""
        self._waiting += self._text.take(event).encode()
        if self._waiting:
            self._write()

    def close(self, *, whole: bool) -> bool:
        """Finish; return whether all of it is in the file.

        Args:
            whole: whether the sound was processed to its end.
        """
        if self._waiting:
            self._write()
        with suppress(OSError):
            self._file.close()
        if self._waiting:
            self._print_rest()
            return False
        if not self._size and not whole and self.path != self._final:
            self.discard()
        return not whole or self.path == self._final or self._finish()

    def discard(self) -> None:
        """Remove the file, because it has nothing in it."""
        with suppress(OSError):
            self._file.close()
            self.path.unlink()

    def _write(self) -> None:
        rest = self._waiting
        try:
            self._file.seek(self._size)  # after the last write that succeeded
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            # Half a cue would spoil the file.
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), self._size)
            if self._failed_with is None:
                self._failed_with = self._cannot(error)
                terminal.error(
                    f"{self._failed_with}; its text is kept, and kiku will try again to write it"
                )
            return
        self._size += len(self._waiting)
        self._waiting = b""
        if self._failed_with is not None:
            self._failed_with = None
            terminal.error(f"{self.path} can be written again; nothing is missing")

    def _print_rest(self) -> None:
        terminal.error(f"{self._failed_with}; the missing text follows on standard output")
        try:
            terminal.echo(f"==> {self.path} <==\n{self._waiting.decode()}")
        except OutputError as error:
            terminal.error(str(error))
        except ReaderGone:  # nobody reads it; the other files must be closed, too
            pass

    def _finish(self) -> bool:
        """Rename the file from its partial to its final name."""
        try:
            if not self._force:
                refuse_existing({"": self._final})
            self.path.replace(self._final)
        except OutputError as error:
            terminal.error(f"{error}; the text is in {self.path}")
            return False
        except OSError as error:
            terminal.error(f"{self._cannot(error)}; the text is in {self.path}")
            return False
        self.path = self._final
        return True

    def _cannot(self, error: OSError) -> OutputError:
        reason = (error.strerror or str(error)).lower()
        return OutputError(f"{self.path} cannot be written ({reason})")


def _json(value: Any) -> Any:
    """A value for JSON: rounded to the tenth of a millisecond; NaN, which JSON lacks, is None."""
    if not isinstance(value, float):
        return value
    return None if math.isnan(value) else round(value, 4)
