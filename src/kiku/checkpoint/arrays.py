"""Tensors of safetensors files as numpy arrays, without PyTorch: mapped, one at a time."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kiku.checkpoint.headers import Stored
from kiku.errors import CheckpointError

Raw = NDArray[np.generic]
"""Numbers as they lie in a file; bfloat16, which numpy lacks, as its 16 bits."""


def _from_bfloat16(bits: Raw) -> NDArray[np.float32]:
    # bfloat16 is the upper half of a float32
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def _from_number(values: Raw) -> NDArray[np.float32]:
    return np.array(values, np.float32, order="C")


_KINDS: dict[str, tuple[str, Callable[[Raw], NDArray[np.float32]]]] = {
    "BF16": ("<u2", _from_bfloat16),
    "F16": ("<f2", _from_number),
    "F32": ("<f4", _from_number),
    "F64": ("<f8", _from_number),
    "BOOL": ("?", _from_number),
    "U8": ("u1", _from_number),
    "I8": ("i1", _from_number),
    "I16": ("<i2", _from_number),
    "I32": ("<i4", _from_number),
    "I64": ("<i8", _from_number),
}
"""safetensors' name of a type -> numpy's, and how its numbers become float32."""


def mapped(stored: Stored) -> Raw:
    """A tensor as it lies in its file: pages are read when touched, and freed with the array.

    Raises:
        CheckpointError: its type is one that kiku does not read, or the file is gone.
    """
    if stored.dtype not in _KINDS:
        raise CheckpointError(
            f"{stored.file} has a tensor of type {stored.dtype}; kiku reads {', '.join(_KINDS)}: "
            "save the model in one of them"
        )
    dtype = np.dtype(_KINDS[stored.dtype][0])
    if stored.num_bytes == 0:
        return np.empty(stored.shape, dtype)
    try:
        # A plain array over the mapping: of a np.memmap every slice would be one too.
        return np.asarray(
            np.memmap(stored.file, dtype, "r", offset=stored.start, shape=stored.shape)
        )
    except (OSError, ValueError) as e:
        raise CheckpointError(f"{stored.file} cannot be read: {e}; was it changed?") from e


def as_float32(raw: Raw, dtype: str) -> NDArray[np.float32]:
    """A copy in float32 of what `mapped` gave, or of a part of it; `dtype` as in `Stored`."""
    return _KINDS[dtype][1](raw)
