"""One connection of a talk: the task that reads from it, and how that comes to its end."""

import asyncio
import time
from types import TracebackType
from typing import Self

from kiku.serve.wire import Wire


class TalkConnection:
    """What a talk knows of a connection while it reads the client's messages, and after that. It is
    entered by the task that reads."""

    def __init__(self, wire: Wire) -> None:
        """Read from `wire`."""
        self.wire = wire
        self.reads_since = 0.0
        """Since when no message has come; 0 while none is awaited, or that does not count any
        more."""
        self.quiet_since = time.monotonic()
        """Since when nothing has come that its protocol awaits."""
        self.num_quiet = 0
        """How many lengths of this silence its protocol was told of."""
        self.is_leaving = False
        """Whether no more messages are to be read."""
        self._reader: asyncio.Task[None] | None = None
        self._is_reading = self._is_aborted = False
        self._ended = asyncio.Event()

    @property
    def has_ended(self) -> bool:
        """Whether nothing is read or done for its client any more."""
        return self._ended.is_set()

    async def ended(self, seconds: float | None = None) -> bool:
        """Wait for its end, at most so long. Returns whether it has ended."""
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            pass
        return self.has_ended

    async def receive(self) -> str | bytes:
        """The client's next message. Raises Gone."""
        self._is_reading, self.reads_since = True, time.monotonic()
        try:
            message = await self.wire.receive()
        finally:
            self._is_reading, self.reads_since = False, 0.0
        return message

    def not_quiet(self) -> None:
        """Note that what the protocol awaits has come, and was taken."""
        self.quiet_since, self.num_quiet = time.monotonic(), 0

    def leave(self) -> None:
        """Read no more messages; one that has come is taken whole."""
        self.is_leaving = True
        if self._is_reading:
            self.abort()

    def abort(self) -> None:
        """Drop the connection without a message, also in the middle of one of the client's: nobody
        may come back for what is left of it."""
        if self._reader is not None and not (self.has_ended or self._is_aborted):
            self._is_aborted = True
            self._reader.cancel()

    def __enter__(self) -> Self:
        self._reader = asyncio.current_task()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:  # fmt: skip
        self._ended.set()
        if not isinstance(error, asyncio.CancelledError) or self._reader is None:
            return False
        return self._is_aborted and not self._reader.uncancel()  # else the task itself is to end
