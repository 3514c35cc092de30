"""Files that grow and are whole at every moment."""

import errno
import io
import json
from pathlib import Path

import pytest

from kiku.cli.live_results import JsonLines, LiveFile, Srt, Txt
from kiku.errors import OutputError
from kiku.stream import End, Event
from kiku.text import TurnEnd, Word, segments, write_srt, write_txt

WORDS = [
    Word("Hello.", 0.0, 0.5, 0.9),
    Word("Good", 0.5, 0.8, 0.9),
    Word("day", 0.8, 0.8, float("nan")),
    Word("you", 0.8, 0.8, 0.9),
]


def test_cues_are_those_of_the_whole_file() -> None:
    srt, txt = Srt(), Txt()
    events: list[Event] = [*WORDS[:3], TurnEnd(2.0, 1.0), WORDS[3], End(3.0)]
    lines = [*segments(WORDS[:3]), *segments(WORDS[3:])]
    parts = [srt.take(event) for event in events]
    assert "".join(parts) == write_srt(lines)
    assert parts[0] == ""
    assert parts[1].startswith("1\n")  # a sentence does not wait for the end of the turn
    assert "".join(map(txt.take, events)) == write_txt(lines)


def test_each_channel_has_lines_of_its_own() -> None:
    srt, txt = Srt(), Txt()
    first, second = Word("yes", 0.0, 0.4, 0.9, 0), Word("no", 0.2, 0.5, 0.9, 1)
    more = Word("sir", 0.6, 0.8, 0.9, 0)
    events: list[Event] = [first, second, more, TurnEnd(2.0, 1.0, 1), End(3.0)]
    assert "".join(map(txt.take, events)) == "[1] no\n[0] yes sir\n"
    assert "".join(map(srt.take, events)) == (
        "1\n00:00:00,200 --> 00:00:00,500\n[1] no\n\n"
        "2\n00:00:00,000 --> 00:00:00,800\n[0] yes sir\n\n"
    )


def test_json_lines_know_no_nan() -> None:
    assert json.loads(JsonLines().take(WORDS[2]))["probability"] is None


class _FullDisk(io.RawIOBase):
    """Takes some bytes, and then no more."""

    def __init__(self, file: io.FileIO, room: int) -> None:
        self.file, self.room = file, room

    def fileno(self) -> int:
        return self.file.fileno()

    def write(self, data: bytes) -> int:  # type: ignore
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self.file.write(data[: self.room])
        self.room -= taken
        return taken


def test_no_half_cue_stays_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = LiveFile(tmp_path / "a.srt", Srt(), force=False)
    real = file._file
    monkeypatch.setattr(file, "_file", _FullDisk(real, 70))
    for event in WORDS[:3]:
        file.take(event)
    with pytest.raises(OutputError, match=r"a\.srt cannot be written \(no space left"):
        file.take(End(2.0))
    real.close()
    assert (tmp_path / "a.srt").read_text() == write_srt(segments(WORDS[:1]))
    with pytest.raises(OutputError, match="exists already"):
        LiveFile(tmp_path / "a.srt", Srt(), force=False)
    with pytest.raises(OutputError, match="cannot be written"):
        LiveFile(tmp_path / "none" / "a.srt", Srt(), force=True)
