"""Paths on the command line: which recordings they lead to, and what is said of the others."""

from pathlib import Path

import pytest

from kiku.cli.inputs import Recording, find_recordings
from kiku.errors import AudioError


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("gone.wav", "no such file or folder"),
        ("notes.txt/inside.wav", "no such file or folder"),
        ("x" * 300 + ".wav", "cannot be opened"),
        ("nul\0.wav", "cannot be opened"),
        ("https://example.org/talk.mp3", "download it first"),
    ],
)
def test_paths_that_lead_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("hello")
    (error,) = find_recordings([path])
    assert isinstance(error, AudioError)
    assert said in str(error)
    assert str(error).startswith(path)


def test_order_is_that_of_the_command_and_faults_keep_their_place(tmp_path: Path) -> None:
    for name in ("c.wav", "b.mp3", "a.unknown"):
        (tmp_path / name).touch()
    unknown, gone = str(tmp_path / "a.unknown"), str(tmp_path / "gone")
    found = find_recordings([unknown, gone, str(tmp_path), unknown])
    assert found[0] == Recording(unknown)
    assert isinstance(found[1], AudioError)
    assert [item.name for item in found[2:] if isinstance(item, Recording)] == ["b.mp3", "c.wav"]
    assert len(found) == 4


def test_one_file_by_two_names_is_one_recording(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "link.wav").symlink_to(tmp_path / "a.wav")
    assert find_recordings([str(tmp_path / "a.wav"), str(tmp_path)]) == [
        Recording(str(tmp_path / "a.wav"))
    ]
