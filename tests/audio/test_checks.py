import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.audio import AudioInput, StreamWarning, read_chunks
from kiku.audio.chunk import gap_of
from kiku.options import AudioFormat
from tests.audio.sounds import noise, troubled, voice

TROUBLED = troubled(8_000)
SLOW = AudioFormat(sample_rate=8_000, channels_axis=1)


def kinds(audio: AudioInput) -> list[str]:
    return [warning.kind for warning in audio.warnings()]


def put(audio: AudioInput, samples, rate: int | None = None) -> np.ndarray:
    return audio.feed(audio.check(samples, rate))


def silence(audio: AudioInput, seconds: float) -> np.ndarray:
    return audio.feed(gap_of(seconds))


@given(
    cuts=st.lists(st.integers(0, 25 * 8_000), max_size=12),
    gap=st.tuples(st.integers(0, 25 * 8_000), st.floats(0, 0.5)),
)
@settings(deadline=None, max_examples=15)
def test_any_cut_gives_the_same_warnings(cuts: list[int], gap: tuple[int, float]) -> None:
    where, gap_s = gap
    results: list[tuple[np.ndarray, list[StreamWarning]]] = []
    for places in ([], cuts):
        audio = AudioInput(24_000, SLOW)
        parts: list[np.ndarray] = []
        before, after = TROUBLED[:where], TROUBLED[where:]
        parts += [put(audio, part) for part in np.split(before, sorted(places))]
        parts.append(silence(audio, gap_s))
        late = sorted(max(0, place - where) for place in places)
        parts += [put(audio, part) for part in np.split(after, late)]
        parts.append(audio.end())
        results.append((np.concatenate(parts), audio.warnings()))
    assert np.array_equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert {warning.kind for warning in results[0][1]} == {
        "silent",
        "clipped",
        "not_finite",
        "offset",
    }


def test_warnings_go_on_after_saving() -> None:
    audio, other = AudioInput(24_000, SLOW), AudioInput(24_000, SLOW)
    for first in range(0, len(TROUBLED), 5_000):
        for each in (audio, other):
            put(each, TROUBLED[first : first + 5_000])
        other = AudioInput.restore(other.save())
    assert len(other.warnings()) == 4
    assert AudioInput.restore(audio.save()).warnings() == audio.warnings()


def test_good_sound_has_no_warnings() -> None:
    for rate in (8_000, 16_000, 44_100):
        audio = AudioInput(24_000)
        put(audio, voice(rate, 20), rate=rate)
        put(audio, np.zeros(8 * rate), rate=rate)
        put(audio, 2 * voice(rate, 5), rate=rate)
        audio.end()
        assert audio.warnings() == []


def test_clipping_is_told_once_while_it_lasts(tone) -> None:
    loud = np.clip(5 * tone(16_000, 3.0), -1, 1)
    audio = AudioInput(24_000)
    for _ in range(4):
        put(audio, (loud * 32_767).astype(np.int16), rate=16_000)
    (warning,) = audio.warnings()
    assert (warning.kind, warning.time) == ("clipped", 1.0)
    assert "% of the samples" in warning.message
    # It was away for long, so it is news again.
    put(audio, tone(16_000, 11.0), rate=16_000)
    put(audio, loud, rate=16_000)
    assert kinds(audio) == ["clipped"]


def test_a_telephone_clips_at_its_loudest_code() -> None:
    codes = np.tile(np.array([0x80] * 4 + [0x00] * 4 + [0xFF] * 8, np.uint8), 1_000)
    audio = AudioInput(24_000, AudioFormat(encoding="mulaw"))
    put(audio, codes.tobytes())
    assert kinds(audio) == ["clipped"]


def test_peaks_and_single_samples_at_full_scale_are_not_clipping(tone) -> None:
    sound = tone(16_000, 2.0) / 0.3 * 0.99
    sound[::100] = 1.0
    audio = AudioInput(24_000)
    put(audio, sound, rate=16_000)
    assert audio.warnings() == []


def test_one_clipped_channel_is_enough(tone) -> None:
    left = np.clip(5 * tone(16_000, 1.0), -1, 1)
    stereo = np.stack([left, 0 * left], axis=1)
    for channel, want in (("mix", ["clipped"]), (0, ["clipped"]), (1, [])):
        audio = AudioInput(24_000, channel=channel)
        put(audio, stereo, rate=16_000)
        assert kinds(audio) == want


def test_silence_is_told_after_ten_seconds_and_once(tone) -> None:
    audio = AudioInput(24_000)
    put(audio, np.zeros(9 * 16_000), rate=16_000)
    assert audio.warnings() == []
    put(audio, 1e-4 * noise(60 * 16_000), rate=16_000)
    (warning,) = audio.warnings()
    assert (warning.kind, warning.time) == ("silent", 10.0)
    put(audio, tone(16_000, 1.0), rate=16_000)
    put(audio, np.zeros(10 * 16_000), rate=16_000)
    assert kinds(audio) == ["silent"]


def speech_at(dbfs: float, seconds: int) -> np.ndarray:
    """Of which the loudest second has this level."""
    sound = voice(16_000, seconds)
    level = np.sqrt(np.square(sound.reshape(seconds, -1)).mean(axis=1).max())
    return sound * np.float32(10 ** (dbfs / 20) / level)


@pytest.mark.parametrize(("dbfs", "seconds", "told_s"), [(-52, 30, 13.0), (-66, 4, 4.0)])
def test_what_is_too_quiet_to_be_understood_is_told_once(
    dbfs: float, seconds: int, told_s: float
) -> None:
    audio = AudioInput(24_000)
    put(audio, speech_at(dbfs, seconds), rate=16_000)
    audio.end()
    (warning,) = audio.warnings()
    assert (warning.kind, warning.time) == ("quiet", told_s)
    assert f"{dbfs} dBFS" in warning.message


@pytest.mark.parametrize("seconds", [3, 30])
def test_what_is_a_little_quiet_is_not_told(seconds: int) -> None:
    audio = AudioInput(24_000)
    put(audio, speech_at(-48, seconds), rate=16_000)
    audio.end()
    assert audio.warnings() == []


def test_a_pause_in_the_noise_of_a_room_is_not_quiet_before_a_minute() -> None:
    audio = AudioInput(24_000)
    put(audio, voice(16_000, 4), rate=16_000)
    put(audio, 2e-3 * noise(59 * 16_000), rate=16_000)
    assert audio.warnings() == []
    put(audio, 2e-3 * noise(16_000), rate=16_000)
    assert [(each.kind, each.time) for each in audio.warnings()] == [("quiet", 64.0)]
    put(audio, 2e-3 * noise(120 * 16_000), rate=16_000)
    audio.end()
    assert audio.warnings() == []


def test_a_short_sound_that_is_silent_is_told_at_its_end() -> None:
    audio = AudioInput(24_000)
    put(audio, np.zeros(20_000), rate=8_000)
    put(audio, np.zeros(20_000), rate=16_000)
    assert kinds(audio) == ["rate_changed"]
    audio.end()
    assert kinds(audio) == ["silent"]
    audio = AudioInput(24_000)
    put(audio, np.zeros(2_000), rate=16_000)  # too little to be anything
    audio.end()
    assert audio.warnings() == []


def test_declared_silence_is_nobodys_fault() -> None:
    audio = AudioInput(24_000)
    put(audio, voice(16_000, 1), rate=16_000)
    silence(audio, 30)
    put(audio, voice(16_000, 1), rate=16_000)
    audio.end()
    assert audio.warnings() == []


def test_an_offset_is_told_once(tone) -> None:
    audio = AudioInput(24_000)
    put(audio, tone(16_000, 20.0) - 0.2, rate=16_000)
    (warning,) = audio.warnings()
    assert (warning.kind, warning.time) == ("offset", 3.0)
    assert "-0.20" in warning.message
    # A drum at half a beat a second swings to either side.
    put(audio, np.repeat([0.2, -0.2] * 5, 16_000) + tone(16_000, 10.0), rate=16_000)
    assert audio.warnings() == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_what_is_not_a_number_becomes_silence_and_is_told(bad: float) -> None:
    samples = noise(36_000).astype(np.float64)
    samples[30_000:30_010] = bad
    audio = AudioInput(24_000)
    got = put(audio, samples)
    want = noise(36_000)
    want[30_000:30_010] = 0
    assert np.array_equal(got, want)
    assert audio.warnings() == []
    audio.end()
    (warning,) = audio.warnings()
    assert (warning.kind, warning.time) == ("not_finite", 1.5)
    assert warning.message.startswith("10 samples")


def test_bytes_that_never_became_a_sample_are_told() -> None:
    audio = AudioInput(24_000)
    other = AudioInput(24_000, AudioFormat(encoding="s32le"))
    put(audio, b"\0\0\0")
    audio.feed(other.check(b"\0\0\0\0"))
    assert audio.duration == 2 / 24_000
    audio.end()
    (warning,) = audio.warnings()
    assert warning.kind == "damaged"
    assert warning.message.startswith("1 bytes")


def test_nothing_is_looked_for_where_nobody_wants_it() -> None:
    audio = AudioInput(24_000, SLOW, checks=False)
    put(audio, TROUBLED)
    assert np.isfinite(audio.end()).all()
    assert audio.warnings() == []


@pytest.mark.parametrize(
    ("rate", "told_rate", "seconds"),
    [(16_000, 48_000, 60), (8_000, 22_050, 60), (24_000, 8_000, 15), (48_000, 16_000, 15)],
)
def test_a_wrong_rate_is_told_by_the_voice(rate: int, told_rate: int, seconds: int) -> None:
    audio = AudioInput(24_000, rate_check=True)
    put(audio, voice(rate, seconds), rate=told_rate)
    (warning,) = audio.warnings()
    assert warning.kind == "wrong_rate"
    assert f"probably does not have {told_rate} samples" in warning.message
    assert warning.time < 25


@pytest.mark.parametrize(("rate", "told_rate"), [(24_000, 8_000), (12_000, 48_000)])
def test_a_wrong_rate_of_a_short_sound_is_told_at_its_end(rate: int, told_rate: int) -> None:
    sound = voice(rate, 5 * told_rate / rate)
    audio = AudioInput(24_000, rate_check=True)
    put(audio, sound, rate=told_rate)
    assert audio.warnings() == []
    # From a change of rate on, the next part is judged by itself.
    put(audio, noise(24_000), rate=24_000)
    audio.end()
    wrong = [one for one in audio.warnings() if one.kind == "wrong_rate"]
    assert [one.time for one in wrong] == [5.0]
    assert f"probably does not have {told_rate} samples" in wrong[0].message


@pytest.mark.parametrize("seconds", [3, 5])
def test_a_short_sound_at_its_own_rate_is_not_taken_for_a_wrong_one(seconds: int) -> None:
    audio = AudioInput(24_000, rate_check=True)
    put(audio, voice(16_000, seconds), rate=16_000)
    audio.end()
    assert audio.warnings() == []


def test_after_a_first_decision_the_rest_of_a_sound_changes_nothing() -> None:
    audio = AudioInput(24_000, rate_check=True)
    put(audio, voice(16_000, 10), rate=16_000)  # enough voice to decide: a person
    high = voice(24_000, 24)[: 5 * 72_000]  # would be told, if it were all of the sound
    put(audio, np.interp(np.arange(5 * 16_000) * 4.5, np.arange(high.size), high), rate=16_000)
    audio.end()
    assert audio.warnings() == []


@pytest.mark.parametrize("seconds", [4.0, 30.0])
@pytest.mark.parametrize("hertz", [50, 60, 440, 1_000])
def test_hums_and_beeps_are_not_voices(hertz: float, seconds: float, tone) -> None:
    audio = AudioInput(24_000, rate_check=True)
    put(audio, tone(16_000, seconds, hertz), rate=16_000)
    audio.end()
    assert audio.warnings() == []


def test_real_speech_at_its_own_rate_is_not_taken_for_a_wrong_one(
    shared_data: Path,
) -> None:
    rows = [json.loads(line) for line in (shared_data / "clips.jsonl").read_text().splitlines()]
    found: dict[str, list[StreamWarning]] = {}
    seconds = 0.0
    for row in rows[::4]:
        audio = AudioInput(24_000, rate_check=True)
        for chunk in read_chunks(shared_data / row["file"], 24_000):
            put(audio, chunk)
        audio.end()
        seconds += audio.duration
        found[row["file"]] = [each for each in audio.warnings() if each.kind == "wrong_rate"]
    assert seconds > 60
    assert not any(found.values())


def test_real_speech_at_three_times_its_rate_is_noticed(shared_data: Path) -> None:
    rows = [json.loads(line) for line in (shared_data / "clips.jsonl").read_text().splitlines()]
    long = [row for row in rows if row["seconds"] > 40][:3]
    noticed = 0
    for row in long:
        audio = AudioInput(24_000, rate_check=True)
        for chunk in read_chunks(shared_data / row["file"], 16_000):
            put(audio, chunk, rate=48_000)
            if "wrong_rate" in kinds(audio):
                noticed += 1
                break
    assert noticed > len(long) / 2
