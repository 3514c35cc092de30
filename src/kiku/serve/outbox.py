"""The messages of one talk on their way to its client.

They are sent in order, one at a time, over the connection that the talk has at the moment. The
messages of a session are kept, for a client that comes back. Knows no stream and no protocol.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from kiku.serve.message_history import MessageHistory
from kiku.serve.protocols.interface import Hangup, Send
from kiku.serve.talk_counters import TalkCounters
from kiku.serve.wire import Gone, Wire

MAX_WAITING = 256
"""Messages that may wait to be sent; while more wait, none of the client's are read."""


class Outbox:
    """What is sent to one client."""

    def __init__(
        self, counters: TalkCounters, hung_up: Callable[[Wire, Hangup], None], *, keeps: bool
    ) -> None:
        """Start without a connection.

        Args:
            counters: count what is sent.
            hung_up: is called with a connection and its `Hangup` before the connection is closed.
            keeps: whether to keep counted messages, as a client of a session may come back.
        """
        self._counters, self._hung_up, self._keeps = counters, hung_up, keeps
        self._wire: Wire | None = None
        self.waiting: deque[Send | Hangup] = deque()
        """What is to be sent; other classes read this, and do not change it."""
        self._sender: asyncio.Task[Any] | None = None  # the one that sends at the moment
        self._gives_up = False  # and is cancelled by `give_up`
        self._sends_since = 0.0  # 0 while nothing is being sent
        self._drained = asyncio.Event()
        self._drained.set()  # nothing is being sent
        self._num_known = 0  # messages that the client has had from another process
        self.history = MessageHistory()
        """The counted messages."""
        self.reason = ""
        """Why the connection is closed, if the `Hangup` does not say."""
        self.is_broken = asyncio.Event()
        """Set as soon as a connection has ended, or could not be sent to."""

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection to send over."""
        return self._wire is not None

    def stuck_s(self, now: float) -> float:
        """For how many seconds the client has not taken the message that is being sent."""
        return now - self._sends_since if self._sends_since else 0.0

    def held_up(self, now: float, seconds: float) -> None:
        """Note that nothing could be sent for `seconds`, which is not the client's fault."""
        if self._sends_since:
            self._sends_since = min(now, self._sends_since + seconds)

    def connect(self, wire: Wire, first: Iterable[Send | Hangup] = ()) -> None:
        """Send over this connection from now on, these messages first. They are not counted again.
        Messages that waited are dropped: the history has them."""
        self._wire = wire
        self.waiting.clear()
        self.waiting.extend(first)

    def disconnect(self, wire: Wire) -> None:
        """Send no more over this connection, if it is still the present one."""
        if self._wire is wire:
            self._wire = None

    def take_wire(self) -> Wire | None:
        """Take the present connection away: nothing more is sent over it."""
        wire, self._wire = self._wire, None
        return wire

    def give_up(self) -> None:
        """Wait no more for the client of a connection that was taken away: it may never take what
        is being sent. What waits is sent over the next connection."""
        self.is_broken.set()
        if self._sender is not None and not self._gives_up:
            self._gives_up = True
            self._sender.cancel()

    def restore(self, history: MessageHistory, num_received: int) -> None:
        """Go on with another process's history; the client has had `num_received` messages."""
        self.history, self._num_known = history, num_received

    def put(self, item: Send | Hangup) -> None:
        """Have this sent by the next `flush`."""
        if self._keeps and isinstance(item, Send) and item.counted:
            self.history.add(item)
            if self.history.count <= self._num_known:
                return
        self.waiting.append(item)

    async def flush(self) -> None:
        """Send what waits; if another task is sending already, it sends this, too."""
        if self._sender is not None:
            return
        waiting, counters = self.waiting, self._counters
        self._sender = me = asyncio.current_task()
        self._drained.clear()
        try:
            while waiting and (wire := self._wire) is not None:
                item = waiting[0]  # it waits until it was sent: this task may be cancelled before
                self._sends_since = time.monotonic()
                try:
                    if isinstance(item, Hangup):
                        waiting.clear()
                        self.is_broken.set()
                        self._hung_up(wire, item)
                        await wire.close(item.code, item.reason or self.reason)
                        return
                    await wire.send(item.data)
                except Gone:  # the task that reads learns it, too
                    self.disconnect(wire)
                    self.is_broken.set()
                    continue
                except asyncio.CancelledError:
                    if not self._gives_up or me is None or me.uncancel():
                        raise  # the task itself is to end
                    self._gives_up = False
                    continue
                counters.num_sent += len(item.data)
                if self._wire is wire:  # otherwise other messages wait: those of a newer connection
                    waiting.popleft()
            if self._wire is None:
                waiting.clear()  # the history of a session has them
        finally:
            self._sender, self._gives_up, self._sends_since = None, False, 0.0
            self._drained.set()

    async def drained(self) -> None:
        """Wait until nothing is being sent."""
        await self._drained.wait()
