"""Where an engine computes: a device, and on a GPU a stream of the engine's own."""

from collections.abc import Generator
from contextlib import contextmanager

import torch


class Place:
    """A device and a CUDA stream, entered around all work that an engine gives its device. Each
    thread has a current device and stream of its own, and work on two streams may run in either
    order."""

    def __init__(self, device: torch.device) -> None:
        """No work is given yet."""
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def follow(self) -> None:
        """Let work from now on wait for what was given to the calling thread's stream before."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self.device))

    @contextmanager
    def entered(self) -> Generator[None]:
        """Put the calling thread on this device and stream, and afterwards back where it was."""
        if self._stream is None:
            yield
        else:
            with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
                yield
