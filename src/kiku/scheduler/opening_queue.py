"""Sessions that wait for slots: who gets one next, who is refused, and who has given up."""

import threading
from collections import deque

from kiku.engine import SlotEngine
from kiku.errors import NoFreeSlot
from kiku.scheduler.binding import Binding, Opening, interrupted, is_ctrl_c
from kiku.scheduler.open_sessions import OpenSessions


class OpeningQueue:
    """Openings in the order in which they came. Any thread adds and withdraws them; the thread that
    makes the round gives them their slots."""

    def __init__(
        self, engine: SlotEngine, sessions: OpenSessions, lock: threading.Condition
    ) -> None:
        """No opening waits.

        Args:
            engine: its slots are given.
            sessions: gives them, one by one.
            lock: the driver's. Under it an opening is settled or cancelled, never both.
        """
        self.waiting: deque[Opening] = deque()
        """Openings that wait, or that were withdrawn since the last round."""
        self._engine, self._sessions, self._lock = engine, sessions, lock

    @property
    def needs_thread(self) -> bool:
        """Whether an opening waits for which a thread of the scheduler's own has to drive."""
        return any(opening.driven for opening in list(self.waiting))

    def cancel(self, opening: Opening) -> bool:
        """Withdraw an opening, unless it has been settled; whether it has been."""
        with self._lock:
            if opening.done:
                return True
            opening.cancelled = True
        return False

    def give_up(self, opening: Opening) -> None:
        """Withdraw an opening, and have the slots freed that it may have got. Takes no lock."""
        opening.cancelled = True  # `_give_slots` looks at this again after it has given them
        for binding in opening.given:
            self._sessions.leave(binding, cut=False)

    def admit(self) -> int:
        """Give slots to the openings that wait, in order, as far as slots are free; how many
        openings do not wait any more."""
        admitted, full = 0, False
        for opening in list(self.waiting):
            if opening.cancelled or opening.done:
                pass
            elif not full and len(opening.members) <= self._engine.free_slots:
                self._give_slots(opening)
            elif opening.at_once or len(opening.members) > self._engine.num_slots:
                opening.settle(error=self.no_free_slot(opening))
            else:
                full = True
                continue
            # Not earlier: as long as it waits here, a thread drives for it.
            self.waiting.remove(opening)
            admitted += 1
        return admitted

    def _give_slots(self, opening: Opening) -> None:
        """Give each member of an opening its slot, or report an error to the opening and free those
        that were given."""
        bindings: list[Binding] = []
        try:
            for member in opening.members:
                bindings.append(self._sessions.bind(member, opening))
        except BaseException as error:  # an opener's own mistake harms no other
            for binding in bindings:
                self._sessions.free(binding)
            opening.settle(error=interrupted() if is_ctrl_c(error) else error)
            if is_ctrl_c(error):
                raise
            return
        with self._lock:
            if not opening.cancelled:
                opening.settle(bindings)
        if opening.cancelled:  # before, or just now by `give_up`, which takes no lock
            for binding in bindings:
                self._sessions.leave(binding, cut=False)

    def is_stuck(self, opening: Opening) -> bool:
        """Whether an opening waits in vain: too many slots are held by sessions that only the very
        thread which asks for the slots could end."""
        # A member may have its slot already, if the opening is just being settled.
        own = [member.session for member in opening.members]
        held_here = sum(
            one.thread == opening.thread
            and not (one.session.is_closing or one.is_leaving or one.session in own)
            for one in list(self._sessions.bindings)
        )
        return self._engine.num_slots - held_here < len(opening.members)

    def no_free_slot(self, opening: Opening) -> NoFreeSlot:
        """The error for an opening that finds no free slot, or too few."""
        wanted, num_slots = len(opening.members), self._engine.num_slots
        seen = f"all {num_slots} slots are held"
        if wanted > 1:
            free = self._sessions.num_free
            seen = f"{wanted} slots are needed at once, but {free} of {num_slots} are free"
        return NoFreeSlot(
            f"{seen}; close a stream, wait with `timeout`, or load the model with more slots"
        )
