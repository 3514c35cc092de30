"""The position in a sound, counted exactly in whole numbers.

Knows sample rates and declared gaps. Does not know what the sound is.
"""

from dataclasses import dataclass
from fractions import Fraction

GAPS_PER_S = 2**40
"""Units a second in which declared gaps are counted; a unit is far below a sample, so that gaps add
up exactly."""

TICKS_PER_S = GAPS_PER_S * 3**2 * 5**3 * 7**2
"""Ticks a second. Times are counted in ticks here: gaps and samples of all usual rates (multiples
of 8,000, 11,025 and 12,000 up to 768,000) are whole numbers of ticks. Samples of other rates are
off by less than a tick (1.7e-17 s) at each change of rate."""


def ticks_of(seconds: float) -> int:
    """Seconds in ticks, rounded."""
    return round(Fraction(float(seconds)) * TICKS_PER_S)


@dataclass(slots=True)
class SampleClock:
    """Counts samples at the present rate, and keeps the time before the last change of rate.

    A chunk costs one addition: callers add to `num_samples` directly. Everything else is computed
    when it is asked for.
    """

    rate: int
    """Samples a second at present."""
    num_samples: int = 0
    """Samples since the last change of rate."""
    whole_s: int = 0
    """Whole seconds before the last change of rate, and all declared gaps."""
    ticks: int = 0
    """The fraction of a second of that time, in ticks."""

    def __post_init__(self) -> None:
        """Raise ValueError for impossible values."""
        if self.rate < 1 or min(self.num_samples, self.whole_s) < 0:
            raise ValueError("a clock counts samples and seconds from 0 at a rate above 0")
        if not 0 <= self.ticks < TICKS_PER_S:
            raise ValueError(f"ticks are {self.ticks}: they must lie below one second")

    @property
    def position(self) -> int:
        """Ticks from the beginning of the sound."""
        return self._before + self.num_samples * TICKS_PER_S // self.rate

    def seconds(self, num_more: int = 0) -> float:
        """Seconds from the beginning of the sound to `num_more` samples from here; exact."""
        above = self._before * self.rate + (self.num_samples + num_more) * TICKS_PER_S
        return above / (TICKS_PER_S * self.rate)

    def num_until(self, position: int) -> int:
        """Samples from here to the sample nearest to `position` ticks; negative where that sample
        has passed."""
        above = 2 * (position - self._before) * self.rate + TICKS_PER_S
        return above // (2 * TICKS_PER_S) - self.num_samples

    def num_at(self, rate: int) -> int:
        """The length of the sound so far in samples at `rate`, rounded."""
        return (2 * self.position * rate + TICKS_PER_S) // (2 * TICKS_PER_S)

    def add_gap(self, ticks: int) -> None:
        """Let a gap of `ticks` go by."""
        self._set_before(self._before + ticks)

    def change_rate(self, rate: int) -> None:
        """Count at another rate from here on."""
        self._set_before(self.position)
        self.rate, self.num_samples = rate, 0

    @property
    def _before(self) -> int:
        return self.whole_s * TICKS_PER_S + self.ticks

    def _set_before(self, ticks: int) -> None:
        self.whole_s, self.ticks = divmod(ticks, TICKS_PER_S)
