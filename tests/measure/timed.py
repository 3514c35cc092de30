"""An engine whose networks take the time that it says, on a clock that nothing else moves; the
sound itself says which token comes after it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiku.engine import Said, SlotEngine
from kiku.engine.backend import Arrays
from tests.fakes import PAD, EchoBackend

CODEC_S, READ_S, COLUMN_S = 0.002, 0.010, 0.001
"""For a frame; for a pass of the decoder; and for each column in it."""


class TimedBackend(EchoBackend):
    """Says after each frame the token that `spoken` put into it, and takes its time for that."""

    width = 16

    def __init__(self, slots: int, max_block: int) -> None:
        self.max_block = max_block
        self.now = 0.0
        self.heard: dict[int, int] = {}
        self.steps: list[tuple[int, int]] = []
        super().__init__(slots)
        self.now = 0.0

    def forget(self, slot: int) -> None:
        self.heard[slot] = 0

    def encode(self, slots: NDArray[np.int64], frames: NDArray[np.float32]) -> NDArray[np.int64]:
        n, T, _ = frames.shape
        self.now += CODEC_S * n * T
        self.steps.append((n, T))
        for slot in slots.tolist():
            self.heard[slot] += T
        # Noise says anything.
        return np.clip(super().encode(slots, frames), 0, self.lm_config.text_vocab_size - 1)

    def read(
        self,
        slots: NDArray[np.int64],
        columns: NDArray[np.int64],
        counts: NDArray[np.int64],
        *,
        logits: bool,
        draws: NDArray[Any] | None = None,
    ) -> Said:
        self.now += READ_S + float(counts.sum()) * COLUMN_S
        return super().read(slots, columns, counts, logits=logits)

    def mark(self, slot: int) -> int:
        return self.heard[slot]

    def go_back(self, slot: int, mark: Any) -> None:
        self.heard[slot] = mark

    def copy(self, slot: int) -> Callable[[], Arrays]:
        saved = {"heard": np.array(self.heard[slot])}
        return lambda: saved

    def check(self, saved: Arrays) -> Any:
        return int(saved["heard"])

    def put(self, slot: int, checked: Any) -> None:
        self.heard[slot] = checked


class Timed(SlotEngine):
    """See the top of this file."""

    def __init__(self, slots: int = 1, max_block: int = 16) -> None:
        self.timed = TimedBackend(slots, max_block)
        super().__init__(self.timed, pad_id=PAD, word_start_id=0)
        self.widths.clock = self.clock  # a busy machine must not change what passes seem to cost

    def clock(self) -> float:
        return self.timed.now

    @property
    def heard(self) -> dict[int, int]:
        """Frames of each slot."""
        return self.timed.heard

    @property
    def steps(self) -> list[tuple[int, int]]:
        """Slots and frames of each call of the codec."""
        return self.timed.steps
