"""Hours of talk for one stream: words of people joined to strings, pauses, silence and noise, in a
random order; and what was said where.

It is made while it is heard, piece by piece: six hours of it would take 2 GB.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from decoding import WORDS, sound_of
from numpy.typing import NDArray

Sound = NDArray[np.float32]

RATE = 24_000
QUIET_S = 3.0
"""Of silence at the end of a part, so that all its words have come by then."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording, and its words."""

    sound: Sound
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some seconds of a talk."""

    sound: Sound
    words: tuple[str, ...] = ()
    speech: tuple[tuple[float, float], ...] = ()
    """Seconds, from the beginning of the piece, of each recording in it."""


def clips_of(data: Path) -> dict[str, list[Clip]]:
    """Speaker -> recordings of people in which nothing but the model's words is said."""
    found: dict[str, list[Clip]] = {}
    for line in (data / "dev.jsonl").read_text().splitlines():
        row = json.loads(line)
        words = tuple(row["text"].lower().split())
        if row["language"] == "en" and set(words) <= set(WORDS):
            found.setdefault(row["speaker"], []).append(Clip(sound_of(data / row["file"]), words))
    return found


def noises_of(data: Path) -> list[Sound]:
    """Recordings of noise."""
    return [sound_of(path) for path in sorted((data / "noise/noise").glob("*.wav"))]


class Talk:
    """Goes on for as long as it is asked to."""

    def __init__(
        self,
        clips: Mapping[str, Sequence[Clip]],
        noises: Sequence[Sound],
        *,
        rate: int = RATE,
        seed: int = 0,
    ) -> None:
        """Of these recordings, each as often as it comes by chance."""
        self._clips = list(clips.values())
        self._noises, self._rate = noises, rate
        self._random = np.random.default_rng(seed)

    def part(self, seconds: float) -> Iterator[Piece]:
        """Pieces of so many seconds together; the end is silent."""
        left = round((seconds - QUIET_S) * self._rate)
        while True:
            kind = self._random.random()
            if kind < 0.04:
                piece = Piece(self._silence(10, 60))
            elif kind < 0.08:
                piece = Piece(0.5 * self._noise(len(self._silence(10, 60))))
            else:
                piece = self.string()
            if len(piece.sound) > left:
                break
            left -= len(piece.sound)
            yield piece
        yield Piece(np.zeros(left + round(QUIET_S * self._rate), np.float32))

    def string(self) -> Piece:
        """Three to eight recordings of one speaker with gaps, in every second string with a noise
        10 or 20 dB below them; then a pause."""
        clips = self._clips[int(self._random.integers(len(self._clips)))]
        parts = [self._silence(0.5, 1.0)]
        words: list[str] = []
        speech: list[tuple[float, float]] = []
        at = len(parts[0])
        for number in self._random.integers(len(clips), size=self._random.integers(3, 9)).tolist():
            clip = clips[number]
            words += clip.words
            speech.append((at / self._rate, (at + len(clip.sound)) / self._rate))
            parts += [clip.sound, self._silence(0.15, 0.8)]
            at += len(clip.sound) + len(parts[-1])
        parts.append(self._silence(0.5, 3.0))
        sound = np.concatenate(parts)
        if self._random.random() < 0.5:
            sound = self._noisy(sound, float(self._random.choice([10.0, 20.0])))
        return Piece(sound, tuple(words), tuple(speech))

    def _silence(self, least_s: float, most_s: float) -> Sound:
        return np.zeros(round(self._random.uniform(least_s, most_s) * self._rate), np.float32)

    def _noise(self, count: int) -> Sound:
        noise = self._noises[int(self._random.integers(len(self._noises)))]
        return np.roll(np.resize(noise, count), int(self._random.integers(count)))

    def _noisy(self, sound: Sound, below_db: float) -> Sound:
        noise = self._noise(len(sound))
        loud = sound[np.abs(sound) > 0.01]  # speech, not gaps
        power = float(np.mean(loud**2)) if len(loud) else 1e-4
        scale = np.sqrt(power / max(float(np.mean(noise**2)), 1e-12) / 10 ** (below_db / 10))
        return np.clip(sound + scale * noise, -1, 1).astype(np.float32)
