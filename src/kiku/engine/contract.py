"""What every engine does, in numpy's terms: whoever calls one need not know what it computes
with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Choose = Callable[[NDArray[np.float32]], int]
"""Picks a text token from logits [V] (float32, a copy that may be changed). One per stream; it may
remember."""


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What n slots said to T frames; row i belongs to the i-th slot that was stepped."""

    tokens: NDArray[np.int64]
    """[n, T]"""
    logprobs: NDArray[np.float32]
    """[n, T] natural logarithm of each token's probability, at temperature 1"""
    pauses: NDArray[np.float32] | None
    """[n, T, E] probability that the speaker has stopped; None without pause heads"""
    logits: NDArray[np.float32] | None = None
    """[n, T, V] where the engine was asked to keep them"""


class Engine(Protocol):
    """A fixed number of slots on a device.

    A slot that is opened has read the initial column and yielded text token 0. Frame t then yields
    token t + 1: so the token that follows a frame comes in the same step as the frame.
    """

    max_block: int
    """Frames that one step takes at most."""

    @property
    def num_slots(self) -> int:
        """How many slots there are."""
        ...

    @property
    def free_slots(self) -> int:
        """How many slots nobody holds."""
        ...

    def open(self, choose: Choose | None = None) -> tuple[int, StepOutput]:
        """Take a free slot: its number, and token 0 (n = 1, T = 1).

        Args:
            choose: picks each token from the logits; None is greedy.

        Raises:
            NoFreeSlot: all are held.
        """
        ...

    def close(self, slot: int) -> None:
        """Give a slot back."""
        ...

    def step(self, slots: Sequence[int], frames: NDArray[np.float32]) -> StepOutput:
        """Advance `slots` by T frames.

        Args:
            slots: n different open slots.
            frames: [n, T, frame_size] samples in [-1, 1], T at most `max_block`.

        Raises:
            FrameError: frames of another size, none, or more than `max_block`.
            StreamError: a slot that is not open, or one named twice.
        """
        ...

    def save(self, slot: int) -> bytes:
        """Everything that the slot remembers, for the same model on an engine of the same kind.

        Raises:
            StreamError: the slot is not open.
        """
        ...

    def restore(self, slot: int, saved: bytes) -> None:
        """Put what `save` gave into an open slot.

        Raises:
            StreamError: it comes from another model or kind of engine, or is damaged; or the slot
                is not open.
        """
        ...
