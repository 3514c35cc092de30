"""Frames in, raw text tokens out: what stands under `Recognizer.tokens`, `hf.generate` and
measuring."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from kiku.stream.work import Work


class TokenSession:
    """A fixed sound, in frames, and the text token of each.

    Nothing is put before or after the sound, and nothing is done between frames.
    """

    work: Work | None = None
    may_go_on = True

    def __init__(self, frames: NDArray[np.float32], *, stays: bool = False) -> None:
        """Of `frames` [T, frame_size]; one that `stays` keeps its slot when all are heard."""
        self.tokens: list[int] = []
        """Token 0, which needs no frame, then one for each frame heard."""
        self.failure: Exception | None = None
        self.on_input: Callable[[], None] | None = None
        self._frames, self._stays = frames, stays
        self._num_taken = 0
        self._closed = False
        self.done = False
        """Whether nothing more will come and its slot is free."""

    @property
    def is_closing(self) -> bool:
        """Whether it comes to its end without anybody doing anything more."""
        return not self._stays

    @property
    def has_heard_all(self) -> bool:
        """Whether all frames have been heard."""
        return len(self.tokens) > len(self._frames)

    def pending(self) -> int | Work | None:
        """How many frames may be taken; None at the end."""
        left = len(self._frames) - self._num_taken
        if left and not self._closed:
            return left
        return 0 if self._stays and not self._closed else None

    def take(self, num_frames: int) -> Sequence[NDArray[np.float32]]:
        """The samples of the next frames, in pieces [S]."""
        first = self._num_taken
        self._num_taken += num_frames
        return [self._frames[first : self._num_taken].ravel()]

    def begin(self, token: int, logprob: float) -> None:
        """Take what the model said before the first frame."""
        self.tokens.append(token)

    def accept(
        self,
        tokens: Sequence[int],
        logprobs: Sequence[float],
        levels: Sequence[float],
        pauses: Sequence[Sequence[float]] | None,
    ) -> None:
        """Take what the model said after the frames taken last; see `WordSession.accept`."""
        self.tokens += tokens

    def finish(self) -> None:
        """All frames have been heard."""

    def cut(self) -> None:
        """End at once."""
        self._closed = True

    def fail(self, error: Exception) -> None:
        """Nothing more will come."""
        self._closed = True
        self.failure = self.failure or error

    def released(self) -> None:
        """Its slot is free again."""
        self.done = True
