"""Frames with timestamps, made by hand: what is given out, and what is told."""

import io
from collections.abc import Iterator, Sequence

import av
import numpy as np
import pytest

from kiku.audio import Chunk, StreamWarning, read_file
from kiku.audio.player import PlayerClock

RATE = 16_000
FRAME = 320  # 20 ms
FRAME_S = FRAME / RATE


def words(seconds: float, *, seed: int = 0) -> np.ndarray:
    """Half a second of noise and a quarter of quiet, in turns."""
    time_s = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, time_s.size)
    return np.where(time_s % 0.75 < 0.5, noise, noise / 1_000).astype(np.float32)


def frames_of(sound: np.ndarray, size: int = FRAME) -> list[Chunk]:
    return [
        Chunk(sound[first : first + size], RATE, len(sound[first : first + size]), 1)
        for first in range(0, len(sound), size)
    ]


class Heard:
    """What a clock gives out for frames, side by side."""

    def __init__(
        self,
        frames: Sequence[Chunk],
        times: Sequence[float | None],
        *,
        may_restart: bool = False,
        filled: bool = False,
    ) -> None:
        self.warnings: list[StreamWarning] = []
        self.clock = PlayerClock(self.warnings.append)
        self.clock.begin(may_restart=may_restart, is_filled=lambda _: filled)
        given = [*self._given(frames, times), *self.clock.rest()]
        self.clock.report()
        self.longest_gap = max((c.num_samples for c in given if c.data is None), default=0)
        parts = [np.zeros(c.num_samples, np.float32) if c.data is None else c.data for c in given]
        self.sound = np.concatenate(parts)
        assert self.clock.given_s == pytest.approx(len(self.sound) / RATE)

    def _given(self, frames: Sequence[Chunk], times: Sequence[float | None]) -> Iterator[Chunk]:
        for frame, time in zip(frames, times, strict=True):
            yield from self.clock.place(frame, time)

    def place_of(self, frame: Chunk) -> float | None:
        """Where a frame stands in what was given out, in seconds; None if not whole."""
        size = frame.num_samples
        for first in np.flatnonzero(self.sound == frame.data[0]):
            if np.array_equal(self.sound[first : first + size], frame.data):
                return first / RATE
        return None


def loud(frames: Sequence[Chunk]) -> list[int]:
    return [i for i, frame in enumerate(frames) if np.abs(frame.data).max() > 0.1]


@pytest.mark.parametrize("late_s", [0.3, 3.0, 90.0, 4_000.0])
def test_sound_that_begins_late_keeps_its_place(late_s: float) -> None:
    frames = frames_of(words(2.0))
    heard = Heard(frames, [late_s + i * FRAME_S for i in range(len(frames))])
    assert heard.place_of(frames[0]) == pytest.approx(late_s)
    assert heard.place_of(frames[-1]) == pytest.approx(late_s + 2.0 - FRAME_S)
    assert heard.longest_gap <= 5 * RATE  # nobody holds an hour of silence
    assert heard.warnings == []
    assert heard.clock.silence_s == 0  # nothing is missing


@pytest.mark.parametrize("hole_s", [0.1, 2.0, 70.0])
def test_holes_become_silence_wherever_they_are(hole_s: float) -> None:
    frames = frames_of(words(4.0))
    # Two of them, the second within the half second that is looked at behind the first.
    times = [i * FRAME_S + hole_s * ((i >= 50) + (i >= 60)) for i in range(len(frames))]
    heard = Heard(frames, times)
    for i in loud(frames):
        assert heard.place_of(frames[i]) == pytest.approx(times[i], abs=1e-3)
    assert heard.clock.silence_s == pytest.approx(2 * hole_s)
    assert heard.warnings == []


def test_without_timestamps_nothing_is_changed() -> None:
    sound = words(3.0)
    frames = frames_of(sound)
    assert np.array_equal(Heard(frames, [None] * len(frames)).sound, sound)
    # Some formats have them only now and then.
    some = [2.0 + i * FRAME_S if i % 7 == 0 else None for i in range(len(frames))]
    heard = Heard(frames, some)
    assert np.array_equal(heard.sound[2 * RATE :], sound)


@pytest.mark.parametrize("pace", [0.9, 0.97, 1.03, 1.1])
@pytest.mark.parametrize("size", [FRAME, 8 * FRAME])
def test_a_clock_of_another_pace_changes_pauses_and_no_words(pace: float, size: int) -> None:
    frames = frames_of(words(30.0), size)
    times = [pace * i * size / RATE for i in range(len(frames))]
    heard = Heard(frames, times)
    off, pieces = 0.0, frames_of(words(30.0))
    for i in loud(pieces):
        place = heard.place_of(pieces[i])
        assert place is not None, "a word was cut"
        number, first = divmod(i * FRAME, size)
        off = max(off, abs(place - times[number] - first / RATE))
    assert off < 0.25
    told = [warning for warning in heard.warnings if warning.kind == "times"]
    assert bool(told) == (off > 0.1)
    if told:
        assert f"differ by up to {off:.2f} s" in told[0].message


def test_timestamps_that_only_tremble_change_nothing() -> None:
    """Recorders that write when a packet came: late by chance, in bursts."""
    sound = words(10.0)
    frames = frames_of(sound)
    times = [i * FRAME_S for i in range(len(frames))]
    for first in range(20, len(frames) - 20, 100):
        for i in range(first, first + 10):
            times[i] = times[first + 10]
    heard = Heard(frames, times)
    assert np.array_equal(heard.sound, sound)


def test_an_overlap_loses_no_word_and_is_made_good_in_pauses() -> None:
    frames = frames_of(words(20.0))
    times = [i * FRAME_S - 0.6 * (i >= 200) for i in range(len(frames))]
    heard = Heard(frames, times)
    places = {i: heard.place_of(frames[i]) for i in loud(frames)}
    assert None not in places.values()
    assert places[loud(frames)[-1]] == pytest.approx(times[loud(frames)[-1]], abs=0.1)
    (warning,) = heard.warnings
    assert warning.kind == "times"
    assert "differ by up to 0.6" in warning.message
    assert warning.time == pytest.approx(4.0, abs=0.1)


def test_a_recording_may_begin_with_a_pause_that_comes_late() -> None:
    """As a WMA does, whose first frame lasts longer than its timestamps say. Nothing was given out
    before it that could say whether it is late by chance."""
    frames = frames_of(np.zeros(RATE, np.float32))
    late = [0.085, *[0.042] * (len(frames) - 1)]
    heard = Heard(frames, [late_s + i * FRAME_S for i, late_s in enumerate(late)])
    assert heard.warnings == []
    assert len(heard.sound) / RATE == pytest.approx(1.0, abs=0.1)


def test_a_clock_that_goes_far_back_begins_anew_and_this_is_told() -> None:
    frames = frames_of(words(4.0))
    times = [i * FRAME_S - 50.0 * (i >= 100) for i in range(len(frames))]
    heard = Heard(frames, times)
    assert np.array_equal(heard.sound, words(4.0))
    (warning,) = heard.warnings
    assert "jump back by 50.00 s" in warning.message
    assert "may differ from a player's by 50.00 s" in warning.message
    assert warning.time == pytest.approx(2.0)


def test_a_clock_that_means_nothing_is_not_followed() -> None:
    sound = words(60.0)
    frames = frames_of(sound)
    heard = Heard(frames, [0.0] * len(frames))
    assert len(heard.sound) > 0.9 * len(sound)
    assert 1 <= len(heard.warnings) <= 4
    assert all(heard.place_of(frames[i]) is not None for i in loud(frames))


@pytest.mark.parametrize("filled", [False, True])
def test_where_clocks_may_begin_anew_a_jump_that_no_picture_fills_is_one(filled: bool) -> None:
    frames = frames_of(words(4.0))
    times = [i * FRAME_S + 50.0 * (i >= 100) for i in range(len(frames))]
    heard = Heard(frames, times, may_restart=True, filled=filled)
    assert heard.place_of(frames[100]) == pytest.approx(52.0 if filled else 2.0)
    assert [warning.kind for warning in heard.warnings] == ([] if filled else ["times"])


def test_nobody_waits_for_days_of_silence() -> None:
    frames = frames_of(words(2.0))
    times = [i * FRAME_S + 1e7 * (i >= 50) for i in range(len(frames))]
    heard = Heard(frames, times)
    assert len(heard.sound) == 2 * RATE
    assert "jump ahead by 10000000.00 s" in heard.warnings[0].message


def film(container: str, codec: str, vcodec: str, jumps: dict[float, float]) -> bytes:
    """A film with 12 s of words; from each of the times in `jumps` on, so much later."""
    out = io.BytesIO()
    sound, rate = np.repeat(words(12.0), 3), 48_000
    fps = 25
    with av.open(out, "w", format=container) as file:
        picture = file.add_stream(vcodec, rate=fps)
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        track = file.add_stream(codec, rate=rate, layout="mono")
        items: list[tuple[float, int, int]] = []
        for first in range(0, sound.size, 1_152):
            time = first / rate
            late = sum(more for since, more in jumps.items() if time >= since)
            items.append((time + late, 1, first))
        items += [(n / fps, 0, n) for n in range(round((items[-1][0] + 1) * fps))]
        for time, is_sound, n in sorted(items):
            if is_sound:
                part = sound[None, n : n + 1_152]
                frame = av.AudioFrame.from_ndarray(part, "flt", "mono")
                frame.sample_rate, frame.pts = rate, round(time * rate)
                file.mux(track.encode(frame))
            else:
                image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))
                image.pts = n
                file.mux(picture.encode(image))
        file.mux(picture.encode(None))
        file.mux(track.encode(None))
    return out.getvalue()


def onsets(data: bytes, warnings: list[StreamWarning]) -> np.ndarray:
    """When the sound becomes loud after a pause, in seconds."""
    parts = []
    for chunk in read_file(io.BytesIO(data), on_warning=warnings.append):
        count = round(chunk.seconds * 1_000)
        if chunk.data is None:
            parts.append(np.zeros(count))
            continue
        values = np.abs(chunk.data.astype(np.float32)) / (
            32_768 if chunk.data.dtype == np.int16 else 1
        )
        edges = np.linspace(0, len(values), count + 1).astype(int)[:-1]
        parts.append(np.maximum.reduceat(values.reshape(len(values), -1)[:, 0], edges))
    is_loud = np.concatenate(parts) > 0.15
    at = np.flatnonzero(is_loud)
    return at[np.concatenate([[True], np.diff(at) > 100])] / 1_000


@pytest.mark.parametrize(
    ("container", "codec", "vcodec"),
    [
        ("matroska", "mp2", "mpeg4"),
        ("mpegts", "mp2", "mpeg2video"),
        ("mpeg", "mp2", "mpeg1video"),
        ("nut", "mp2", "mpeg4"),
        ("mov", "mp2", "mpeg4"),
        ("wtv", "mp2", "mpeg2video"),
    ],
)
def test_films_have_the_times_of_a_player(container: str, codec: str, vcodec: str) -> None:
    jumps = {0.0: 3.0, 4.4: 0.75, 7.4: 66.0}
    warnings: list[StreamWarning] = []
    got = onsets(film(container, codec, vcodec, jumps), warnings)
    words_s = np.arange(16) * 0.75
    want = words_s + 3.0 + 0.75 * (words_s >= 4.5) + 66.0 * (words_s >= 7.5)
    assert got == pytest.approx(want, abs=0.06)
    assert [one.kind for one in warnings if one.kind == "times"] == []


def test_joined_broadcasts_are_heard_one_after_the_other(record, tone) -> None:
    data = record("mpegts", "mp2", tone(48_000, 5.0), 48_000)
    warnings: list[StreamWarning] = []
    chunks = list(read_file(io.BytesIO(data + data), on_warning=warnings.append))
    assert sum(chunk.seconds for chunk in chunks) == pytest.approx(10.0, abs=0.1)
    assert all(chunk.data is not None for chunk in chunks)
    (warning,) = warnings
    assert "jump back by 5.0" in warning.message
    assert warning.time == pytest.approx(5.0, abs=0.1)


def test_a_clock_that_is_far_too_fast_puts_no_silence_into_words() -> None:
    """Every frame comes as late as if sound were missing before it."""
    sound, size = words(12.0), 8 * FRAME
    frames = frames_of(sound, size)
    heard = Heard(frames, [1.5 * i * size / RATE for i in range(len(frames))])
    for start_s in np.arange(0, 12.0, 0.75):
        word = sound[round(start_s * RATE) :][: RATE // 2]
        places = np.flatnonzero(heard.sound == word[0])
        assert any(np.array_equal(heard.sound[at : at + word.size], word) for at in places)
    assert "differ by up to" in heard.warnings[-1].message
