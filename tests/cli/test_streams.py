"""Standard streams that take nothing: a full disk, and readers that have gone."""

import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Ran

Run = Callable[..., Ran]
Speech = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("backend")


class Stdout(io.StringIO):
    """Takes what it is given, but not the n-th piece."""

    def __init__(self, *full_at: int) -> None:
        super().__init__()
        self.full_at, self.num_pieces = full_at, 0

    def write(self, text: str) -> int:
        self.num_pieces += 1
        if self.num_pieces - 1 in self.full_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


def _process(
    repo_root: Path, arguments: list[str], **streams: int
) -> subprocess.CompletedProcess[str]:
    """kiku as a process of its own, with a real file descriptor for a stream."""
    return subprocess.run(
        [sys.executable, "-m", "kiku", *arguments],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},  # pyright: ignore
        cwd=repo_root,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("arguments", [(), ("--words",)])
@pytest.mark.parametrize("full_at", [0, 1])
def test_a_full_disk_on_standard_output_fails_one_recording_alone(
    run: Run,
    speech: Speech,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    full_at: int,
) -> None:
    first, second = speech(tmp_path / "a.wav", 0.8), speech(tmp_path / "b.wav", 1.6)
    out = Stdout(full_at)
    monkeypatch.setattr(sys, "stdout", out)
    ran = run("transcribe", *arguments, first, second)
    assert ran.code == 1
    told, _, last = ran.err.partition("\n")
    assert told.startswith(f"kiku: {first}: standard output cannot be written (no space left")
    assert last == "kiku: 1 of 2 recordings could not be transcribed completely\n"
    _, after = out.getvalue().split(f"==> {second} <==\n")
    assert [w for w in after.split() if w.isalpha()] == ["zero", "one"]


def test_a_full_disk_on_standard_output_fails_one_document_alone(
    run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings = [speech(tmp_path / "a.wav", 0.8), speech(tmp_path / "b.wav", 1.6)]
    out = Stdout(0)
    monkeypatch.setattr(sys, "stdout", out)
    ran = run("transcribe", "-f", "json", *recordings)
    assert ran.code == 1
    assert ran.err.startswith("kiku: standard output cannot be written (no space left")
    assert ran.err.endswith("kiku: 1 of 2 recordings could not be transcribed completely\n")
    assert ran.err.count("\n") == 2
    assert json.loads(out.getvalue())["text"] == "zero one"


def test_what_can_go_nowhere_stops_neither_its_other_files_nor_the_next(
    run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings = [speech(tmp_path / "a.wav", 0.8), speech(tmp_path / "b.wav", 1.6)]
    (tmp_path / "a.txt").mkdir()  # nothing can be written there
    monkeypatch.setattr(sys, "stdout", Stdout(*range(100)))
    ran = run("transcribe", *recordings, "-f", "all", "-o", tmp_path, "--force")
    assert ran.code == 1
    assert "a.txt cannot be written" in ran.err
    assert "standard output cannot be written" in ran.err
    assert json.loads((tmp_path / "a.json").read_text())["text"] == "zero"
    assert (tmp_path / "b.txt").read_text() == "zero one\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_sentence_to_the_very_end(repo_root: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ran = _process(repo_root, ["models", "list"], stdout=full.fileno())
    assert ran.returncode == 1
    assert ran.stderr.startswith("kiku: standard output cannot be written (no space left")
    assert ran.stderr.count("\n") == 1


def test_nobody_reads_the_complaints(
    run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()
    os.close(read)
    with io.TextIOWrapper(io.FileIO(write, "w"), write_through=True) as nobody:
        monkeypatch.setattr(sys, "stderr", nobody)
        gone = [tmp_path / "gone.wav", tmp_path / "gone too.wav"]
        ran = run("transcribe", *gone, speech(tmp_path / "a.wav", 0.8))
    assert ran.code == 1
    assert ran.out.endswith("a.wav <==\nzero\n")


def test_nobody_reads_anything(repo_root: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    ran = _process(repo_root, ["models", "list"], stdout=write, stderr=write)
    os.close(write)
    assert ran.returncode == 141
