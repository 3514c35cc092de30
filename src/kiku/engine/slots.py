"""Who holds which slot, for every engine alike."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kiku.engine.contract import Choose
from kiku.errors import ConfigError, FrameError, NoFreeSlot, StreamError

LEFT_OUT = -1
"""The code of a codebook that the decoder is not to read."""


class Slots:
    """The slots of an engine, and how each is steered."""

    def __init__(self, count: int, num_codebooks: int) -> None:
        """All free; `num_codebooks` is what the model's decoder reads."""
        self.count = count
        self.choices: dict[int, Choose | None] = {}
        self._num_codebooks = num_codebooks
        self._limits: dict[int, int] = {}  # of the slots that read fewer codebooks

    @property
    def free(self) -> int:
        """How many nobody holds."""
        return self.count - len(self.choices)

    def take(self, choose: Choose | None, num_codebooks: int | None) -> int:
        """The lowest free slot, now held; low ones are near one another, which batches like.

        Raises:
            NoFreeSlot: all are held.
            ConfigError: see `steer`.
        """
        free = (slot for slot in range(self.count) if slot not in self.choices)
        slot = next(free, None)
        if slot is None:
            raise NoFreeSlot(
                f"all {self.count} slots are held; close a stream or load the model with more"
            )
        self._steer(slot, choose, num_codebooks)
        return slot

    def steer(self, slot: int, choose: Choose | None, num_codebooks: int | None) -> None:
        """See `Engine.steer`.

        Raises:
            StreamError: nobody holds the slot.
            ConfigError: there is no such number of codebooks.
        """
        self.check_held([slot])
        self._steer(slot, choose, num_codebooks)

    def _steer(self, slot: int, choose: Choose | None, num_codebooks: int | None) -> None:
        limit = self._num_codebooks if num_codebooks is None else num_codebooks
        if not 1 <= limit <= self._num_codebooks:
            raise ConfigError(
                f"num_codebooks must be in 1..{self._num_codebooks} for this model, not {limit}"
            )
        self.choices[slot] = choose
        self._limits.pop(slot, None)
        if limit < self._num_codebooks:
            self._limits[slot] = limit

    def as_read(self, slot: int, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Codes [T, K] as the slot's decoder is to read them: -1 where it is to read none."""
        if slot not in self._limits:
            return codes
        read = codes.copy()
        read[:, self._limits[slot] :] = LEFT_OUT
        return read

    def release(self, slot: int) -> None:
        """Free it; a free one stays free."""
        self.choices.pop(slot, None)
        self._limits.pop(slot, None)

    def check_held(self, slots: Sequence[int]) -> None:
        """Refuse slots that nobody holds.

        Raises:
            StreamError: there are such.
        """
        if unheld := [slot for slot in slots if slot not in self.choices]:
            raise StreamError(f"slots {unheld} are not held: open them first")

    def check_step(
        self, slots: Sequence[int], shape: tuple[int, ...], frame_size: int, max_block: int
    ) -> None:
        """Refuse what `Engine.step` cannot take.

        Raises:
            FrameError: frames of another size, none, or more than `max_block`.
            StreamError: a slot that is not held, or one named twice.
        """
        n, T, size = shape
        if size != frame_size or not 1 <= T <= max_block:
            raise FrameError(
                f"a step takes 1 to {max_block} frames of {frame_size} samples, not {T} of {size}"
            )
        self.check_held(slots)
        if len(set(slots)) != n:
            raise StreamError(f"slots {list(slots)} cannot be stepped: each may stand there once")
