"""Tasks of an event loop that wait for other threads: `Waiters`."""

import asyncio
import weakref
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from kiku.scheduler import Scheduler

T = TypeVar("T")


class _Bell:
    """Calls into one event loop from other threads.

    Each such call costs a write into a pipe. So all `Waiters` that ring before a call is answered
    share it: after a step, one call for a thousand streams.

    Only the `Waiters` of the loop hold the bell. What still waits in a loop that was closed is
    freed with the last of them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._rung: deque[Waiters] = deque()
        self._is_rung = False

    def ring(self, waiters: "Waiters") -> None:
        """Have the tasks of `waiters` check again; may be called from any thread."""
        self._rung.append(waiters)
        if not self._is_rung:
            self._is_rung = True
            loop = self._loop()
            try:
                if loop is not None:
                    loop.call_soon_threadsafe(self._answer)
            except RuntimeError:  # the event loop was closed, so no task waits any more
                self._rung.clear()

    def _answer(self) -> None:
        self._is_rung = False  # the next ring makes a new call
        for _ in range(len(self._rung)):
            self._rung.popleft().wake_here()


# Weak on both sides: waiters hold the bell, and those that have rung hold the loop.
_BELLS: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[_Bell]]" = (
    weakref.WeakKeyDictionary()
)


def _bell_of(loop: asyncio.AbstractEventLoop) -> _Bell:
    known = _BELLS.get(loop)
    bell = None if known is None else known()
    if bell is None:
        bell = _Bell(loop)
        _BELLS[loop] = weakref.ref(bell)
    return bell


class Waiters:
    """Tasks of one event loop that wait for something that another thread does."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing waits yet."""
        self._bell = _bell_of(loop)
        self._loop = loop
        self._waiting: set[asyncio.Future[None]] = set()
        self._has_rung = False  # and was not answered yet

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready()` is true; it is called again after every `wake`."""
        while not ready():
            waiter = self._loop.create_future()
            self._waiting.add(waiter)
            try:
                if ready():  # became true before the other thread could see the waiter
                    return
                await waiter
            finally:
                self._waiting.discard(waiter)

    def wake(self) -> None:
        """Have all tasks check again; may be called from any thread."""
        if self._waiting and not self._has_rung:  # once, while the loop does not run
            self._has_rung = True
            self._bell.ring(self)

    @property
    def weak_wake(self) -> Callable[[], None]:
        """`wake` as a function that does not keep these waiters alive."""
        this = weakref.ref(self)

        def wake() -> None:
            waiters = this()
            if waiters is not None:
                waiters.wake()

        return wake

    def wake_here(self) -> None:
        """As `wake`, but called in the event loop's thread."""
        self._has_rung = False  # before any task checks again
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def call(self, scheduler: Scheduler, call: Callable[[], T]) -> T:
        """Run `call` between two steps of the scheduler, and return its result."""
        job = scheduler.submit(call, self.wake)
        await self.until(lambda: job.done)
        return job.result()
