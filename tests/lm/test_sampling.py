"""Drawing tokens: the right shares, the right cuts, the same noise for the same call."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.errors import ConfigError
from kiku.lm import Sampler

LOGITS = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))


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
