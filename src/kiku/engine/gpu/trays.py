"""Transfers between host and device: one copy for all arrays of a direction, between memory at
fixed addresses on both sides."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ALIGNMENT = 256
"""Bytes to which each array is aligned, as CUDA's own allocations are."""

Fields = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Shape and dtype of each array, by name."""


class Buffers:
    """The same number of bytes on the host (pinned if the device is a GPU) and on the device."""

    def __init__(self, nbytes: int, device: torch.device) -> None:
        """Allocate both; their contents mean nothing yet."""
        pinned = device.type == "cuda"
        self.host = torch.empty(nbytes, dtype=torch.uint8, pin_memory=pinned)
        self.device = torch.empty(nbytes, dtype=torch.uint8, device=device)


class Tray:
    """Some arrays at fixed places of `Buffers`. Trays of the same buffers are used one at a
    time."""

    def __init__(self, fields: Fields, buffers: Buffers) -> None:
        """Make views of the buffers; nothing is moved."""
        self.buffers, size = buffers, nbytes(fields)
        self._bytes = (buffers.host[:size], buffers.device[:size])
        self.device = _views(fields, buffers.device)
        self.host: dict[str, NDArray[Any]] = {
            name: view.numpy() for name, view in _views(fields, buffers.host).items()
        }

    def send(self) -> None:
        """Host to device; does not wait."""
        host, device = self._bytes
        device.copy_(host, non_blocking=True)

    def fetch(self, most: int | None = None) -> None:
        """Device to host, all of it or the first `most` bytes; does not wait: the arrays are filled
        once the device has finished."""
        host, device = self._bytes
        host[:most].copy_(device[:most], non_blocking=True)


def nbytes(fields: Fields) -> int:
    """Bytes that a tray of these fields takes."""
    return sum(_padded(shape, dtype) for shape, dtype in fields.values())


def _padded(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    size = int(np.prod(shape)) * dtype.itemsize
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _views(fields: Fields, buffer: Tensor) -> dict[str, Tensor]:
    at, views = 0, dict[str, Tensor]()
    for name, (shape, dtype) in fields.items():
        size = int(np.prod(shape)) * dtype.itemsize
        views[name] = buffer[at : at + size].view(dtype).view(shape)
        at += _padded(shape, dtype)
    return views
