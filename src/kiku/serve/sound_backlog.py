"""How much memory the sound of a stream takes that has not been heard yet."""

import numpy as np
from numpy.typing import NDArray

from kiku.live import AsyncStream


class SoundBacklog:
    """Counts the bytes that are pushed into one stream, which are in the client's own format."""

    def __init__(self, stream: AsyncStream | None = None) -> None:
        """Count from here on; nothing is ever waiting in no stream."""
        self._stream = stream
        self._num_bytes = 0
        self._from_s = 0.0 if stream is None else stream.duration

    def add(self, samples: NDArray[np.generic] | bytes) -> None:
        """Count sound that the stream has taken."""
        self._num_bytes += len(samples) if isinstance(samples, bytes) else samples.nbytes

    @property
    def num_bytes(self) -> float:
        """Bytes of the sound that waits to be heard."""
        stream = self._stream
        if stream is None or not self._num_bytes:
            return 0.0
        pushed_s = max(stream.duration - self._from_s, stream.waiting_s, 1e-3)
        return stream.waiting_s / pushed_s * self._num_bytes
