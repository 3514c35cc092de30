"""Samples of any lengths in, whole frames out.

Knows nothing of rates or files: it only counts. A sample is copied once, into the frame that it is
taken with.
"""

from collections import deque

import numpy as np
import numpy.typing as npt

from kiku.errors import FrameError


class FrameQueue:
    """A queue of samples that is filled by pieces and emptied by frames."""

    __slots__ = ("_num_samples", "_pieces", "frame_size")

    def __init__(self, frame_size: int) -> None:
        """An empty queue of frames of `frame_size` samples (at least 1; FrameError otherwise)."""
        if frame_size < 1:
            raise FrameError(f"frame_size is {frame_size}: a frame holds at least one sample")
        self.frame_size = frame_size
        self._pieces: deque[npt.NDArray[np.float32]] = deque()
        self._num_samples = 0

    @property
    def num_ready(self) -> int:
        """Whole frames that wait to be taken."""
        return self._num_samples // self.frame_size

    @property
    def num_samples(self) -> int:
        """All samples that wait."""
        return self._num_samples

    def push(self, samples: npt.NDArray[np.float32]) -> None:
        """Add [S] float32 samples, any S. They are kept as they are: nobody may write into them."""
        if samples.size:
            self._pieces.append(samples)
            self._num_samples += samples.size

    def pad(self) -> int:
        """Fill the last partial frame, if there is one, with zeros; the number of zeros added."""
        num_zeros = -self._num_samples % self.frame_size
        self.push(np.zeros(num_zeros, np.float32))
        return num_zeros

    def take_into(self, frames: npt.NDArray[np.float32]) -> None:
        """Write the oldest frames, in order, into `frames` [T, frame_size]; T is at most
        `num_ready`."""
        wanted = frames.size
        assert wanted <= self._num_samples
        self._num_samples -= wanted
        pieces = self._pieces
        if wanted == self.frame_size and pieces[0].size == wanted:  # sound in frames, live
            frames[0] = pieces.popleft()
            return
        flat, filled = frames.reshape(-1), 0
        while filled < wanted:
            piece = pieces[0]
            part = piece[: wanted - filled]
            flat[filled : filled + part.size] = part
            filled += part.size
            if part.size == piece.size:
                pieces.popleft()
            else:
                pieces[0] = piece[part.size :]

    def take(self, num_frames: int) -> npt.NDArray[np.float32]:
        """The oldest frames, in order: [num_frames, frame_size] float32, owned by the caller.

        Raises:
            FrameError: fewer than `num_frames` whole frames are waiting.
        """
        if not 0 <= num_frames <= self.num_ready:
            raise FrameError(
                f"{num_frames} frames were asked for and {self.num_ready} are ready: "
                "push more samples, or pad the last frame"
            )
        frames = np.empty((num_frames, self.frame_size), np.float32)
        self.take_into(frames)
        return frames

    def rest(self) -> npt.NDArray[np.float32]:
        """A copy of the samples behind the last whole frame, fewer than `frame_size`."""
        return self.peek()[self.num_ready * self.frame_size :]

    def peek(self) -> npt.NDArray[np.float32]:
        """A copy of all samples that wait, [S]."""
        return np.concatenate([np.zeros(0, np.float32), *self._pieces])

    def clear(self) -> None:
        """Forget all that waits."""
        self._pieces.clear()
        self._num_samples = 0
