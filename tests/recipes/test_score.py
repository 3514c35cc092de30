"""Test strings that are always the same."""

import itertools

import numpy as np

from recipes.demo.bank import BankWriter, WordSpan
from recipes.demo.score import person_strings


def bank():
    writer = BankWriter()
    rng = np.random.default_rng(0)
    for speaker in ("ann", "bob"):
        for word in range(4):
            sound = rng.standard_normal(12_000).astype(np.float32) * 0.1
            writer.add("real", f"{speaker}{word // 9}", sound, [WordSpan(word, 0.1, 0.4)])
    return writer.finish()


def test_the_strings_are_the_same_each_time_and_their_spans_hold() -> None:
    first, second = (person_strings(bank(), count=4, seed=5) for _ in range(2))
    for (sound, spans), (sound2, spans2) in zip(first, second, strict=True):
        assert np.array_equal(sound, sound2)
        assert spans == spans2
        assert 3 <= len(spans) <= 8
        for span in spans:
            inside = sound[int((span.start_s + 0.02) * 24_000) : int((span.end_s - 0.02) * 24_000)]
            assert np.sqrt(np.mean(inside**2)) > 0.05
        for before, after in itertools.pairwise(spans):
            assert 0.14 <= after.start_s - before.end_s <= 0.81
        assert len(sound) / 24_000 - spans[-1].end_s >= 1.0


def test_another_seed_gives_other_strings() -> None:
    one, other = (person_strings(bank(), count=1, seed=seed)[0][0] for seed in (1, 2))
    assert len(one) != len(other) or not np.array_equal(one, other)
