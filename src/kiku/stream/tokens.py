"""Frames in, raw text tokens out: the session of `Recognizer.tokens`, `hf.generate` and the
measurements."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from kiku.stream.work import Work


class TokenSession:
    """Takes a fixed sound, in frames, and collects the text token of each frame.

    The session adds no silence before or after the sound, and has no work between frames.
    """

    work: Work | None = None
    may_go_on = True

    def __init__(self, frames: NDArray[np.float32], *, stays: bool = False) -> None:
        """A session of `frames` [T, frame_size]; if it `stays`, it keeps its slot after them."""
        self.tokens: list[int] = []
        """Token 0, which needs no frame, then one token for each frame that was heard."""
        self.failure: Exception | None = None
        self.on_input: Callable[[], None] | None = None
        self._frames, self._stays = frames, stays
        self._num_taken = 0
        self._closed = False
        self.done = False
        """Whether nothing more will come and its slot is free."""

    @property
    def is_closing(self) -> bool:
        """Whether the session ends by itself when all frames have been heard."""
        return not self._stays

    @property
    def has_heard_all(self) -> bool:
        """Whether all frames have been heard."""
        return len(self.tokens) > len(self._frames)

    def pending(self, most: int = 0) -> int | Work | None:
        """How many frames may be taken now, all of them whatever `most`; None at the end."""
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
        """Take the token that the model gives before the first frame."""
        self.tokens.append(token)

    def accept(
        self,
        tokens: Sequence[int],
        logprobs: Sequence[float],
        levels: Sequence[float],
        pauses: Sequence[Sequence[float]] | None,
    ) -> None:
        """Take the model's output for the frames taken last; see `WordSession.accept`."""
        self.tokens += tokens

    def finish(self) -> None:
        """Do nothing: all frames have been heard, and there is no last word."""

    def cut(self) -> None:
        """End at once; frames that wait are not heard."""
        self._closed = True

    def fail(self, error: Exception) -> None:
        """End with `error`; no more tokens will come."""
        self._closed = True
        self.failure = self.failure or error

    def released(self) -> None:
        """The scheduler has freed the slot."""
        self.done = True
