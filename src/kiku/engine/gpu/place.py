"""Where an engine computes: a device, and on a GPU a stream of the engine's own."""

from collections.abc import Generator
from contextlib import contextmanager

import torch


class Place:
    """Entered around everything that an engine gives its device to do. Every thread has a device
    and a stream of its own that it is on; what is given to two streams may run in either order."""

    def __init__(self, device: torch.device) -> None:
        """Nothing given yet."""
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def follow(self) -> None:
        """What is given from now on waits for what the calling thread's stream was given before."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self.device))

    @contextmanager
    def entered(self) -> Generator[None]:
        """The calling thread is there meanwhile, and then where it was."""
        if self._stream is None:
            yield
        else:
            with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
                yield
