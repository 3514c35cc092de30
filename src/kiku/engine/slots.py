"""Who holds which slot, for every engine alike."""

from collections.abc import Sequence

from kiku.engine.contract import Choose
from kiku.errors import FrameError, NoFreeSlot, StreamError


class Slots:
    """The slots of an engine, and how each picks its tokens."""

    def __init__(self, count: int) -> None:
        """All free."""
        self.count = count
        self.choices: dict[int, Choose | None] = {}

    @property
    def free(self) -> int:
        """How many nobody holds."""
        return self.count - len(self.choices)

    def take(self, choose: Choose | None) -> int:
        """The lowest free slot, now held; low ones are near one another, which batches like.

        Raises:
            NoFreeSlot: all are held.
        """
        free = (slot for slot in range(self.count) if slot not in self.choices)
        slot = next(free, None)
        if slot is None:
            raise NoFreeSlot(
                f"all {self.count} slots are held; close a stream or load the model with more"
            )
        self.choices[slot] = choose
        return slot

    def release(self, slot: int) -> None:
        """Free it; a free one stays free."""
        self.choices.pop(slot, None)

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
