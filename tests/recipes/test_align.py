"""Forced alignment against trying every path."""

import itertools

import numpy as np
import pytest

from recipes.demo.align import Phones, force
from recipes.demo.cuts import word_spans


def collapse(path: tuple[int, ...]) -> list[int]:
    kept = [p for i, p in enumerate(path) if i == 0 or p != path[i - 1]]
    return [p for p in kept if p]


def log_probs(num_rows: int, num_symbols: int, seed: int) -> np.ndarray:
    logits = np.random.default_rng(seed).standard_normal((num_rows, num_symbols)) * 2
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


@pytest.mark.parametrize("labels", [[1], [1, 2], [1, 1], [2, 1, 2]])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_of_all_paths(labels: list[int], seed: int) -> None:
    given = log_probs(6, 3, seed)
    best, path = max(
        (sum(given[t, s] for t, s in enumerate(path)), path)
        for path in itertools.product(range(3), repeat=6)
        if collapse(path) == labels
    )
    spans, score = force(given, labels)
    assert score == pytest.approx(best / 6)
    for (first, last), label in zip(spans, labels, strict=True):
        assert {path[t] for t in range(first, last + 1)} == {label}


def test_too_many_labels_do_not_fit() -> None:
    spans, score = force(log_probs(2, 4, 0), [1, 2, 3])
    assert len(spans) == 0
    assert score == -np.inf


def test_words_reach_half_way_to_their_neighbours() -> None:
    # phones 1 2 for the first word at rows 5 and 7, phone 3 for the second at row 11; the rest
    # blank
    given = np.full((20, 4), -9.0)
    given[:, 0] = -0.01
    for row, phone in ((5, 1), (7, 2), (11, 3)):
        given[row] = -9.0
        given[row, phone] = -0.01
    phones = Phones(("a", "b", "c"), {"first": (1, 2), "second": (3,)})
    spans = word_spans(given, ("first", "second"), phones)
    assert spans is not None
    (start, end, score), (start2, end2, _) = spans
    assert start == pytest.approx(3 * 0.04)  # two rows before the first phone
    assert end == pytest.approx(9.5 * 0.04)
    assert start2 == pytest.approx(9.5 * 0.04)
    assert end2 == pytest.approx(15 * 0.04)  # three rows after the last
    assert score == pytest.approx(-0.01)


def test_a_sentence_that_was_not_said_is_refused() -> None:
    given = np.full((12, 4), -9.0)
    given[:, 0] = -0.01
    phones = Phones(("a", "b", "c"), {"word": (1, 2, 3)})
    assert word_spans(given, ("word",), phones) is None
