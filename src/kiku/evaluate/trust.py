"""Whether words are right as often as their probabilities say, and calibrations that make it so."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kiku.calibration import Calibration, CalibrationKind, log_odds
from kiku.errors import InputError
from kiku.evaluate.scoring import Trust

NUM_BINS = 10
"""Bins of the reliability table, all of the same width."""

LEAST_WORDS = 100
"""Words that a calibration needs at least; fewer say nothing."""

_WORDS_PER_POINT = 25
"""Words for each point of a curve, at least."""

_MOST_POINTS = 50


@dataclass(frozen=True, slots=True)
class Bin:
    """Words of about the same probability."""

    low: float
    high: float
    words: int
    said: float
    """Their mean probability; 0 if there are none."""
    right: float
    """The share of them that is right."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """Words' probabilities, compared with how often the words were right."""

    words: int
    ece: float
    """Expected calibration error: by how much the two differ, on average over words."""
    brier: float
    """Mean squared difference between a word's probability and 1 or 0."""
    bins: tuple[Bin, ...]


def reliability(trusts: Sequence[Trust]) -> Reliability | None:
    """The reliability table of some words; None if there are none."""
    if not trusts:
        return None
    said = np.array([one.probability for one in trusts])
    right = np.array([one.right for one in trusts], np.float64)
    which = np.minimum((said * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    bins: list[Bin] = []
    for index in range(NUM_BINS):
        inside = which == index
        count = int(inside.sum())
        means = [float(values[inside].mean()) if count else 0.0 for values in (said, right)]
        low, high = index / NUM_BINS, (index + 1) / NUM_BINS
        bins.append(Bin(low, high, count, round(means[0], 6), round(means[1], 6)))
    ece = sum(one.words * abs(one.said - one.right) for one in bins) / len(trusts)
    brier = float(np.mean((said - right) ** 2))
    return Reliability(len(trusts), round(ece, 6), round(brier, 6), tuple(bins))


def calibrated(trusts: Sequence[Trust], calibration: Calibration) -> list[Trust]:
    """The same words with the probabilities that a calibration gives them."""
    return [Trust(calibration(one.probability), one.right) for one in trusts]


def fit_calibration(
    trusts: Sequence[Trust], kind: CalibrationKind = "isotonic", *, model: str = ""
) -> Calibration:
    """A calibration that fits these words.

    Args:
        trusts: probabilities as the model gives them, and whether the words were right.
        kind: "isotonic" is any rising curve, for a thousand words and more; "temperature" is one
            number, for fewer.
        model: name of the model that the words are from.

    Raises:
        InputError: too few words, or none of them right or wrong.
    """
    if len(trusts) < LEAST_WORDS:
        raise InputError(
            f"{len(trusts)} words are too few for a calibration: evaluate recordings with at "
            f"least {LEAST_WORDS}"
        )
    if len({one.right for one in trusts}) < 2:
        what = "right" if trusts[0].right else "wrong"
        raise InputError(f"all {len(trusts)} words are {what}, which gives no curve")
    if kind == "temperature":
        temperature = _temperature(trusts)
        return Calibration(kind=kind, temperature=temperature, words=len(trusts), model=model)
    return Calibration(kind=kind, points=_curve(trusts), words=len(trusts), model=model)


def _curve(trusts: Sequence[Trust]) -> tuple[tuple[float, float], ...]:
    """Rising points: means over neighbouring words, merged wherever they would fall (pool adjacent
    violators)."""
    ordered = sorted(trusts, key=lambda one: (one.probability, one.right))
    count = max(2, min(_MOST_POINTS, len(ordered) // _WORDS_PER_POINT))
    blocks: list[tuple[float, float, int]] = []  # sum of probabilities, right words, words
    for index in range(count):
        first, last = (len(ordered) * place // count for place in (index, index + 1))
        some = ordered[first:last]
        said, right = sum(one.probability for one in some), sum(one.right for one in some)
        block = (said, float(right), len(some))
        while blocks and _must_join(blocks[-1], block):
            before = blocks.pop()
            block = (before[0] + block[0], before[1] + block[1], before[2] + block[2])
        blocks.append(block)
    return tuple((round(said / n, 6), round(right / n, 6)) for said, right, n in blocks)


def _must_join(before: tuple[float, float, int], after: tuple[float, float, int]) -> bool:
    falls = before[1] / before[2] >= after[1] / after[2]
    same_place = round(before[0] / before[2], 6) >= round(after[0] / after[2], 6)
    return falls or same_place


def _temperature(trusts: Sequence[Trust]) -> float:
    """The temperature under which the outcomes are likeliest, by golden-section search."""
    odds = np.array([log_odds(one.probability) for one in trusts])
    signs = np.where([one.right for one in trusts], 1.0, -1.0)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, -signs * odds / math.exp(log_temperature)).mean())

    golden = (math.sqrt(5) - 1) / 2
    low, high = math.log(0.05), math.log(20)
    for _ in range(60):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return round(math.exp((low + high) / 2), 6)


def crossed_ece(groups: Sequence[Sequence[Trust]], kind: CalibrationKind) -> float | None:
    """The calibration error to expect on other recordings than those the calibration was made of:
    each half of the utterances is calibrated by the other half. None if a half is too small.

    Args:
        groups: the words of each utterance.
        kind: of the calibration.
    """
    halves = [[one for group in groups[part::2] for one in group] for part in (0, 1)]
    try:
        fitted = [fit_calibration(half, kind) for half in halves]
    except InputError:
        return None
    mixed = calibrated(halves[0], fitted[1]) + calibrated(halves[1], fitted[0])
    found = reliability(mixed)
    return None if found is None else found.ece


def as_rows(found: Reliability) -> list[dict[str, Any]]:
    """The bins that hold words, for JSON and tables."""
    return [
        {"from": one.low, "to": one.high, "words": one.words, "said": one.said, "right": one.right}
        for one in found.bins
        if one.words
    ]
