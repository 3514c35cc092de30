"""The progress of a batch."""

import time
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress at one time; each report has a new one."""

    files: int
    """Recordings that this run has done."""
    of: int
    """Recordings that this run has to do."""
    seconds: float
    """Seconds of sound that were transcribed."""
    of_seconds: float
    """Estimated seconds of sound of all recordings."""
    wall_s: float
    """Seconds of wall time since the first recording was begun; 0 until one is done."""
    failed: int
    """Recordings that failed, whole or in part."""

    @property
    def speed(self) -> float:
        """Seconds of sound a second."""
        return self.seconds / max(self.wall_s, 1e-3)

    @property
    def left_s(self) -> float | None:
        """Estimated seconds until the end; None until something was transcribed."""
        if self.files == self.of:
            return 0.0
        if not self.seconds:
            return None
        return max(0.0, self.of_seconds - self.seconds) / self.speed


class Counter:
    """Counts finished recordings."""

    def __init__(self, of: int, of_seconds: float, clock: Clock = time.monotonic) -> None:
        """Begin a batch of `of` recordings with about `of_seconds` seconds in total."""
        self.files = self.failed = 0
        self.seconds = 0.0
        self._of, self._of_seconds, self._clock = of, of_seconds, clock
        self._since: float | None = None

    def add(self, stated_s: float, seconds: float, took_s: float, *, failed: bool) -> None:
        """Count one finished recording.

        Args:
            stated_s: its estimated seconds.
            seconds: seconds that were transcribed.
            took_s: seconds since it, or the first of its block, was begun.
            failed: whether it failed, whole or in part.
        """
        if self._since is None:  # before, processes started and loaded their models
            self._since = self._clock() - took_s
        self.files += 1
        self.failed += failed
        self.seconds += seconds
        self._of_seconds += seconds - stated_s

    def now(self) -> Progress:
        """The present progress."""
        wall_s = 0.0 if self._since is None else self._clock() - self._since
        return Progress(self.files, self._of, self.seconds, self._of_seconds, wall_s, self.failed)
