"""The times of a sound: how much was taken, how much of it is kept, and how much came out.

Knows times and counts; does not know samples.
"""

from dataclasses import dataclass

from kiku.audio.clock import TICKS_PER_S, SampleClock

# Gaps leave less than a sample of the lowest rate (1,000) for later.
_MAX_OWED = TICKS_PER_S // 500


@dataclass(slots=True)
class Timeline:
    """The times of one sound. The fields are its whole state, which `serial` writes and reads."""

    taken: SampleClock
    """All of the sound so far."""
    kept: SampleClock
    """The part of the sound between start and end."""
    owed: int = 0
    """Ticks of silence that do not make a whole sample yet."""
    num_given: int = 0
    """Samples that came out."""

    def __post_init__(self) -> None:
        """Raise ValueError for impossible values."""
        if abs(self.owed) > _MAX_OWED or self.taken.rate != self.kept.rate or self.num_given < 0:
            raise ValueError("the times of the sound do not match each other")

    def num_missing(self, sample_rate: int) -> int:
        """Samples that must still come out, so that the output is as long as the kept sound."""
        return max(0, self.kept.num_at(sample_rate) - self.num_given)

    def add_gap(self, ticks: int, start: int, end: int | None) -> int:
        """Pass over silence; returns how many samples of it are kept, at the present rate.

        A remainder of less than a sample is owed: it is added to the next gap.
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
        """Note that all sound has come out, with these last samples; the difference is owed."""
        self.num_given += num_rest
        self.owed = self.kept.position - self.num_given * TICKS_PER_S // sample_rate

    def change_rate(self, rate: int) -> None:
        """Count at another rate from here on."""
        self.taken.change_rate(rate)
        self.kept.change_rate(rate)
