"""The times of a sound: what was taken, what of it lies between a start and an end, what came out.

Knows times and counts, and no samples. Does not know what the sound is.
"""

from dataclasses import dataclass

from kiku.audio.clock import TICKS_PER_S, SampleClock

# Gaps leave less than a sample of the lowest rate (1,000) for later.
_MAX_OWED = TICKS_PER_S // 500


@dataclass(slots=True)
class Timeline:
    """The times of one sound; its fields are all its state, which `serial` writes and reads."""

    taken: SampleClock
    """All of the sound so far."""
    kept: SampleClock
    """The part of the sound between start and end."""
    owed: int = 0
    """Ticks of silence that are no whole sample yet."""
    num_given: int = 0
    """Samples that came out."""

    def __post_init__(self) -> None:
        """Raise ValueError for impossible values."""
        if abs(self.owed) > _MAX_OWED or self.taken.rate != self.kept.rate or self.num_given < 0:
            raise ValueError("the times of the sound do not fit one another")

    def num_missing(self, sample_rate: int) -> int:
        """Samples that still have to come out, so that the output is as long as what was kept."""
        return max(0, self.kept.num_at(sample_rate) - self.num_given)

    def add_gap(self, ticks: int, start: int, end: int | None) -> int:
        """Let silence go by; returns its samples between start and end, at the present rate.

        A rest of less than a sample is owed: it counts with the next gap.
        """
        rate, begin = self.taken.rate, self.taken.position
        last = begin + ticks if end is None else min(begin + ticks, end)
        kept = max(0, last - max(begin, start))
        self.taken.add_gap(ticks)
        self.kept.add_gap(kept)
        owed = self.owed + kept
        num_samples = max(0, (2 * owed * rate + TICKS_PER_S) // (2 * TICKS_PER_S))
        self.owed = owed - num_samples * TICKS_PER_S // rate
        return num_samples

    def end_rate(self, num_rest: int, sample_rate: int) -> None:
        """Note that all sound has come out, these last samples included; what they lack is owed."""
        self.num_given += num_rest
        self.owed = self.kept.position - self.num_given * TICKS_PER_S // sample_rate

    def change_rate(self, rate: int) -> None:
        """Count at another rate from here on."""
        self.taken.change_rate(rate)
        self.kept.change_rate(rate)
