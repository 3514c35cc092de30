"""Changes of sound: speed, rooms, bandwidth, tone, noise, level."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from recipes.demo.corpus import SAMPLE_RATE, decode


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Recorded noises and rooms, float32 at 24 kHz."""

    noises: tuple[np.ndarray, ...]
    rooms: tuple[np.ndarray, ...]

    @classmethod
    def load(cls, folder: Path) -> "Surroundings":
        """Load every wav in `folder/noise` and `folder/RIRs`."""
        noises, rooms = (
            tuple(
                decode(path).astype(np.float32) / 32768.0
                for path in sorted((folder / part).glob("*.wav"))
            )
            for part in ("noise", "RIRs")
        )
        return cls(noises, rooms)


def change_speed(samples: np.ndarray, speed: float) -> np.ndarray:
    """The sound played `speed` times as fast; the pitch rises with it."""
    return np.asarray(
        soxr.resample(samples, SAMPLE_RATE * speed, SAMPLE_RATE, quality="LQ"), np.float32
    )


def faded(samples: np.ndarray, seconds: float = 0.02) -> np.ndarray:
    """The sound, faded in and out."""
    count = min(int(seconds * SAMPLE_RATE), len(samples) // 2)
    ramp = np.linspace(0, 1, count, dtype=np.float32)
    samples = samples.copy()
    samples[:count] *= ramp
    samples[len(samples) - count :] *= ramp[::-1]
    return samples


def _room(rng: np.random.Generator, rooms: tuple[np.ndarray, ...]) -> np.ndarray:
    """An impulse response that begins with the direct sound: a recorded one, or decaying noise."""
    if rooms and rng.random() < 0.4:
        room = rooms[rng.integers(len(rooms))]
        return room[np.abs(room).argmax() :][: SAMPLE_RATE // 2]
    decay_s = rng.uniform(0.1, 0.5)
    time = np.arange(int(decay_s * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / decay_s)
    room = tail * (10 ** rng.uniform(-1.8, -1.0))
    room[: int(0.002 * SAMPLE_RATE)] = 0
    room[0] = 1.0
    return room


def coloured(
    samples: np.ndarray, rng: np.random.Generator, rooms: tuple[np.ndarray, ...]
) -> np.ndarray:
    """The sound in a random room, with a random tone and bandwidth, all by one filter."""
    size = 1 << (len(samples) + SAMPLE_RATE // 2 - 1).bit_length()
    spectrum = np.fft.rfft(samples, size)
    frequency = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    octave = np.log2(np.maximum(frequency, 50) / 1000)
    gain_db = rng.uniform(-4, 4) * octave + 4 * np.sin(
        rng.uniform(0.5, 1.5) * octave + rng.uniform(0, 6.3)
    )
    gain = 10 ** (np.clip(gain_db, -20, 15) / 20)
    if rng.random() < 0.55:
        highest = rng.choice([3400, 3700, 3900, 5500, 7800]) * rng.uniform(0.95, 1.0)
        gain *= 1 / (1 + np.exp(np.clip((frequency - highest) / 100, -30, 30)))
        if highest < 4000 and rng.random() < 0.5:
            gain *= 1 / (1 + np.exp(np.clip((rng.uniform(150, 300) - frequency) / 30, -30, 30)))
    spectrum *= gain
    if rng.random() < 0.4:
        spectrum *= np.fft.rfft(_room(rng, rooms), size)
    return np.fft.irfft(spectrum, size)[: len(samples)].astype(np.float32)


def noise(rng: np.random.Generator, length: int, recorded: tuple[np.ndarray, ...]) -> np.ndarray:
    """[S] of recorded noise, white noise, or noise that falls with frequency; its rms is 1."""
    kind = rng.random()
    if recorded and kind < 0.5:
        source = recorded[rng.integers(len(recorded))]
        at = int(rng.integers(0, len(source)))
        sound = np.resize(np.roll(source, -at) if len(source) < length else source[at:], length)
    else:
        sound = rng.standard_normal(length, dtype=np.float32)
        if kind > 0.7:
            sound = np.fft.irfft(
                np.fft.rfft(sound)
                / np.maximum(1, np.arange(length // 2 + 1) * (SAMPLE_RATE / length) / 100)
                ** rng.uniform(0.3, 1.0),
                length,
            )
    sound = sound.astype(np.float32)
    return sound / (np.sqrt(np.mean(sound**2)) + 1e-6)
