"""How many columns of each slot a pass of the decoder reads, when blocks are decoded.

A wide pass brings more tokens if its guesses are right, and costs more, on one processor hardly
and on another twice as much. Neither is known beforehand: both are learned from the passes that
are made. Whatever the width, the tokens are the same.
"""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

_LIKELY, _LIKELY_WEIGHT = 0.8, 4.0
"""A first guess is right so often as long as nobody knows better, and one behind it as often as the
one before; so many guesses outweigh that."""

_MEMORY = 0.99
"""What a guess weighs after one more: some hundred count."""

_FIXED = 4
"""A pass costs as much as so many columns and those that it has, as long as nobody knows better."""

_NEW_COST, _NEWS = 0.2, 0.7
"""The share that a pass has in the mean of passes as large, and where there was none for long."""

_STANDSTILL = 2.0
"""A pass counts as so many times the mean at most: others had the processor."""

_FIRST = 3
"""Of so many passes of a size the quickest counts, not the mean."""

_TICK = 1e-9
"""What a pass takes at least, whatever the clock says."""

_LOOK_AGAIN = 64
"""After so many passes a width beside the best one is tried: costs change."""


@dataclass(slots=True)
class _Cost:
    """What passes of some size cost."""

    columns: float
    """In the mean, as `seconds`."""
    seconds: float
    last: int
    """The number of the last pass."""
    num_passes: int = 1

    def add(self, columns: int, seconds: float, number: int) -> None:
        """One more pass. The first may have been slow, as first ones are: the quickest counts."""
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
            is_held: always the widest, so that the last bits of logits do not depend on time.
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
        """Meanwhile read so many, whatever they cost: for who measures the width itself."""
        before, self._held = self._held, width
        try:
            yield
        finally:
            self._held = before

    def choose(self, left: Sequence[int]) -> int:
        """How many columns of each slot the next pass reads at most; `left` are those that slots
        still have."""
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
            in_vain: those behind a wrong guess.
            seconds: how long it took.
        """
        for count, wrong in zip(counts, in_vain, strict=True):
            # The first column is no guess; behind the first wrong one nothing is known.
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
        """Tokens that a pass over so many columns of a slot brings, from none to the most."""
        likely, reached, sums = _LIKELY, 1.0, [0.0, 1.0]
        for right, guessed in zip(self._right.tolist(), self._guessed.tolist(), strict=True):
            likely = (right + _LIKELY_WEIGHT * likely) / (guessed + _LIKELY_WEIGHT)
            reached *= likely
            sums.append(sums[-1] + reached)
        return sums

    def _cost(self, columns: int) -> float:
        """Seconds of a pass over so many columns; few where it is not known, so it is tried."""
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
