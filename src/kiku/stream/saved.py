"""A stream as bytes: what `Stream.save` gave, what its slot remembers, and how it is steered.

Arrays and bytes go into safetensors as tensors, the rest as JSON beside them; a digest stands
before all of it.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from kiku.errors import StreamError

_MAGIC = b"kiku stream 1\n"
_TREE = "kiku.tree"
_DIGEST = 32
_BYTES, _ARRAY = "kiku.bytes", "kiku.array"


def pack(tree: dict[str, Any]) -> bytes:
    """Nested dicts and lists of plain values, arrays and bytes, as bytes."""
    arrays: dict[str, NDArray[Any]] = {}
    text = json.dumps(_plain(tree, arrays)).encode()
    arrays[_TREE] = np.frombuffer(text, np.uint8)
    payload = save_arrays(arrays)
    return _MAGIC + hashlib.sha256(payload).digest() + payload


def _plain(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """`value` with the names of arrays in the place of arrays and bytes."""
    if isinstance(value, dict):
        tree = cast("dict[str, Any]", value)
        return {key: _plain(part, arrays) for key, part in tree.items()}
    if isinstance(value, list | tuple):
        parts = cast("Sequence[Any]", value)
        return [_plain(part, arrays) for part in parts]
    name = str(len(arrays))
    if isinstance(value, bytes):
        arrays[name] = np.frombuffer(value, np.uint8)
        return {_BYTES: name}
    if isinstance(value, np.ndarray):
        array = cast("NDArray[Any]", value)
        arrays[name] = np.ascontiguousarray(array)
        return {_ARRAY: name}
    return value


def unpack(state: bytes) -> dict[str, Any]:
    """Undo `pack`.

    Raises:
        StreamError: damaged, cut short, or something else.
    """
    head = len(_MAGIC) + _DIGEST
    if not isinstance(state, bytes) or not state.startswith(_MAGIC):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise StreamError(
            "this is no stream saved by this version of kiku: give the bytes that save() gave"
        )
    payload = state[head:]
    if hashlib.sha256(payload).digest() != state[len(_MAGIC) : head]:
        raise StreamError("the saved stream is damaged or cut short; open a fresh stream")
    try:
        arrays = load_arrays(payload)
        return _rich(json.loads(arrays[_TREE].tobytes()), arrays)
    except (SafetensorError, KeyError, ValueError) as error:
        raise StreamError(f"the saved stream is damaged ({error}); open a fresh stream") from error


def _rich(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    if isinstance(value, dict):
        tree = cast("dict[str, Any]", value)
        if tree.keys() == {_BYTES}:
            return arrays[tree[_BYTES]].tobytes()
        if tree.keys() == {_ARRAY}:
            return arrays[tree[_ARRAY]]
        return {key: _rich(part, arrays) for key, part in tree.items()}
    if isinstance(value, list):
        parts = cast("list[Any]", value)
        return [_rich(part, arrays) for part in parts]
    return value
