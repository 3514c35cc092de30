"""Several channels -> one: their mean, unless they cancel each other.

Where one channel is the inverse of another (a cable or a plug with swapped wires), the mean of both
is silence, however loud they are. Then the loudest channel is taken by itself, until the channels
no longer cancel. This is decided for pieces of 50 ms, counted from the first sample, so the result
does not depend on how the sound is cut into chunks, except in the piece in which the cancelling is
noticed. All channels are compared at once: what they have in common besides, or a third channel,
hides a pair that cancels (docs/live.md says from where on).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from kiku.audio.formats import Mono, mono_of, scaled
from kiku.audio.power import energy

# Pieces a second.
_PIECES_S = 20
# The power of the sum of all channels, divided by the sum of their powers: 1 where they are
# unrelated, 0 where they cancel. (A channel and its inverse at half the amplitude give 0.2.)
_CANCEL, _NO_CANCEL = 0.1, 0.3
_NEARLY = 0.9
# Mean square from which on a piece is audible, -60 dBFS.
_AUDIBLE = 1e-6
# The cancelling is reported after this many audible pieces with it; the mean is taken again after
# this many audible pieces in a row without it.
_REPORTED_AT, _WELL = 10, 20


@dataclass(slots=True)
class Mix:
    """Mixes the channels of one sound. The fields are its whole state, which `serial` writes."""

    rate: int = 0
    num_channels: int = 0
    channel: int | None = None
    """The channel that is taken by itself; None takes the mean of all."""
    num_samples: int = 0
    """Samples so far of the present piece; the next two fields are about this piece too."""
    powers: list[float] = field(default_factory=list[float])
    """Sum of squares of each channel."""
    power: float = 0.0
    """Sum of squares of the sum of all channels."""
    num_cancelled: int = 0
    """Audible pieces with cancelling channels since the mean was last taken."""
    num_well: int = 0
    """Audible pieces in a row without cancelling, while a channel is taken by itself."""

    def __post_init__(self) -> None:
        """Raise ValueError for impossible values."""
        counts = (self.rate, self.num_channels, self.num_samples, self.num_cancelled, self.num_well)
        if min(counts) < 0 or self.num_samples > max(1, self.rate // _PIECES_S):
            raise ValueError("the counts of a mix do not match each other")
        if len(self.powers) != self.num_channels or not 0 <= (self.channel or 0) < max(
            1, self.num_channels
        ):
            raise ValueError("a mix has no such channel")

    def pieces(
        self,
        planes: npt.NDArray[Any],
        rate: int,
        *,
        peak: float | None,
        full_scale: float | None,
    ) -> Iterator[tuple[Mono, bool]]:
        """Mix the next samples, piece by piece. Each piece comes with a flag: whether to report
        after it that channels cancel each other.

        Args:
            planes: [S, C] simple values, two channels or more.
            rate: samples a second.
            peak: as for `mono_of`.
            full_scale: as for `mono_of`.
        """
        if (rate, planes.shape[1]) != (self.rate, self.num_channels):
            self._begin(rate, planes.shape[1])
        size, first = max(1, rate // _PIECES_S), 0
        # Samples without a known peak may be out of range. The mean of all channels raises that
        # error here, before anything is taken.
        mean = mono_of(planes, None, peak=peak, full_scale=full_scale)
        powers = scaled(planes)
        while first < len(planes):
            last = min(len(planes), first + size - self.num_samples)
            if self.channel is None:
                mono = mean.part(first, last)
            else:
                mono = mono_of(planes[first:last], self.channel, peak=peak, full_scale=full_scale)
            self._add(powers[:, first:last])
            yield mono, self.num_samples == size and self._end_piece()
            first = last

    def _begin(self, rate: int, num_channels: int) -> None:
        self.rate, self.num_channels, self.channel = rate, num_channels, None
        self.num_cancelled = self.num_well = 0
        self._begin_piece()

    def _begin_piece(self) -> None:
        self.num_samples, self.powers, self.power = 0, [0.0] * self.num_channels, 0.0

    def _add(self, channels: npt.NDArray[np.float32]) -> None:
        """Add samples to the sums, in float64, whose rounding is too small to depend on the cut."""
        values = channels.astype(np.float64)
        total = values.sum(axis=0)
        self.num_samples += total.size
        self.power += energy(total)
        self.powers = [
            before + energy(one) for before, one in zip(self.powers, values, strict=True)
        ]

    def _end_piece(self) -> bool:
        """Decide how the next piece is mixed; returns whether to report that channels cancel."""
        all_power, reports = sum(self.powers), False
        if all_power > _AUDIBLE * self.num_samples * self.num_channels:
            share = self.power / all_power
            if share < _CANCEL:
                if self.channel is None:
                    self.channel = _loudest(self.powers)
                self.num_cancelled, self.num_well = self.num_cancelled + 1, 0
                reports = self.num_cancelled == _REPORTED_AT
            elif share > _NO_CANCEL and self.channel is not None:
                self.num_well += 1
                if self.num_well == _WELL:
                    self.channel, self.num_cancelled, self.num_well = None, 0, 0
        self._begin_piece()
        return reports


def mixed(planes: npt.NDArray[Any], rate: int) -> npt.NDArray[np.float32]:
    """One channel from a whole sound [S] or [S, C], mixed piece by piece as `Mix` does."""
    if planes.ndim == 1 or 1 in planes.shape or not planes.size:
        return mono_of(planes, None, full_scale=None).sound
    pieces = Mix().pieces(planes, rate, peak=None, full_scale=None)
    return joined([mono for mono, _ in pieces]).sound


def _loudest(powers: list[float]) -> int:
    """The index of the loudest channel; of the first, where several are nearly as loud."""
    return next(i for i, power in enumerate(powers) if power >= _NEARLY * max(powers))


def joined(parts: list[Mono]) -> Mono:
    """One `Mono` of several pieces, in order."""
    if len(parts) == 1:
        return parts[0]
    return Mono(
        np.concatenate([part.sound for part in parts]),
        _flags(parts, [part.loud for part in parts]),
        _flags(parts, [part.bad for part in parts]),
    )


def _flags(
    parts: list[Mono], flags: list[npt.NDArray[np.bool_] | None]
) -> npt.NDArray[np.bool_] | None:
    if all(one is None for one in flags):
        return None
    return np.concatenate(
        [
            np.zeros(part.sound.size, np.bool_) if one is None else one
            for part, one in zip(parts, flags, strict=True)
        ]
    )
