"""A thread for calls that may take long, or never end: they hold up nothing else, not even the end
of the program."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from kiku.serve.session_store import StoreDown

T = TypeVar("T")

_MAX_WAITING = 32

_Call = tuple[Callable[[], Any], "asyncio.Future[Any]", asyncio.AbstractEventLoop]


class StoreThread:
    """Calls a store in one thread, one call after the other."""

    def __init__(self, name: str) -> None:
        """The thread starts with the first call."""
        self._name = name
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._num_waiting = 0
        self._is_closed = False
        self._last: Callable[[], None] | None = None

    async def call(self, function: Callable[[], T], timeout_s: float) -> T:
        """Call `function` in the thread, and return what it returns. Raises what it raises, too.

        Raises:
            StoreDown: it took longer than `timeout_s`, or too many other calls wait.
        """
        if self._is_closed or self._num_waiting >= _MAX_WAITING:
            raise StoreDown("earlier calls have not finished")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._num_waiting += 1
        self._calls.put((function, future, loop))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise StoreDown(f"it does not answer within {timeout_s:g} s") from None

    def close(self, last: Callable[[], None] | None = None) -> None:
        """End after the calls that wait, and then call `last`."""
        self._is_closed = True
        if self._thread is not None:
            self._last = last
            self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            function, future, loop = call
            result, problem = None, None
            try:
                result = function()
            except Exception as error:
                problem = error
            with suppress(RuntimeError):  # the event loop has ended
                loop.call_soon_threadsafe(self._tell, future, result, problem)
        if self._last is not None:
            self._last()

    def _tell(self, future: "asyncio.Future[Any]", result: Any, problem: Exception | None) -> None:
        self._num_waiting -= 1
        if future.done():  # the caller waits no more
            return
        if problem is None:
            future.set_result(result)
        else:
            future.set_exception(problem)
