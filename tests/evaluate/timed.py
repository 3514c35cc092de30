"""An engine whose steps take the time that it says, on a clock that nothing else moves."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kiku.engine import Choose, StepOutput
from tests.fakes import PAD, EchoEngine

CODEC_S, READ_S, COLUMN_S = 0.002, 0.010, 0.001
"""For a frame; for a pass of the decoder; and for each column in it."""


class Timed(EchoEngine):
    """Runs its parts apart; a pass reads a whole block if everything in it is silence."""

    max_block = 16

    def __init__(self, slots: int = 1) -> None:
        super().__init__(slots)
        self.now = 0.0
        self.num_passes = 0
        self.heard: dict[int, int] = {}
        self._silent: set[int] = set()

    def clock(self) -> float:
        return self.now

    def open(
        self, choose: Choose | None = None, *, num_codebooks: int | None = None
    ) -> tuple[int, StepOutput]:
        slot, first = super().open(choose, num_codebooks=num_codebooks)
        self.heard[slot] = 0
        self._silent.discard(slot)
        if choose is not None and choose(np.zeros(8, np.float32)) == PAD:
            self._silent.add(slot)
        return slot, first

    def step(self, slots: Sequence[int], frames: NDArray[np.float32]) -> StepOutput:
        self.decode(slots, self.encode(slots, frames))
        return super().step(slots, frames)

    def encode(self, slots: Sequence[int], frames: NDArray[np.float32]) -> NDArray[np.int64]:
        self.now += CODEC_S * frames.shape[0] * frames.shape[1]
        return np.zeros((*frames.shape[:2], 1), np.int64)

    def decode(self, slots: Sequence[int], codes: NDArray[np.int64]) -> StepOutput:
        T = codes.shape[1]
        passes = 1 if set(slots) <= self._silent else T
        self.num_passes += passes
        self.now += passes * READ_S + len(slots) * T * COLUMN_S
        for slot in slots:
            self.heard[slot] += T
        return self._say(np.full(codes.shape[:2], PAD))

    def save(self, slot: int) -> bytes:
        return str(self.heard[slot]).encode()

    def restore(self, slot: int, saved: bytes) -> None:
        self.heard[slot] = int(saved)
