"""What is changed, what is not, and that a seed decides it."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from kiku.audio import encode as encode_room
from kiku.audio import read_chunks
from kiku.audio.encode import Codec, can_encode
from kiku.errors import ConfigError, TrainingError
from kiku.train import augment as augment_room
from kiku.train.augment import (
    Augmentation,
    Augmenter,
    change_speed,
    in_room,
    over_codec,
    over_telephone,
    read_augmentation,
)
from kiku.train.manifest import TimedWord
from kiku.train.sounds import SpokenPiece
from tests.train.recordings import write_wav

RATE = 16_000
_DIGITS = Path(__file__).parents[2] / "examples/digits.wav"
STILL = Augmentation(
    speed=(1, 1), gain_db=(0, 0), noisy=0, in_rooms=0, telephone=0, coded=0, snr_db=(10, 10)
)


def tone(seconds: float = 1.0, frequency: float = 440.0) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    return (0.2 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def piece() -> SpokenPiece:
    return SpokenPiece(tone(), (TimedWord("a", 0.4, 0.6),))


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples**2)))


def changed(how: Augmentation, seed: int = 0) -> SpokenPiece:
    augmenter, rng = Augmenter(how, RATE), np.random.default_rng(seed)
    return augmenter.surrounded(augmenter.joined([augmenter.changed(piece(), rng)], rng), rng)


def loudest_frequency(samples: np.ndarray, rate: int = RATE) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples))


def test_nothing_asked_nothing_done() -> None:
    assert np.array_equal(changed(STILL).samples, piece().samples)
    assert changed(STILL).words == piece().words


def test_speed_moves_words_and_pitch() -> None:
    from dataclasses import replace

    out = changed(replace(STILL, speed=(1.25, 1.25)))
    assert len(out.samples) == pytest.approx(0.8 * RATE, abs=2)
    assert out.words[0].start == pytest.approx(0.32)
    assert loudest_frequency(out.samples) == pytest.approx(550, abs=3)


def test_gain_noise_and_silence() -> None:
    from dataclasses import replace

    assert rms(changed(replace(STILL, gain_db=(-20, -20))).samples) == pytest.approx(
        0.1 * rms(tone()), rel=0.01
    )
    loud = changed(replace(STILL, gain_db=(40, 40))).samples
    assert 0.98 < np.abs(loud).max() <= 1.0
    noisy = changed(replace(STILL, noisy=1.0)).samples
    assert rms(noisy - tone()) == pytest.approx(rms(tone()) / 10**0.5, rel=0.05)
    out = changed(replace(STILL, silence_s=(0.5, 0.5)))
    assert len(out.samples) == 2 * RATE
    assert out.words[0].start == pytest.approx(0.9)


def test_recorded_noise_is_used(tmp_path: Path) -> None:
    from dataclasses import replace

    write_wav(tmp_path / "noise.wav", 0.5 * np.sign(tone(0.3, 3000)), RATE)
    out = changed(replace(STILL, noisy=1.0, noise=str(tmp_path), snr_db=(-20, -20))).samples
    assert loudest_frequency(out) == pytest.approx(3000, abs=20)
    (tmp_path / "README.txt").write_text("Of the wind.")
    again = changed(replace(STILL, noisy=1.0, noise=str(tmp_path), snr_db=(-20, -20))).samples
    assert np.array_equal(again, out)
    (tmp_path / "noise.wav").unlink()
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(TrainingError, match="contains no recordings"):
            Augmenter(replace(STILL, noise=str(folder)), RATE)


def test_the_direct_sound_stays_where_it_is(tmp_path: Path) -> None:
    from dataclasses import replace

    room = np.zeros(800, np.float32)
    room[300], room[700] = 0.9, 0.4  # the direct sound comes late in the recording of the room
    write_wav(tmp_path / "room.wav", room, RATE)
    click = SpokenPiece(np.zeros(RATE, np.float32), ())
    click.samples[5000] = 0.5
    augmenter = Augmenter(replace(STILL, rooms=str(tmp_path), in_rooms=1.0), RATE)
    out = augmenter.surrounded(click, np.random.default_rng(0)).samples
    assert np.abs(out).argmax() == 5000
    assert out[5400] == pytest.approx(out[5000] * 4 / 9, rel=0.01)
    assert rms(in_room(tone(), room[300:])) == pytest.approx(rms(tone()), rel=0.01)


def test_a_telephone_passes_speech_and_no_more() -> None:
    low, high = tone(1.0, 1000), tone(1.0, 6000)
    assert rms(over_telephone(low, RATE) - low) < 0.05 * rms(low)
    assert rms(over_telephone(high, RATE)) < 0.05 * rms(high)
    assert len(over_telephone(low, RATE)) == len(low)


@cache
def spoken(rate: int) -> np.ndarray:
    """A second of a recording of digits."""
    whole = np.concatenate(list(read_chunks(_DIGITS, rate)))
    return whole[rate : 2 * rate]


def late_s(found: np.ndarray, wanted: np.ndarray, rate: int) -> float:
    """By how much `found` is later."""
    size = 2 * len(wanted)
    alike = np.fft.irfft(np.fft.rfft(found, size) * np.fft.rfft(wanted, size).conj())
    lag = int(alike.argmax())
    return (lag if lag < len(wanted) else lag - size) / rate


@pytest.mark.parametrize("codec", ["opus", "mp3", "aac", "amr"])
@pytest.mark.parametrize("rate", [8000, 16_000, 24_000, 44_100])
def test_a_codec_loses_something_but_moves_nothing(codec: Codec, rate: int) -> None:
    sound = spoken(rate)
    found = over_codec(sound, rate, codec, 16.0)
    assert found.shape == sound.shape
    assert found.dtype == np.float32
    assert abs(late_s(found, sound, rate)) < 0.004
    assert 0.001 * rms(sound) < rms(found - sound) < 0.9 * rms(sound)
    assert rms(found) == pytest.approx(rms(sound), rel=0.25)


def test_fewer_bits_are_worse() -> None:
    sound = spoken(RATE)
    for codec in ("opus", "mp3", "aac", "amr"):
        few, many = (rms(over_codec(sound, RATE, codec, kbit) - sound) for kbit in (4.75, 48.0))
        assert many < few, codec


@pytest.mark.parametrize("codec", ["opus", "mp3", "aac", "amr"])
def test_a_codec_takes_sound_of_any_length(codec: Codec) -> None:
    for length in (0, 1, 5, 160, 1601):
        assert len(over_codec(spoken(RATE)[8000 : 8000 + length], RATE, codec, 12.0)) == length
    silent = over_codec(np.zeros(RATE, np.float32), RATE, codec, 12.0)
    assert np.abs(silent).max() < 1e-3


@pytest.mark.parametrize("codec", ["opus", "mp3", "aac", "amr"])
def test_a_codec_takes_the_nearest_bit_rate_that_it_has(codec: Codec) -> None:
    for kbit in (4.0, 8.0, 320.0):  # from the least to the most that kbit_s may be
        found = over_codec(spoken(8000), 8000, codec, kbit)
        assert rms(found) > 0.3 * rms(spoken(8000))


def test_what_is_too_loud_for_a_codec_is_clipped() -> None:
    loud = 20 * spoken(RATE)
    assert np.abs(loud).max() > 1.5
    clipped = over_codec(np.clip(loud, -1, 1), RATE, "mp3", 32.0)
    assert np.array_equal(over_codec(loud, RATE, "mp3", 32.0), clipped)


def test_copies_pass_through_the_codecs_that_are_named() -> None:
    from dataclasses import replace

    heard = [changed(replace(STILL, coded=0.5), seed).samples for seed in range(12)]
    whole = [np.array_equal(one, piece().samples) for one in heard]
    assert 2 <= sum(whole) <= 10
    narrow = changed(replace(STILL, coded=1.0, codecs=("amr",))).samples
    assert late_s(narrow, piece().samples, RATE) < 0.001
    assert not np.array_equal(narrow, piece().samples)


def test_a_codec_that_is_not_built_in_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    monkeypatch.setattr(augment_room, "can_encode", lambda codec: codec != "amr")
    with pytest.raises(TrainingError, match="cannot encode amr: name other codecs"):
        Augmenter(replace(STILL, coded=0.1), RATE)
    Augmenter(replace(STILL, coded=0.1, codecs=("opus",)), RATE)
    Augmenter(STILL, RATE)
    monkeypatch.undo()
    assert can_encode("opus")
    monkeypatch.setitem(encode_room._ENCODERS, "amr", encode_room._Encoder("none", "amr", (8000,)))
    assert not can_encode("amr")


def test_the_seed_decides() -> None:
    how = Augmentation(silence_s=(0, 1))
    assert np.array_equal(changed(how, 3).samples, changed(how, 3).samples)
    assert len(changed(how, 3).samples) != len(changed(how, 4).samples)
    assert len(change_speed(tone(), RATE, 0.5)) == 2 * RATE


def test_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "augment.toml"
    path.write_text('copies = 3\nspeed = [0.8, 1.2]\nnoise = "noises"\n')
    found = read_augmentation(path)
    assert (found.copies, found.speed, found.noise) == (3, (0.8, 1.2), str(tmp_path / "noises"))
    for text, said in (
        ("cpies = 3", "did you mean 'copies'"),
        ("speed = [1.2, 0.8]", "speed must be from"),
        ("noisy = 2.0", "noisy must be from 0 to 1"),
        ("coded = 2.0", "coded must be from 0 to 1"),
        ("kbit_s = [1.0, 8.0]", "kbit_s must be from 4"),
        ("codecs = []", "codecs is empty"),
        ('codecs = ["flac"]', "codecs"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            read_augmentation(path)
    path.write_text("= 3")
    with pytest.raises(TrainingError, match="is not TOML"):
        read_augmentation(path)
