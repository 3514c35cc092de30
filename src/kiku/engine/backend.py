"""What passes between the engine and what it computes with, in numpy's terms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kiku.config import CodecConfig, LMConfig


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What n slots said to their frames, packed: N rows, one slot's after the other's."""

    tokens: NDArray[np.int64]
    """[N]"""
    logprobs: NDArray[np.float32]
    """[N] natural logarithm of each token's probability, at temperature 1"""
    pauses: NDArray[np.float32] | None
    """[N, E] probability that the speaker has stopped; None without pause heads"""
    logits: NDArray[np.float32] | None = None
    """[N, V] where the engine was asked to keep them"""
    counts: Sequence[int] = (1,)
    """[n] how many rows are each slot's"""
    failures: Mapping[int, BaseException] = field(default_factory=dict[int, BaseException])
    """By the place of a slot: what its picker failed with. Its rows then mean nothing."""

    def row(self, i: int) -> "StepOutput":
        """What was said to the i-th slot alone."""
        first = i if len(self.tokens) == len(self.counts) else sum(self.counts[:i])
        part = slice(first, first + self.counts[i])
        return StepOutput(
            self.tokens[part],
            self.logprobs[part],
            None if self.pauses is None else self.pauses[part],
            None if self.logits is None else self.logits[part],
            (self.counts[i],),
            {0: self.failures[i]} if i in self.failures else {},
        )

    def raise_failure(self) -> "StepOutput":
        """Raise what a picker failed with, if one did; else the output itself."""
        for error in self.failures.values():
            raise error
        return self


@dataclass(frozen=True, slots=True)
class Said:
    """What the decoder said to columns: [n, T] of several slots, or [T] of one."""

    tokens: NDArray[np.int64]
    """[..., T] the likeliest"""
    logprobs: NDArray[np.float32]
    """[..., T] theirs"""
    pauses: NDArray[np.float32] | None
    """[..., T, E]"""
    logits: NDArray[np.float32] | None
    """[..., T, V] where they were wanted"""

    def of(self, i: int, count: int) -> "Said":
        """The first `count` columns of the i-th slot."""
        return Said(
            self.tokens[i, :count],
            self.logprobs[i, :count],
            None if self.pauses is None else self.pauses[i, :count],
            None if self.logits is None else self.logits[i, :count],
        )


class Backend(Protocol):
    """The two networks and what they remember of B slots, on a device.

    Batched: arrays over the slots that take part, no lists per slot. What a slot is, who holds it
    and how tokens are picked is the business of `SlotEngine`.
    """

    codec_config: CodecConfig
    lm_config: LMConfig
    num_slots: int
    max_block: int
    """Frames of one slot that one call of `encode` takes at most."""
    width: int
    """Columns that one call of `read` takes of a slot at most."""
    reads_alike: bool
    """Whether what `read` says to a column is the same bit for bit, however many columns are read
    with it: then their number may follow the time that passes take."""
    description: str
    """For people: "onnx int8"."""
    first: Said
    """[1, 1] what the decoder says to the initial column, with logits."""

    @property
    def signature(self) -> str:
        """Of the kind of backend and the model: saved slots of another one do not fit."""
        ...

    def forget(self, slot: int) -> None:
        """Make the codec's part of a slot as new."""
        ...

    def begin(self, slot: int) -> None:
        """The decoder's part of a slot has read the initial column, and nothing else."""
        ...

    def encode(self, slots: NDArray[np.int64], frames: NDArray[np.float32]) -> NDArray[np.int64]:
        """[n, T, frame_size] of n different slots -> codes [n, T, K]."""
        ...

    def read(
        self,
        slots: NDArray[np.int64],
        columns: NDArray[np.int64],
        counts: NDArray[np.int64],
        *,
        logits: bool,
    ) -> Said:
        """Let the decoder read `counts[i]` columns of each slot, of [n, T, 1 + K]; -1 is a code
        that it does not read. What lies beyond the counts, in and out, means nothing."""
        ...

    def rewind(self, slots: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        """Put the decoder back by so many of the columns that each slot read last."""
        ...

    def mark(self, slot: int) -> Any:
        """Where the slot stands. Costs a copy of what the convolutions remember."""
        ...

    def go_back(self, slot: int, mark: Any) -> None:
        """Put the slot back to where `mark` found it, at most `REWIND_FRAMES` ago."""
        ...

    def save(self, slot: int) -> dict[str, NDArray[Any]]:
        """All that is remembered of a slot, by name."""
        ...

    def restore(self, slot: int, saved: Mapping[str, NDArray[Any]]) -> None:
        """Put what `save` gave into a slot. Nothing is changed unless all of it fits.

        Raises:
            ValueError: it does not fit.
        """
        ...
