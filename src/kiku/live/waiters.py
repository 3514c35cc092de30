"""Tasks of an event loop that wait for other threads: `Waiters`."""

import asyncio
import weakref
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from kiku.scheduler import Scheduler

T = TypeVar("T")


class _Bell:
    """Calls into one event loop from other threads: one call for all who ring until it is answered,
    as each costs a write into a pipe. After a step it is one for a thousand streams.

    It is held by the `Waiters` of its loop and nobody else: what waits in a loop that was closed
    goes with the last who knows of it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._rung: deque[Waiters] = deque()
        self._is_rung = False

    def ring(self, waiters: "Waiters") -> None:
        """Have `waiters` look again; from any thread."""
        self._rung.append(waiters)
        if not self._is_rung:
            self._is_rung = True
            loop = self._loop()
            try:
                if loop is not None:
                    loop.call_soon_threadsafe(self._answer)
            except RuntimeError:  # the event loop has been closed, and nobody waits any more
                self._rung.clear()

    def _answer(self) -> None:
        self._is_rung = False  # who rings from now on makes a call of his own
        for _ in range(len(self._rung)):
            self._rung.popleft().wake_here()


# Weak on both sides: who waits holds the bell, and those who have rung hold the loop.
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
    """Tasks of one event loop that wait for something that another thread brings about."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nobody waits."""
        self._bell = _bell_of(loop)
        self._loop = loop
        self._waiting: set[asyncio.Future[None]] = set()
        self._has_rung = False  # and was not answered

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready()`, which is asked again after every `wake`."""
        while not ready():
            waiter = self._loop.create_future()
            self._waiting.add(waiter)
            try:
                if ready():  # before the other thread could know of the waiter
                    return
                await waiter
            finally:
                self._waiting.discard(waiter)

    def wake(self) -> None:
        """Have all look again; from any thread."""
        if self._waiting and not self._has_rung:  # in a loop that stands still, once
            self._has_rung = True
            self._bell.ring(self)

    @property
    def weak_wake(self) -> Callable[[], None]:
        """`wake` for who must not hold those that wait: they go with their event loop."""
        this = weakref.ref(self)

        def wake() -> None:
            waiters = this()
            if waiters is not None:
                waiters.wake()

        return wake

    def wake_here(self) -> None:
        """As `wake`, in the event loop's thread."""
        self._has_rung = False  # before anybody looks again
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def call(self, scheduler: Scheduler, call: Callable[[], T]) -> T:
        """`call` between two steps, and what it gave."""
        job = scheduler.submit(call, self.wake)
        await self.until(lambda: job.done)
        return job.result()
