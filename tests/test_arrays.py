"""Arrays as files of safetensors: the package itself reads and writes the same."""

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from kiku import arrays
from kiku.arrays import arrays_of, arrays_to_parts

DTYPES = ("bool", "u1", "i1", "i2", "u2", "f2", "i4", "u4", "f4", "i8", "u8", "f8")
ARRAYS = st.dictionaries(
    st.text(max_size=8).filter(lambda name: name != "__metadata__"),
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=5))
    ),
    max_size=5,
)
METADATA = st.none() | st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3)


def same(one: dict[str, NDArray[Any]], other: dict[str, NDArray[Any]]) -> bool:
    """Equal names, dtypes, shapes and bits."""
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and one[name].tobytes() == other[name].tobytes()
        for name in one
    )


@given(given=ARRAYS, metadata=METADATA)
@settings(deadline=None)
def test_the_package_reads_what_is_written(
    given: dict[str, NDArray[Any]], metadata: dict[str, str] | None
) -> None:
    written = b"".join(arrays_to_parts(given, metadata))
    found, about = arrays_of(written)
    assert same(found, given)
    assert about == (metadata or {})
    if not any("\x00" in name for name in given):
        assert same(load(written), given)


@given(given=ARRAYS, metadata=METADATA)
@settings(deadline=None)
def test_what_the_package_writes_is_read(
    given: dict[str, NDArray[Any]], metadata: dict[str, str] | None
) -> None:
    plain = {name: np.ascontiguousarray(array) for name, array in given.items()}
    found, about = arrays_of(save(plain, metadata or None))
    assert same(found, plain)
    assert about == (metadata or {})


def test_large_arrays_are_copied_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_PIECE", 10)
    wide = np.arange(20, dtype=np.int64).reshape(4, 5).T
    parts = arrays_to_parts({"wide": wide})
    assert [len(part) for part in parts[2:]] == [10] * 16
    assert (arrays_of(b"".join(parts))[0]["wide"] == wide).all()


def test_what_is_read_is_not_copied() -> None:
    written = np.frombuffer(b"".join(arrays_to_parts({"one": np.arange(9)})), np.uint8)
    found = arrays_of(written)[0]["one"]
    assert np.shares_memory(found, written)
    assert not found.flags.writeable


ONE = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}


def file_of(header: Any, data: bytes = b"ab") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_a_file_by_hand() -> None:
    found, about = arrays_of(file_of({"a": ONE, "__metadata__": {"x": "y"}}))
    assert found["a"].tolist() == [97, 98]
    assert about == {"x": "y"}


@pytest.mark.parametrize(
    "wrong",
    [
        b"", b"1234567", b"\xff" * 20, file_of({"a": ONE})[:-1], file_of({"a": ONE}, b"abc"),
        file_of([]), file_of(b"{"), file_of(b"[" * 100_000), file_of(b"\xff\xfe"),
        file_of({"a": []}), file_of({"a": 5}), file_of({"__metadata__": 5, "a": ONE}),
        file_of({"a": {**ONE, "more": 1}}), file_of({"a": {"dtype": "U8", "shape": [2]}}),
        file_of({"a": {**ONE, "dtype": "F8_E4M3"}}), file_of({"a": {**ONE, "dtype": 5}}),
        file_of({"a": {**ONE, "shape": 2}}), file_of({"a": {**ONE, "shape": [True, 2]}}),
        file_of({"a": {**ONE, "shape": [-2]}}), file_of({"a": {**ONE, "shape": [2.0]}}),
        file_of({"a": {**ONE, "shape": [3]}}), file_of({"a": {**ONE, "shape": [2**70]}}),
        file_of({"a": {**ONE, "shape": [2] + [1] * 40}}),
        file_of({"a": {**ONE, "data_offsets": [0, 2, 2]}}),
        file_of({"a": {**ONE, "data_offsets": [2, 0]}}),
        file_of({"a": {**ONE, "data_offsets": [1, 3]}}),
        file_of({"a": {**ONE, "data_offsets": [2**64, 2**64 + 2]}}),
        file_of({"a": ONE, "b": ONE}),
        file_of({"a": ONE, "b": {**ONE, "data_offsets": [1, 3]}}, b"abc"),
        file_of({"a": ONE, "b": {**ONE, "data_offsets": [3, 5]}}, b"abcde"),
    ],
)  # fmt: skip
def test_what_is_no_such_file_is_refused(wrong: bytes) -> None:
    with pytest.raises(ValueError, match=r"its |it is|Expecting|utf-8|delimiter"):
        arrays_of(wrong)


@given(at=st.integers(0, 400), byte=st.integers(0, 255), cut=st.none() | st.integers(0, 400))
@settings(deadline=None, max_examples=300)
def test_changed_bytes_are_refused_or_mean_what_they_mean_to_the_package(
    at: int, byte: int, cut: int | None
) -> None:
    written = bytearray(b"".join(arrays_to_parts({"a": np.arange(3), "b": np.ones((2, 2), "f4")})))
    written[at % len(written)] = byte
    changed = bytes(written if cut is None else written[: cut % len(written)])
    try:
        found, _ = arrays_of(changed)
    except ValueError:
        return
    # The package refuses some more, such as metadata that are no strings.
    with suppress(SafetensorError):
        assert same(load(changed), found)
