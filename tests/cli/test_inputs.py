"""Paths on the command line: which recordings they lead to, and what is said of the others."""

from collections.abc import Iterator
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
        ("s3://calls/talk.mp3", "reads from object stores only with --ray"),
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


def _tree(folder: Path) -> None:
    for name in ("b.wav", "a/x.mp3", "a/c/y.wav", "a/notes.txt", ".git/z.wav", "empty/e.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "a" / "circle").symlink_to(folder)


def test_folders_inside_a_folder(tmp_path: Path) -> None:
    _tree(tmp_path)
    assert find_recordings([str(tmp_path)]) == [Recording(str(tmp_path / "b.wav"))]
    assert find_recordings([str(tmp_path)], recursive=True) == [
        Recording(str(tmp_path / "b.wav")),
        Recording(str(tmp_path / "a/x.mp3"), "a"),
        Recording(str(tmp_path / "a/c/y.wav"), "a/c"),
    ]
    (error,) = find_recordings([str(tmp_path / "empty")])
    assert "-r" in str(error)


def test_a_folder_that_cannot_be_read_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tree(tmp_path)
    inside = Path.iterdir

    def refuse(folder: Path) -> Iterator[Path]:
        if folder.name == "c":
            raise PermissionError(13, "Permission denied")
        return inside(folder)

    monkeypatch.setattr(Path, "iterdir", refuse)
    first, second, error = find_recordings([str(tmp_path)], recursive=True)
    assert [first, second] == [
        Recording(str(tmp_path / "b.wav")), Recording(str(tmp_path / "a/x.mp3"), "a"),
    ]  # fmt: skip
    assert str(error) == f"{tmp_path / 'a/c'}: cannot be opened (permission denied)"


def test_patterns_that_no_shell_has_replaced(tmp_path: Path) -> None:
    _tree(tmp_path)
    for name in ("a[1].wav", "c.wav"):
        (tmp_path / name).touch()
    literal = str(tmp_path / "a[1].wav")
    assert find_recordings([literal]) == [Recording(literal)]
    assert find_recordings([str(tmp_path / "?.wav")]) == [
        Recording(str(tmp_path / "b.wav")), Recording(str(tmp_path / "c.wav")),
    ]  # fmt: skip
    assert find_recordings([str(tmp_path / "**" / "y.*")]) == [
        Recording(str(tmp_path / "a/c/y.wav"))
    ]
    (error,) = find_recordings([str(tmp_path / "*.flac")])
    assert "no file matches this pattern" in str(error)
