"""Sounds made on the spot, good and bad, for the tests of the input."""

import numpy as np


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.9, 0.9, num_samples).astype(np.float32)


def voice(rate: int, seconds: float) -> np.ndarray:
    """Syllables of a buzz around 140 Hz with pauses, [S] float32: what has a pitch."""
    time_s = np.arange(round(rate * seconds)) / rate
    pitch_hz = 140 + 30 * np.sin(2 * np.pi * 0.7 * time_s)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / rate
    sound = np.zeros(time_s.size)
    for number in range(1, 16):
        sound += np.sin(number * phase) / (1 + (number * 140 / 500) ** 2)
    syllables = np.clip(np.sin(2 * np.pi * 2 * time_s) + 0.5, 0, 1) * (time_s % 4 < 3)
    return (0.2 * syllables * sound / np.abs(sound).max()).astype(np.float32)


def troubled(rate: int) -> np.ndarray:
    """25 s that are silent, then clipped, not finite and off zero, [S, 2] float32."""
    sound = np.concatenate(
        [np.zeros(11 * rate, np.float32), 0.5 * noise(3 * rate), 0.3 + 0.1 * noise(11 * rate, 1)]
    )
    sound[12 * rate : 12 * rate + rate // 10] = 1.0
    sound[13 * rate + 100] = np.nan
    return np.stack([sound, sound], axis=1)
