"""Two checkpoints are never taken for one another, however far into a file they differ."""

import json
import os
import shutil
import struct
from pathlib import Path

import pytest

from kiku.checkpoint import find, read_config
from kiku.checkpoint.identity import identity_of
from kiku.checkpoint.layout import Files
from kiku.config import ModelConfig

MIB = 2**20


@pytest.fixture
def checkpoint(native_folder: Path) -> tuple[Files, ModelConfig]:
    """A tiny checkpoint, of which the weights are replaced."""
    files = find(native_folder)
    return files, read_config(files)


def _weights(path: Path, num_bytes: int, *names: str) -> None:
    """A tensor of zeros, which takes no room on the disk, and empty ones before it."""
    size = num_bytes // 4 * 4
    header: dict[str, object] = {
        name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for name in names
    }
    header["last"] = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + size)


def _write(path: Path, at: int) -> None:
    """Change one byte, and not the time of the last change."""
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
        file.write(b"\x01")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("at", [200, 40 * MIB + 500_000, -1])
def test_a_byte_of_a_file_that_is_read_whole(
    at: int, checkpoint: tuple[Files, ModelConfig]
) -> None:
    files, config = checkpoint
    _weights(files.lm[0], 63 * MIB)
    before = identity_of(files, config)
    _write(files.lm[0], at)
    assert identity_of(files, config) != before


@pytest.mark.parametrize("at", [200, -1])
def test_both_ends_of_a_big_file_whenever_it_was_written(
    at: int, checkpoint: tuple[Files, ModelConfig]
) -> None:
    files, config = checkpoint
    _weights(files.lm[0], 80 * MIB)
    before = identity_of(files, config)
    _write(files.lm[0], at)
    assert identity_of(files, config) != before


def test_many_places_in_between(checkpoint: tuple[Files, ModelConfig]) -> None:
    files, config = checkpoint
    _weights(files.lm[0], 80 * MIB)
    before = identity_of(files, config)
    times = files.lm[0].stat()
    with files.lm[0].open("r+b") as file:  # as a training would: everywhere, if far in
        for at in range(70 * MIB, 72 * MIB, 8 * 1024):
            file.seek(at)
            file.write(b"\x01")
    os.utime(files.lm[0], ns=(times.st_atime_ns, times.st_mtime_ns))
    assert identity_of(files, config) != before


def test_each_tensor_of_a_big_file(checkpoint: tuple[Files, ModelConfig]) -> None:
    """Where all files have one time, as in Nix's store: one tensor was trained, the rest not."""
    files, config = checkpoint
    path, size = files.lm[0], 400 * 1024
    header = {
        f"{i}": {"dtype": "F32", "shape": [size // 4], "data_offsets": [i * size, (i + 1) * size]}
        for i in range(200)
    }
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + 200 * size)
    os.utime(path, ns=(0, 0))
    found = [identity_of(files, config)]
    for tensor in range(0, 200, 13):  # of most of them none of the 64 pieces holds anything
        start = 8 + len(text) + tensor * size
        for part in (0, size // 2 - 1000, size - 1):
            _write(path, start + part)
            found.append(identity_of(files, config))
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("at", [40 * MIB + 123_456, 79 * MIB + 1])
def test_any_byte_of_a_big_file_that_was_written_at_another_time(
    at: int, checkpoint: tuple[Files, ModelConfig]
) -> None:
    files, config = checkpoint
    _weights(files.lm[0], 80 * MIB)
    before = identity_of(files, config)
    _write(files.lm[0], at)
    when = files.lm[0].stat().st_mtime_ns
    os.utime(files.lm[0], ns=(when, when + 1_000_000))
    assert identity_of(files, config) != before


def test_names_of_a_big_file(checkpoint: tuple[Files, ModelConfig]) -> None:
    files, config = checkpoint
    many = [f"tensor{i:04}" for i in range(1000)]  # a header larger than a piece, as real ones
    found: set[str] = set()
    for num_bytes, name in ((80 * MIB, "a"), (80 * MIB, "b"), (80 * MIB + 4, "a")):
        _weights(files.lm[0], num_bytes, *many, name)
        os.utime(files.lm[0], ns=(0, 0))
        found.add(identity_of(files, config))
    assert len(found) == 3


def test_every_file_counts(checkpoint: tuple[Files, ModelConfig]) -> None:
    files, config = checkpoint
    found = {identity_of(files, config)}
    for path in (*files.lm, *files.codec, files.vocabulary):
        assert path is not None
        _write(path, -1)
        found.add(identity_of(files, config))
    assert len(found) == 4


def test_the_same_wherever_it_lies(
    checkpoint: tuple[Files, ModelConfig], native_folder: Path, tmp_path: Path
) -> None:
    files, config = checkpoint
    _weights(files.lm[0], 80 * MIB)
    before = identity_of(files, config)
    assert identity_of(files, config) == before
    moved = find(shutil.move(native_folder, tmp_path / "elsewhere"))
    assert identity_of(moved, config) == before
