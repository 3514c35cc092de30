"""Channels that cancel each other, in arrays, bytes and files."""

import io

import numpy as np
import pytest

from kiku.audio import AudioInput, Chunk, as_mono, read_chunks
from kiku.errors import StreamError
from kiku.options import AudioFormat
from tests.audio.sounds import voice

RATE = 24_000


def level(sound: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(sound.astype(np.float64)))))


def fed(audio: AudioInput, planes: np.ndarray, size: int) -> np.ndarray:
    parts = [
        audio.feed(audio.check(planes[first : first + size], RATE))
        for first in range(0, len(planes), size)
    ]
    return np.concatenate([*parts, audio.end()])


@pytest.mark.parametrize("factor", [-1.0, -0.8])
@pytest.mark.parametrize("kind", ["int16", "float32", "uint8", "bytes"])
def test_what_is_inverted_is_heard_all_the_same(factor: float, kind: str) -> None:
    one = voice(RATE, 3.0)
    planes = np.stack([one, factor * one], axis=1)
    if kind in ("int16", "bytes"):
        planes = (planes * 32_767).astype(np.int16)
    if kind == "uint8":
        planes = (planes * 127 + 128).astype(np.uint8)
    audio = AudioInput(RATE, AudioFormat(channels=2))
    data = planes.tobytes() if kind == "bytes" else planes
    sound = np.concatenate([audio.feed(audio.check(data, RATE)), audio.end()])
    assert np.abs(sound[RATE // 10 :] - one[RATE // 10 :]).max() < 0.02
    (warning,) = audio.warnings()
    assert warning.kind == "inverted"
    assert "the loudest one is used" in warning.message


def test_the_cut_into_chunks_changes_nothing() -> None:
    one = voice(RATE, 4.0)
    # It begins well, is inverted, and is well again.
    sign = np.where((np.arange(one.size) > RATE) & (np.arange(one.size) < 2 * RATE), -1, 1)
    planes = np.stack([one, sign * one], axis=1).astype(np.float32)
    whole = AudioInput(RATE)
    want = fed(whole, planes, len(planes))
    warnings = whole.warnings()
    assert [one.kind for one in warnings] == ["inverted"]
    for size in (1_000, 1_920, 7_777):
        audio = AudioInput(RATE)
        assert np.array_equal(fed(audio, planes, size), want)
        found = audio.warnings()
        assert [(w.kind, round(w.time, 6)) for w in found] == [
            (w.kind, round(w.time, 6)) for w in warnings
        ]


def test_channels_that_differ_are_mixed_by_their_mean() -> None:
    rng = np.random.default_rng(0)
    planes = rng.uniform(-0.5, 0.5, (2 * RATE, 2)).astype(np.float32)
    planes[RATE:, 1] = 0
    audio = AudioInput(RATE)
    assert np.allclose(fed(audio, planes, 1_000), planes.mean(axis=1), atol=1e-6)
    assert audio.warnings() == []
    many = np.zeros((RATE, 64), np.float32)
    many[:, 5] = planes[:RATE, 0]
    audio = AudioInput(RATE, AudioFormat(channels_axis=1))
    assert np.allclose(fed(audio, many, 500), many.mean(axis=1), atol=1e-6)


def test_a_channel_that_is_asked_for_is_that_one() -> None:
    one = voice(RATE, 1.0)
    planes = np.stack([one, -one], axis=1)
    audio = AudioInput(RATE, channel=1)
    assert np.array_equal(fed(audio, planes, 1_000), -one)
    assert audio.warnings() == []


def test_whole_arrays_and_files_are_heard_too(record) -> None:
    one = voice(RATE, 3.0)
    planes = np.stack([one, -one])
    assert np.allclose(as_mono(planes)[RATE // 20 :], one[RATE // 20 :])
    planes[1, RATE:] *= -1  # only the first third is inverted
    assert np.allclose(as_mono(planes)[RATE // 20 :], one[RATE // 20 :])
    planes[1, RATE:] *= -1
    assert level(fed(AudioInput(RATE, checks=False), planes, RATE)) > 0.8 * level(one)
    data = record("wav", "pcm_s16le", planes, RATE, layout="stereo")
    assert level(np.concatenate(list(read_chunks(io.BytesIO(data), RATE)))) > 0.8 * level(one)


def test_a_saved_sound_goes_on_with_the_same_channel() -> None:
    one = voice(RATE, 2.0)
    planes = np.stack([one, -one], axis=1)
    audio = AudioInput(RATE)
    chunk = Chunk(planes[:30_100], RATE, 30_100, 2)
    audio.feed(chunk)
    saved = audio.save()
    again = AudioInput.restore(saved)
    rest = Chunk(planes[30_100:], RATE, len(planes) - 30_100, 2)
    assert np.array_equal(again.feed(rest), audio.feed(rest))
    saved["state"]["mix"]["channel"] = 9
    with pytest.raises(StreamError, match="no such channel"):
        AudioInput.restore(saved)
