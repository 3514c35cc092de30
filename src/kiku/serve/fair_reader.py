"""Reads connections in turns, so that none holds up the others: the event loop by itself would give
the megabytes of one connection at once."""

import asyncio
import time
from typing import Any

_TURN_BYTES = 2**14
"""Bytes read from one HTTP connection in a turn: they may be thousands of empty chunks, and all
other connections wait while they are read."""

_LONG_S = 0.002
"""Seconds after which a turn counts as long: what it read cannot be sound."""

_MESSAGE_S = 2e-5
"""Seconds that the application needs for a message, at least."""

_REST_FACTOR = 4.0
"""Factor: after a long turn a connection rests this many times as long, so that others go on."""

_PAUSED_S = 0.25
"""Seconds between checks whether more may be read, if `_wake` is not called before."""


class FairReader:
    """Gives `_take` the data of one connection, a little in each turn. A subclass says what that
    takes, whether it may go on, and how many of its messages wait."""

    loop: asyncio.AbstractEventLoop
    transport: Any
    _turn_bytes = _TURN_BYTES
    _turn_at = 0.0
    _num_taken = 0
    _kept = b""
    _next: asyncio.Handle | None = None
    _rests = False  # after a long turn

    def _take(self, data: bytes) -> bytes:
        """Read data that has come. Returns the part left for the next turn."""
        raise NotImplementedError

    def _may_go_on(self) -> bool:
        """Whether more may be read now."""
        return True

    def _num_messages(self) -> int:
        """Number of messages that wait for the application."""
        return 0

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        now = self.loop.time()
        if now != self._turn_at:
            self._turn_at, self._num_taken = now, 0
        self._num_taken += len(data)
        if self._kept or self._num_taken > self._turn_bytes:
            self._keep(data)
        elif left := self._take(data):
            self._keep(left)

    def _keep(self, data: bytes) -> None:
        """Keep data for the next turn, and receive no more until then."""
        self._kept += data
        self.transport.pause_reading()
        if self._next is None:
            self._next = self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Take the next turn, if there may be one."""
        self._next, self._rests = None, False
        if self.transport.is_closing():
            self._kept = b""
        elif not self._may_go_on():
            self._next = self.loop.call_later(_PAUSED_S, self._go_on)
        elif self._kept:
            self._take_turn()
        else:
            self._resume()

    def _take_turn(self) -> None:
        size = self._turn_bytes
        data, rest = self._kept[:size], self._kept[size:]
        began = time.perf_counter()
        try:
            self._kept = self._take(data) + rest
        except BaseException:
            self.transport.abort()
            raise
        used_s = time.perf_counter() - began + _MESSAGE_S * self._num_messages()
        if used_s > _LONG_S:
            self._rests = True
            self._next = self.loop.call_later(_REST_FACTOR * used_s, self._go_on)
        else:
            self._next = self.loop.call_soon(self._go_on)

    def _resume(self) -> None:
        self.transport.resume_reading()

    def _wake(self) -> None:
        """Go on reading, as the application has taken its messages."""
        if self._rests:
            return
        if self._next is not None:
            self._next.cancel()
            self._next = self.loop.call_soon(self._go_on)
        else:
            self.transport.resume_reading()
