"""The scheduler: what clients ask for sessions, slots and calls between two steps.

    clients, in any thread  | the thread that drives
    ------------------------+--------------------------------------------------
    push, requests, close   | `Driver`   one thread at a time makes the rounds
      -> inbox of a session | `Rounds`   what a round does, in order
    open, save, ...         | `OpeningQueue`  who gets a slot next
      -> jobs, openings     | `Steps`    frames through the engine, and its output back
    stop, forgotten         | `Pacing`   how many frames of each session a step takes
      -> leaving            | `OpenSessions`  who holds a slot, until it is free again

Each of these knows only those below it, so that all are gone at once when the scheduler is dropped.

Order of locks: the driver's condition is the last. It is never held while the engine, a session or
a callback of a client runs; these run in rounds alone.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from kiku.engine import SlotEngine
from kiku.errors import StreamError
from kiku.scheduler.binding import Binding, Job, Member, Opening
from kiku.scheduler.driver import Driver
from kiku.scheduler.open_sessions import OpenSessions
from kiku.scheduler.opening_queue import OpeningQueue
from kiku.scheduler.rounds import Rounds
from kiku.scheduler.steps import Steps

T = TypeVar("T")


class Scheduler:
    """Steps all sessions of an engine. Clients of any thread open, wake and release them here."""

    def __init__(self, engine: SlotEngine, max_block: int | None = None) -> None:
        """No session yet; a step takes at most `max_block` frames of each."""
        self.engine = engine
        self._sessions = OpenSessions(engine)
        changed = threading.Condition()  # the one lock of all parts
        self._openings = OpeningQueue(engine, self._sessions, changed)
        self.steps = Steps(engine, self._sessions, max_block)
        """The steps that are made: who listens to them, how many failed."""
        self._rounds = Rounds(self._sessions, self._openings, self.steps)
        self._driver = Driver(self._rounds, changed)

    # Who drives. These are methods, as a bound method of the driver that is kept elsewhere would
    # keep the engine.

    def wake(self) -> None:
        """See `Driver.wake`."""
        self._driver.wake()

    def drive(self, until: Callable[[], bool], timeout: float | None = None) -> bool:
        """See `Driver.drive`."""
        return self._driver.drive(until, timeout)

    def step(self) -> int:
        """See `Driver.step`."""
        return self._driver.step()

    def check_may_wait(self) -> None:
        """See `Driver.check_may_wait`."""
        self._driver.check_may_wait()

    def check_process(self) -> None:
        """See `Driver.check_process`."""
        self._driver.check_process()

    @property
    def round_began(self) -> float | None:
        """When the round that is under way began (`time.perf_counter`); None in between."""
        return self._driver.round_began

    # Slots.

    @property
    def max_block(self) -> int:
        """Frames of one session that a step takes at most."""
        return self.steps.pacing.max_block

    @property
    def free_slots(self) -> int:
        """Slots that no session holds, or that the next round frees before it gives any."""
        return self._sessions.num_free

    def open(self, opening: Opening) -> list[Binding]:
        """Give sessions their slots, and wait for them as long as `opening.timeout` says. None
        waits as long as others hold them, but not for sessions that this very thread would have to
        end.

        Raises:
            NoFreeSlot: they stayed held.
            StreamError: see `SlotEngine.restore`; or the process was forked.
        """
        self.request(opening)
        try:
            self.drive(
                lambda: opening.done or (opening.timeout is None and self.is_stuck(opening)),
                opening.wait_s,
            )
            return self.take_slots(opening)
        except BaseException:
            self.give_up(opening)
            raise

    def request(self, opening: Opening) -> None:
        """Ask for slots; the thread that drives gives them as soon as they are free."""
        self._driver.check_process()
        self._openings.waiting.append(opening)
        self.wake()

    def take_slots(self, opening: Opening) -> list[Binding]:
        """The slots that a request got. If it was not answered yet, it is withdrawn.

        Raises:
            NoFreeSlot: it got none by now.
            Exception: what it was refused with.
        """
        if not self._openings.cancel(opening):
            self.wake()  # it may have held up others
            raise self._openings.no_free_slot(opening)
        return opening.result()

    def give_up(self, opening: Opening) -> None:
        """Withdraw a request for slots, and give back those that it got. As `release`, it never
        waits: the garbage collector may call it, for a task whose event loop is gone."""
        self._openings.give_up(opening)
        self._driver.nudge()

    def is_stuck(self, opening: Opening) -> bool:
        """See `OpeningQueue.is_stuck`."""
        return self._openings.is_stuck(opening)

    def release(self, binding: Binding, *, cut: bool = False) -> None:
        """Give up a session before its end. Its slot is freed at the beginning of the next round.
        Where no thread drives, that is when somebody needs one. A second call does no harm. It
        never waits and calls nobody: the garbage collector may call it at any moment.

        Args:
            binding: of the session.
            cut: let the session give out its last word and its end.
        """
        self._sessions.leave(binding, cut=cut)
        self._driver.nudge()

    def run(self, members: Sequence[Member]) -> None:
        """Bring sessions to their end, as many at a time as there are free slots.

        Raises:
            NoFreeSlot: all slots are held by sessions of this thread.
            Exception: the failure of the first session that failed.
        """
        waiting = deque(members)
        running: list[Binding] = []
        opening: Opening | None = None
        try:
            while waiting or running or opening is not None:
                if opening is None and waiting:
                    count = max(1, min(len(waiting), self.free_slots))
                    opening = Opening([waiting.popleft() for _ in range(count)], timeout=None)
                    self.request(opening)
                self._wait_for(opening, running)
                if opening is not None and (opening.done or self.is_stuck(opening)):
                    running += self.take_slots(opening)
                    opening = None
                running = [one for one in running if not _has_ended(one)]
        finally:
            if opening is not None:
                self.give_up(opening)
            for one in running:
                self.release(one)

    def _wait_for(self, opening: Opening | None, running: Sequence[Binding]) -> None:
        """Drive until the opening is settled, or never will be, or a session has ended."""

        def has_changed() -> bool:
            if opening is not None and (opening.done or self.is_stuck(opening)):
                return True
            return any(one.session.done for one in running)

        self.drive(has_changed)

    # Calls between two steps.

    def submit(self, call: Callable[[], T], on_done: Callable[[], None] | None = None) -> Job[T]:
        """Have the thread that drives make a call between two steps; `on_done` is called after
        it."""
        self._driver.check_process()
        job = Job(call, on_done)
        self._rounds.jobs.append(job)
        self.wake()
        return job

    def call(self, call: Callable[[], T]) -> T:
        """Have a call made between two steps, wait for it, and return its result.

        Raises:
            StreamError: this is called in a round, as callbacks are. Some of the streams of the
                step have got their output by then, and others have not.
        """
        self.check_may_wait()
        job = self.submit(call)
        self.drive(lambda: job.done)
        return job.result()

    def check(self, binding: Binding) -> None:
        """Raise StreamError unless the session still holds its slot. For jobs."""
        if not self._sessions.holds(binding):
            raise StreamError(
                "the stream has ended, and its slot is free for others: open another stream"
            )

    def settle(self, binding: Binding) -> None:
        """Do all the work that comes before the session's next frame. For jobs."""
        self.check(binding)
        while (work := binding.session.work) is not None:
            self._sessions.run_work(binding, work, None)
            self.check(binding)


def _has_ended(binding: Binding) -> bool:
    """Whether a session is done; raises its failure."""
    if binding.session.failure is not None:
        raise binding.session.failure
    return binding.session.done
