"""Forced alignment by CTC: the best path of known labels through a network's scores (numpy)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_SILENT = 0.3
"""A row is silent below this fraction of the way from a recording's softest to its loudest."""


def force(
    log_probs: NDArray[np.floating], labels: Sequence[int]
) -> tuple[NDArray[np.int64], float]:
    """The best CTC path through known labels.

    Args:
        log_probs: [T, 1 + labels]; 0 is the blank.
        labels: the labels, in order.

    Returns:
        for each label the first and the last row that it takes [N, 2], and the path's mean
        log-probability per row. Empty with -inf if the labels do not fit into T rows.
    """
    num_states = 2 * len(labels) + 1
    states = np.zeros(num_states, np.int64)
    states[1::2] = labels
    may_skip = np.zeros(num_states, bool)
    may_skip[3::2] = states[3::2] != states[1:-2:2]
    score = np.full(num_states, -np.inf)
    score[:2] = log_probs[0, states[:2]]
    moves = np.zeros((len(log_probs), num_states), np.int8)
    for t in range(1, len(log_probs)):
        one = np.concatenate([[-np.inf], score[:-1]])
        two = np.where(may_skip, np.concatenate([[-np.inf, -np.inf], score[:-2]]), -np.inf)
        options = np.stack([score, one, two])
        moves[t] = options.argmax(0)
        score = options.max(0) + log_probs[t, states]
    state = num_states - 1 if score[-1] >= score[-2] else num_states - 2
    best = float(score[state])
    if not np.isfinite(best):
        return np.zeros((0, 2), np.int64), -np.inf
    spans = np.full((len(labels), 2), -1)
    for t in range(len(log_probs) - 1, -1, -1):
        if state % 2:
            spans[state // 2, 0] = t
            spans[state // 2, 1] = max(spans[state // 2, 1], t)
        state -= int(moves[t, state])
    return spans, best / len(log_probs)


def widen_words(cores: NDArray[np.int64], loudness: NDArray[np.float32]) -> NDArray[np.int64]:
    """Widen each word to where its sound begins and ends.

    Args:
        cores: [N, 2] the first row and the row after the last in which each word's letters were
            found.
        loudness: [T] loudness of all rows.

    Returns:
        [N, 2]; no two overlap.
    """
    loud = 20 * np.log10(loudness + 1e-6)
    low, high = np.percentile(loud, [10, 95])
    silent = loud < low + _SILENT * (high - low)
    found = cores.copy()
    # The gaps between words, the one before the first word and the one after the last.
    gaps = [(0, int(cores[0, 0]))]
    gaps += [(int(a), int(b)) for a, b in zip(cores[:-1, 1], cores[1:, 0], strict=True)]
    gaps.append((int(cores[-1, 1]), len(loud)))
    for number, (begin, end) in enumerate(gaps):
        quiet = begin + np.flatnonzero(silent[begin:end])
        first, last = number == 0, number == len(cores)
        if not last:
            shared = begin if first else (begin + end) // 2
            found[number, 0] = quiet[-1] + 1 if len(quiet) else shared
        if not first:
            shared = end if last else (begin + end) // 2
            found[number - 1, 1] = quiet[0] if len(quiet) else shared
    return found
