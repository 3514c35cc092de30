"""How far a batch is."""

import time
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is; a new one for each time that somebody is told."""

    files: int
    """Recordings that this run has done."""
    of: int
    """Recordings that it has to do."""
    seconds: float
    """Of sound that were heard."""
    of_seconds: float
    """Of sound that there are, about."""
    wall_s: float
    """Since the first recording was begun."""
    failed: int
    """Recordings that could not be heard whole."""

    @property
    def speed(self) -> float:
        """Seconds of sound a second."""
        return self.seconds / max(self.wall_s, 1e-3)

    @property
    def left_s(self) -> float | None:
        """Seconds that it will still take, about; None as long as nothing was heard."""
        if self.files == self.of:
            return 0.0
        if not self.seconds:
            return None
        return max(0.0, self.of_seconds - self.seconds) / self.speed


class Counter:
    """Counts what is done."""

    def __init__(self, of: int, of_seconds: float, clock: Clock = time.monotonic) -> None:
        """Of so many recordings, of so many seconds in all, about."""
        self.files = self.failed = 0
        self.seconds = 0.0
        self._of, self._of_seconds, self._clock = of, of_seconds, clock
        self._since = clock()

    def add(self, stated_s: float, seconds: float, *, failed: bool) -> None:
        """One is done.

        Args:
            stated_s: its seconds, as they were estimated.
            seconds: that were heard.
            failed: it was not heard whole.
        """
        self.files += 1
        self.failed += failed
        self.seconds += seconds
        self._of_seconds += seconds - stated_s

    def now(self) -> Progress:
        """How far it is."""
        wall_s = self._clock() - self._since
        return Progress(self.files, self._of, self.seconds, self._of_seconds, wall_s, self.failed)
