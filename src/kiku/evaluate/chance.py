"""How much of a figure may be chance: the bootstrap over utterances, for one model and for two.

An error rate of a few hundred words could easily have been another one. So utterances are drawn
again and again, with replacement; the range that 95 of 100 drawings give is the interval.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
"""Number of drawings, unless another is asked for."""

_AT_ONCE = 2_000_000
"""Utterances that are drawn at once, over all drawings: 16 MB of indices."""

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a figure lies in 95 of 100 drawings."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Two error rates on the same utterances, and by how much they differ."""

    first: float
    second: float
    difference: float
    """`second - first`: below 0 the second makes fewer errors."""
    interval: Interval
    p: float
    """How often chance alone would make a difference at least as large, in either direction."""
    utterances: int
    words: int
    better: int
    """Utterances in which the second makes fewer errors."""
    worse: int


def rate_interval(
    errors: Sequence[int], words: Sequence[int], *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """The interval of an error rate, from errors and words of each utterance; there must be at
    least one word in all."""
    wrong, of = np.array(errors, np.int64), np.array(words, np.int64)

    def rate(drawn: Counts) -> NDArray[np.float64]:
        return wrong[drawn].sum(-1) / np.maximum(of[drawn].sum(-1), 1)

    return _interval(_drawn(rate, len(wrong), seed, resamples))


def difference_of(
    first: Sequence[int],
    second: Sequence[int],
    words: Sequence[int],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Difference:
    """Compare two models' errors on the same utterances, with the same drawings for both.

    Args:
        first: errors of each utterance.
        second: likewise, of the other model.
        words: of each utterance; at least one in all.
        seed: the same seed gives the same figures.
        resamples: how many drawings.
    """
    a, b, of = (np.array(counts, np.int64) for counts in (first, second, words))
    gap = b - a

    def rate(drawn: Counts) -> NDArray[np.float64]:
        return gap[drawn].sum(-1) / np.maximum(of[drawn].sum(-1), 1)

    drawn = _drawn(rate, len(gap), seed, resamples)
    total = int(of.sum())
    # One is added to either count: no number of drawings shows that something is impossible.
    below, above = int((drawn <= 0).sum()), int((drawn >= 0).sum())
    p = min(1.0, 2 * (min(below, above) + 1) / (resamples + 1))
    return Difference(
        round(float(a.sum() / total), 6),
        round(float(b.sum() / total), 6),
        round(float(gap.sum() / total), 6),
        _interval(drawn),
        round(p, 6),
        len(gap),
        total,
        int((gap < 0).sum()),
        int((gap > 0).sum()),
    )


def _drawn(
    figure: Callable[[Counts], NDArray[np.float64]], count: int, seed: int, resamples: int
) -> NDArray[np.float64]:
    """The figure of each drawing [R] of `count` utterances."""
    random = np.random.default_rng(seed)
    size = max(1, _AT_ONCE // count)
    parts: list[NDArray[np.float64]] = []
    for first in range(0, resamples, size):
        some = min(size, resamples - first)
        parts.append(figure(random.integers(0, count, (some, count))))
    return np.concatenate(parts)


def _interval(drawn: NDArray[np.float64]) -> Interval:
    low, high = (float(np.quantile(drawn, q)) for q in (0.025, 0.975))
    return Interval(round(low, 6), round(high, 6))
