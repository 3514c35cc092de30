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

    def row(self, i: int) -> "StepOutput":
        """What was said to the i-th slot alone."""
        row = slice(i, i + 1)
        return StepOutput(
            self.tokens[row],
            self.logprobs[row],
            None if self.pauses is None else self.pauses[row],
            None if self.logits is None else self.logits[row],
        )

    def first(self, frames: int) -> "StepOutput":
        """The same of the first `frames` frames."""
        return StepOutput(
            self.tokens[:, :frames],
            self.logprobs[:, :frames],
            None if self.pauses is None else self.pauses[:, :frames],
            None if self.logits is None else self.logits[:, :frames],
        )


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

    def open(
        self, choose: Choose | None = None, *, num_codebooks: int | None = None
    ) -> tuple[int, StepOutput]:
        """Take a free slot: its number, and token 0 (n = 1, T = 1).

        Args:
            choose: picks each token from the logits; None is greedy.
            num_codebooks: of how many codebooks the decoder reads the codes, the first ones; None
                reads all. The slot then gives what a model without the others would.

        Raises:
            NoFreeSlot: all are held.
            ConfigError: the model has no such number of codebooks.
        """
        ...

    def steer(
        self, slot: int, choose: Choose | None = None, *, num_codebooks: int | None = None
    ) -> None:
        """From the next frame on, pick tokens and read codes so, as if opened with it.

        Args:
            slot: an open one.
            choose: see `open`.
            num_codebooks: see `open`.

        Raises:
            StreamError: the slot is not open.
            ConfigError: the model has no such number of codebooks.
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

    def mark(self, slot: int) -> object:
        """Where the slot stands now: for `go_back`. Costs a copy of what the convolutions remember.

        How it is steered is not part of it.

        Raises:
            StreamError: the slot is not open.
        """
        ...

    def go_back(self, slot: int, mark: object) -> None:
        """Put the slot back to where `mark` found it, exactly.

        Holds while it has advanced by at most `REWIND_FRAMES` since, and was neither opened anew
        nor restored nor made to read again.

        Raises:
            StreamError: the slot is not open.
        """
        ...

    def refresh(self, slot: int, frames: int, *, most: int | None = None) -> int:
        """Let the decoder forget all but the last `frames` frames and their text.

        It reads the initial column and then those columns again, their text as it was picked. The
        next token follows the last one as if nothing had happened. The codec goes on.

        Args:
            slot: an open one.
            frames: at most `HISTORY_FRAMES`; a younger slot has fewer.
            most: columns that this call reads at most, at least 1; None reads all.

        Returns:
            How many are left. While there are some, the slot must do nothing else: call this
            again, as often as it takes. Other slots may be stepped in between.

        Raises:
            StreamError: the slot is not open.
        """
        ...

    def reread(self, slot: int, frames: int) -> StepOutput:
        """As `refresh`, but the decoder says anew what it hears in those frames.

        Returns:
            What it said to them (n = 1, T = `frames`, or as many as there are).

        Raises:
            StreamError: the slot is not open.
        """
        ...

    def save(self, slot: int) -> bytes:
        """Everything that the slot remembers, for the same model on an engine of the same kind.

        How it is steered is not part of it: that belongs to whoever steers.

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
