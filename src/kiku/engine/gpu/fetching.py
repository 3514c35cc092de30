"""Copies of slots on their way from the device to the host, while the device goes on with steps."""

from collections import deque
from collections.abc import Iterable
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kiku.engine.gpu.place import Place
from kiku.engine.gpu.room import COPIES

HostArrays = dict[str, NDArray[np.generic]]

_BITS = {torch.bfloat16: torch.int16}
"""Dtypes that numpy does not have, and the integers as which their bits are given."""
_ALIGNMENT = 64


class Fetching:
    """Brings copies of slots to the host, `COPIES` of them at a time beside the steps."""

    def __init__(self, place: Place, slot_bytes: int) -> None:
        """Nothing is on its way. Work at `place` makes the copies, of at most `slot_bytes`."""
        self.place = place
        # Kept for ever: to get pinned memory holds up every thread that uses the device. A deque,
        # as the garbage collector may give one back in a thread that is just taking one.
        self.free = deque(_stage(slot_bytes, place.device) for _ in range(COPIES))

    def begin(self, tensors: Iterable[tuple[str, Tensor]]) -> "Fetch":
        """Begin to bring tensors to the host. To be called at the place of the steps.

        Each has memory of its own on the device, taken as it is iterated over. If `COPIES` are on
        their way already, these are fetched now, one by one, and the next step waits for them.
        """
        return Fetch(self, tensors)


class Fetch:
    """Tensors on their way to the host."""

    def __init__(self, fetching: Fetching, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """See `Fetching.begin`."""
        self._fetching = fetching
        self._stage: Tensor | None = None
        with suppress(IndexError):  # none is free
            self._stage = fetching.free.pop()
        if self._stage is None:
            self._tensors = {name: tensor.cpu() for name, tensor in tensors}
        else:
            self._tensors = dict(tensors)
            self._made = fetching.place.so_far()

    def __call__(self) -> HostArrays:
        """The tensors as arrays, bfloat16 as its bits. Waits until they are there; for one call, in
        any thread."""
        found = self._tensors
        if self._stage is not None:
            with self._fetching.place.beside(self._made):
                staged = _staged(found, self._stage)
            found = {name: tensor.clone() for name, tensor in staged.items()}
        self._end()
        return {name: _as_array(tensor) for name, tensor in found.items()}

    def _end(self) -> None:
        stage, self._stage, self._tensors = self._stage, None, {}
        if stage is not None:
            self._fetching.free.append(stage)

    def __del__(self) -> None:
        """Make room if nobody wanted the arrays."""
        self._end()


def _stage(num_bytes: int, device: torch.device) -> Tensor:
    """Memory of the host from which, and to which, a GPU copies by itself; plain memory where there
    is no GPU, or where the system gives none of that kind. Copies then take a thread's time."""
    size = num_bytes + 2**16  # what alignment takes
    with suppress(RuntimeError):
        return torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
    return torch.empty(size, dtype=torch.uint8)


def _staged(tensors: dict[str, Tensor], stage: Tensor) -> dict[str, Tensor]:
    """Begin to copy tensors into `stage`; views of where they will be."""
    at, views = 0, dict[str, Tensor]()
    for name, tensor in tensors.items():
        view = stage[at : at + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        views[name] = view.copy_(tensor, non_blocking=True)
        at += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    return views


def _as_array(tensor: Tensor) -> NDArray[np.generic]:
    return tensor.view(_BITS.get(tensor.dtype, tensor.dtype)).numpy()
