"""Decides who gets a slot: at once, after a while in a bounded queue, or not at all.

Lives in one event loop. Counts slots, and knows nothing of streams.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from kiku.errors import ConfigError, NoFreeSlot

_NUM_SAMPLES = 64
"""Number of last holders from whose times it is estimated how long a slot is held."""

_MAX_RETRY_S = 60
"""Seconds after which a client is asked to try again, at most: vendors' clients obey that."""


class Busy(NoFreeSlot):
    """No slot is free, and none will be soon."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(f"{message}: try again in {retry_after_s} s")
        self.message, self.retry_after_s = message, retry_after_s

    def __reduce__(self) -> tuple[type[Self], tuple[str, int], dict[str, Any]]:
        # Pickle and copy would call the class with `args`, which hold only the whole sentence.
        return type(self), (self.message, self.retry_after_s), self.__dict__


class Permit:
    """The right to hold some slots until it is given back; to release it again does nothing."""

    def __init__(self, admission: "Admission", count: int) -> None:
        """Only `Admission` makes permits."""
        self._admission, self.count = admission, count
        self._since = time.monotonic()

    def release(self) -> None:
        """Give the slots back."""
        count, self.count = self.count, 0
        if count:
            self._admission.give_back(count, time.monotonic() - self._since)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.release()


class HeldSlots:
    """The slots that one talk holds, as its streams come and go."""

    def __init__(self, permit: Callable[[int], Permit]) -> None:
        """Hold none; `permit` takes slots, or raises Busy."""
        self._take = permit
        self._permit: Permit | None = None

    def hold(self, count: int) -> None:
        """Hold this many from now on; others are given back first. Raises Busy."""
        if self._permit is None or self._permit.count != count:
            self.give_back()
            self._permit = self._take(count)

    def give_back(self) -> None:
        """Hold none."""
        if self._permit is not None:
            self._permit.release()
            self._permit = None


class Admission:
    """Counts the slots that are held, and lets other requests wait in the order they came."""

    def __init__(self, num_slots: int, max_queue: int) -> None:
        """Start with all slots free; at most `max_queue` requests may wait."""
        self.num_slots, self._max_queue = num_slots, max_queue
        self.num_taken = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._held_s: deque[float] = deque(maxlen=_NUM_SAMPLES)

    @property
    def num_waiting(self) -> int:
        """Number of requests that wait."""
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether a request for one slot has to wait."""
        return bool(self._waiting) or self.num_taken >= self.num_slots

    @property
    def retry_after_s(self) -> int:
        """Seconds until a slot may be expected to come free, by how long the last were held."""
        mean_s = sum(self._held_s) / len(self._held_s) if self._held_s else 5.0
        expected = mean_s * (1 + len(self._waiting)) / self.num_slots
        return max(1, min(_MAX_RETRY_S, math.ceil(expected)))

    def take(self, count: int = 1) -> Permit:
        """Take slots that are free now.

        Raises:
            Busy: too few are free, or other requests wait for them.
            ConfigError: `count` is more than there are.
        """
        self.check_count(count)
        if self._waiting or self.num_taken + count > self.num_slots:
            raise self.busy()
        self.num_taken += count
        return Permit(self, count)

    async def wait(self, count: int, timeout_s: float) -> Permit:
        """Take slots as soon as they are free.

        Raises:
            Busy: too many requests wait already, or `timeout_s` have passed.
            ConfigError: `count` is more than there are.
        """
        self.check_count(count)
        if not self._waiting and self.num_taken + count <= self.num_slots:
            return self.take(count)
        self.check_queue(count)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, turn))
        return await self._turn((count, turn), timeout_s)

    def check_queue(self, count: int = 1, ahead: int = 0) -> None:
        """Raise Busy if a request for `count` slots could not even wait, after `ahead` others that
        will wait soon."""
        is_full = bool(self._waiting) or self.num_taken + count > self.num_slots
        if is_full and len(self._waiting) + ahead >= self._max_queue:
            raise self.busy()

    async def exchange(self, permit: Permit, count: int, timeout_s: float) -> Permit:
        """Take `count` slots in place of a permit's, as soon as they are free: before all that
        wait, as its turn has come already. It holds none meanwhile, as two that held a part could
        wait for each other.

        Raises:
            Busy: `timeout_s` have passed.
            ConfigError: `count` is more than there are.
        """
        self.check_count(count)
        held, permit.count = permit.count, 0
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.appendleft((count, turn))
        self.give_back(held, None)
        return await self._turn((count, turn), timeout_s)

    async def _turn(self, entry: tuple[int, asyncio.Future[None]], timeout_s: float) -> Permit:
        """Wait until an entry of the queue has its slots. Raises Busy after `timeout_s`."""
        count, turn = entry
        try:
            async with asyncio.timeout(timeout_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.give_back(count, None)  # the slots came just then
            else:
                with suppress(ValueError):  # `_admit` has removed it already
                    self._waiting.remove(entry)
                self._admit()  # the next one may want fewer
            if isinstance(error, TimeoutError):
                raise self.busy() from None
            raise
        return Permit(self, count)

    def give_back(self, count: int, held_s: float | None) -> None:
        """Free slots that were held for `held_s` seconds; None if nobody has used them."""
        self.num_taken -= count
        if held_s is not None:
            self._held_s.append(held_s)
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.num_taken + self._waiting[0][0] <= self.num_slots:
            count, turn = self._waiting.popleft()
            if not turn.done():
                self.num_taken += count
                turn.set_result(None)

    def check_count(self, count: int) -> None:
        """Raise ConfigError if there will never be so many free slots."""
        if count > self.num_slots:
            raise ConfigError(
                f"{count} channels that are transcribed separately need as many slots, and there "
                f"are {self.num_slots}: mix them, or choose one"
            )

    def busy(self) -> Busy:
        """The error of a request that gets no slot."""
        return Busy(f"all {self.num_slots} slots are taken", self.retry_after_s)


def shutting_down() -> Busy:
    """What is told to who comes too late."""
    return Busy("the service is shutting down", 5)
