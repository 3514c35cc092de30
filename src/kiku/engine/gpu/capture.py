"""CUDA graphs: work over fixed addresses, recorded once and replayed with one launch."""

import threading
from collections.abc import Callable, Hashable

import torch

Work = Callable[[], None]

_WARM_UPS = 2
"""Runs before a capture: kernels are compiled, and libraries make what they keep."""

RECORDING = threading.Lock()
"""Held while anything is recorded: PyTorch records one graph of a process at a time, and gives no
memory back to a device meanwhile."""


class Graphs:
    """Pieces of work by a key. Where graphs are off each is simply called, which is the same work:
    on a processor, and to look for what a graph hides."""

    def __init__(self, device: torch.device, *, enabled: bool) -> None:
        """Nothing recorded."""
        self.enabled = enabled
        self._device = device
        self._works: dict[Hashable, Work] = {}
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        # What one graph computes on the way is of no use to another, and they never run at once:
        # so all share their memory.
        self._pool = torch.cuda.graph_pool_handle() if enabled else None
        self._side = _recordable(device) if device.type == "cuda" else None

    def add(self, key: Hashable, work: Work) -> None:
        """Record `work`, which reads and writes fixed addresses, and never asks the host.

        It is run a few times first: what it changes must be nobody's.
        """
        side = self._side
        if side is not None:
            side.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(side):
                for _ in range(_WARM_UPS):
                    work()
            torch.cuda.current_stream(self._device).wait_stream(side)
        if self.enabled:
            graph = torch.cuda.CUDAGraph()
            # Other threads may call CUDA meanwhile: a stream of sound is read on to a device, say.
            with (
                RECORDING,
                torch.cuda.graph(
                    graph, pool=self._pool, stream=side, capture_error_mode="thread_local"
                ),
            ):
                work()
            self._graphs[key] = graph
        self._works[key] = work

    def run(self, key: Hashable) -> None:
        """Start what was added under `key`; does not wait for it."""
        if self.enabled:
            self._graphs[key].replay()
        else:
            self._works[key]()


def _recordable(device: torch.device) -> torch.cuda.Stream:
    """The stream that the caller is on. The default one cannot be recorded: in its place another.

    One for all, and for what runs beside the graphs: each further one would keep memory of its own,
    and a workspace of cuBLAS. It is run on before it is recorded, so nothing is made meanwhile."""
    current = torch.cuda.current_stream(device)
    is_default = current == torch.cuda.default_stream(device)
    return torch.cuda.Stream(device) if is_default else current
