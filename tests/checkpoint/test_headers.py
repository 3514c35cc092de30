"""Damaged files are told apart from whole ones, whatever was done to them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from kiku.checkpoint.headers import read_header, read_headers
from kiku.checkpoint.mapped import MappedTensors
from kiku.errors import CheckpointError

_WHOLE = save({"a": torch.arange(12.0).view(3, 4), "b": torch.ones(5, dtype=torch.bfloat16)})
_QUICK = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def test_names_types_and_shapes(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(_WHOLE)
    stored = read_header(path)
    assert {n: (s.dtype, s.shape, s.num_bytes) for n, s in stored.items()} == {
        "a": ("F32", (3, 4), 48),
        "b": ("BF16", (5,), 10),
    }
    content = path.read_bytes()
    for one in stored.values():
        assert one.file == path
        assert one.start + one.num_bytes <= len(content)
    a = stored["a"]
    assert np.frombuffer(content, np.float32, 12, a.start).tolist() == list(range(12))


def test_tensors_as_pytorch_sees_them(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(_WHOLE)
    tensors = MappedTensors(read_headers([path]))
    assert tensors.mapped("a")[1, 2] == 6
    assert tensors.borrowed(["b", "a"])[1][2, 3] == 11


@_QUICK
@given(end=st.integers(0, len(_WHOLE) - 1))
def test_cut_short_anywhere(end: int, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(_WHOLE[:end])
    with pytest.raises(CheckpointError, match=r"x\.safetensors is (cut short|not a safetensors)"):
        read_header(path)


@_QUICK
@given(junk=st.binary(max_size=200))
def test_anything_else_is_refused(junk: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(junk)
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        read_header(path)


@_QUICK
@given(at=st.integers(0, _WHOLE.index(b"}}") + 1), byte=st.integers(0, 255))
def test_a_damaged_header_is_refused_or_still_consistent(
    at: int, byte: int, tmp_path: Path
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(_WHOLE[:at] + bytes([byte]) + _WHOLE[at + 1 :])
    try:
        stored = read_header(path)
    except CheckpointError:
        return
    assert sum(s.num_bytes for s in stored.values()) == 58


def test_longer_than_promised(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(_WHOLE + b"more")
    with pytest.raises(CheckpointError, match="too long"):
        read_header(path)


def test_a_pointer_instead_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        read_header(path)


def test_the_same_tensor_in_two_shards(tmp_path: Path) -> None:
    for name in ("1", "2"):
        save_file({"a": torch.zeros(2)}, tmp_path / name)
    with pytest.raises(CheckpointError, match="a is both in"):
        read_headers([tmp_path / "1", tmp_path / "2"])


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_header(tmp_path / "nothing")
