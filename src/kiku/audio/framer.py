"""Chunks of any length in, whole frames out.

Knows nothing of rates or files: it only counts. Every sample is copied twice, whatever the lengths,
so a long backlog costs what its samples cost.
"""

from collections import deque

import numpy as np
import numpy.typing as npt

from kiku.audio.resample import checked_mono
from kiku.errors import FrameError


class Framer:
    """A queue of samples that is filled by chunks and emptied by frames."""

    def __init__(self, frame_size: int) -> None:
        """An empty queue of frames of `frame_size` samples (at least 1; FrameError otherwise)."""
        if frame_size < 1:
            raise FrameError(f"frame_size is {frame_size}: a frame holds at least one sample")
        self.frame_size = frame_size
        self._chunks: deque[npt.NDArray[np.float32]] = deque()
        self._num_samples = 0

    @property
    def num_ready(self) -> int:
        """Whole frames that wait to be taken."""
        return self._num_samples // self.frame_size

    @property
    def num_samples(self) -> int:
        """All samples that wait."""
        return self._num_samples

    @property
    def num_left(self) -> int:
        """Samples behind the last whole frame, fewer than `frame_size`."""
        return self._num_samples % self.frame_size

    def peek(self) -> npt.NDArray[np.float32]:
        """A copy of all samples that wait, [S]."""
        return np.concatenate([np.zeros(0, np.float32), *self._chunks])

    def push(self, samples: npt.NDArray[np.float32]) -> None:
        """Add [S] float32 samples, any S; they are copied, so the caller may reuse the array.

        Raises:
            AudioError: not one axis, or not float32.
        """
        checked_mono(samples)
        if samples.size:
            self._chunks.append(samples.copy())
            self._num_samples += samples.size

    def pad(self) -> int:
        """Fill the last partial frame, if there is one, with zeros; the number of zeros added."""
        num_zeros = -self._num_samples % self.frame_size
        self.push(np.zeros(num_zeros, np.float32))
        return num_zeros

    def take(self, num_frames: int) -> npt.NDArray[np.float32]:
        """The oldest frames, in order.

        Args:
            num_frames: 0 to `num_ready`.

        Returns:
            [num_frames, frame_size] float32, owned by the caller.

        Raises:
            FrameError: fewer than `num_frames` whole frames are waiting.
        """
        if not 0 <= num_frames <= self.num_ready:
            raise FrameError(
                f"{num_frames} frames were asked for and {self.num_ready} are ready: "
                "push more samples, or pad the last frame"
            )
        frames = np.empty(num_frames * self.frame_size, np.float32)
        filled = 0
        while filled < frames.size:
            chunk = self._chunks[0]
            part = chunk[: frames.size - filled]
            frames[filled : filled + part.size] = part
            filled += part.size
            if part.size == chunk.size:
                self._chunks.popleft()
            else:
                self._chunks[0] = chunk[part.size :]
        self._num_samples -= frames.size
        return frames.reshape(num_frames, self.frame_size)
