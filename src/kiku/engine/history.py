"""The last columns that the decoder read of each slot, kept so that it can read them again."""

import numpy as np
from numpy.typing import NDArray

from kiku.config import HISTORY_FRAMES, REWIND_FRAMES

_ROOM = HISTORY_FRAMES + REWIND_FRAMES  # a slot that went back still has all of its history


class ColumnHistory:
    """Columns of B slots in rings of the last frames."""

    def __init__(self, num_slots: int, num_codebooks: int) -> None:
        """All slots are new and empty."""
        self._columns = np.zeros((num_slots, _ROOM, 1 + num_codebooks), np.int32)
        self.counts = np.zeros(num_slots, np.int64)
        """Columns that each slot has read since it was opened, not counting the initial one."""

    def forget(self, slot: int) -> None:
        """Make a slot as new."""
        self.counts[slot] = 0

    def add(self, slot: int, columns: NDArray[np.int64]) -> None:
        """Add columns [T, 1 + K] that a slot read; each has the text token before its frame."""
        columns = columns[-_ROOM:]
        count = int(self.counts[slot])
        self._columns[slot, (count + np.arange(len(columns))) % _ROOM] = columns
        self.counts[slot] = count + len(columns)

    def last(self, slot: int, frames: int) -> NDArray[np.int64]:
        """The last columns [T, 1 + K] of a slot; T is `frames`, or fewer if it has no more."""
        count = int(self.counts[slot])
        first = max(0, count - min(frames, HISTORY_FRAMES))
        return self._columns[slot, np.arange(first, count) % _ROOM].astype(np.int64)

    def add_each(self, slots: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        """Add one column to each of n slots: [n, 1 + K]."""
        counts = self.counts[slots]
        self._columns[slots, counts % _ROOM] = columns
        self.counts[slots] = counts + 1

    def save(self, slot: int) -> NDArray[np.int64]:
        """All columns that `last` can give of a slot."""
        return self.last(slot, HISTORY_FRAMES)

    def restore(self, slot: int, saved: NDArray[np.int64]) -> None:
        """Put what `save` gave into a slot."""
        self.forget(slot)
        self.add(slot, saved)
