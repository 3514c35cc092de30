"""Files that grow and are whole at every moment."""

import errno
import io
import json
from pathlib import Path

import pytest

from kiku.cli import terminal
from kiku.cli.live_results import Json, JsonLines, LiveFile, Printed, Srt, Txt, Vtt
from kiku.errors import OutputError
from kiku.stream import End, Event
from kiku.text import (
    CaptionOptions,
    TurnEnd,
    Word,
    segments,
    write_json,
    write_srt,
    write_txt,
    write_vtt,
)

WORDS = [
    Word("Hello.", 0.0, 0.5, 0.9),
    Word("Good", 0.5, 0.8, 0.9),
    Word("day", 0.8, 0.8, float("nan")),
    Word("you", 2.5, 2.8, 0.9),
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


def test_vtt_and_json_are_those_of_the_whole_recording() -> None:
    vtt, document = Vtt(), Json(CaptionOptions("demo"))
    assert vtt.take(EVENTS[0]) == "WEBVTT\n\n"  # a file that holds no cue yet is one of vtt
    written = "WEBVTT\n\n" + "".join(map(vtt.take, EVENTS[1:]))
    assert written == write_vtt(CUES)
    assert [document.take(event) for event in EVENTS[:-1]] == [""] * 5
    assert document.take(EVENTS[-1]) == write_json(WORDS, CaptionOptions("demo", duration=3.0))


def test_words_are_underlined_live_too() -> None:
    options = CaptionOptions(highlight_words=True)
    assert "".join(map(Srt(options).take, EVENTS)) == write_srt(CUES, options)


def test_nothing_said_is_a_file_all_the_same() -> None:
    assert Srt().take(End(3.0)) == write_srt([])
    assert Vtt().take(End(3.0)) == write_vtt([])


def test_each_channel_has_lines_of_its_own() -> None:
    srt, txt = Srt(), Txt()
    first, second = Word("yes", 0.0, 0.4, 0.9, 0), Word("no", 0.2, 0.5, 0.9, 1)
    more = Word("sir", 0.6, 0.8, 0.9, 0)
    events: list[Event] = [first, second, more, TurnEnd(2.0, 1.0, 1), End(3.0)]
    assert "".join(map(txt.take, events)) == "[1] no\n[0] yes sir\n"
    assert "".join(map(srt.take, events)) == (
        "1\n00:00:00,200 --> 00:00:01,034\n[1] no\n\n"
        "2\n00:00:00,000 --> 00:00:00,834\n[0] yes sir\n\n"
    )


def test_json_lines_know_no_nan() -> None:
    assert json.loads(JsonLines().take(WORDS[2]))["probability"] is None


class _Disk(io.RawIOBase):
    """Takes some bytes, and then no more until there is room."""

    def __init__(self, file: io.FileIO, room: int) -> None:
        self.file, self.room = file, room

    def fileno(self) -> int:
        return self.file.fileno()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def write(self, data: bytes) -> int:  # type: ignore
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self.file.write(data[: self.room])
        self.room -= taken
        return taken

    def close(self) -> None:
        self.file.close()


EVENTS: list[Event] = [*WORDS[:3], TurnEnd(2.0, 1.0), WORDS[3], End(3.0)]
CUES = [*segments(WORDS[:3]), *segments(WORDS[3:])]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[LiveFile, _Disk]:
    """A file on a disk that is full in the middle of the second cue."""
    file = LiveFile(tmp_path / "a.srt", Srt(), force=False)
    disk = _Disk(file._file, len(write_srt(CUES[:1])) + 20)  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(file, "_file", disk)
    return file, disk


def test_what_a_full_disk_does_not_take_comes_when_there_is_room(
    tmp_path: Path, disk: tuple[LiveFile, _Disk], capsys: pytest.CaptureFixture[str]
) -> None:
    file, room = disk
    for event in EVENTS[:5]:
        file.take(event)
    written = (tmp_path / "a.srt").read_text()
    assert written == write_srt(CUES)[: len(written)]
    assert written.endswith("\n\n"), "no half cue stays"
    assert written.count("-->") == 1
    room.room = 1000
    file.take(EVENTS[5])
    assert file.close(whole=True)
    assert (tmp_path / "a.srt").read_text() == write_srt(CUES)
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.partition("a.srt ")[2] for line in err.splitlines()] == [
        "cannot be written (no space left on device); its text is kept, and kiku will try again "
        "to write it",
        "can be written again; nothing is missing",
    ]


def test_what_a_disk_takes_at_the_last_moment_is_there(
    tmp_path: Path, disk: tuple[LiveFile, _Disk]
) -> None:
    file, room = disk
    for event in EVENTS:
        file.take(event)
    room.room = 1000
    assert file.close(whole=True)
    assert (tmp_path / "a.srt").read_text() == write_srt(CUES)


def test_what_a_full_disk_never_takes_is_printed(
    tmp_path: Path, disk: tuple[LiveFile, _Disk], capsys: pytest.CaptureFixture[str]
) -> None:
    file, _ = disk
    for event in EVENTS:
        file.take(event)
    assert not file.close(whole=True)
    written = (tmp_path / "a.srt").read_text()
    out, err = capsys.readouterr()
    head, _, rest = out.partition("\n")
    assert head == f"==> {tmp_path / 'a.srt'} <=="
    assert written + rest == write_srt(CUES)
    assert err.count("\n") == 2


def test_a_printer_that_is_full_for_a_moment_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed, full = Printed(Txt()), [True]
    echo = terminal.echo

    def maybe(text: str) -> None:
        if full[0]:
            raise OutputError("standard output cannot be written (no space left on device)")
        echo(text)

    monkeypatch.setattr(terminal, "echo", maybe)
    for event in EVENTS[:4]:
        printed.take(event)
    assert not printed.close(whole=True)
    full[0] = False
    for event in EVENTS[4:]:
        printed.take(event)
    assert printed.close(whole=True)
    out, err = capsys.readouterr()
    assert out == "you\n"
    assert err.count("\n") == 1


def test_files_that_are_there_or_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "a.srt").touch()
    for has_end in (False, True):
        with pytest.raises(OutputError, match="already exists"):
            LiveFile(tmp_path / "a.srt", Srt(), force=False, has_end=has_end)
    with pytest.raises(OutputError, match="cannot be written"):
        LiveFile(tmp_path / "none" / "a.srt", Srt(), force=True)


@pytest.mark.parametrize("has_end", [False, True])
def test_a_link_is_replaced_and_not_written_through(tmp_path: Path, has_end: bool) -> None:
    (tmp_path / "victim").write_text("precious")
    for name in ("a.txt", "a.partial.txt"):
        (tmp_path / name).symlink_to(tmp_path / "victim")
    file = LiveFile(tmp_path / "a.txt", Txt(), force=True, has_end=has_end)
    for event in EVENTS:
        file.take(event)
    assert file.close(whole=True)
    assert (tmp_path / "victim").read_text() == "precious"
    assert (tmp_path / "a.txt").read_text() == write_txt(CUES)


def test_what_has_an_end_is_partial_until_then(tmp_path: Path) -> None:
    def heard(events: list[Event], *, whole: bool) -> list[str]:
        file = LiveFile(tmp_path / "a.txt", Txt(), force=False, has_end=True)
        for event in events:
            file.take(event)
        assert [path.name for path in tmp_path.iterdir()] == ["a.partial.txt"]
        assert file.close(whole=whole)
        return [path.name for path in tmp_path.iterdir()]

    assert heard([], whole=False) == []
    assert heard(EVENTS[:4], whole=False) == ["a.partial.txt"]
    assert heard(EVENTS, whole=True) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == write_txt(CUES)


def test_a_whole_file_does_not_take_the_place_of_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = LiveFile(tmp_path / "a.txt", Txt(), force=False, has_end=True)
    (tmp_path / "a.txt").write_text("precious")
    for event in EVENTS:
        file.take(event)
    assert not file.close(whole=True)
    assert (tmp_path / "a.txt").read_text() == "precious"
    assert "the text is in" in capsys.readouterr().err
