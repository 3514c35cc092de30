"""Live streams for tasks of an event loop: `AsyncStream`. In the event loop's thread nothing is
computed, and nothing blocks."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from kiku.audio import Chunk, gap_of
from kiku.live.open_stream import OpenStream, PushedSamples
from kiku.live.setup import StreamSetup
from kiku.live.waiters import Waiters
from kiku.options import DecodingOptions, timeout_s
from kiku.stream import End, Event, FinalizeRequest

_QUICK_BYTES = 1 << 20
"""Bytes; larger samples are checked and copied in another thread than the event loop's."""


def _is_quick(samples: PushedSamples) -> bool:
    """Whether the event loop's thread may check and copy these samples. Not so for lists: their
    size is unknown, and their numbers are checked one by one."""
    size: Any = getattr(samples, "nbytes", None)
    if size is None and isinstance(samples, bytes | bytearray):
        size = len(samples)
    return isinstance(size, int) and size <= _QUICK_BYTES


class AsyncStream(OpenStream):
    """As `LiveStream`, but for the tasks of one event loop.

    In the event loop's thread no call converts sound or decodes, and none waits for a lock that is
    held while that is done elsewhere.
    """

    def __init__(self, setup: StreamSetup, waiters: Waiters) -> None:
        """`Recognizer.astream` makes one. Tasks that wait for the stream are in `waiters`."""
        super().__init__(setup)
        self._pushers: deque[object] = deque()  # calls that wait for room, in order
        self._waiters = waiters
        for session in self._sessions.each:
            session.on_change = waiters.weak_wake  # does not keep the stream alive

    def push_now(self, samples: PushedSamples, rate: int | None = None) -> bool:
        """Push sound if that needs no waiting; return whether it was done. Raises as `push`."""
        if self._pushers or not _is_quick(samples):
            return False
        chunk = self._check(samples, rate)
        if not self._has_room(chunk.seconds):
            return False
        self._take_now(chunk)
        return True

    def _take_now(self, part: Chunk, taken_s: float = 0.0) -> None:
        """Take sound that fits; `taken_s` seconds of the same push were taken before."""
        self._scheduler.check_process()
        with self._lock:
            self._check_open(taken_s=taken_s)
            self._sessions.push(part)
        self._scheduler.wake()

    async def push(
        self, samples: PushedSamples, *, rate: int | None = None, timeout: float | None = None
    ) -> None:
        """See `LiveStream.push`. If it is cancelled, what was taken until then stays taken."""
        wait_s = None if timeout is None else timeout_s(timeout)
        if self.push_now(samples, rate=rate):
            return
        with self._in_line() as ticket:  # before the check: later calls queue up after it
            if _is_quick(samples):
                chunk = self._check(samples, rate)
            else:
                chunk = await asyncio.to_thread(self._check, samples, rate)
            await self._push(chunk, ticket, wait_s)

    async def push_chunk(self, chunk: Chunk) -> None:
        """As `push`, for a chunk of `kiku.audio.read_file`."""
        with self._in_line() as ticket:
            await self._push(chunk, ticket)

    async def push_silence(self, seconds: float, *, timeout: float | None = None) -> None:
        """See `LiveStream.push_silence`."""
        wait_s = None if timeout is None else timeout_s(timeout)
        chunk = gap_of(seconds)
        with self._in_line() as ticket:
            await self._push(chunk, ticket, wait_s)

    async def _push(self, chunk: Chunk, ticket: object, wait_s: float | None = None) -> None:
        parts, taken_s = self._parts(chunk), 0.0
        limit = asyncio.timeout(wait_s if self._waits_when_full else None)
        try:
            async with limit:
                await self._turn_of(ticket)  # earlier calls may still check their samples
                for part in parts:
                    await self._room_for(part.seconds, taken_s)
                    self._take_now(part, taken_s)
                    taken_s += part.seconds
        except TimeoutError:
            if not limit.expired():
                raise  # the stream's own failure
            raise self._queue_full(taken_s) from None

    async def _room_for(self, seconds: float, taken_s: float) -> None:
        if self._has_room(seconds):
            return
        if not self._waits_when_full:
            raise self._queue_full(taken_s)
        await self._waiters.until(lambda: self._has_room(seconds))

    @contextmanager
    def _in_line(self) -> Generator[object]:
        """A ticket that keeps a call's place in the queue of those that wait."""
        ticket = object()
        self._pushers.append(ticket)
        try:
            yield ticket
        finally:
            self._pushers.remove(ticket)
            self._waiters.wake_here()

    async def _turn_of(self, ticket: object) -> None:
        await self._waiters.until(lambda: self._pushers[0] is ticket)

    async def finalize(self, tag: str | None = None, *, cut: bool = False) -> None:
        """See `LiveStream.finalize`; it comes after the pushes that still wait for room."""
        request = FinalizeRequest(tag, cut)
        await self._after_pushes()
        self._finalize(request)

    async def close(self) -> None:
        """See `LiveStream.close`; it comes after the pushes that still wait for room."""
        await self._after_pushes()
        self._close()

    async def _after_pushes(self) -> None:
        if self._pushers:
            with self._in_line() as ticket:
                await self._turn_of(ticket)

    def stop(self) -> None:
        """See `LiveStream.stop`; the slot is given back a moment later."""
        self._request_stop()

    async def set_decoding(self, options: DecodingOptions | None) -> None:
        """See `LiveStream.set_decoding`; it comes after the pushes that still wait for room.
        Hotwords are spelled in another thread."""
        with self._in_line() as ticket:  # before they are spelled: later calls queue up after it
            change = await asyncio.to_thread(self._new_change, options)
            await self._turn_of(ticket)
            self._change_decoding(change)

    async def save(self) -> bytes:
        """See `LiveStream.save`."""
        await self._after_pushes()
        call, scheduler = self._waiters.call, self._scheduler
        given = await call(scheduler, self._given_now)
        while not await call(scheduler, lambda: self._convert_before(given)):
            pass  # others are stepped
        copied = await call(scheduler, lambda: self._setup.copy(given))
        return await asyncio.to_thread(copied.to_bytes)

    async def events(self) -> AsyncIterator[Event]:
        """See `LiveStream.events`. For one task at a time."""
        while (event := await self._next_event()) is not None:
            yield event
            if isinstance(event, End):
                return

    async def next_event(self, timeout: float | None = None) -> Event | None:
        """See `LiveStream.next_event`. For one task at a time."""
        limit = asyncio.timeout(timeout_s(timeout))
        try:
            async with limit:
                return await self._next_event()
        except TimeoutError:
            if not limit.expired():
                raise  # the stream's own failure
            return None

    async def _next_event(self) -> Event | None:
        while True:
            await self._waiters.until(lambda: self._sessions.has_news)
            ended = self._sessions.has_ended
            event = self._sessions.next_event()
            if event is not None or ended:
                return event

    async def batch(self) -> list[Event]:
        """Wait for events and return all that have come; none at the end. Raises as
        `LiveStream.poll`. Cheaper than `events` where many come at once."""
        return await self.progress(math.inf)

    async def progress(self, heard_s: float) -> list[Event]:
        """As `batch`, but also return once more than `heard_s` seconds of sound were processed."""
        while True:
            await self._waiters.until(lambda: self._sessions.has_news or self.heard_s > heard_s)
            ended = self._sessions.has_ended
            events = self.poll()
            if events or ended or self.heard_s > heard_s:
                return events

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if not self.done:
            self._request_stop()
            await self._waiters.until(lambda: self.done)
        self._waiters.wake_here()  # other tasks see the end
