"""Arrays to bytes and back, in the format of safetensors, for states of hundreds of megabytes.

Other threads go on meanwhile: Python's lock is held for some megabytes at a time at most. The
package safetensors holds it for all: a tenth of a second for the state of a 1B, in which no other
stream is stepped.
"""

import json
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

_NAMES = {
    np.dtype(dtype): name
    for name, dtype in (
        ("BOOL", np.bool_), ("U8", np.uint8), ("I8", np.int8), ("I16", np.int16),
        ("U16", np.uint16), ("F16", np.float16), ("I32", np.int32), ("U32", np.uint32),
        ("F32", np.float32), ("I64", np.int64), ("U64", np.uint64), ("F64", np.float64),
    )
}  # fmt: skip
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}
_LENGTH = 8
"""Bytes in which the length of the header stands."""
_PIECE = 2**21
"""Bytes that are copied at once while Python's lock is held."""
_MOST_AXES = 32
_FIELDS = {"dtype", "shape", "data_offsets"}


def arrays_to_parts(
    arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> list[bytes]:
    """The arrays as bytes in parts: `b"".join` of them is a file of safetensors."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    parts: list[bytes] = []
    begin = 0
    # Wide numbers first: each then lies on a multiple of its own size.
    for name, array in sorted(arrays.items(), key=lambda one: (-one[1].itemsize, one[0])):
        end = begin + array.nbytes
        shape, offsets = list(array.shape), [begin, end]
        header[name] = {"dtype": _NAMES[array.dtype], "shape": shape, "data_offsets": offsets}
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        parts += [flat[at : at + _PIECE].tobytes() for at in range(0, flat.size, _PIECE)]
        begin = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _LENGTH)
    return [len(text).to_bytes(_LENGTH, "little"), text, *parts]


def arrays_of(
    data: bytes | memoryview | NDArray[np.uint8],
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays and the metadata in the bytes of a file of safetensors, which are not trusted.

    Arrays are views of the bytes, which nobody can write to.

    Raises:
        ValueError: the bytes are no such file, or are cut short.
    """
    view = memoryview(data)  # pyright: ignore[reportArgumentType]
    size = int.from_bytes(view[:_LENGTH], "little")
    if len(view) < _LENGTH or size > len(view) - _LENGTH:
        raise ValueError("its header is cut short")
    try:
        header: Any = json.loads(bytes(view[_LENGTH : _LENGTH + size]))
    except RecursionError as error:
        raise ValueError("its header is nested too deeply") from error
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    abouts = cast("dict[str, Any]", header)
    metadata: Any = abouts.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise ValueError("its metadata are no object")
    rest = view[_LENGTH + size :]
    spans = {name: _span(about) for name, about in abouts.items()}
    _check_spans([(begin, end) for _, _, begin, end in spans.values()], len(rest))
    arrays: dict[str, NDArray[Any]] = {}
    for name, (dtype, shape, begin, end) in spans.items():
        arrays[name] = np.frombuffer(rest[begin:end], dtype).reshape(shape)
    return arrays, cast("dict[str, Any]", metadata)


def _span(about: Any) -> tuple[np.dtype[Any], list[int], int, int]:
    """The dtype, the shape, the first byte and the one after the last of an array."""
    if not isinstance(about, dict) or cast("dict[str, Any]", about).keys() != _FIELDS:
        raise ValueError("its header lacks something, or has more")
    given = cast("dict[str, Any]", about)
    name, shape, offsets = given["dtype"], given["shape"], given["data_offsets"]
    dtype = _DTYPES.get(name) if isinstance(name, str) else None
    if dtype is None or not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise ValueError("its header has an array of no known kind")
    num_bytes = dtype.itemsize
    for length in shape:
        num_bytes *= length
    if len(shape) > _MOST_AXES or offsets[1] - offsets[0] != num_bytes:
        raise ValueError("its header has an array of another size")
    return dtype, shape, offsets[0], offsets[1]


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(
        type(value) is int and value >= 0 for value in cast("list[Any]", values)
    )


def _check_spans(spans: list[tuple[int, int]], size: int) -> None:
    """Raise ValueError unless the spans, one after the other, are all of `size` bytes."""
    at = 0
    for begin, end in sorted(spans):
        if begin != at:
            raise ValueError("its arrays overlap, or leave holes")
        at = end
    if at != size:
        raise ValueError("it is cut short, or too long")
