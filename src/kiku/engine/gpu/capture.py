"""CUDA graphs: work over fixed addresses, recorded once and replayed with one launch."""

import gc
import threading
from collections.abc import Callable, Generator, Hashable, Iterator
from contextlib import contextmanager

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
        """Add `work`, which reads and writes fixed addresses, and never asks the host.

        On a GPU it is run a few times, so what it changes must not belong to any stream of sound
        yet.
        """
        side = self._side
        if side is not None:
            side.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(side):
                for _ in range(_WARM_UPS):
                    work()
            torch.cuda.current_stream(self._device).wait_stream(side)
        self._works[key] = work

    def record(self) -> None:
        """Record all work that was added; nothing where graphs are off.

        All of it is recorded after all of it was run: memory that runs take is then given back
        before the graphs take as much of their own. So only one of both is needed at a time.

        Raises:
            RuntimeError: it cannot be recorded; a note says which work, why, and what to do.
        """
        for key, work in self._works.items() if self.enabled else ():
            try:
                self._graphs[key] = self._recorded(work)
            except RuntimeError as error:
                *_, first = errors_of(error)
                error.add_note(
                    f"while call {key} was recorded as a CUDA graph; in a new process "
                    f"GpuOptions(graphs=False) runs without graphs, but slower; the first error "
                    f"was: {_first_line(first)}"
                )
                raise

    def _recorded(self, work: Work) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # Other threads may call CUDA meanwhile, for example to put sound on a device.
        with (
            RECORDING,
            _no_collection(),
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


@contextmanager
def _no_collection() -> Generator[None]:
    """Keep Python from collecting garbage meanwhile. A graph of a dropped engine may be part of it,
    and CUDA destroys no graph while another one is recorded; PyTorch from 2.9 on does not collect
    before it records."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def errors_of(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that were raised before it and led to it, the last one first."""
    at: BaseException | None = error
    while at is not None:
        yield at
        at = at.__cause__ or at.__context__


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or '(nothing)').splitlines()[0]}"


def _recordable(device: torch.device) -> torch.cuda.Stream:
    """The CUDA stream that the caller is on, or a new one in place of the default stream, which
    cannot be recorded.

    All graphs share it with what runs outside of them: each further stream would keep memory of its
    own, and a cuBLAS workspace. Work runs on it before it is recorded, so recording makes neither.
    """
    current = torch.cuda.current_stream(device)
    is_default = current == torch.cuda.default_stream(device)
    return torch.cuda.Stream(device) if is_default else current
