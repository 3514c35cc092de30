"""The interface between the slot engine and a backend, which computes for it: numpy arrays only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kiku.config import CodecConfig, LMConfig

Arrays = Mapping[str, NDArray[Any]]
"""What a backend saves of a slot, by name."""


@dataclass(frozen=True, slots=True)
class StepOutput:
    """The decoder's output for frames of n slots, packed: N rows, one slot's after the other's."""

    tokens: NDArray[np.int64]
    """[N]"""
    logprobs: NDArray[np.float32]
    """[N] natural logarithm of each token's probability, at temperature 1"""
    pauses: NDArray[np.float32] | None
    """[N, E] probability that the speaker has stopped; None without pause heads"""
    logits: NDArray[np.float32] | None = None
    """[N, V]; None unless the engine was asked to keep them"""
    counts: Sequence[int] = (1,)
    """[n] how many rows each slot has"""
    failures: Mapping[int, BaseException] = field(default_factory=dict[int, BaseException])
    """The error that a slot's picker raised, by the slot's index among the n. The rows of such a
    slot mean nothing."""

    def row(self, i: int) -> "StepOutput":
        """The output of the i-th slot alone."""
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
        """Raise the error of a picker that failed; if none did, give the output itself."""
        for error in self.failures.values():
            raise error
        return self


@dataclass(frozen=True, slots=True)
class Said:
    """The decoder's output for columns: [n, T] of several slots, or [T] of one."""

    tokens: NDArray[np.int64]
    """[..., T] the likeliest token after each column, or the one that the backend drew"""
    logprobs: NDArray[np.float32]
    """[..., T] natural logarithms of their probabilities"""
    pauses: NDArray[np.float32] | None
    """[..., T, E] probability that the speaker has stopped; None without pause heads"""
    logits: NDArray[np.float32] | None
    """[..., T, V]; None unless they were asked for"""

    def of(self, i: int, count: int) -> "Said":
        """The first `count` columns of the i-th slot."""
        return Said(
            self.tokens[i, :count],
            self.logprobs[i, :count],
            None if self.pauses is None else self.pauses[i, :count],
            None if self.logits is None else self.logits[i, :count],
        )


class Backend(Protocol):
    """The two networks and their state for B slots, on a device.

    Calls are batched: they take arrays over the slots that take part, not a list for each slot.
    Who holds a slot and how tokens are picked is left to `SlotEngine`.
    """

    codec_config: CodecConfig
    lm_config: LMConfig
    num_slots: int
    max_block: int
    """Frames of one slot that one call of `encode` takes at most."""
    width: int
    """Columns that one call of `read` takes of a slot at most."""
    reads_alike: bool
    """Whether `read` gives the same output for a column, bit for bit, however many columns it reads
    in one pass. Only then may their number follow the time that passes take."""
    can_draw: bool
    """Whether `read` draws tokens by chance. If not, it is never given `draws`."""
    description: str
    """What runs the model, for people: "onnx int8"."""
    first: Said
    """[1, 1] the decoder's output for the initial column, with logits."""

    @property
    def signature(self) -> str:
        """Identifies the kind of backend and the model. A slot saved under another one does not
        fit."""
        ...

    def forget(self, slot: int) -> None:
        """Reset the codec's state of a slot to that of a new one."""
        ...

    def begin(self, slot: int) -> None:
        """Set the decoder's state of a slot to that after the initial column, and nothing else."""
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
        draws: NDArray[Any] | None = None,
    ) -> Said:
        """Let the decoder read the first `counts[i]` columns of the i-th slot, of [n, T, 1 + K].

        A code of -1 is left out. Columns and outputs beyond the counts mean nothing.

        With `draws`, [n] of `kiku.decoding.DRAW`, the tokens of a row with a temperature are drawn
        as `kiku.decoding.Sampler` draws them, and their log-probabilities are given: the token
        after column t with the V numbers of the noise from `drawn + t * V` on. Where logits are no
        finite numbers, the likeliest token is given.
        """
        ...

    def rewind(self, slots: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        """Put the decoder back by the last `columns[i]` columns that it read of the i-th slot."""
        ...

    def mark(self, slot: int) -> Any:
        """Mark where the slot stands, for `go_back`. Costs a copy of the convolutions' state."""
        ...

    def go_back(self, slot: int, mark: Any) -> None:
        """Put the slot back to where `mark` was taken, at most `REWIND_FRAMES` ago."""
        ...

    def copy(self, slot: int) -> Callable[[], Arrays]:
        """Copy the whole state of a slot. The function that is returned gives the copy, as arrays.
        It may be called once, in any thread, while slots are stepped."""
        ...

    def check(self, saved: Arrays) -> Any:
        """Saved arrays as `put` takes them. May be called in any thread, while slots are stepped.

        Raises:
            ValueError: an array is not known, does not fit, or holds invalid numbers.
            LookupError: an array is missing.
        """
        ...

    def put(self, slot: int, checked: Any) -> None:
        """Put what `check` returned into a slot. It need not be the one that was copied."""
        ...
