"""How and where an engine computes: its device, on a GPU two CUDA streams of its own, and PyTorch's
modes."""

from collections.abc import Generator
from contextlib import contextmanager

import torch

from kiku.codec import as_stored
from kiku.engine.gpu.precision import products


class Place:
    """A device and a CUDA stream, entered around all work that an engine gives its device. Each
    thread has a current device and stream of its own, and work on two streams may run in either
    order."""

    def __init__(self, device: torch.device, *, tf32: bool = False) -> None:
        """No work is given yet. With `tf32` products of float32 may be rounded to TF32."""
        self.device, self._tf32 = device, tf32
        gpu = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if gpu else None
        self._beside = torch.cuda.Stream(device) if gpu else None

    def follow(self) -> None:
        """Let work from now on wait for what was given to the calling thread's stream before."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self.device))

    def so_far(self) -> torch.cuda.Event | None:
        """The work that was given here until now, for `beside`; None where none runs on its own."""
        if self._stream is None:
            return None
        event = torch.cuda.Event()
        self._stream.record_event(event)
        return event

    @contextmanager
    def beside(self, after: torch.cuda.Event | None) -> Generator[None]:
        """Put the calling thread on this device, on a second stream, for copies that come after
        some work and beside all later one; wait for them at the end. Threads may share it."""
        if self._beside is None or after is None:
            yield
            return
        with (
            torch.inference_mode(), torch.cuda.device(self.device), torch.cuda.stream(self._beside)
        ):  # fmt: skip
            self._beside.wait_event(after)
            try:
                yield
            finally:  # whatever failed: memory that is still being copied must not be freed
                done = torch.cuda.Event(blocking=True)  # sleeps, and leaves the core to others
                self._beside.record_event(done)
                done.synchronize()

    @contextmanager
    def entered(self) -> Generator[None]:
        """Put the calling thread on this device and stream, without gradients and autocast, and
        afterwards back where it was."""
        with torch.inference_mode(), products(tf32=self._tf32), as_stored(self.device):
            if self._stream is None:
                yield
            else:
                with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
                    yield
