"""Figures of many utterances, what chance does to them, and how far probabilities are right."""

import numpy as np
import pytest

from kiku.errors import InputError
from kiku.evaluate.chance import difference_of, rate_interval
from kiku.evaluate.figures import Spread, confusions_of, figures_of, groups_by, length_of
from kiku.evaluate.hearing import HeardWord
from kiku.evaluate.normalising import normaliser
from kiku.evaluate.scoring import Trust
from kiku.evaluate.trust import calibrated, crossed_ece, fit_calibration, reliability
from tests.evaluate.conftest import scored


def test_word_errors_and_invented_words() -> None:
    some = [
        scored("one two three", "one too three four"),
        scored("go", "", name="b"),
        scored("go", "go", name="c"),
        scored("", "uh", name="d", seconds=90),
        scored("", "", name="e", seconds=30),
    ]
    figures = figures_of(some)
    errors, invented = figures.word_errors, figures.invented
    assert errors is not None
    assert invented is not None
    assert (errors.words, errors.utterances, errors.whole, errors.seconds) == (5, 3, 1, 9.0)
    assert (errors.substitutions, errors.insertions, errors.deletions) == (1, 1, 1)
    assert errors.rate == 0.6
    assert (errors.characters, errors.character_errors) == (17, 8)
    assert (invented.words, invented.seconds, invented.per_ten_minutes) == (1, 120.0, 5.0)
    assert figures.start_error is figures.latency is figures.turns is None
    assert figures_of(some[3:]).word_errors is None
    assert figures_of(some[:3]).invented is None
    assert figures_of(some) == figures


def test_what_the_normaliser_takes_out_is_not_invented() -> None:
    english = normaliser("english")
    hmm = scored("Hmm.", "Hmm.", normalise=english)
    also = scored("Hmm.", "no go", name="b", normalise=english)
    said = scored("go go", "go go", name="c", normalise=english)
    silent = [scored("", "hmm twenty five", name="d", seconds=60, normalise=english)]
    figures = figures_of([hmm, also, said])
    assert figures.invented is None
    assert figures.word_errors is not None
    errors = figures.word_errors
    assert (errors.utterances, errors.words, errors.insertions, errors.rate) == (3, 2, 2, 1.0)
    # A word is what is compared.
    invented = figures_of([hmm, *silent]).invented
    assert invented is not None
    assert (invented.utterances, invented.words, invented.per_ten_minutes) == (1, 1, 10.0)
    assert figures_of([hmm, also]).word_errors is None  # in parts of no words


def test_the_commonest_confusions_come_first() -> None:
    some = [scored("a b c", "x b"), scored("a q", "x q"), scored("d", "e d")]
    found = confusions_of(some)
    assert found.substitutions == (("a", "x", 2),)
    assert found.deletions == (("c", 1),)
    assert found.insertions == (("e", 1),)


def test_groups() -> None:
    some = [
        scored("a", "a", name=name, seconds=seconds, fields=fields)
        for name, seconds, fields in (
            ("1", 1.9, {"speaker": "bob"}), ("2", 30, {"speaker": "ann"}), ("3", 2.0, {}),
        )
    ]  # fmt: skip
    names = {
        by: {value: [one.utterance.id for one in group] for value, group in found.items()}
        for by, found in ((by, groups_by(some, by)) for by in ("speaker", "length"))
    }
    assert names == {
        "speaker": {"": ["3"], "ann": ["2"], "bob": ["1"]},
        "length": {"0-2 s": ["1"], "2-5 s": ["3"], "20 s and more": ["2"]},
    }
    assert list(names["length"]) == ["0-2 s", "2-5 s", "20 s and more"]
    assert length_of(9.9) == "5-10 s"
    with pytest.raises(
        InputError, match="no row has a field 'accent'; choose from speaker, length"
    ):
        groups_by(some, "accent")


def test_spreads() -> None:
    assert Spread.of([-0.3, 0.1, 0.2], absolute=True) == Spread(3, 0.2, 0.3, 0.0)
    assert Spread.of([-0.3, 0.1, 0.2]) == Spread(3, 0.1, 0.2, 0.0)
    assert Spread.of([]) is None


def test_an_interval_holds_the_rate_and_shrinks_with_more_words() -> None:
    random = np.random.default_rng(1)
    wrong = random.binomial(10, 0.2, 1000).tolist()
    few = rate_interval(wrong[:50], [10] * 50)
    many = rate_interval(wrong, [10] * 1000)
    assert few.low < sum(wrong[:50]) / 500 < few.high
    assert many.high - many.low < (few.high - few.low) / 3
    # Of 10,000 words one in five wrong: 1.96 standard errors of the binomial on either side.
    assert many.high - many.low == pytest.approx(2 * 1.96 * (0.16 / 10_000) ** 0.5, rel=0.15)
    assert rate_interval(wrong, [10] * 1000) == many
    assert rate_interval(wrong, [10] * 1000, seed=1) != many


def test_a_difference_is_of_the_same_utterances() -> None:
    random = np.random.default_rng(2)
    hard = random.binomial(10, 0.3, 200)
    fewer = np.maximum(hard - random.binomial(1, 0.3, 200), 0)
    found = difference_of(hard.tolist(), fewer.tolist(), [10] * 200)
    assert found.difference == pytest.approx(found.second - found.first, abs=2e-6)
    assert found.interval.low < found.difference < found.interval.high < 0
    assert found.p == pytest.approx(2 / 10_001, abs=1e-6)  # as small as so many drawings can say
    assert (found.better, found.worse) == (int((fewer < hard).sum()), 0)
    # Had they not been paired, chance could have made it.
    alone = [rate_interval(counts.tolist(), [10] * 200) for counts in (hard, fewer)]
    assert alone[1].high > alone[0].low
    mirrored = difference_of(fewer.tolist(), hard.tolist(), [10] * 200)
    assert mirrored.difference == -found.difference
    same = difference_of(hard.tolist(), hard.tolist(), [10] * 200)
    assert (same.difference, same.p) == (0.0, 1.0)


def test_what_chance_makes_is_seldom_taken_for_a_difference() -> None:
    random = np.random.default_rng(3)
    small = 0
    for seed in range(100):
        a, b = random.binomial(10, 0.2, (2, 100)).tolist()
        small += difference_of(a, b, [10] * 100, seed=seed, resamples=500).p < 0.05
    assert 0 <= small <= 12  # five in a hundred


def trusts(count: int, truth: float = 1.0, seed: int = 0) -> list[Trust]:
    """Words that are right as often as their odds to the power of `truth` say."""
    random = np.random.default_rng(seed)
    said = random.uniform(0.02, 0.98, count)
    odds = (said / (1 - said)) ** truth
    right = random.uniform(size=count) < odds / (1 + odds)
    return [Trust(float(p), bool(r)) for p, r in zip(said, right, strict=True)]


def test_reliability() -> None:
    some = [Trust(0.95, True), Trust(0.95, False), Trust(1.0, True), Trust(0.05, False)]
    found = reliability(some)
    assert found is not None
    (low, *_, high) = found.bins
    assert (low.words, low.said, low.right) == (1, 0.05, 0.0)
    assert (high.words, high.right) == (3, 0.666667)
    assert high.said == pytest.approx(0.966667)
    assert found.ece == pytest.approx((1 * 0.05 + 3 * 0.3) / 4, abs=1e-5)
    assert found.brier == pytest.approx((0.05**2 + 0.95**2 + 0 + 0.05**2) / 4, abs=1e-6)
    assert reliability([]) is None
    assert ece(trusts(20_000)) < 0.02


def ece(some: list[Trust]) -> float:
    found = reliability(some)
    assert found is not None
    return found.ece


@pytest.mark.parametrize("kind", ["isotonic", "temperature"])
def test_a_calibration_makes_words_as_sure_as_they_are_right(kind: str) -> None:
    learned, held_out = trusts(4000, 0.3), trusts(4000, 0.3, seed=1)
    assert ece(held_out) > 0.1
    fitted = fit_calibration(learned, kind, model="demo")  # pyright: ignore[reportArgumentType]
    assert (fitted.words, fitted.model) == (4000, "demo")
    assert ece(calibrated(held_out, fitted)) < 0.04
    if kind == "temperature":
        assert fitted.temperature == pytest.approx(1 / 0.3, rel=0.15)
    assert fit_calibration(learned, kind) == fit_calibration(learned[::-1], kind, model="")  # pyright: ignore


def test_a_curve_that_would_fall_is_flat_there() -> None:
    falling = [Trust(i / 1000, i < 500) for i in range(1000)]
    points = fit_calibration(falling).points
    assert points == ((0.4995, 0.5),)


def test_a_crossed_error_is_of_words_that_were_not_learned_from() -> None:
    groups = [trusts(10, 0.3, seed=i) for i in range(100)]
    found = crossed_ece(groups, "isotonic")
    assert found is not None
    together = [one for group in groups for one in group]
    assert ece(calibrated(together, fit_calibration(together))) < found < ece(together)
    assert crossed_ece(groups[:4], "isotonic") is None
    # The halves err to opposite sides: each is right by its own curve, and wrong by the other's.
    halves = ([Trust(0.7, i < 9) for i in range(10)], [Trust(0.7, i < 5) for i in range(10)])
    assert crossed_ece([halves[i % 2] for i in range(40)], "isotonic") == pytest.approx(0.4)


def test_too_little_to_learn_from() -> None:
    with pytest.raises(InputError, match="99 words are too few"):
        fit_calibration(trusts(99))
    with pytest.raises(InputError, match="all 100 words are right"):
        fit_calibration([Trust(0.9, True)] * 100)


def test_invented_words_count_against_trust() -> None:
    some = [scored("", [HeardWord("uh", 0, 1, 0.8, None)]), scored("a", "a", name="b")]
    found = figures_of(some).reliability
    assert found is not None
    assert [(one.words, one.right) for one in found.bins if one.words] == [(1, 0.0), (1, 1.0)]
