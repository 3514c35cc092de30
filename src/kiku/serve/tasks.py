"""Tasks that end together, and whose errors are reported."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from kiku.serve.wire import Gone


class Tasks:
    """The tasks that run for one connection, besides its own."""

    def __init__(self, failed: Callable[[Exception], Awaitable[None]]) -> None:
        """Start with none; `failed` is called with what a task raises, except `Gone`."""
        self._failed = failed
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Start a task."""
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
        """Cancel all tasks."""
        for task in list(self._running):
            task.cancel()
