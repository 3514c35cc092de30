"""`BatchProgress`: reports to a callback how far the recordings of one call are."""

import math
import time
from collections.abc import Callable, Sequence

from kiku.transcription.recording import RecordingTask

OnProgress = Callable[[float, float | None], object]
"""A callback that takes the seconds heard so far and the seconds in all; the latter is None if a
recording does not say how long it is."""

PROGRESS_EVERY_S = 0.2
"""Least number of seconds between two calls of the callback."""


class BatchProgress:
    """Reports now and then how far the recordings of one call are, all together."""

    def __init__(self, callback: OnProgress, recordings: Sequence[RecordingTask]) -> None:
        self._callback, self._recordings = callback, list(recordings)
        self._stated: list[float | None] | None = None
        self._next_s = -math.inf

    def look_up_lengths(self) -> None:
        """Look up how long the recordings say they are; to be called before the first is opened."""
        if self._stated is None:
            self._stated = [one.sound.stated_s() for one in self._recordings]

    def report(self, pending: Sequence[RecordingTask]) -> None:
        """Call the callback, unless the last call was a moment ago; at the end in any case.

        Args:
            pending: the recordings that have not ended.
        """
        now = time.monotonic()
        if pending and now < self._next_s:
            return
        self._next_s = now + PROGRESS_EVERY_S
        heard_s = sum(one.so_far.duration for one in self._recordings)
        if pending or heard_s:
            self._callback(heard_s, self._total_s(pending))

    def _total_s(self, pending: Sequence[RecordingTask]) -> float | None:
        total_s, going_on = 0.0, set(map(id, pending))
        for one, stated_s in zip(self._recordings, self._stated or (), strict=True):
            if id(one) not in going_on:
                stated_s = one.so_far.duration  # it has ended, whatever length it stated
            if stated_s is None:
                return None
            total_s += max(one.so_far.duration, stated_s)
        return total_s
