"""A piece of sound as the caller gave it: checked and copied, but not converted yet.

Knows how to cut sound. Does not know what came before it, nor how it is converted (`input`).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from kiku.audio.clock import GAPS_PER_S
from kiku.audio.formats import width_of
from kiku.errors import AudioError
from kiku.serial import plain_number, shown

MAX_GAP_S = 3_600
"""Seconds of one declared gap at most."""


@dataclass(slots=True, eq=False)
class Chunk:
    """A piece of sound, or of declared silence. A chunk and its data are never changed, so that one
    chunk can be fed to several inputs. (It is not a frozen dataclass, which would double the cost
    of making a chunk.)
    """

    data: npt.NDArray[Any] | bytes | None
    """[S] or [S, C], float32, int16, int32 or uint8; or bytes, which may begin and end within a
    sample; None is declared silence."""
    rate: int
    """Samples a second; a declared gap may be counted in far smaller units."""
    num_samples: int
    """Samples of each channel, at `rate`; a sample of which only some bytes are there counts."""
    num_channels: int
    """How many channels there are; 0 for a declared gap, which fits any number."""
    encoding: str | None = None
    """How bytes are written: "s16le", "s32le", "f32le", "mulaw", "alaw" or "opus" (one packet)."""
    peak: float | None = None
    """No sample is further from 0 than this; NaN where some are not numbers, None where it was not
    measured."""

    @property
    def seconds(self) -> float:
        """The length of the chunk."""
        return self.num_samples / self.rate

    def split(self, seconds: float) -> "list[Chunk]":
        """Pieces of at most `seconds` each (and at least a sample) that together are exactly the
        same sound; they share its memory. A packet of Opus stays whole.

        Raises:
            AudioError: `seconds` is not above 0.
        """
        if not seconds > 0:
            raise AudioError(f"pieces of {seconds} seconds are not possible: give a length above 0")
        step = self.num_samples if math.isinf(seconds) else max(1, int(seconds * self.rate))
        if self.num_samples <= step or self.encoding == "opus":
            return [self]
        return [
            self._part(first, min(step, self.num_samples - first))
            for first in range(0, self.num_samples, step)
        ]

    def of_channel(self, channel: int) -> "Chunk":
        """The chunk for an input that takes this channel alone: the chunk itself, or a gap of the
        same length if it has no such channel."""
        if self.data is None or channel < self.num_channels:
            return self
        return Chunk(None, self.rate, self.num_samples, 0)

    def _part(self, first: int, num_samples: int) -> "Chunk":
        data = self.data
        if isinstance(data, bytes):
            width = width_of(self.encoding or "", self.num_channels)
            data = data[first * width : (first + num_samples) * width]
        elif data is not None:
            data = data[first : first + num_samples]
        return Chunk(data, self.rate, num_samples, self.num_channels, self.encoding, self.peak)


def gap_of(seconds: float) -> Chunk:
    """Declared silence: sound that was lost or never sent.

    Gaps add up exactly: a thousand of 20.1 ms are as long as one of 20.1 s.

    Args:
        seconds: length of the gap, 0 to 3,600.

    Raises:
        AudioError: `seconds` is no number, or outside this range.
    """
    number = plain_number(seconds)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise AudioError(
            f"the length of a gap must be a number of seconds, not {shown(seconds)}: write 0.5"
        )
    if not 0 <= number <= MAX_GAP_S:
        raise AudioError(
            f"a gap of {seconds} seconds is not possible: give 0 to {MAX_GAP_S}, and a longer one "
            "in parts"
        )
    # Exact: a power of two only moves the exponent.
    return Chunk(None, GAPS_PER_S, round(float(number) * GAPS_PER_S), 0)
