import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.audio import Ear, Resampler, as_mono
from kiku.audio.telephone import a_law, mu_law
from kiku.errors import AudioError
from tests.audio.sounds import noise

RATES = [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000, 192_000]


def heard(ear: Ear, parts, **how) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *(ear.hear(part, **how) for part in parts)])


def whole(samples, sample_rate: int = 24_000, **how) -> np.ndarray:
    """All that an ear gives for one chunk."""
    ear = Ear(sample_rate)
    return np.concatenate([ear.hear(samples, **how), ear.flush()])


def kinds(ear: Ear) -> list[str]:
    return [complaint.kind for complaint in ear.complaints()]


# What comes in


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
    want = np.concatenate([resampler.push(samples), resampler.flush()])
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
        (np.zeros(4), {"rate": 7_999}, "7999"),
        (np.zeros(4), {"rate": 192_001}, "192001"),
        (np.zeros(4), {"rate": 16_000.5}, "not whole"),
        (np.zeros(4), {"channel": 1}, "channel 1"),
        (np.zeros(4), {"channel": -1}, "channel -1"),
        (np.zeros(4), {"channel": 0.0}, "channel 0.0"),
        (np.zeros(4), {"encoding": "s16le"}, "array"),
        (b"\0\0", {"encoding": "s24le"}, "'s24le'"),
        (b"\0\0", {"channels": 0}, "channels is 0"),
        (b"\0\0", {"channels": 1.0}, "channels is 1.0"),
        (b"\0\0\0\0", {"channels": 2, "channel": 2}, "channel 2"),
        (b"\0\0", {"rate": 500}, "500 Hz"),
        (b"\0\0\x80\x7e", {"encoding": "f32le"}, "reach"),
        (b"\0\0", {"encoding": "opus", "rate": 16_000}, "Opus"),
        (b"\0\0", {"encoding": "opus", "channel": 1}, "Opus"),
        ("sound", {}, "dtype"),
        (object(), {}, "dtype"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(samples, how, match: str) -> None:
    sound = (noise(2_000) * 32_767).astype("<i2").tobytes()
    ear = Ear(24_000)
    first = ear.hear(sound[:2_001], rate=16_000)
    with pytest.raises(AudioError, match=match):
        ear.hear(samples, **how)
    assert ear.duration == 1_000 / 16_000
    rest = [ear.hear(sound[2_001:], rate=16_000), ear.flush()]
    assert np.array_equal(np.concatenate([first, *rest]), whole(sound, rate=16_000))
    assert ear.complaints() == []


@pytest.mark.parametrize("empty", [b"", [], np.zeros(0, np.int16)])
def test_empty_chunks_change_nothing(empty) -> None:
    ear = Ear(24_000)
    parts = [ear.hear(empty, rate=48_000), ear.hear(noise(100)), ear.hear(empty, rate=8_000)]
    assert np.array_equal(np.concatenate([*parts, ear.flush()]), noise(100))
    assert ear.complaints() == []


def test_numbers_of_numpy_are_numbers() -> None:
    ear = Ear(24_000)
    data = (noise(2_000) * 32_767).astype("<i2").tobytes()
    how = {"rate": np.int64(16_000), "channels": np.int32(2), "channel": np.int8(1)}
    got = [ear.hear(data[:1_001], **how), ear.silence(np.float32(0.5))]
    ear = Ear.restore(ear.save())
    got += [ear.hear(data[1_001:], **how), ear.flush()]
    assert sum(part.size for part in got) == 1.5 * 1_000 + 12_000


def test_an_end_is_an_end() -> None:
    ear = Ear(24_000)
    ear.hear(noise(100), rate=16_000)
    assert ear.flush().size == 150
    assert ear.flush().size == ear.tail().size == 0
    with pytest.raises(AudioError, match="flush"):
        ear.hear(noise(10))
    with pytest.raises(AudioError, match="flush"):
        ear.silence(1)


def test_the_caller_may_reuse_its_array() -> None:
    samples, kept = noise(24_000), noise(24_000)
    ear = Ear(24_000)
    got = ear.hear(samples[:100])
    samples[:] = 9
    assert np.array_equal(got, kept[:100])


# The cut


STEREO = (np.stack([noise(3_000, 1), 0.5 * noise(3_000, 2)], axis=1) * 32_767).astype("<i2")


@given(
    rate=st.sampled_from(RATES),
    encoding=st.sampled_from(["s16le", "s32le", "mulaw", "alaw"]),
    channels=st.integers(1, 3),
    channel=st.sampled_from([None, 0]),
    cuts=st.lists(st.integers(0, 12_000), max_size=12),
)
@settings(deadline=None, max_examples=40)
def test_any_cut_of_bytes_gives_the_same_samples(
    rate: int, encoding: str, channels: int, channel: int | None, cuts: list[int]
) -> None:
    how = {"rate": rate, "encoding": encoding, "channels": channels, "channel": channel}
    data = np.frombuffer(STEREO.tobytes(), np.uint8)
    ear, other = Ear(24_000), Ear(24_000)
    parts = [part.tobytes() for part in np.split(data, sorted(cuts))]
    got = np.concatenate([heard(ear, parts, **how), ear.flush()])
    want = np.concatenate([other.hear(data.tobytes(), **how), other.flush()])
    assert np.array_equal(got, want)
    assert ear.duration == other.duration
    assert ear.complaints() == other.complaints()


@given(
    chunks=st.lists(
        st.tuples(
            st.binary(max_size=200),
            st.sampled_from([None, "s16le", "s32le", "f32le", "mulaw", "alaw", "opus", "flac"]),
            st.sampled_from([None, 1_000, 8_000, 16_000, 48_000]),
            st.integers(0, 3),
            st.sampled_from([None, 0, 1, 5]),
            st.sampled_from([0.0, 0.001, -1.0, float("nan")]),
        ),
        max_size=8,
    )
)
@settings(deadline=None, max_examples=50)
def test_any_bytes_in_any_order_are_sound_or_an_audio_error(chunks) -> None:
    ear = Ear(24_000)
    parts: list[np.ndarray] = []
    for data, encoding, rate, channels, channel, gap_s in chunks:
        before = ear.duration
        try:
            parts.append(
                ear.hear(data, encoding=encoding, rate=rate, channels=channels, channel=channel)
            )
            before = ear.duration
            parts.append(ear.silence(gap_s))
        except AudioError:
            assert ear.duration == before
        ear = Ear.restore(ear.save())
    sound = np.concatenate([*parts, ear.flush()])
    assert np.isfinite(sound).all()
    assert abs(sound.size - ear.duration * 24_000) <= 1


# Time


def test_gaps_add_up_exactly() -> None:
    for rate in (8_000, 11_025, 24_000):
        one, many = Ear(24_000), Ear(24_000)
        for ear in (one, many):
            ear.hear(noise(rate), rate=rate)
        sizes = [one.silence(20.1).size + one.flush().size]
        sizes.append(sum(many.silence(0.0201).size for _ in range(1_000)) + many.flush().size)
        assert sizes[0] == sizes[1]
        assert many.duration == pytest.approx(21.1, abs=1e-9)


def test_a_gap_is_silence_in_its_place() -> None:
    ear = Ear(24_000)
    parts = [
        ear.silence(0.5),
        ear.hear(0.5 + 0 * noise(16_000), rate=16_000),
        ear.silence(0.25),
        ear.hear(0.5 + 0 * noise(16_000), rate=16_000),
        ear.flush(),
    ]
    sound = np.concatenate(parts)
    assert sound.size == 2.75 * 24_000
    assert ear.duration == 2.75
    for first, last, level in ((0, 0.5, 0), (0.5, 1.5, 0.5), (1.5, 1.75, 0), (1.75, 2.75, 0.5)):
        part = sound[round((first + 0.03) * 24_000) : round((last - 0.03) * 24_000)]
        assert np.abs(part - level).max() < 0.01
    assert ear.complaints() == []


@pytest.mark.parametrize("seconds", [-0.1, float("nan"), float("inf"), 3_601])
def test_gaps_that_cannot_be_are_refused(seconds: float) -> None:
    ear = Ear(24_000)
    with pytest.raises(AudioError, match="gap"):
        ear.silence(seconds)
    assert ear.duration == 0


@given(st.lists(st.tuples(st.sampled_from(RATES), st.integers(1, 600), st.booleans()), max_size=12))
@settings(deadline=None, max_examples=20)
def test_changes_of_rate_do_not_let_time_drift(pieces: list[tuple[int, int, bool]]) -> None:
    ear = Ear(24_000)
    size, changes, last_rate, seconds = 0, 0, None, 0.0
    for rate, num_samples, gap in pieces:
        size += ear.hear(noise(num_samples), rate=rate).size
        size += ear.silence(0.0123 * gap).size
        seconds += num_samples / rate + 0.0123 * gap
        changes += last_rate not in (None, rate)
        last_rate = rate
    size += ear.flush().size
    assert ear.duration == pytest.approx(seconds, abs=1e-9)
    assert abs(size - seconds * 24_000) <= 1
    assert kinds(ear).count("rate_changed") == changes


def test_a_change_of_rate_keeps_the_pitch(tone) -> None:
    ear = Ear(24_000)
    parts = [ear.hear(tone(rate, 0.5), rate=rate) for rate in (8_000, 48_000)]
    sound = np.concatenate([*parts, ear.flush()])
    assert np.abs(sound[500:11_500] - tone(24_000, 0.5)[500:-500]).max() < 1e-4
    assert np.abs(sound[12_500:23_500] - tone(24_000, 0.5)[500:-500]).max() < 1e-4
    (complaint,) = ear.complaints()
    assert (complaint.kind, complaint.at) == ("rate_changed", 0.5)
    assert "from 8000 to 48000" in complaint.message


# Saving


@given(
    rate=st.sampled_from(RATES),
    sample_rate=st.sampled_from([16_000, 24_000]),
    num_samples=st.integers(0, 30_000),
    where=st.floats(0, 1),
    chunk=st.integers(50, 4_000),
)
@settings(deadline=None, max_examples=60)
def test_an_ear_goes_on_after_saving_as_if_nothing_was(
    rate: int, sample_rate: int, num_samples: int, where: float, chunk: int
) -> None:
    data = (noise(num_samples) * 32_767).astype("<i2").tobytes()
    place = round(where * len(data))
    ear = Ear(sample_rate)
    parts = [data[first : first + chunk] for first in range(0, place, chunk)]
    before = heard(ear, [part[: place - i * chunk] for i, part in enumerate(parts)], rate=rate)
    other = Ear.restore(ear.save())
    tail = ear.tail()
    ends = [[each.hear(data[place:], rate=rate), each.flush()] for each in (ear, other)]
    went_on, restored = (np.concatenate([before, *end]) for end in ends)
    assert went_on.size == restored.size
    assert np.abs(went_on - restored).max(initial=0) <= 1e-6
    assert np.array_equal(went_on, whole(data, sample_rate, rate=rate))
    assert ear.duration == other.duration
    # The tail is what the end of the part would have been.
    cut = Ear(sample_rate)
    want = np.concatenate([cut.hear(data[:place], rate=rate), cut.flush()])
    assert before.size + tail.size == want.size
    assert np.abs(np.concatenate([before, tail]) - want).max(initial=0) <= 1e-6


def test_another_process_goes_on(tmp_path: Path) -> None:
    sound = (noise(30_000) * 32_767).astype("<i2").tobytes()
    ear = Ear(24_000)
    ear.hear(sound[:20_001], rate=44_100)
    ear.silence(0.01)
    np.savez(tmp_path / "ear.npz", **ear.save())
    (tmp_path / "sound.raw").write_bytes(sound[20_001:])
    program = """
import sys
import numpy as np
from kiku.audio import Ear
folder = sys.argv[1]
with np.load(folder + "/ear.npz") as saved:
    ear = Ear.restore(saved)
sound = ear.hear(open(folder + "/sound.raw", "rb").read(), rate=44_100)
np.save(folder + "/out.npy", np.concatenate([sound, ear.flush()]))
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=60)
    want = np.concatenate([ear.hear(sound[20_001:], rate=44_100), ear.flush()])
    got = np.load(tmp_path / "out.npy")
    assert got.size == want.size > 1_000
    assert np.abs(got - want).max() <= 1e-6


def test_what_is_not_a_saved_ear_is_refused() -> None:
    saved = Ear(24_000).save()
    about = json.loads(saved["about"].tobytes())
    later = json.dumps(about | {"layout": 99}).encode()
    for wrong in (
        {},
        {"about": saved["about"]},
        {"about": np.zeros(5, np.uint8)},
        saved | {"about": np.frombuffer(later, np.uint8)},
    ):
        with pytest.raises(AudioError, match="restored"):
            Ear.restore(wrong)


def test_a_rate_that_an_ear_does_not_take_is_told_with_the_rates_that_it_takes() -> None:
    for rate in (300, 7_999, 192_001, 10**9):
        with pytest.raises(AudioError, match="outside 8000 to 192000 Hz"):
            Ear(24_000).hear(np.zeros(10, np.float32), rate=rate)
