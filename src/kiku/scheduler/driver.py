"""Which thread makes the rounds: exactly one at a time, the leader.

`drive(until)` makes rounds itself if no other thread does, until its condition holds. Other callers
wait on one condition variable. While live streams are open, a thread of the driver's own leads and
callers only wait, so that a Ctrl-C in one of them interrupts no step.

The condition variable is held for moments, never while a session, a callback or the engine runs. So
any thread may ask for it, whatever locks that thread holds. `wake` does not take it at all if a
thread leads and none waits: a thousand pushes during a step only set a flag each.
"""

import atexit
import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable

from kiku.engine.forked import check_process, process
from kiku.errors import StreamError
from kiku.scheduler.rounds import Rounds

_LOG = logging.getLogger(__name__)

_LOOK_S = 0.5
"""Seconds after which a waiting thread looks again without being notified: the garbage collector
may have freed a stream at a moment when it could wake no thread."""

_END_S = 30.0
"""Seconds that the end of the program waits at most for a step that is under way."""


class Driver:
    """Lets one thread at a time make the rounds."""

    def __init__(self, rounds: Rounds, changed: threading.Condition) -> None:
        """No thread leads yet.

        Args:
            rounds: makes the rounds.
            changed: notified after every round, and whenever something may have changed.
        """
        self._changed = changed
        self.round_began: float | None = None
        """When the round that is under way began (`time.perf_counter`); None in between."""
        self._rounds = rounds
        self._news = False  # something may have changed since the last round began
        self._rests = False  # a thread waits and has not been notified
        self._called = False  # all were notified, and no round has begun since
        self._leader: int | None = None
        self._worker: threading.Thread | None = None
        self._ending = False
        self._pid = process()
        _DRIVERS.add(self)

    def check_may_wait(self) -> None:
        """Raise StreamError if this very thread is in a round: a callback would wait for the driver
        that calls it."""
        if self._leader == threading.get_ident():
            raise StreamError(
                "a callback of a stream cannot wait for the driver that calls it: leave this to "
                "another thread"
            )

    def check_process(self) -> None:
        """Raise StreamError in a forked process."""
        check_process(self._pid)

    def wake(self) -> None:
        """Have a round made, as there may be something to do. Any thread may call it."""
        if os.getpid() != self._pid:
            self.check_process()
        self._news = True
        # A thread that is about to wait sets `_rests` first and looks for news afterwards.
        is_cared_for = self._leader is not None or (self._called and self._worker is not None)
        if self._rests or not is_cared_for:
            with self._changed:
                self._care_for_worker()
                self._notify()

    def _notify(self) -> None:
        self._rests, self._called = False, True
        self._changed.notify_all()

    def nudge(self) -> None:
        """As `wake`, but never wait: the garbage collector may call it in a thread that holds any
        lock. If no thread drives, the next one that does will find the news."""
        if self._pid != process():
            return
        self._news = True
        if not self._changed.acquire(blocking=False):
            return  # the thread that holds it will look for news itself
        try:
            self._notify()
        finally:
            self._changed.release()

    def drive(self, until: Callable[[], bool], timeout: float | None = None) -> bool:
        """Make rounds until `until()` holds, or wait while another thread makes them; whether it
        holds.

        Args:
            until: called often, with the condition held: it must be quick and take no lock.
            timeout: seconds at most; None is as long as it takes.

        Raises:
            StreamError: the process was forked, the program ends, or this is called in a round.
        """
        self.wake()  # the caller may have pushed sound
        self.check_may_wait()
        me = threading.get_ident()
        ends = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            with self._changed:
                if until():
                    return True
                self._check_ending()
                if not self._may_lead(me):
                    now = time.monotonic()
                    if now >= ends:
                        return False
                    self._rests = True
                    if not (until() or self._may_lead(me)):
                        self._changed.wait(
                            min(_LOOK_S, ends - now, max(0.0, self._rounds.again_at - now))
                        )
                    continue
                self._leader = me
            # Threads that push from here on see a leader, and need not wake any.
            is_worker = self._worker is not None and self._worker.ident == me
            if is_worker and (gather_s := self._rounds.gather_s) > 0:
                time.sleep(gather_s)
            self._lead()
            if time.monotonic() >= ends:
                with self._changed:
                    return until()

    def step(self) -> int:
        """Make one round; how much it did. For callers that drive by hand; `drive` repeats it.

        Raises:
            StreamError: as `drive`.
        """
        check_process(self._pid)
        self.check_may_wait()
        me = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: self._leader is None and self._is_own(me))
            self._check_ending()
            self._leader = me
        return self._lead()

    def _lead(self) -> int:
        """Make a round, and leave the lead to other threads afterwards."""
        self._news = self._called = False
        self.round_began = time.perf_counter()
        moved = 1
        try:
            moved = self._rounds.make()
            return moved
        finally:
            self._leader = self.round_began = None
            with self._changed:
                if moved:
                    self._news = True
                self._notify()

    def _may_lead(self, me: int) -> bool:
        """Whether this thread is to make the next round."""
        if self._leader is not None or not self._is_own(me):
            return False
        rounds = self._rounds
        return self._news or rounds.sessions.has_more or time.monotonic() >= rounds.again_at

    def _is_own(self, me: int) -> bool:
        worker = self._worker
        return worker is None or worker.ident == me or not worker.is_alive()

    @property
    def _needs_worker(self) -> bool:
        return not self._ending and self._rounds.needs_thread

    def _care_for_worker(self) -> None:
        """Start the driver's own thread if it is needed and not alive."""
        worker = self._worker
        if (worker is None or not worker.is_alive()) and self._needs_worker:
            self._worker = threading.Thread(target=self._work, name="kiku-driver", daemon=True)
            self._worker.start()

    def _work(self) -> None:
        """Drive while there are live streams; the driver's own thread does it."""
        try:
            while not self._is_over():
                try:
                    # A stream that was given up in the round in which it ended is swept as well.
                    self.drive(
                        lambda: not (self._needs_worker or self._rounds.sessions.has_leaving)
                    )
                except BaseException as error:
                    if not self._ending:  # a mistake of kiku's own: those that wait must see it
                        _LOG.exception("the driver failed; all streams end")
                        self._rounds.sessions.fail_all(error)
        finally:
            self._called = False  # otherwise the next `wake` would rely on this thread

    def _is_over(self) -> bool:
        with self._changed:
            if self._needs_worker:
                return False
            self._worker = None
            self._notify()
            return True

    # The end of the program.

    def _check_ending(self) -> None:
        """Raise StreamError if the program is ending, or wait for the end; the condition is held.

        By then only daemon threads are left besides the main one. They will be stopped at the next
        moment, and an error would be the last output of the program: so they wait here.
        """
        while self._ending and threading.current_thread().daemon:
            self._changed.wait()
        if self._ending:
            raise StreamError("the program is shutting down: nothing is transcribed any more")

    def end(self) -> None:
        """End the driver with the program: wait for the step under way, and let no other begin."""
        if self._pid != process():
            return
        with self._changed:
            self._ending = True
            self._notify()
            self._changed.wait_for(lambda: self._leader is None, _END_S)


_DRIVERS: "weakref.WeakSet[Driver]" = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """End all drivers. A step that is under way when the interpreter ends would crash the
    process."""
    for driver in list(_DRIVERS):
        driver.end()
