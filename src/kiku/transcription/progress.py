"""How far the recordings of one call are, reported to its progress callback."""

import math
import time
from collections.abc import Callable, Sequence

from kiku.transcription.recording import RecordingTask

OnProgress = Callable[[float, float | None], object]
"""Is told seconds heard, and of how many; None where a recording does not say how long it is."""

PROGRESS_EVERY_S = 0.2
"""So often somebody is told at most."""


class BatchProgress:
    """How far the recordings of one call are, all together, told now and then."""

    def __init__(self, tell: OnProgress, recordings: Sequence[RecordingTask]) -> None:
        self._tell, self._recordings = tell, list(recordings)
        self._stated: list[float | None] | None = None
        self._next_s = -math.inf

    def look(self) -> None:
        """Before the first is opened: how long they say they are."""
        if self._stated is None:
            self._stated = [one.sound.stated_s() for one in self._recordings]

    def tell(self, pending: Sequence[RecordingTask]) -> None:
        """Tell it, unless that was a moment ago; at the end in any case.

        Args:
            pending: those that are not at their end.
        """
        now = time.monotonic()
        if pending and now < self._next_s:
            return
        self._next_s = now + PROGRESS_EVERY_S
        heard_s = sum(one.so_far.duration for one in self._recordings)
        if pending or heard_s:
            self._tell(heard_s, self._total_s(pending))

    def _total_s(self, pending: Sequence[RecordingTask]) -> float | None:
        total_s = 0.0
        for one, stated_s in zip(self._recordings, self._stated or (), strict=True):
            if not any(one is other for other in pending):
                stated_s = one.so_far.duration  # of which nothing more will come, whatever it said
            if stated_s is None:
                return None
            total_s += max(one.so_far.duration, stated_s)
        return total_s
