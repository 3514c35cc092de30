"""Forced alignment by CTC: the best path of known labels through a network's scores (numpy)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


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
