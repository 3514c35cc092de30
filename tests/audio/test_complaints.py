import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.audio import Complaint, Ear, read_chunks
from tests.audio.sounds import noise, troubled, voice

TROUBLED = troubled(8_000)


def kinds(ear: Ear) -> list[str]:
    return [complaint.kind for complaint in ear.complaints()]


@given(
    cuts=st.lists(st.integers(0, 25 * 8_000), max_size=12),
    gap=st.tuples(st.integers(0, 25 * 8_000), st.floats(0, 0.5)),
)
@settings(deadline=None, max_examples=15)
def test_any_cut_gives_the_same_complaints(cuts: list[int], gap: tuple[int, float]) -> None:
    where, gap_s = gap
    results: list[tuple[np.ndarray, list[Complaint]]] = []
    for places in ([], cuts):
        ear = Ear(24_000)
        parts: list[np.ndarray] = []
        before, after = TROUBLED[:where], TROUBLED[where:]
        how = {"rate": 8_000, "channels_axis": 1}
        parts += [ear.hear(part, **how) for part in np.split(before, sorted(places))]
        parts.append(ear.silence(gap_s))
        late = sorted(max(0, place - where) for place in places)
        parts += [ear.hear(part, **how) for part in np.split(after, late)]
        parts.append(ear.flush())
        results.append((np.concatenate(parts), ear.complaints()))
    assert np.array_equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert {complaint.kind for complaint in results[0][1]} == {
        "silent",
        "clipped",
        "not_finite",
        "offset",
    }


def test_complaints_go_on_after_saving() -> None:
    ear, other = Ear(24_000), Ear(24_000)
    for first in range(0, len(TROUBLED), 5_000):
        for each in (ear, other):
            each.hear(TROUBLED[first : first + 5_000], rate=8_000, channels_axis=1)
        other = Ear.restore(other.save())
    assert len(other.complaints()) == 4
    assert Ear.restore(ear.save()).complaints() == ear.complaints()


def test_good_sound_is_not_complained_of() -> None:
    for rate in (8_000, 16_000, 44_100):
        ear = Ear(24_000)
        ear.hear(voice(rate, 20), rate=rate)
        ear.hear(np.zeros(8 * rate), rate=rate)
        ear.hear(2 * voice(rate, 5), rate=rate)
        ear.flush()
        assert ear.complaints() == []


def test_clipping_is_said_once_while_it_lasts(tone) -> None:
    loud = np.clip(5 * tone(16_000, 3.0), -1, 1)
    ear = Ear(24_000)
    for _ in range(4):
        ear.hear((loud * 32_767).astype(np.int16), rate=16_000)
    (complaint,) = ear.complaints()
    assert (complaint.kind, complaint.at) == ("clipped", 1.0)
    assert "% of the samples" in complaint.message
    # It was away for long, so it is news again.
    ear.hear(tone(16_000, 11.0), rate=16_000)
    ear.hear(loud, rate=16_000)
    assert kinds(ear) == ["clipped"]


def test_a_telephone_clips_at_its_loudest_code() -> None:
    codes = np.tile(np.array([0x80] * 4 + [0x00] * 4 + [0xFF] * 8, np.uint8), 1_000)
    ear = Ear(24_000)
    ear.hear(codes.tobytes(), encoding="mulaw")
    assert kinds(ear) == ["clipped"]


def test_peaks_and_single_samples_at_full_scale_are_not_clipping(tone) -> None:
    sound = tone(16_000, 2.0) / 0.3 * 0.99
    sound[::100] = 1.0
    ear = Ear(24_000)
    ear.hear(sound, rate=16_000)
    assert ear.complaints() == []


def test_one_clipped_channel_is_enough(tone) -> None:
    left = np.clip(5 * tone(16_000, 1.0), -1, 1)
    stereo = np.stack([left, 0 * left], axis=1)
    for channel, want in ((None, ["clipped"]), (0, ["clipped"]), (1, [])):
        ear = Ear(24_000)
        ear.hear(stereo, rate=16_000, channel=channel)
        assert kinds(ear) == want


def test_silence_is_said_after_ten_seconds_and_once(tone) -> None:
    ear = Ear(24_000)
    ear.hear(np.zeros(9 * 16_000), rate=16_000)
    assert ear.complaints() == []
    ear.hear(1e-4 * noise(60 * 16_000), rate=16_000)
    (complaint,) = ear.complaints()
    assert (complaint.kind, complaint.at) == ("silent", 10.0)
    ear.hear(tone(16_000, 1.0), rate=16_000)
    ear.hear(np.zeros(10 * 16_000), rate=16_000)
    assert kinds(ear) == ["silent"]


def test_declared_silence_is_nobodys_fault() -> None:
    ear = Ear(24_000)
    ear.hear(voice(16_000, 1), rate=16_000)
    ear.silence(30)
    ear.hear(voice(16_000, 1), rate=16_000)
    ear.flush()
    assert ear.complaints() == []


def test_an_offset_is_said_once(tone) -> None:
    ear = Ear(24_000)
    ear.hear(tone(16_000, 20.0) - 0.2, rate=16_000)
    (complaint,) = ear.complaints()
    assert (complaint.kind, complaint.at) == ("offset", 3.0)
    assert "-0.20" in complaint.message
    # A drum at half a beat a second swings to either side.
    ear.hear(np.repeat([0.2, -0.2] * 5, 16_000) + tone(16_000, 10.0), rate=16_000)
    assert ear.complaints() == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_what_is_not_a_number_becomes_silence_and_is_said(bad: float) -> None:
    samples = noise(36_000).astype(np.float64)
    samples[30_000:30_010] = bad
    ear = Ear(24_000)
    got = ear.hear(samples)
    want = noise(36_000)
    want[30_000:30_010] = 0
    assert np.array_equal(got, want)
    assert ear.complaints() == []
    ear.flush()
    (complaint,) = ear.complaints()
    assert (complaint.kind, complaint.at) == ("not_finite", 1.5)
    assert complaint.message.startswith("10 samples")


def test_bytes_that_never_became_a_sample_are_said() -> None:
    ear = Ear(24_000)
    ear.hear(b"\0\0\0", encoding="s16le")
    ear.hear(b"\0\0\0\0", encoding="s32le")
    assert ear.duration == 2 / 24_000
    ear.flush()
    (complaint,) = ear.complaints()
    assert complaint.kind == "damaged"
    assert complaint.message.startswith("1 bytes")


@pytest.mark.parametrize(
    ("rate", "said_rate", "seconds"),
    [(16_000, 48_000, 60), (8_000, 22_050, 60), (24_000, 8_000, 15), (48_000, 16_000, 15)],
)
def test_a_wrong_rate_is_heard_by_the_voice(rate: int, said_rate: int, seconds: int) -> None:
    ear = Ear(24_000)
    ear.hear(voice(rate, seconds), rate=said_rate)
    (complaint,) = ear.complaints()
    assert complaint.kind == "wrong_rate"
    assert f"not at {said_rate}" in complaint.message
    assert complaint.at < 25


@pytest.mark.parametrize("hertz", [50, 60, 440, 1_000])
def test_hums_and_beeps_are_not_voices(hertz: float, tone) -> None:
    ear = Ear(24_000)
    ear.hear(tone(16_000, 30.0, hertz), rate=16_000)
    assert ear.complaints() == []


def test_real_speech_at_its_own_rate_is_not_complained_of_as_a_wrong_one(
    shared_data: Path,
) -> None:
    rows = [json.loads(line) for line in (shared_data / "clips.jsonl").read_text().splitlines()]
    found: dict[str, list[Complaint]] = {}
    seconds = 0.0
    for row in rows[::4]:
        ear = Ear(24_000)
        for chunk in read_chunks(shared_data / row["file"], 24_000):
            ear.hear(chunk)
        ear.flush()
        seconds += ear.duration
        found[row["file"]] = [each for each in ear.complaints() if each.kind == "wrong_rate"]
    assert seconds > 60
    assert not any(found.values())


def test_real_speech_at_three_times_its_rate_is_noticed(shared_data: Path) -> None:
    rows = [json.loads(line) for line in (shared_data / "clips.jsonl").read_text().splitlines()]
    long = [row for row in rows if row["seconds"] > 40][:3]
    noticed = 0
    for row in long:
        ear = Ear(24_000)
        for chunk in read_chunks(shared_data / row["file"], 16_000):
            ear.hear(chunk, rate=48_000)
            if "wrong_rate" in kinds(ear):
                noticed += 1
                break
    assert noticed > len(long) / 2
