import contextlib
import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.audio import AudioInput, Resampler, as_mono
from kiku.audio.chunk import gap_of
from kiku.audio.g711 import a_law, mu_law
from kiku.errors import AudioError, StreamError
from kiku.options import AudioFormat, DecodingOptions
from tests.audio.sounds import noise, troubled

RATES = [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000, 192_000]


def put(audio: AudioInput, samples, rate: int | None = None) -> np.ndarray:
    return audio.feed(audio.check(samples, rate))


def silence(audio: AudioInput, seconds: float) -> np.ndarray:
    return audio.feed(gap_of(seconds))


def whole(samples, sample_rate: int = 24_000, rate=None, channel="mix", **how) -> np.ndarray:
    """All that an input gives for one chunk."""
    audio = AudioInput(sample_rate, AudioFormat(**how), channel=channel)
    return np.concatenate([put(audio, samples, rate), audio.end()])


def kinds(audio: AudioInput) -> list[str]:
    return [warning.kind for warning in audio.warnings()]


# What comes in


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "None contains no samples: .* path of a recording is for Recognizer.transcribe"),
        ("talk.wav", "'talk.wav' contains no samples"),
        (Path("talk.wav"), r"Path\('talk.wav'\) contains no samples"),
        ([0.5, None], "list of dtype object contains no samples"),
        (np.array(["a"]), "ndarray of dtype <U1 contains no samples"),
        (np.zeros(9, np.int64), "dtype int64 are not supported: convert them to float32"),
    ],
)
def test_what_is_no_sound_is_told_what_is(given, told) -> None:
    with pytest.raises(AudioError, match=told):
        AudioInput(24_000).check(given)


def test_floats_are_clipped_from_8_times_full_scale_and_refused_from_64() -> None:
    audio = AudioInput(24_000)
    assert audio.feed(audio.check(np.array([8.0, -8.5, 64.0], np.float32))).tolist() == [8, -8, 8]
    audio.end()
    assert "were clipped" in audio.warnings()[0].message
    with pytest.raises(AudioError, match="reach 65"):
        audio.check(np.array([65.0], np.float32))


class Tensor:
    """Gives its numbers as PyTorch's do: where a copy is asked for, numpy warns of it."""

    def __init__(self, values) -> None:
        self.values = np.asarray(values, np.float32)

    def __array__(self, dtype=None):
        return self.values


def test_a_tensor_is_copied_without_a_warning() -> None:
    """Warnings are errors here."""
    tensor = Tensor(noise(100))
    chunk = AudioInput(24_000).check(tensor)
    assert np.array_equal(chunk.data, tensor.values)
    tensor.values[:] = 0
    assert np.abs(chunk.data).max() > 0
    prior = DecodingOptions(language_prior=(nats := Tensor([0, 1]))).language_prior
    assert prior.tolist() == [0, 1]
    assert prior is not nats.values


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float16", "float32", "float64"])
def test_arrays_of_every_dtype(dtype: str) -> None:
    levels = {"uint8": 255, "int16": 2**15 - 1, "int32": 2**31 - 1}
    sound = np.abs(noise(500)) * levels.get(dtype, 1)
    samples = sound.astype(dtype)
    assert np.array_equal(whole(samples), as_mono(samples))


@pytest.mark.parametrize(
    ("encoding", "dtype"), [(None, "<i2"), ("s16le", "<i2"), ("s32le", "<i4"), ("f32le", "<f4")]
)
def test_bytes_are_what_their_array_is(encoding: str | None, dtype: str) -> None:
    full_scale = 1 if dtype == "<f4" else 2 ** (8 * np.dtype(dtype).itemsize - 1)
    samples = (noise(500) * full_scale).astype(dtype)
    for data in (samples.tobytes(), bytearray(samples.tobytes()), memoryview(samples).cast("B")):
        assert np.array_equal(whole(data, encoding=encoding), as_mono(samples))


def test_the_telephone_is_heard_at_its_own_rate() -> None:
    codes = np.random.default_rng(0).integers(0, 256, 800, np.uint8)
    for encoding, law in (("mulaw", mu_law), ("alaw", a_law)):
        assert np.array_equal(
            whole(codes.tobytes(), encoding=encoding), whole(law(codes), rate=8_000)
        )
        assert np.array_equal(whole(codes.tobytes(), encoding=encoding, rate=24_000), law(codes))


def test_channels_are_mixed_or_picked() -> None:
    planes = (np.stack([noise(300, seed) for seed in range(3)]) * 32_767).astype("<i2")
    data = planes.T.tobytes()
    for how, samples in (({"channels": 3}, data), ({}, planes), ({"channels_axis": 1}, planes.T)):
        assert np.allclose(whole(samples, **how), as_mono(planes), atol=1e-7)
        for channel in range(3):
            got = whole(samples, channel=channel, **how)
            assert np.array_equal(got, as_mono(planes[channel]))
    assert np.array_equal(whole(planes[0], channel=0), as_mono(planes[0]))


@pytest.mark.parametrize("rate", RATES)
def test_every_rate_is_resampled_as_a_file_is(rate: int) -> None:
    samples = noise(rate // 4)
    resampler = Resampler(rate, 24_000)
    want = np.concatenate([resampler.push(samples), resampler.end()])
    got = whole(samples, rate=rate)
    assert abs(got.size - samples.size / rate * 24_000) <= 0.5
    assert np.array_equal(got[: want.size], want[: got.size])


@pytest.mark.parametrize(
    ("samples", "how", "match"),
    [
        (np.zeros(4, np.int64), {}, "int64"),
        (np.zeros((2, 3, 4), np.float32), {}, "not one sound"),
        (np.array([1.0, -12_000.0]), {}, "12000"),
        (np.array([np.nan, 12_000.0]), {}, "12000"),
        (np.array([np.nan, 12_000.0], np.float32), {}, "12000"),
        (np.array([[1e30, 0.0]] * 9, np.float32), {}, "1e"),
        (np.zeros(4), {"rate": 7_999}, "7999"),
        (np.zeros(4), {"rate": 192_001}, "192001"),
        (np.zeros(4), {"rate": 10**9}, "outside 8000 to 192000 Hz"),
        (np.zeros(4), {"rate": 16_000.5}, "not whole"),
        (np.zeros(4), {"channel": 2}, "channel 2"),
        (np.zeros(4, np.float32), {"channel": 2}, "channel 2"),
        (b"\0\0\0\0", {"channel": 2}, "channel 2"),
        (b"\0\0", {"rate": 500}, "500 Hz"),
        (b"\0\0", {"encoding": "opus", "rate": 16_000}, "Opus"),
        (b"\0\0", {"encoding": "opus", "channel": 1}, "channel 1"),
        ("sound", {}, "'sound' contains no samples"),
        (object(), {}, "object of dtype object contains no samples"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(samples, how, match: str) -> None:
    form = AudioFormat(encoding=how.get("encoding"))
    audio = AudioInput(24_000, form, channel=how.get("channel", "mix"))
    silence(audio, 0.5)
    before = str(audio.save())
    with pytest.raises(AudioError, match=match):
        audio.check(samples, how.get("rate"))
    assert str(audio.save()) == before
    assert audio.warnings() == []


@pytest.mark.parametrize("rate", [44_100.0, np.int64(44_100), np.float32(44_100)])
def test_a_push_may_say_its_rate_as_a_sound_card_does(rate) -> None:
    chunk = AudioInput(24_000).check(np.zeros(441, np.float32), rate)
    assert (chunk.rate, type(chunk.rate)) == (44_100, int)


@pytest.mark.parametrize("channels", [1, 2])
def test_floats_in_bytes_that_are_no_sound_become_silence_wherever_they_are_cut(
    channels: int,
) -> None:
    told = np.repeat(noise(24_000), channels)
    broken = told.copy()
    broken[channels * 50 : channels * 60] = (1e30, -65.0, np.nan, np.inf, 8.5e37) * 2 * channels
    data = broken.tobytes()
    for cut in (50, 4 * channels * 55 + 1, len(data)):
        audio = AudioInput(24_000, AudioFormat(encoding="f32le", channels=channels))
        got = np.concatenate([put(audio, data[:cut]), put(audio, data[cut:])])
        expected = noise(24_000)
        expected[50:60] = 0
        assert np.array_equal(got, expected)
        (warning,) = audio.warnings()
        assert warning.kind == "not_finite"
        assert "10 samples of a second" in warning.message


def test_a_memoryview_of_floats_that_are_integers_is_refused_as_an_array_is() -> None:
    audio = AudioInput(24_000, AudioFormat(encoding="f32le"))
    for values in (np.full(10, 20_000, np.float32), np.full((10, 2), 20_000, np.float32)):
        with pytest.raises(AudioError, match="divide them by the full scale"):
            audio.check(memoryview(values))
    assert audio.check(memoryview(np.full(10, np.nan, np.float32))).num_samples == 10


@pytest.mark.parametrize("channel", ["each", -1, 0.0, None, True])
def test_channels_that_cannot_be_are_refused(channel) -> None:
    with pytest.raises(AudioError, match="channel"):
        AudioInput(24_000, channel=channel)


def test_a_format_whose_rate_cannot_be_is_refused() -> None:
    with pytest.raises(AudioError, match="500 Hz"):
        AudioInput(24_000, AudioFormat(sample_rate=500))


def test_inputs_of_each_channel_take_the_same_chunk() -> None:
    planes = (np.stack([noise(900, seed) for seed in range(3)], axis=1) * 32_767).astype("<i2")
    form = AudioFormat(channels=3)
    inputs = [AudioInput(24_000, form, channel=number) for number in range(3)]
    for samples in (planes, planes.tobytes(), planes.astype(np.float32) / 32_768):
        chunk = inputs[0].check(samples)
        assert chunk.num_channels == 3
        for number, audio in enumerate(inputs):
            assert np.array_equal(audio.feed(chunk), as_mono(planes[:, number]))
    mono = inputs[0].check(noise(10))
    inputs[0].feed(mono)
    with pytest.raises(AudioError, match="channel 1 was asked for, but there is 1 channel:"):
        inputs[1].feed(mono)
    assert inputs[1].duration == 3 * 900 / 24_000


@pytest.mark.parametrize("empty", [b"", [], np.zeros(0, np.int16), np.zeros(0, np.float32)])
def test_empty_chunks_change_nothing(empty) -> None:
    audio = AudioInput(24_000)
    parts = [put(audio, empty, 48_000), put(audio, noise(100)), put(audio, empty, 8_000)]
    assert np.array_equal(np.concatenate([*parts, audio.end()]), noise(100))
    assert audio.warnings() == []


def test_numbers_of_numpy_are_numbers() -> None:
    audio = AudioInput(24_000, AudioFormat(channels=2), channel=np.int8(1))
    data = (noise(2_000) * 32_767).astype("<i2").tobytes()
    got = [put(audio, data[:1_001], np.int64(16_000)), silence(audio, np.float32(0.5))]
    audio = AudioInput.restore(audio.save())
    got += [put(audio, data[1_001:], np.int64(16_000)), audio.end()]
    assert sum(part.size for part in got) == 1.5 * 1_000 + 12_000


def test_an_end_is_an_end() -> None:
    audio = AudioInput(24_000)
    put(audio, noise(100), rate=16_000)
    assert audio.end().size == 150
    assert audio.end().size == audio.tail().size == 0
    with pytest.raises(AudioError, match="end"):
        put(audio, noise(10))
    with pytest.raises(AudioError, match="end"):
        silence(audio, 1)


def test_the_caller_may_reuse_its_array() -> None:
    samples, kept = noise(24_000), noise(24_000)
    audio = AudioInput(24_000)
    got = put(audio, samples[:100])
    samples[:] = 9
    assert np.array_equal(got, kept[:100])


# The cut


STEREO = (np.stack([noise(3_000, 1), 0.5 * noise(3_000, 2)], axis=1) * 32_767).astype("<i2")


@given(
    rate=st.sampled_from(RATES),
    encoding=st.sampled_from(["s16le", "s32le", "mulaw", "alaw"]),
    channels=st.integers(1, 3),
    channel=st.sampled_from(["mix", 0]),
    cuts=st.lists(st.integers(0, 12_000), max_size=12),
    span=st.sampled_from([(0.0, None), (0.01, None), (0.003, 0.0501), (0.0, 0.02)]),
)
@settings(deadline=None, max_examples=40)
def test_any_cut_of_bytes_gives_the_same_samples(
    rate: int, encoding: str, channels: int, channel, cuts: list[int], span
) -> None:
    form = AudioFormat(encoding=encoding, channels=channels)
    how = {"channel": channel, "start_s": span[0], "end_s": span[1]}
    data = np.frombuffer(STEREO.tobytes(), np.uint8)
    audio, other = AudioInput(24_000, form, **how), AudioInput(24_000, form, **how)
    parts = [put(audio, part.tobytes(), rate) for part in np.split(data, sorted(cuts))]
    got = np.concatenate([*parts, audio.end()])
    want = np.concatenate([put(other, data.tobytes(), rate), other.end()])
    assert np.array_equal(got, want)
    assert audio.duration == other.duration
    assert audio.warnings() == other.warnings()


@given(
    chunks=st.lists(
        st.tuples(
            st.binary(max_size=200),
            st.sampled_from(["s16le", "s32le", "f32le", "mulaw", "alaw", "opus"]),
            st.sampled_from([None, 1_000, 8_000, 16_000, 48_000]),
            st.integers(1, 3),
            st.sampled_from([0.0, 0.001, -1.0, float("nan")]),
        ),
        max_size=8,
    ),
    channel=st.sampled_from(["mix", 0, 1]),
)
@settings(deadline=None, max_examples=50)
def test_any_bytes_in_any_order_are_sound_or_an_audio_error(chunks, channel) -> None:
    audio = AudioInput(24_000, channel=channel)
    parts: list[np.ndarray] = []
    for data, encoding, rate, channels, gap_s in chunks:
        before = audio.duration
        try:
            channels = 1 if encoding == "opus" else channels
            form = AudioFormat(encoding=encoding, channels=channels)
            chunk = AudioInput(24_000, form, channel=channel).check(data, rate)
            parts.append(audio.feed(chunk))
            before = audio.duration
            parts.append(silence(audio, gap_s))
        except AudioError:
            assert audio.duration == before
        audio = AudioInput.restore(audio.save())
    sound = np.concatenate([*parts, audio.end()])
    assert np.isfinite(sound).all()
    assert abs(sound.size - audio.duration * 24_000) <= 1


@given(
    kind=st.sampled_from(["float", "stereo", "bytes", "gap"]),
    rate=st.sampled_from(RATES),
    num_samples=st.integers(0, 3_000),
    seconds=st.floats(1e-4, 0.2),
    begin=st.integers(0, 3),
)
@settings(deadline=None, max_examples=60)
def test_the_pieces_of_a_chunk_are_the_same_sound(
    kind: str, rate: int, num_samples: int, seconds: float, begin: int
) -> None:
    form = AudioFormat(channels=2)
    audio, other = AudioInput(24_000, form), AudioInput(24_000, form)
    first = (noise(100) * 32_767).astype("<i2").tobytes()[:begin]
    if kind == "gap":
        chunk = gap_of(num_samples / 24_000)
    elif kind == "bytes":
        chunk = audio.check(STEREO.tobytes()[begin : 4 * num_samples], rate)
    else:
        chunk = audio.check(noise(num_samples) if kind == "float" else STEREO, rate)
    pieces = chunk.split(seconds)
    assert all(piece.seconds <= max(seconds, 1 / piece.rate) for piece in pieces)
    assert sum(piece.num_samples for piece in pieces) == chunk.num_samples
    results = []
    for each, chunks in ((audio, [chunk]), (other, pieces)):
        parts = [put(each, first, rate), *map(each.feed, chunks)]
        results.append(np.concatenate([*parts, each.end()]))
    assert np.array_equal(results[0], results[1])
    assert audio.duration == other.duration
    assert audio.warnings() == other.warnings()


def test_pieces_of_no_length_are_refused() -> None:
    chunk = AudioInput(24_000).check(noise(10))
    assert chunk.split(float("inf")) == [chunk]
    for seconds in (0, -1, float("nan")):
        with pytest.raises(AudioError, match="pieces"):
            chunk.split(seconds)


# Time


def test_gaps_add_up_exactly() -> None:
    for rate in (8_000, 11_025, 24_000):
        one, many = AudioInput(24_000), AudioInput(24_000)
        for audio in (one, many):
            put(audio, noise(rate), rate=rate)
        sizes = [silence(one, 20.1).size + one.end().size]
        sizes.append(sum(silence(many, 0.0201).size for _ in range(1_000)) + many.end().size)
        assert sizes[0] == sizes[1]
        assert many.duration == pytest.approx(21.1, abs=1e-9)


def test_a_gap_is_silence_in_its_place() -> None:
    audio = AudioInput(24_000)
    parts = [
        silence(audio, 0.5),
        put(audio, 0.5 + 0 * noise(16_000), rate=16_000),
        silence(audio, 0.25),
        put(audio, 0.5 + 0 * noise(16_000), rate=16_000),
        audio.end(),
    ]
    sound = np.concatenate(parts)
    assert sound.size == 2.75 * 24_000
    assert audio.duration == 2.75
    for first, last, level in ((0, 0.5, 0), (0.5, 1.5, 0.5), (1.5, 1.75, 0), (1.75, 2.75, 0.5)):
        part = sound[round((first + 0.03) * 24_000) : round((last - 0.03) * 24_000)]
        assert np.abs(part - level).max() < 0.01
    assert [one.kind for one in audio.warnings()] == ["silent"]  # as nothing moves


@pytest.mark.parametrize("seconds", [-0.1, float("nan"), float("inf"), 3_601])
def test_gaps_that_cannot_be_are_refused(seconds: float) -> None:
    audio = AudioInput(24_000)
    with pytest.raises(AudioError, match="gap"):
        silence(audio, seconds)
    assert audio.duration == 0


@given(st.lists(st.tuples(st.sampled_from(RATES), st.integers(1, 600), st.booleans()), max_size=12))
@settings(deadline=None, max_examples=20)
def test_changes_of_rate_do_not_let_time_drift(pieces: list[tuple[int, int, bool]]) -> None:
    audio = AudioInput(24_000)
    size, changes, last_rate, seconds = 0, 0, None, 0.0
    for rate, num_samples, gap in pieces:
        size += put(audio, noise(num_samples), rate=rate).size
        size += silence(audio, 0.0123 * gap).size
        seconds += num_samples / rate + 0.0123 * gap
        changes += last_rate not in (None, rate)
        last_rate = rate
    size += audio.end().size
    assert audio.duration == pytest.approx(seconds, abs=1e-9)
    assert abs(size - seconds * 24_000) <= 1
    assert kinds(audio).count("rate_changed") == changes


def test_a_change_of_rate_keeps_the_pitch(tone) -> None:
    audio = AudioInput(24_000)
    parts = [put(audio, tone(rate, 0.5), rate=rate) for rate in (8_000, 48_000)]
    sound = np.concatenate([*parts, audio.end()])
    assert np.abs(sound[500:11_500] - tone(24_000, 0.5)[500:-500]).max() < 1e-4
    assert np.abs(sound[12_500:23_500] - tone(24_000, 0.5)[500:-500]).max() < 1e-4
    (warning,) = audio.warnings()
    assert (warning.kind, warning.time) == ("rate_changed", 0.5)
    assert "from 8000 to 48000" in warning.message


@pytest.mark.parametrize("rate", RATES)
def test_a_start_and_an_end_cut_at_a_sample(rate: int) -> None:
    sound = noise(rate)
    first, last = round(0.1003 * rate), round(0.7003 * rate)
    audio = AudioInput(24_000, start_s=0.1003, end_s=0.7003)
    got = np.concatenate(
        [put(audio, part, rate) for part in np.split(sound, 7 * [0] + [999, 6_000])]
    )
    got = np.concatenate([got, audio.end()])
    assert np.array_equal(got, whole(sound[first:last], rate=rate))
    assert audio.duration == 1.0


def test_start_and_end_cut_gaps_and_count_times_from_the_beginning() -> None:
    audio = AudioInput(24_000, start_s=1.5, end_s=4.0)
    sizes = [silence(audio, 2.0).size, put(audio, noise(12_000)).size]
    put(audio, noise(16_000), rate=16_000)
    sizes.append(silence(audio, 3).size)
    (warning,) = audio.warnings()
    assert (warning.kind, warning.time) == ("rate_changed", 2.5)
    assert sizes[:2] == [12_000, 12_000]
    assert audio.duration == 6.5
    total = AudioInput(24_000, start_s=1.5, end_s=4.0)
    parts = [silence(total, 2.0), put(total, noise(96_000)), total.end()]
    assert sum(part.size for part in parts) == 2.5 * 24_000


@pytest.mark.parametrize(
    "span", [(-1, None), (2, 2), (3, 1), (float("nan"), None), (0, float("nan"))]
)
def test_spans_that_cannot_be_are_refused(span) -> None:
    with pytest.raises(AudioError, match="seconds"):
        AudioInput(24_000, start_s=span[0], end_s=span[1])


# Saving


@given(
    rate=st.sampled_from([*RATES, 44_101]),
    sample_rate=st.sampled_from([16_000, 24_000]),
    num_samples=st.integers(0, 30_000),
    where=st.floats(0, 1),
    chunk=st.integers(50, 4_000),
)
@settings(deadline=None, max_examples=60)
def test_an_input_goes_on_after_saving_as_if_nothing_was(
    rate: int, sample_rate: int, num_samples: int, where: float, chunk: int
) -> None:
    data = (noise(num_samples) * 32_767).astype("<i2").tobytes()
    place = round(where * len(data))
    audio = AudioInput(sample_rate)
    firsts = range(0, place, chunk)
    parts = [put(audio, data[first : min(place, first + chunk)], rate) for first in firsts]
    before = np.concatenate([np.zeros(0, np.float32), *parts])
    other = AudioInput.restore(audio.save())
    tail = audio.tail()
    ends = [[put(each, data[place:], rate), each.end()] for each in (audio, other)]
    went_on, restored = (np.concatenate([before, *end]) for end in ends)
    assert went_on.size == restored.size
    assert np.abs(went_on - restored).max(initial=0) <= (1e-5 if rate == 44_101 else 1e-6)
    assert np.array_equal(went_on, whole(data, sample_rate, rate=rate))
    assert audio.duration == other.duration
    # The tail is what the end of the part would have been.
    cut = AudioInput(sample_rate)
    want = np.concatenate([put(cut, data[:place], rate), cut.end()])
    assert before.size + tail.size == want.size
    assert np.abs(np.concatenate([before, tail]) - want).max(initial=0) <= 1e-5


def saved_input() -> AudioInput:
    audio = AudioInput(24_000, AudioFormat(channels=2), rate_check=True, start_s=0.01)
    put(audio, troubled(8_000)[:100_001], rate=8_000)
    put(audio, (noise(3_000) * 32_767).astype("<i2").tobytes()[:-1], rate=44_100)
    silence(audio, 0.0123)
    return audio


def test_another_process_goes_on(tmp_path: Path) -> None:
    audio = saved_input()
    sound = (noise(30_000) * 32_767).astype("<i2").tobytes()
    (tmp_path / "saved").write_bytes(pickle.dumps(audio.save()))
    (tmp_path / "sound").write_bytes(sound)
    program = """
import pickle, sys
import numpy as np
from pathlib import Path
from kiku.audio import AudioInput
folder = Path(sys.argv[1])
audio = AudioInput.restore(pickle.loads((folder / "saved").read_bytes()))
parts = [audio.feed(audio.check((folder / "sound").read_bytes(), 44_100)), audio.end()]
np.save(folder / "out.npy", np.concatenate(parts))
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=600)
    want = np.concatenate([put(audio, sound, 44_100), audio.end()])
    got = np.load(tmp_path / "out.npy")
    assert got.size == want.size > 1_000
    assert np.abs(got - want).max() <= 1e-6


def paths(value, path=()) -> list[tuple]:
    """Where everything in nested dicts and lists is."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, item in items:
        found.append((*path, key))
        if isinstance(item, dict | list):
            found += paths(item, (*path, key))
    return found


ANYTHING = st.sampled_from(
    [None, True, -1, 1, 7, 999, 10**6, 2**61, 10**30, -(2**61), 0.5, 1e300, float("nan"), "", "mix",
     "opus", b"", b"abc" * 99, [], {}, [{}], np.zeros(3), np.zeros(10**6, np.float32),
     np.full(700, 1e38, np.float32), np.zeros((4, 4), np.float32), np.zeros(2, np.int16)]
)  # fmt: skip


@given(where=st.lists(st.integers(0, 10**6), min_size=1, max_size=3), data=st.data())
@settings(deadline=None, max_examples=300)
def test_a_saved_input_with_anything_in_it_goes_on_or_is_refused(where, data) -> None:
    saved = copy.deepcopy(SAVED)
    for number in where:
        places = paths(saved)
        *path, last = places[number % len(places)]
        parent = saved
        for key in path:
            parent = parent[key]
        if isinstance(parent, dict) and data.draw(st.booleans()):
            del parent[last]
        else:
            parent[last] = copy.deepcopy(data.draw(ANYTHING))  # never one thing in two places
    try:
        audio = AudioInput.restore(saved)
    except StreamError:
        return
    sound = [audio.tail()]
    with contextlib.suppress(AudioError):  # it may have ended, or want another channel
        sound.append(put(audio, STEREO, 44_100))
    sound.append(audio.end())
    assert all(np.isfinite(part).all() for part in sound)
    assert sum(part.size for part in sound) < 10**5
    audio.warnings()


SAVED = saved_input().save()


@pytest.mark.parametrize("wrong", [None, {}, [], b"", {"version": 1}, SAVED | {"version": 2}])
def test_what_is_not_a_saved_input_is_refused(wrong) -> None:
    with pytest.raises(StreamError, match="saved sound"):
        AudioInput.restore(wrong)


@pytest.mark.parametrize(("dtype", "encoding"), [("i2", "s16le"), ("i4", "s32le"), ("f4", "f32le")])
def test_a_memoryview_is_taken_by_its_own_format(dtype: str, encoding: str) -> None:
    one = noise(2_400)
    values = one if dtype == "f4" else (one * (2.0 ** (8 * int(dtype[1]) - 1) - 1)).astype(dtype)
    for told in (None, encoding):
        audio = AudioInput(24_000, AudioFormat(encoding=told))
        got = audio.feed(audio.check(memoryview(values)))
        assert np.abs(got - one).max() < 1e-3
    # Of bytes the stream's encoding is believed.
    audio = AudioInput(24_000, AudioFormat(encoding=encoding))
    assert np.abs(audio.feed(audio.check(memoryview(values.tobytes()))) - one).max() < 1e-3
    both = np.stack([values, values], axis=1).ravel()
    audio = AudioInput(24_000, AudioFormat(channels=2))
    assert np.abs(audio.feed(audio.check(memoryview(both))) - one).max() < 1e-3


@pytest.mark.parametrize(("dtype", "encoding"), [("i2", "s16le"), ("i4", None), ("f4", None)])
def test_a_memoryview_of_two_axes_is_heard_as_its_array(dtype: str, encoding: str | None) -> None:
    planes = np.stack([noise(2_400), noise(2_400, 1)], axis=1)
    values = planes if dtype == "f4" else (planes * 2.0 ** (8 * int(dtype[1]) - 2)).astype(dtype)
    for view in (values, values.T, values[::2], values[:, :1], np.asfortranarray(values)):
        for channel in ("mix", 0):
            settings = {"encoding": encoding, "channel": channel}
            assert np.array_equal(whole(memoryview(view), **settings), whole(view, **settings))
    chunk = AudioInput(24_000).check(memoryview(values))
    assert (chunk.num_samples, chunk.num_channels) == (2_400, 2)
    # Nobody changes what was given by changing it afterwards.
    before = np.array(chunk.data)
    values[:] = 0
    assert np.array_equal(chunk.data, before)
    with pytest.raises(AudioError, match="are not one sound"):
        AudioInput(24_000).check(memoryview(np.zeros((2, 3, 100), dtype)))


@pytest.mark.parametrize(
    ("dtype", "encoding"),
    [("f8", None), ("i8", None), (">i2", None), ("f4", "s16le"), ("i1", None)],
)
def test_a_memoryview_that_is_not_sound_is_refused(dtype: str, encoding: str | None) -> None:
    audio = AudioInput(24_000, AudioFormat(encoding=encoding))
    with pytest.raises(AudioError, match="give one of 'h'"):
        audio.check(memoryview(np.zeros(100, dtype)))


@pytest.mark.parametrize("value", [9.0, -64.0])
def test_samples_far_beyond_full_scale_are_clipped_and_told(value: float) -> None:
    sound = 2 * noise(24_000)
    sound[1_000:1_010] = value
    for planes in (sound, np.stack([sound, sound], axis=1)):
        audio = AudioInput(24_000)
        got = audio.feed(audio.check(planes))
        assert np.abs(got).max() == 8.0
        assert np.array_equal(got[1_010:], sound[1_010:])
        kinds = {warning.kind: warning.message for warning in audio.warnings()}
        assert "10 samples of a second are NaN" in kinds["not_finite"]
    assert sound[1_000] == value  # the caller's own


def test_nothing_is_told_of_sound_behind_the_end() -> None:
    good, nothing = noise(24_000), np.zeros(24_000, np.float32)
    inverted = np.stack([good, -good], axis=1)
    behind: list[tuple[bytes | np.ndarray, int]] = [
        (good, 16_000),  # another rate
        (nothing, 24_000),
        (np.full(24_000, 1.0, np.float32), 24_000),  # clipped
        (np.full(24_000, np.nan, np.float32), 24_000),
        (inverted, 24_000),
        (b"\1", 24_000),
        (good, 24_000),  # the other half of the sample never came
    ]
    for end_s, kinds in ((None, True), (1.0, False), (1.5, False)):
        audio = AudioInput(24_000, end_s=end_s)
        audio.feed(audio.check(good))
        audio.feed(audio.check(good[:12_000]))
        assert audio.warnings() == []
        for samples, rate in behind:
            audio.feed(audio.check(samples, rate))
        audio.end()
        told = {warning.kind for warning in audio.warnings()}
        wanted = {"rate_changed", "clipped", "not_finite", "inverted", "damaged"}
        assert (told >= wanted) if kinds else (told == set())


@pytest.mark.parametrize("rate", [24_000, 16_000])
def test_what_is_told_at_the_end_is_told_of_the_sound_up_to_there(rate: int) -> None:
    """Also where the rate changes behind it."""
    audio = AudioInput(24_000, end_s=2.5)
    for second_rate in (24_000, 24_000, 24_000, rate):
        audio.feed(audio.check(np.zeros(second_rate, np.float32), second_rate))
    audio.end()
    assert [(one.kind, one.time) for one in audio.warnings()] == [("silent", 2.5)]


def test_what_the_last_part_of_a_second_tells_has_the_time_of_the_end() -> None:
    audio = AudioInput(24_000, end_s=2.5)
    audio.feed(audio.check(noise(48_000)))
    audio.feed(audio.check(np.full(24_000, 1.0, np.float32)))
    audio.feed(audio.check(noise(16_000), 16_000))
    assert [(one.kind, one.time) for one in audio.warnings()] == [("clipped", 2.5)]
