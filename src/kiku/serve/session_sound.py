"""A talk's sound as its client sent it: how long a piece is, where it can be cut, and where it is
quiet. Knows no stream and no store."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kiku.audio import AudioInput, gap_of
from kiku.audio.formats import ENCODINGS, width_of
from kiku.audio.opus import OPUS_RATE, num_samples_of
from kiku.errors import AudioError
from kiku.options import AudioFormat

Part = tuple[float, bytes]
"""(seconds, b"") is silence; (0, bytes) is sound."""

_FLOAT = np.dtype("<f4")

_PEAKS_PER_S = 50
_QUIET_S = 0.08
_WITHIN_S = 0.6

LEVEL_WINDOW_S = 1.0
"""Seconds of sound before the end of a word whose loudness says what is quiet behind it; few words
last longer."""


@dataclass(frozen=True, slots=True)
class StoredFormat:
    """The format of a talk's sound."""

    format: AudioFormat
    model_rate: int

    @property
    def rate(self) -> int:
        """Samples a second."""
        encoding = self.format.encoding
        own = ENCODINGS[encoding].rate if encoding else None
        return self.format.sample_rate or own or self.model_rate

    @property
    def width(self) -> int:
        """Bytes of a sample of all channels; 0 for Opus, whose bytes do not count samples."""
        encoding = self.format.encoding
        if encoding is None:
            return _FLOAT.itemsize
        return 0 if encoding == "opus" else width_of(encoding, self.format.channels)

    def seconds(self, data: bytes) -> float:
        """Seconds of sound in these bytes; the last sample may be incomplete."""
        width = self.width
        if not width:
            return num_samples_of(data) / OPUS_RATE
        return len(data) / (width * self.rate)

    def cut(self, size: int, seconds: float, num_before: int) -> int:
        """The byte at which a piece of the sound can be cut, at this time or a little later.

        Args:
            size: bytes of the piece.
            seconds: time from the beginning of the piece.
            num_before: bytes of the sound before the piece, of which the last may be half a sample.
        """
        width = self.width
        if not width:
            return 0 if seconds <= 0 else size
        wanted = int(round(max(0.0, seconds) * self.rate * width, 3))
        at = wanted + -(num_before + wanted) % width
        return min(at, size)

    def pushed(self, data: bytes) -> bytes | NDArray[np.float32]:
        """The sound as a stream takes it."""
        return np.frombuffer(data, _FLOAT) if self.format.encoding is None else data

    def kept(self, sound: bytes | NDArray[np.generic]) -> bytes:
        """The bytes of what a client sent."""
        return sound if isinstance(sound, bytes) else sound.astype(_FLOAT, copy=False).tobytes()

    def heard(self, parts: Iterable[Part]) -> NDArray[np.float32]:
        """[S] the parts mixed to one channel, at the model's rate, up to one that is no sound."""
        found = [np.zeros(0, np.float32)]
        audio_input = AudioInput(self.model_rate, self.format, checks=False)
        for gap_s, data in parts:
            try:
                chunk = gap_of(gap_s) if gap_s else audio_input.check(self.pushed(data))
                found.append(audio_input.feed(chunk))
            except AudioError:
                break
        return np.concatenate(found)


def keep_from(from_s: float) -> float:
    """Where the sound begins that must be kept to go on behind `from_s`: it says what is quiet
    there, and where no place is, a stream begins with it."""
    return max(0.0, from_s - LEVEL_WINDOW_S)


def first_quiet_after(
    samples: NDArray[np.float32], rate: int, first_s: float, time: float
) -> float | None:
    """The time of the first quiet place soon after `time`; None if there is none, or if the sound
    ends before one could be seen.

    The end of a word that is reported comes a little before the end of its sound: a stream that
    begins there hears the rest of the word as another one.

    Args:
        samples: [S] of the sound around `time`.
        rate: samples a second.
        first_s: the time of the first sample.
        time: where the last word ends.
    """
    size = rate // _PEAKS_PER_S
    count = len(samples) // size
    peaks = np.abs(samples[: count * size]).reshape(count, size).max(axis=1, initial=0.0)
    at = max(0, round((time - first_s) * _PEAKS_PER_S))
    span, wide = round(_WITHIN_S * _PEAKS_PER_S), round(_QUIET_S * _PEAKS_PER_S)
    around = peaks[max(0, at - round(LEVEL_WINDOW_S * _PEAKS_PER_S)) : at + span]
    limit = max(0.02, float(around.max(initial=0.0)) / 8)
    for i in range(at, min(at + span, count - wide + 1)):
        if float(peaks[i : i + wide].max()) < limit:
            return max(time, first_s + (i + wide / 2) / _PEAKS_PER_S)
    return None
