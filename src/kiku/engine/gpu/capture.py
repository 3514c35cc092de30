"""CUDA graphs: work over fixed addresses, recorded once and replayed with one launch."""

import threading
from collections.abc import Callable, Hashable

import torch

Work = Callable[[], None]

_WARM_UPS = 2
"""Runs before a capture, in which kernels are compiled and libraries allocate what they keep."""

RECORDING = threading.Lock()
"""Held while anything is recorded: PyTorch records one graph of a process at a time, and cannot
give memory back to a device during that."""


class Graphs:
    """Pieces of work by a key, each recorded as a graph. With graphs off each is simply called,
    which does the same work: for a processor, and to find errors that a graph hides."""

    def __init__(self, device: torch.device, *, enabled: bool) -> None:
        """Nothing recorded."""
        self.enabled = enabled
        self._device = device
        self._works: dict[Hashable, Work] = {}
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        # No graph needs what another one leaves in memory, and no two run at once: so all share
        # their memory.
        self._pool = torch.cuda.graph_pool_handle() if enabled else None
        self._side = _recordable(device) if device.type == "cuda" else None

    def add(self, key: Hashable, work: Work) -> None:
        """Record `work`, which reads and writes fixed addresses, and never asks the host.

        It is run a few times first, so what it changes must not belong to any stream of sound yet.

        Raises:
            RuntimeError: it cannot be recorded; a note says which work, and what to do.
        """
        side = self._side
        if side is not None:
            side.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(side):
                for _ in range(_WARM_UPS):
                    work()
            torch.cuda.current_stream(self._device).wait_stream(side)
        if self.enabled:
            try:
                self._graphs[key] = self._recorded(work)
            except RuntimeError as error:
                error.add_note(
                    f"while call {key} was recorded as a CUDA graph; GpuOptions(graphs=False) runs "
                    "without graphs, slower"
                )
                raise
        self._works[key] = work

    def _recorded(self, work: Work) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # Other threads may call CUDA meanwhile, for example to put sound on a device.
        with (
            RECORDING,
            torch.cuda.graph(
                graph, pool=self._pool, stream=self._side, capture_error_mode="thread_local"
            ),
        ):
            work()
        return graph

    def run(self, key: Hashable) -> None:
        """Start what was added under `key`; does not wait for it."""
        if self.enabled:
            self._graphs[key].replay()
        else:
            self._works[key]()


def _recordable(device: torch.device) -> torch.cuda.Stream:
    """The CUDA stream that the caller is on, or a new one in place of the default stream, which
    cannot be recorded.

    All graphs share it with what runs outside of them: each further stream would keep memory of its
    own, and a cuBLAS workspace. Work runs on it before it is recorded, so recording makes neither.
    """
    current = torch.cuda.current_stream(device)
    is_default = current == torch.cuda.default_stream(device)
    return torch.cuda.Stream(device) if is_default else current
