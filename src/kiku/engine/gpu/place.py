"""How and where an engine computes: its device, on a GPU a CUDA stream of its own, and PyTorch's
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
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def follow(self) -> None:
        """Let work from now on wait for what was given to the calling thread's stream before."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self.device))

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
