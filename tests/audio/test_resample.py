import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.audio import Resampler
from kiku.errors import AudioError

RATES = [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000, 192_000]


def resample(resampler: Resampler, parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([*(resampler.push(part) for part in parts), resampler.end()])


@given(
    rate_in=st.sampled_from(RATES),
    rate_out=st.sampled_from([16_000, 24_000]),
    num_samples=st.integers(0, 5_000),
    cuts=st.lists(st.integers(0, 5_000), max_size=12),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_any_cut_gives_the_same_samples(
    rate_in: int, rate_out: int, num_samples: int, cuts: list[int], seed: int
) -> None:
    samples = np.random.default_rng(seed).uniform(-1, 1, num_samples).astype(np.float32)
    resampler = Resampler(rate_in, rate_out)
    whole = resample(resampler, [samples])
    # The same resampler again: `end` has made it as new.
    cut = resample(resampler, np.split(samples, sorted(min(cut, num_samples) for cut in cuts)))
    assert np.array_equal(whole, cut)
    assert whole.dtype == np.float32
    assert abs(len(whole) - num_samples * rate_out / rate_in) <= 1


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_keeps_its_pitch_and_its_place(rate: int, tone) -> None:
    got = resample(Resampler(rate), np.split(tone(rate, 1.0), 7 * [0] + [100, 5_000]))
    want = tone(24_000, 1.0)
    # The ends ring, as nothing is known beyond them.
    assert np.abs(got[1_000:-1_000] - want[1_000:-1_000]).max() < 1e-4


def test_what_the_lower_rate_cannot_hold_is_removed(tone) -> None:
    got = resample(Resampler(48_000, 16_000), [tone(48_000, 1.0, 11_000)])
    assert np.abs(got[1_000:-1_000]).max() < 1e-4


def test_equal_rates_pass_through_as_a_copy(tone) -> None:
    samples = tone(24_000, 0.1)
    resampler = Resampler(24_000)
    got = resampler.push(samples)
    assert np.array_equal(got, samples)
    assert not np.shares_memory(got, samples)
    assert resampler.end().size == 0


@pytest.mark.parametrize("rate", [0, -8_000, 999, 768_001, 44_100.5, "16000", None, True])
def test_rates_that_cannot_be_are_refused(rate) -> None:
    for rates in ((rate, 24_000), (24_000, rate)):
        with pytest.raises(AudioError, match="sample rate"):
            Resampler(*rates)


@pytest.mark.parametrize("rate", [44_100.0, np.int64(44_100), np.float32(44_100)])
def test_whole_rates_are_taken_however_they_are_written(rate) -> None:
    resampler = Resampler(rate, rate)
    assert (resampler.rate_in, type(resampler.rate_in)) == (44_100, int)


@pytest.mark.parametrize("rate", [1_000, 768_000])
def test_the_outermost_rates_work(rate: int) -> None:
    got = resample(Resampler(rate), [np.full(rate // 2, 0.5, np.float32)])
    assert abs(len(got) - 12_000) <= 1
    assert np.abs(got[4_000:8_000] - 0.5).max() < 1e-3


@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_only_mono_float32_is_taken(rate: int) -> None:
    resampler = Resampler(rate)
    for samples in (np.zeros((2, 8), np.float32), np.zeros(8), np.zeros(8, np.int16)):
        with pytest.raises(AudioError, match="as_mono"):
            resampler.push(samples)  # type: ignore[arg-type]
