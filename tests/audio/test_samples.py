from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from kiku.audio import AudioInput, Resampler, array_chunks, as_mono
from kiku.audio.samples import chunk_size_of, even_chunks, fed
from kiku.errors import AudioError


def chunks_of(
    samples, rate: int, sample_rate: int, chunk_s: float = 1.0, channels_axis: int | None = None
) -> Iterator[np.ndarray]:
    """An array on the way that the chunks of a file take."""
    size = chunk_size_of(sample_rate, chunk_s)
    parts = array_chunks(samples, rate, channels_axis=channels_axis)
    return even_chunks(fed(AudioInput(sample_rate, checks=False), parts), size)


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("uint8", [0, 64, 128, 192]),
        ("int16", [-32_768, -16_384, 0, 16_384]),
        ("int32", [-(2**31), -(2**30), 0, 2**30]),
        ("float16", [-1, -0.5, 0, 0.5]),
        ("float32", [-1, -0.5, 0, 0.5]),
        ("float64", [-1, -0.5, 0, 0.5]),
    ],
)
def test_every_dtype_has_the_same_scale(dtype: str, values: list[float]) -> None:
    got = as_mono(np.array(values, dtype))
    assert got.dtype == np.float32
    assert got.tolist() == [-1.0, -0.5, 0.0, 0.5]


def test_lists_are_arrays_too() -> None:
    assert as_mono([0.25, -0.25]).tolist() == [0.25, -0.25]


def test_channels_become_their_mean_whichever_axis_they_are_on() -> None:
    left, right = np.full(100, 1000, np.int16), np.full(100, 3000, np.int16)
    want = [2000 / 32768] * 100
    assert as_mono(np.stack([left, right])).tolist() == want
    assert as_mono(np.stack([left, right], axis=1)).tolist() == want
    assert as_mono(np.ones((100, 1), np.float32)).tolist() == [1.0] * 100
    # Full-scale channels do not overflow.
    assert as_mono(np.full((2, 20), 32_767, np.int16)).max() < 1


def test_a_shape_that_says_nothing_needs_the_axis() -> None:
    square = np.array([[0, 1], [0.5, 0.5]])
    with pytest.raises(AudioError, match="channels_axis"):
        as_mono(square)
    assert as_mono(square, channels_axis=0).tolist() == [0.25, 0.75]
    assert as_mono(square, channels_axis=-1).tolist() == [0.5, 0.5]
    with pytest.raises(AudioError, match="channels_axis"):
        as_mono(np.zeros((20, 30)))
    with pytest.raises(AudioError, match="must be 0 or 1"):
        as_mono(square, channels_axis=2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_what_is_not_a_number_is_refused_with_its_place(bad: float, dtype: str) -> None:
    samples = np.zeros((40, 2), dtype)
    samples[17:, 1] = bad
    with pytest.raises(AudioError, match="sample 1017 is NaN or infinite"):
        as_mono(samples, first_sample=1_000)
    with pytest.raises(AudioError, match="sample 17 "):
        as_mono(samples[:, 1])


def test_a_float64_that_float32_cannot_hold_is_refused() -> None:
    with pytest.raises(AudioError, match="sample 1 is"):
        as_mono([0.0, 1e300])


def test_integer_values_kept_in_floats_are_refused_but_a_high_peak_is_not() -> None:
    with pytest.raises(AudioError, match="reach 12000, but"):
        as_mono(np.array([1.0, -12_000.0]))
    assert as_mono([1.5, -2.0]).tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(4, np.int64),
        np.zeros(4, np.uint16),
        np.zeros(4, bool),
        np.zeros(4, np.complex64),
        np.array(["a"]),
        np.zeros((2, 3, 4), np.float32),
        np.float32(0.5),
        [[0.0], [0.0, 1.0]],
        object(),
        np.zeros((40, 0), np.float32),
    ],
)
def test_what_is_not_sound_is_refused(samples) -> None:
    with pytest.raises(AudioError):
        as_mono(samples)


def test_what_cannot_be_an_array_says_what_to_give() -> None:
    with pytest.raises(AudioError) as told:
        as_mono([[0.0], [0.0, 1.0]])
    assert str(told.value) == (
        "samples of type list cannot be made an array: give a numpy array of numbers; of a tensor, "
        "tensor.detach().cpu().float().numpy()"
    )
    assert isinstance(told.value.__cause__, ValueError)


@given(
    npst.arrays(
        st.sampled_from(["uint8", "int16", "int32", "float16", "float32", "float64"]),
        st.tuples(st.integers(0, 40)) | st.tuples(st.integers(0, 40), st.integers(0, 40)),
    )
)
@settings(deadline=None, max_examples=100)
def test_any_array_gives_finite_samples_or_a_clear_error(samples: np.ndarray) -> None:
    mono, message = np.zeros(0, np.float32), ""
    try:
        mono = as_mono(samples)
    except AudioError as error:
        message = str(error)
    assert mono.dtype == np.float32
    assert mono.ndim == 1
    assert np.isfinite(mono).all()
    assert "\n" not in message


@pytest.mark.parametrize("rate", [8_000, 24_000, 44_100])
@pytest.mark.parametrize("chunk_s", [0.08, 0.33, 10.0])
def test_an_array_comes_in_even_chunks_of_the_new_rate(rate: int, chunk_s: float, tone) -> None:
    sound = tone(rate, 2.3)
    stereo = (np.stack([sound, sound], axis=1) * 32_767).astype(np.int16)
    chunks = list(chunks_of(stereo, rate, 24_000, chunk_s=chunk_s))
    assert {len(chunk) for chunk in chunks[:-1]} <= {round(chunk_s * 24_000)}
    resampler = Resampler(rate)
    want = np.concatenate([resampler.push(as_mono(stereo)), resampler.end()])
    got = np.concatenate(chunks)
    assert got.size == round(stereo.shape[0] / rate * 24_000)
    assert np.array_equal(got[: want.size], want[: got.size])


def test_the_seconds_before_a_nan_are_given_out_first() -> None:
    samples = np.ones(24_000 * 3, np.float32)
    samples[60_000] = np.nan
    chunks = chunks_of(samples, 24_000, 24_000, chunk_s=1.5)
    assert [len(next(chunks)), len(next(chunks))] == [36_000, 12_000]
    with pytest.raises(AudioError, match="sample 60000 is NaN"):
        next(chunks)


@pytest.mark.parametrize(
    ("samples", "arguments", "match"),
    [
        ([], {}, "no samples"),
        (np.zeros((0, 2)), {"channels_axis": 1}, "no samples"),
        ([0.0], {"rate": 500}, "500 Hz"),
        ([0.0], {"sample_rate": 1_000_000}, "1000000 Hz"),
        ([0.0], {"chunk_s": 0.0}, "chunk_s is 0"),
        ([0.0], {"chunk_s": float("nan")}, "chunk_s is nan"),
        (np.zeros(4, np.int64), {}, "int64"),
    ],
)
def test_bad_arguments_are_refused_at_the_call(samples, arguments, match: str) -> None:
    with pytest.raises(AudioError, match=match):
        chunks_of(samples, **{"rate": 16_000, "sample_rate": 24_000, **arguments})


def test_what_cannot_become_an_array_is_told_how_it_could() -> None:
    torch = pytest.importorskip("torch")
    one = torch.zeros(100)

    class Strange:
        def __array__(self, *_: object, **__: object) -> np.ndarray:
            raise KeyError("of its own")

    for samples in (one.clone().requires_grad_(), one.bfloat16(), one.to("meta"), Strange()):
        with pytest.raises(AudioError, match=r"tensor\.detach\(\)\.cpu\(\)\.float\(\)"):
            as_mono(samples)
