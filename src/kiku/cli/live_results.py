"""Events -> txt, srt and JSON lines, written while they come."""

import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from kiku.cli import terminal
from kiku.cli.lines import LineCutter, line_text
from kiku.errors import OutputError
from kiku.stream import End, Event, event_to_dict
from kiku.text import Partial, Segment, TurnEnd, Word, timestamp


class LiveFormat(StrEnum):
    """What can be written while it is heard."""

    TXT = "txt"
    SRT = "srt"
    JSONL = "jsonl"
    ALL = "all"


class Cutter:
    """Events -> lines, each as soon as nothing can be added to it: a turn is one line, or several
    where it has several sentences."""

    def __init__(self) -> None:
        """Before the first word."""
        self._lines = LineCutter()

    @property
    def open(self) -> list[tuple[Word, ...]]:
        """See `LineCutter.open`."""
        return self._lines.open

    def end(self) -> list[Segment]:
        """What was open: nothing more comes."""
        return self._lines.end_all()

    def take(self, event: Event) -> list[Segment]:
        """The lines that are whole by this event."""
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
        """What is to be appended."""
        ...


class Txt:
    """The words alone, a line each."""

    def __init__(self) -> None:
        """Before the first word."""
        self._cutter = Cutter()

    def take(self, event: Event) -> str:
        """The lines that are whole by now."""
        return "".join(f"{line_text(line)}\n" for line in self._cutter.take(event))


class Srt:
    """SubRip subtitles, cue after cue: what `write_srt` gives for the same lines. (Where channels
    are transcribed one by one, cues of two of them may change places.)"""

    def __init__(self) -> None:
        """Before the first cue."""
        self._cutter = Cutter()
        self._num_cues = 0
        self._shown_until_ms: dict[int | None, int] = {}

    def take(self, event: Event) -> str:
        """The cues that are whole by now."""
        return "".join(map(self._cue, self._cutter.take(event)))

    def _cue(self, line: Segment) -> str:
        start_ms = max(round(line.start * 1000), self._shown_until_ms.get(line.channel, 0))
        end_ms = max(round(line.end * 1000), start_ms + 1)
        self._shown_until_ms[line.channel] = end_ms
        self._num_cues += 1
        start, end = (timestamp(ms, mark=",") for ms in (start_ms, end_ms))
        return f"{self._num_cues}\n{start} --> {end}\n{line_text(line)}\n\n"


class JsonLines:
    """Every event as it is, but for the pieces of words."""

    def take(self, event: Event) -> str:
        """The event on a line."""
        if isinstance(event, Partial):
            return ""
        values = {key: _json(value) for key, value in event_to_dict(event).items()}
        return json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n"


TEXTS: Mapping[LiveFormat, Callable[[], Text]] = {
    LiveFormat.TXT: Txt,
    LiveFormat.SRT: Srt,
    LiveFormat.JSONL: JsonLines,
}
"""By format, which is also the ending of the file."""


class Printed:
    """Standard output: each line at once."""

    def __init__(self, text: Text) -> None:
        """`text` makes it."""
        self._text = text

    def take(self, event: Event) -> None:
        """Print what is whole by now; OutputError where that is impossible."""
        if text := self._text.take(event):
            terminal.echo(text)

    def close(self) -> None:
        """Nothing to do."""


class LiveFile:
    """A file that grows while it is heard, and is whole at every moment."""

    def __init__(self, path: Path, text: Text, *, force: bool) -> None:
        """Begin the file.

        Args:
            path: where it is.
            text: makes it.
            force: replace what is there.

        Raises:
            OutputError: it is there already, or cannot be written.
        """
        self.path, self._text = path, text
        try:
            # No buffer: what was written is there, whatever becomes of this program.
            self._file = path.open("wb" if force else "xb", buffering=0)
        except FileExistsError:
            raise OutputError(f"{path} exists already; --force overwrites it") from None
        except OSError as error:
            raise self._cannot(error) from error
        self._size = 0

    def take(self, event: Event) -> None:
        """Append what is whole by now; OutputError where that is impossible."""
        rest = self._text.take(event).encode()
        size = self._size + len(rest)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            # Half a cue would spoil the file.
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), self._size)
            raise self._cannot(error) from error
        self._size = size

    def close(self) -> None:
        """All of it is there."""
        with suppress(OSError):
            self._file.close()

    def _cannot(self, error: OSError) -> OutputError:
        reason = (error.strerror or str(error)).lower()
        return OutputError(f"{self.path} cannot be written ({reason})")


def _json(value: Any) -> Any:
    """To the tenth of a millisecond; JSON knows no NaN."""
    if not isinstance(value, float):
        return value
    return None if math.isnan(value) else round(value, 4)
