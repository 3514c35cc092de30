"""An engine without a network: the sound itself says which token comes after it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kiku.engine import Choose, StepOutput
from kiku.errors import NoFreeSlot

SCALE = 256
PAD = 3


def spoken(tokens: Sequence[int], frame_size: int) -> NDArray[np.float32]:
    """Sound that makes `EchoEngine` say `tokens`, one a frame; PAD is silence."""
    values = np.array([0 if t == PAD else t + 1 for t in tokens], np.float32) / SCALE
    return np.repeat(values, frame_size)


class EchoEngine:
    """Says after each frame the token that `spoken` put into it, and counts what it was asked."""

    max_block = 8

    def __init__(self, slots: int = 1) -> None:
        self.num_slots = slots
        self.held: set[int] = set()
        self.steered: dict[int, tuple[Choose | None, int | None]] = {}
        self.steps: list[tuple[int, int]] = []
        self.said: dict[int, list[int]] = {}
        self.refreshes: list[tuple[int, int]] = []
        self.detours = 0

    @property
    def free_slots(self) -> int:
        return self.num_slots - len(self.held)

    def open(
        self, choose: Choose | None = None, *, num_codebooks: int | None = None
    ) -> tuple[int, StepOutput]:
        free = [s for s in range(self.num_slots) if s not in self.held]
        if not free:
            raise NoFreeSlot("all slots are held")
        self.held.add(free[0])
        self.steered[free[0]] = (choose, num_codebooks)
        self.said[free[0]] = []
        return free[0], self._say(np.full((1, 1), PAD))

    def steer(
        self, slot: int, choose: Choose | None = None, *, num_codebooks: int | None = None
    ) -> None:
        assert slot in self.held
        self.steered[slot] = (choose, num_codebooks)

    def close(self, slot: int) -> None:
        self.held.discard(slot)

    def step(self, slots: Sequence[int], frames: NDArray[np.float32]) -> StepOutput:
        assert set(slots) <= self.held
        assert len(set(slots)) == len(slots) == len(frames)
        assert frames.shape[1] <= self.max_block
        self.steps.append(frames.shape[:2])
        values = np.round(frames.mean(-1) * SCALE).astype(np.int64)
        tokens = np.where(values == 0, PAD, values - 1)
        for slot, row in zip(slots, tokens.tolist(), strict=True):
            self.said[slot] += row
        return self._say(tokens)

    def mark(self, slot: int) -> object:
        assert slot in self.held
        self.detours += 1
        return self.detours

    def go_back(self, slot: int, mark: object) -> None:
        assert mark == self.detours

    def refresh(self, slot: int, frames: int, *, most: int | None = None) -> int:
        assert slot in self.held
        self.refreshes.append((slot, frames))
        return 0

    def reread(self, slot: int, frames: int) -> StepOutput:
        assert slot in self.held
        return self._say(np.array([self.said[slot][-frames:]]))

    def _say(self, tokens: NDArray[np.int64]) -> StepOutput:
        return StepOutput(tokens.astype(np.int64), np.full(tokens.shape, -0.1, np.float32), None)

    def save(self, slot: int) -> bytes:
        raise NotImplementedError

    def restore(self, slot: int, saved: bytes) -> None:
        raise NotImplementedError
