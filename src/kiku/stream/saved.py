"""A saved stream as bytes: the state of its sessions, of their slots, and of how tokens are picked.

Arrays and bytes are stored as tensors of safetensors (see `kiku.arrays`), everything else as JSON
in one more tensor; a digest stands before all of it. With a key the digest is a signature: without
the key nobody can make a state that is accepted. The bytes of a saved stream are not trusted:
whatever is wrong with them raises `StreamError`.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from kiku.arrays import arrays_of, arrays_to_parts
from kiku.errors import StreamError

_PLAIN, _SIGNED = b"kiku stream 5\n", b"kiku signed stream 5\n"
_TREE = "kiku.tree"
_DIGEST = 32
_BYTES, _ARRAY = "kiku.bytes", "kiku.array"


def pack_stream(tree: Mapping[str, Any], key: bytes | None = None) -> bytes:
    """Pack nested dicts and lists of plain values, arrays and bytes; signed if there is a `key`."""
    arrays: dict[str, NDArray[Any]] = {}
    text = json.dumps(_plain(tree, arrays)).encode()
    arrays[_TREE] = np.frombuffer(text, np.uint8)
    parts = arrays_to_parts(arrays)
    return b"".join([_PLAIN if key is None else _SIGNED, _digest(parts, key), *parts])


def _digest(parts: Sequence[bytes | memoryview], key: bytes | None) -> bytes:
    made = hashlib.sha256() if key is None else hmac.new(key, digestmod="sha256")
    for part in parts:
        made.update(part)
    return made.digest()


def _plain(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """Move arrays and bytes out of `value` into `arrays`; their names stand in their place."""
    if isinstance(value, Mapping):
        return {key: _plain(v, arrays) for key, v in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(part, arrays) for part in cast("Sequence[Any]", value)]
    name = str(len(arrays))
    if isinstance(value, bytes):
        arrays[name] = np.frombuffer(value, np.uint8)
        return {_BYTES: name}
    if isinstance(value, np.ndarray):
        array = cast("NDArray[Any]", value)
        arrays[name] = array
        return {_ARRAY: name}
    return value


def unpack_stream(state: bytes, key: bytes | None = None) -> dict[str, Any]:
    """The nested dicts and lists that `pack_stream` packed.

    Raises:
        StreamError: the bytes are damaged, cut short, signed with another key, or no saved stream.
    """
    if not isinstance(state, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise StreamError(f"a saved stream must be bytes, not {type(state).__name__}")
    magic = _PLAIN if key is None else _SIGNED
    if not state.startswith(magic):
        raise StreamError(_other_kind(state, key))
    payload = memoryview(state)[len(magic) + _DIGEST :]
    if not hmac.compare_digest(_digest([payload], key), state[len(magic) : len(magic) + _DIGEST]):
        also = "" if key is None else " or signed with another key"
        raise StreamError(f"the saved stream is damaged, cut short{also}; open a fresh stream")
    try:
        arrays, _ = arrays_of(payload)
        tree: Any = _rich(json.loads(arrays[_TREE].tobytes()), arrays)
        if not isinstance(tree, dict):
            raise ValueError("not an object")
    except (LookupError, ValueError, TypeError, RecursionError) as error:
        raise StreamError(f"the saved stream is damaged ({error}); open a fresh stream") from error
    return cast("dict[str, Any]", tree)


def _other_kind(state: bytes, key: bytes | None) -> str:
    if key is not None and state.startswith(_PLAIN):
        return "the saved stream is not signed, and this model only takes signed ones (state_key)"
    if key is None and state.startswith(_SIGNED):
        return "the saved stream is signed: set the state_key that it was saved with"
    return "this stream was not saved by this version of kiku: give the bytes that save() returned"


def _rich(value: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    if isinstance(value, dict):
        tree = cast("dict[str, Any]", value)
        if tree.keys() == {_BYTES}:
            return arrays[tree[_BYTES]].tobytes()
        if tree.keys() == {_ARRAY}:
            return arrays[tree[_ARRAY]]
        return {key: _rich(part, arrays) for key, part in tree.items()}
    if isinstance(value, list):
        return [_rich(part, arrays) for part in cast("list[Any]", value)]
    return value
