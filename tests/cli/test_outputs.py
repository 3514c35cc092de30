"""Files for results: their names, and that they are whole."""

import json
import os
from pathlib import Path

import pytest

from kiku.cli.inputs import Recording
from kiku.cli.outputs import name_outputs, partial_of, refuse_existing, write_result
from kiku.errors import ConfigError, OutputError


def _names(*sources: str) -> list[str]:
    outputs = name_outputs([Recording(s) for s in sources], Path("out"), ["txt"])
    return [files["txt"].name for files in outputs.values()]


def test_names_follow_the_recordings() -> None:
    assert _names("a/talk.mp3", "-", "b/talk.2.wav") == ["talk.txt", "stdin.txt", "talk.2.txt"]


def test_only_names_that_meet_keep_their_endings() -> None:
    assert _names("talk.mp3", "x.wav", "b/TALK.wav") == ["talk.mp3.txt", "x.txt", "TALK.wav.txt"]


def test_what_is_called_partial_is_not_taken_for_a_part_of_something_else() -> None:
    assert _names("talk.wav", "talk.partial.wav") == ["talk.txt", "talk.partial.wav.txt"]
    assert partial_of(Path("out/talk.mp3.txt")) == Path("out/talk.mp3.partial.txt")


def test_folders_inside_a_folder_keep_their_names() -> None:
    one, other = Recording("in/a/talk.wav", "a"), Recording("in/b/talk.wav", "b")
    outputs = name_outputs([one, other, Recording("talk.wav")], Path("out"), ["txt"])
    assert [str(files["txt"]) for files in outputs.values()] == [
        "out/a/talk.txt", "out/b/talk.txt", "out/talk.txt",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "sources",
    [("a/talk.mp3", "b/talk.mp3"), ("talk.mp3", "TALK.MP3"), ("a.wav", "a.mp3", "b/a.mp3.x")],
)
def test_names_that_cannot_be_told_apart(sources: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="would both be written to"):
        _names(*sources)


def test_every_format_has_its_ending() -> None:
    one = Recording("talk.mp3")
    files = name_outputs([one], Path("out"), ["srt", "vtt"])[one]
    assert files == {"srt": Path("out/talk.srt"), "vtt": Path("out/talk.vtt")}


def test_existing_files_are_seen(tmp_path: Path) -> None:
    refuse_existing({"txt": tmp_path / "a.txt"})
    (tmp_path / "a.srt").touch()
    with pytest.raises(OutputError, match=r"a\.srt already exists; overwrite it"):
        refuse_existing({"txt": tmp_path / "a.txt", "srt": tmp_path / "a.srt"})


def test_a_file_is_replaced_whole_and_readable_as_others_are(tmp_path: Path) -> None:
    target, plain = tmp_path / "a.txt", tmp_path / "plain"
    target.write_text("old and longer")
    write_result(target, "né\n")
    plain.touch()
    assert target.read_bytes() == "né\n".encode()
    assert target.stat().st_mode == plain.stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "plain"]


def test_links_count_as_existing_even_those_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to(tmp_path / "gone")
    with pytest.raises(OutputError, match="already exists"):
        refuse_existing({"txt": tmp_path / "a.txt"})
    refuse_existing({"txt": tmp_path / ("x" * 300 + ".txt")})  # the writing tells what is wrong


def test_a_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        refuse_existing({"txt": tmp_path / "pipe"})
        write_result(tmp_path / "pipe", "words\n")
        assert os.read(reader, 100) == b"words\n"
    finally:
        os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_names_that_are_no_letters_lose_no_text(tmp_path: Path) -> None:
    write_result(tmp_path / "a.json", '{"model": "caf\udce9"}')
    assert json.loads((tmp_path / "a.json").read_text())["model"] == "caf\udce9"
