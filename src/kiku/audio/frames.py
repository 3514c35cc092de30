"""Pieces of samples of any length -> whole frames.

Only counts samples, and copies nothing. Does not know rates or files.
"""

from collections import deque

import numpy as np
import numpy.typing as npt

from kiku.errors import FrameError


class FrameQueue:
    """A queue of samples: pieces of any length are pushed, whole frames are taken."""

    __slots__ = ("_pieces", "frame_size", "num_samples")

    def __init__(self, frame_size: int) -> None:
        """An empty queue of frames of `frame_size` samples (at least 1; FrameError otherwise)."""
        if frame_size < 1:
            raise FrameError(f"frame_size is {frame_size}: a frame holds at least one sample")
        self.frame_size = frame_size
        self.num_samples = 0
        """How many samples wait. Callers only read it."""
        self._pieces: deque[npt.NDArray[np.float32]] = deque()

    @property
    def num_ready(self) -> int:
        """Whole frames that wait to be taken."""
        return self.num_samples // self.frame_size

    def push(self, samples: npt.NDArray[np.float32]) -> None:
        """Add [S] float32 samples, any S. They are not copied, so they must not be changed."""
        if samples.size:
            self._pieces.append(samples)
            self.num_samples += samples.size

    def pad(self) -> int:
        """Fill the last partial frame, if there is one, with zeros; returns how many zeros."""
        num_zeros = -self.num_samples % self.frame_size
        self.push(np.zeros(num_zeros, np.float32))
        return num_zeros

    def take(self, num_frames: int) -> list[npt.NDArray[np.float32]]:
        """Take the samples of the oldest frames, in order, as pieces [S] of any length that are not
        copied; `num_frames` is at most `num_ready`."""
        wanted = num_frames * self.frame_size
        assert wanted <= self.num_samples
        self.num_samples -= wanted
        waiting = self._pieces
        taken: list[npt.NDArray[np.float32]] = []
        while wanted:
            piece = waiting[0]
            if piece.size <= wanted:
                taken.append(waiting.popleft())
            else:
                taken.append(piece[:wanted])
                waiting[0] = piece[wanted:]
            wanted -= taken[-1].size
        return taken

    def rest(self) -> npt.NDArray[np.float32]:
        """A copy of the samples after the last whole frame, fewer than `frame_size`."""
        return self.peek()[self.num_ready * self.frame_size :]

    def peek(self) -> npt.NDArray[np.float32]:
        """A copy of all samples that wait, [S]."""
        return np.concatenate([np.zeros(0, np.float32), *self._pieces])

    def clear(self) -> None:
        """Drop all samples that wait."""
        self._pieces.clear()
        self.num_samples = 0
