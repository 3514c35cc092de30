"""Tasks that end together, and whose mistakes somebody is told of."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from kiku.serve.wire import Gone


class Tasks:
    """What goes on at the side of one connection."""

    def __init__(self, failed: Callable[[Exception], Awaitable[None]]) -> None:
        """None yet; `failed` is called with what one of them raises, but for `Gone`."""
        self._failed = failed
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """One more."""
        task = asyncio.create_task(self._guarded(work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _guarded(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except Gone:
            pass
        except Exception as error:
            await self._failed(error)

    def cancel(self) -> None:
        """End all of them."""
        for task in list(self._running):
            task.cancel()
