"""Drawing tokens: the right shares, the right cuts, the same noise for the same call."""

import json
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.decoding import DRAW, Sampler, SamplingParams
from kiku.decoding.sampling import SamplerState
from kiku.errors import ConfigError, StreamError
from kiku.serial import from_plain, to_plain

LOGITS = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))


def saved(one: Sampler) -> dict[str, Any]:
    return to_plain(one.state)


def restore(one: Sampler, values: Any) -> None:
    """As a `TokenPicker` does with its part of a saved picker."""
    one.go_on(from_plain(SamplerState, values, what="it", error=StreamError))


def shares(sampler: Sampler, n: int = 4000) -> np.ndarray:
    return np.bincount([sampler(LOGITS) for _ in range(n)], minlength=4) / n


def test_draws_follow_the_softmax() -> None:
    np.testing.assert_allclose(shares(Sampler(1.0, seed=1)), [0.5, 0.3, 0.15, 0.05], atol=0.03)


def test_a_low_temperature_sharpens() -> None:
    expected = np.array([0.5, 0.3, 0.15, 0.05]) ** 2
    np.testing.assert_allclose(shares(Sampler(0.5, seed=2)), expected / expected.sum(), atol=0.03)


def test_top_k_keeps_the_likeliest() -> None:
    np.testing.assert_allclose(
        shares(Sampler(1.0, top_k=2, seed=3)), [0.625, 0.375, 0, 0], atol=0.03
    )


def test_top_p_keeps_what_reaches_the_share() -> None:
    np.testing.assert_allclose(
        shares(Sampler(1.0, top_p=0.7, seed=4)), [0.625, 0.375, 0, 0], atol=0.03
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 20))
def test_call_n_has_its_noise_whatever_came_before(seed: int, n: int) -> None:
    a, b = Sampler(1.0, seed=seed), Sampler(1.0, seed=seed)
    for i in range(n):
        a(LOGITS)
        b(LOGITS[::-1] if i % 2 else LOGITS)
    assert [a(LOGITS) for _ in range(5)] == [b(LOGITS) for _ in range(5)]


@pytest.mark.parametrize("bad", [{"temperature": 0}, {"top_k": -1}, {"top_p": 0}, {"top_p": 1.5}])
def test_numbers_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="leave the sampler out for greedy"):
        Sampler(**bad)  # pyright: ignore[reportArgumentType]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.floats(0.05, 10), st.integers(0, 400), st.floats(0.2, 1))
def test_who_is_far_behind_is_left_out_and_nothing_changes(
    seed: int, temperature: float, top_k: int, top_p: float
) -> None:
    """Beside the plain way: all scores, cut, and numpy's own Gumbel noise, which draws alike."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 5, 400).astype(np.float32)
    logits[random.integers(0, 400, 50)] = -np.inf
    scores = logits.astype(np.float64) / temperature
    if top_k:
        scores[scores < np.sort(scores)[-top_k]] = -np.inf
    order = np.argsort(-scores)
    share = np.exp(scores[order] - scores[order[0]])
    share /= share.sum()
    scores[order[np.cumsum(share) - share >= top_p]] = -np.inf
    plain = np.random.Generator(np.random.Philox(seed))
    sampler = Sampler(temperature, top_k=top_k, top_p=top_p, seed=seed)
    for _ in range(5):
        assert sampler(logits) == int(np.argmax(scores + plain.gumbel(size=400)))


def test_a_tiny_temperature_is_greedy() -> None:
    sampler = Sampler(1e-310, seed=3)
    assert [sampler(LOGITS) for _ in range(20)] == [0] * 20


def test_a_copy_goes_on_by_itself() -> None:
    one = Sampler(0.7, top_k=3, top_p=0.9, seed=5)
    one(LOGITS)
    other = deepcopy(one)
    rest = [one(LOGITS) for _ in range(30)]
    assert [other(LOGITS) for _ in range(30)] == rest
    assert saved(other) == saved(one)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**62), st.integers(0, 12))
def test_a_saved_sampler_goes_on_with_the_same_noise(seed: int, n: int) -> None:
    here = Sampler(1.0, seed=seed)
    for _ in range(n):
        here(LOGITS)
    there = Sampler(1.0)
    restore(there, json.loads(json.dumps(saved(here))))
    assert [there(LOGITS) for _ in range(20)] == [here(LOGITS) for _ in range(20)]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**62), st.lists(st.integers(1, 9), max_size=20))
def test_noise_goes_on_after_any_count_of_numbers(seed: int, sizes: list[int]) -> None:
    here, there = Sampler(seed=seed), Sampler()
    for size in sizes:
        here.draw(size)
    restore(there, saved(here))
    np.testing.assert_array_equal(there.draw(7), here.draw(7))


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1}, {"seed": 10**4000}, {"seed": None}, {"drawn": -5}, {"drawn": 1.5},
        {"drawn": True}, {"drawn": 2**63}, {"more": 1},
    ],
)  # fmt: skip
def test_damaged_noise_is_told(wrong: dict[str, Any]) -> None:
    sampler = Sampler(1.0)
    before = saved(sampler)
    with pytest.raises(StreamError, match="cannot be read"):
        restore(sampler, {**before, **wrong})
    for nothing in ({}, None, [1], {"seed": 1}):
        with pytest.raises(StreamError, match="cannot be read"):
            restore(sampler, nothing)
    assert saved(sampler) == before


def test_noise_far_away_costs_nothing() -> None:
    sampler = Sampler()
    restore(sampler, {"seed": 3, "drawn": 2**62})
    assert sampler.draw(3).shape == (3,)


def test_what_is_not_said_cuts_nothing() -> None:
    assert np.isfinite(Sampler.of(SamplingParams()).scores(LOGITS)).all()
    far = np.array([0.0, -50.0], np.float32)  # the first alone holds all, as floats are rounded
    assert np.isfinite(Sampler().scores(far)).all()


def test_params_make_the_same_sampler() -> None:
    params = SamplingParams(0.7, top_k=3, top_p=0.9, seed=8)
    one, other = Sampler.of(params), Sampler(0.7, top_k=3, top_p=0.9, seed=8)
    assert [one(LOGITS) for _ in range(30)] == [other(LOGITS) for _ in range(30)]
    with pytest.raises(ConfigError, match="the seed must be from 0 to"):
        SamplingParams(seed=2**63)


def test_by_default_it_draws_from_all_tokens_as_they_are() -> None:
    rows = np.random.default_rng(4).normal(0, 2, (50, 30)).astype(np.float32)
    plain, told = Sampler(), Sampler(1.0, top_k=0, top_p=1.0, seed=0)
    assert [plain(row) for row in rows] == [told(row) for row in rows]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**62), st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=12))
def test_what_another_has_drawn_is_skipped(seed: int, calls: list[tuple[bool, int]]) -> None:
    one, other = Sampler(seed=seed), Sampler(seed=seed)
    for skipped, size in calls:
        one.draw(size)
        other.skip(size) if skipped else other.draw(size)
        assert other.row == one.row
    np.testing.assert_array_equal(other.draw(6), one.draw(6))


def test_a_row_says_how_the_next_token_is_drawn() -> None:
    sampler = Sampler(0.7, top_k=10**30, top_p=0.9, seed=8)
    sampler(LOGITS)
    sampler.go_on(SamplerState(5, 9))
    (row,) = np.array([sampler.row], DRAW)
    assert (row["temperature"], row["top_k"], row["top_p"], row["drawn"]) == (0.7, 2**62, 0.9, 9)
    np.testing.assert_array_equal(row["key"], np.random.Philox(5).state["state"]["key"])
