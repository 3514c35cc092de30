"""How many columns of each slot a pass of the decoder reads, when blocks are decoded.

A wide pass brings more tokens if its guesses are right, but costs more: hardly more on one
processor, twice as much on another. Neither is known beforehand, so both are learned from the
passes that are made. The tokens are the same at any width.
"""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

_LIKELY, _LIKELY_WEIGHT = 0.8, 4.0
"""The assumed share of first guesses that are right, and the number of observed guesses that weigh
as much as an assumption. Each later guess is assumed to be right as often as the one before it."""

_MEMORY = 0.99
"""Factor on the weight of earlier guesses with each new one: about the last hundred count."""

_FIXED = 4
"""Columns whose cost is added to that of a pass's own columns, to estimate an unknown cost."""

_NEW_COST, _NEWS = 0.2, 0.7
"""The share of a new pass in the mean cost of passes of its size: usually, and where there was none
of that size for `_LOOK_AGAIN` passes."""

_STANDSTILL = 2.0
"""Multiple of the mean that a pass counts as at most: a slower one had to share the processor."""

_FIRST = 3
"""Number of first passes of a size of which the quickest counts, not the mean."""

_TICK = 1e-9
"""Seconds that a pass counts as at least, whatever the clock says."""

_LOOK_AGAIN = 64
"""Passes after which a width next to the best one is tried, because costs change."""


@dataclass(slots=True)
class _Cost:
    """What passes of some size cost."""

    columns: float
    """Columns of a pass, in the mean; `seconds` is a mean too."""
    seconds: float
    last: int
    """The number of the last pass."""
    num_passes: int = 1

    def add(self, columns: int, seconds: float, number: int) -> None:
        """Add one more pass. First passes are often slow, so the quickest of them counts."""
        share = _NEW_COST if number - self.last < _LOOK_AGAIN else _NEWS
        self.last = number
        self.num_passes += 1
        self.columns += share * (columns - self.columns)
        if self.num_passes <= _FIRST:
            self.seconds = min(self.seconds, seconds)
        else:
            seconds = min(seconds, _STANDSTILL * self.seconds)
            self.seconds += share * (seconds - self.seconds)


class Widths:
    """What passes cost and bring, and the width that brings most tokens a second.

    Used by one thread at a time.
    """

    def __init__(
        self, most: int, *, is_held: bool = False, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Nothing is known yet: wide passes come first.

        Args:
            most: the widest.
            is_held: always choose the widest, so that the last bits of logits do not depend on
                how long passes take.
            clock: gives seconds.
        """
        self.clock = clock
        self._held = most if is_held else None
        self._widths = sorted({most, *(2**i for i in range(most.bit_length()) if 2**i < most)})
        self._right, self._guessed = np.zeros(most), np.zeros(most)  # by their place in a pass
        self._costs: dict[int, _Cost] = {}  # by the size of a pass
        self._num_passes = 0

    @contextmanager
    def holding(self, width: int) -> Generator[None]:
        """Choose `width` in this context whatever it costs: to measure that width itself."""
        before, self._held = self._held, width
        try:
            yield
        finally:
            self._held = before

    def choose(self, left: Sequence[int]) -> int:
        """How many columns of each slot the next pass reads at most; `left` is how many each slot
        still has."""
        if self._held is not None:
            return self._held
        gains, speeds = self._gains(), list[float]()
        for width in self._widths:
            counts = [min(width, one) for one in left]
            gain = sum(gains[count] for count in counts)
            speeds.append(gain / self._cost(sum(counts)))
        best = int(np.argmax(speeds))
        self._num_passes += 1
        if self._num_passes % _LOOK_AGAIN == 0:
            side = 1 if self._num_passes // _LOOK_AGAIN % 2 else -1
            best = min(max(0, best + side), len(self._widths) - 1)
        return self._widths[best]

    def note(self, counts: Sequence[int], in_vain: Sequence[int], seconds: float) -> None:
        """Learn from a pass.

        Args:
            counts: columns that were read of each slot.
            in_vain: how many of them came after a wrong guess.
            seconds: how long it took.
        """
        for count, wrong in zip(counts, in_vain, strict=True):
            # The first column is no guess; after the first wrong one nothing is known.
            right = count - wrong - 1
            tried = right + (wrong > 0)
            self._guessed[:tried] *= _MEMORY
            self._right[:tried] *= _MEMORY
            self._guessed[:tried] += 1
            self._right[:right] += 1
        columns, seconds = sum(counts), max(seconds, _TICK)
        known = self._costs.get(columns.bit_length())
        if known is None:
            self._costs[columns.bit_length()] = _Cost(columns, seconds, self._num_passes)
        else:
            known.add(columns, seconds, self._num_passes)

    def _gains(self) -> list[float]:
        """Expected tokens of a pass over 0, 1, 2, ... columns of a slot, up to the most."""
        likely, reached, sums = _LIKELY, 1.0, [0.0, 1.0]
        for right, guessed in zip(self._right.tolist(), self._guessed.tolist(), strict=True):
            likely = (right + _LIKELY_WEIGHT * likely) / (guessed + _LIKELY_WEIGHT)
            reached *= likely
            sums.append(sums[-1] + reached)
        return sums

    def _cost(self, columns: int) -> float:
        """Seconds of a pass over `columns`; a low estimate where unknown, so that it is tried."""
        size = columns.bit_length()
        if size in self._costs:
            return self._costs[size].seconds
        below = max((one for one in self._costs if one < size), default=None)
        above = min((one for one in self._costs if one > size), default=None)
        if above is None:
            return 1.0 if below is None else self._costs[below].seconds
        many = self._costs[above]
        if below is None:
            return many.seconds * (_FIXED + columns) / (_FIXED + many.columns)
        share = (size - below) / (above - below)
        few = self._costs[below]
        return few.seconds + share * (many.seconds - few.seconds)
