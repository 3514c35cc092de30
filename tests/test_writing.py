"""Files are written whole or not at all, and never through a link: at every door."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kiku.errors import CheckpointError, OutputError
from kiku.hf.values import write_text
from kiku.transcription import Transcript
from kiku.writing import in_place_of, write_whole

TRANSCRIPT = Transcript((), 1.0, model="caf\udce9")


def _by_transformers(path: Path) -> None:
    write_text(path.parent, path.name, "{}\n")


DOORS = [TRANSCRIPT.save, _by_transformers]
Door = Callable[[Path], None]


@pytest.mark.parametrize("write", DOORS)
def test_a_link_is_replaced_and_not_followed(write: Door, tmp_path: Path) -> None:
    shared, link = tmp_path / "shared", tmp_path / "a.json"
    shared.write_text("of somebody else")
    link.symlink_to(shared)
    write(link)
    assert shared.read_text() == "of somebody else"
    assert not link.is_symlink()
    assert link.read_text().startswith("{")


@pytest.mark.parametrize("write", DOORS)
def test_an_error_leaves_the_old_file_and_nothing_else(
    write: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises((OutputError, CheckpointError), match="No space left on device"):
        write(path)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("a.json", "old")]


def test_the_old_file_is_there_while_the_new_one_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with in_place_of(path) as first:
        first.write_text("new")
        assert path.read_text() == "old"
    with pytest.raises(OSError, match="Is a directory"), in_place_of(path) as second:
        second.write_text("half") and tmp_path.write_text("")
    assert path.read_text() == "new"
    assert first.name != second.name  # nobody can put a link there beforehand
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    reader = os.open(tmp_path / "pipe.txt", os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_whole(tmp_path / "pipe.txt", "words\n")
        assert os.read(reader, 100) == b"words\n"
    finally:
        os.close(reader)
    assert (tmp_path / "pipe.txt").is_fifo()


def test_a_transcript_makes_no_folders(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file or directory"):
        TRANSCRIPT.save(tmp_path / "mistyped" / "a.txt")
    assert not (tmp_path / "mistyped").exists()
