"""Streams that live: pushed to from any thread or task, stepped by one worker, fetched from
anywhere."""

import asyncio
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Literal, Self

from numpy.typing import ArrayLike

from kiku.errors import ConfigError, QueueFull
from kiku.loop import Loop, Seat
from kiku.stream import End, Event, Stream

_LOG = logging.getLogger(__name__)

WhenFull = Literal["block", "error"]
"""What happens to a push when enough sound waits: it waits for room, or raises QueueFull."""

_MAX_EVENTS = 10_000
"""Events that may wait to be fetched; a stream with more is not stepped on."""

Save = Callable[[Seat], bytes]
"""Writes down a stream and its slot."""

Steer = Callable[[Seat, Any], None]
"""Steers a slot from its next frame on."""


class Worker:
    """The thread that steps the loop. It lives while there are live streams."""

    def __init__(self, loop: Loop) -> None:
        """No thread yet."""
        self._loop = loop
        self._lock = threading.RLock()  # the garbage collector may make a stream leave anywhere
        # Not an Event: the garbage collector may wake it while this thread holds an Event's lock.
        self._work: SimpleQueue[None] = SimpleQueue()
        self._streams: set[Stream] = set()

    def join(self, stream: Stream) -> None:
        """One more stream lives."""
        with self._lock:
            self._streams.add(stream)
            if len(self._streams) == 1:
                self._work = SimpleQueue()
                threading.Thread(
                    target=self._run, args=(self._work,), name="kiku-worker", daemon=True
                ).start()

    def leave(self, stream: Stream) -> None:
        """One stream less; twice does no harm."""
        with self._lock:
            self._streams.discard(stream)
            self._work.put(None)

    def wake(self) -> None:
        """There may be something to step."""
        if self._work.empty():
            self._work.put(None)

    def _run(self, work: SimpleQueue[None]) -> None:
        while True:
            work.get()
            try:
                while self._loop.step(live=True):
                    pass
            except Exception as error:  # a mistake of kiku's own: whoever waits must learn of it
                self._loop.fail_live(error)
            with self._lock:
                # Another thread may have begun for streams that came after the last one left.
                if not self._streams or self._work is not work:
                    return


class LiveStream:
    """Push sound in one thread, iterate over events in another; a worker does the rest.

    Any method may be called from any thread. Sound is taken in the order of the calls. As a context
    manager it gives its slot back at the end, whether all has been heard or not: `close` and fetch
    the events first.
    """

    def __init__(
        self,
        seat: Seat,
        loop: Loop,
        worker: Worker,
        *,
        max_queue_s: float,
        when_full: WhenFull,
        save: Save,
        steer: Steer,
    ) -> None:
        """`Recognizer.stream` makes one."""
        self._seat, self._loop, self._worker = seat, loop, worker
        self._stream: Stream = seat.stream
        self._max_queue_s, self._when_full = max_queue_s, when_full
        self._save, self._steer = save, steer
        self._pushing = threading.Lock()
        """Held by who gives sound, so that it stays in order. Taken before the seat's."""
        self._news = threading.Condition(seat.lock)
        self._listeners: list[Callable[[], None]] = []
        stream = seat.stream
        seat.held_back = lambda: stream.num_events >= _MAX_EVENTS
        # The loop knows the stream, but must not keep this alive: a forgotten one leaves its slot.
        this = weakref.ref(self)
        seat.news = lambda: None if (live := this()) is None else live._tell()
        weakref.finalize(self, _abandon, stream, loop, worker)
        worker.join(stream)
        if stream.done:  # another thread's step may have come to its end already
            worker.leave(stream)
        worker.wake()

    def _tell(self) -> None:
        with self._news:
            self._news.notify_all()
            listeners = list(self._listeners)
            if self._stream.done:
                self._worker.leave(self._stream)
        for call in listeners:
            try:
                call()
            except Exception:  # whoever listens must not stop those who speak
                _LOG.exception("a listener of a stream failed")

    def push(
        self,
        samples: ArrayLike | bytes,
        *,
        rate: int | None = None,
        timeout: float | None = None,
        **how: Any,
    ) -> None:
        """Give the stream some sound.

        Args:
            samples: see `Stream.push`.
            rate: samples per second; None means the model's (24,000).
            timeout: seconds to wait for room at most, where the stream waits for it.
            how: `encoding`, `channel`, `channels`, `channels_axis`; see `Stream.push`.

        Raises:
            StreamClosed: after `close`.
            QueueFull: too much sound waits to be heard. Nothing of this was taken.
            AudioError: the rate, the encoding or the samples cannot be. Nothing was taken.
        """
        with self._pushing:
            self._wait_for_room(timeout)
            self.push_now(samples, rate=rate, **how)

    def push_now(self, samples: ArrayLike | bytes, **how: Any) -> None:
        """Take sound without asking for room; for who has asked and keeps calls in order."""
        mono = self._stream.ear.hear(samples, **how)
        with self._news:
            self._stream.check_open()
            self._stream.add(mono)
        self._worker.wake()

    @property
    def waits_when_full(self) -> bool:
        """Whether a push waits for room."""
        return self._when_full == "block"

    @property
    def has_room(self) -> bool:
        """Whether sound may be pushed; also where pushing it would raise at once."""
        with self._news:
            return self._stream.done or self._stream.waiting_s < self._max_queue_s

    def check_open(self) -> None:
        """Raise StreamClosed if no more sound may be pushed, or what the engine failed with."""
        with self._news:
            self._stream.check_open()

    def check_room(self) -> None:
        """Raise QueueFull if there is none."""
        if not self.has_room:
            raise QueueFull(
                f"{self.waiting_s:.1f} s of sound wait to be heard, and {self._max_queue_s:g} may: "
                "push it again later, or drop it and say so with push_silence"
            )

    def _wait_for_room(self, timeout: float | None) -> None:
        with self._news:
            self._stream.check_open()
            if self.waits_when_full:
                self._news.wait_for(lambda: self.has_room, timeout)
            self._stream.check_open()
            self.check_room()

    def push_silence(self, seconds: float) -> None:
        """Sound is missing: a packet was lost, or the client was muted. See
        `Stream.push_silence`."""
        with self._pushing:
            self._wait_for_room(None)
            mono = self._stream.ear.silence(seconds)
            with self._news:
                self._stream.check_open()
                self._stream.add(mono)
        self._worker.wake()

    def finalize(self, *, cut: bool = False) -> None:
        """Have all words that were begun until now, without ending the talk: they come as events,
        and then `Finalized`. See `Stream.finalize`."""
        with self._pushing, self._news:
            self._stream.finalize(cut=cut)
        self._worker.wake()

    def close(self) -> None:
        """Say that no more sound comes; the last words and `End` come as events."""
        with self._pushing, self._news:
            self._stream.close()
        self._worker.wake()

    def stop(self) -> None:
        """Give up: the slot is given back at once, and what was not heard is dropped. The events
        that wait, the word that is open and `End` can still be fetched."""
        with self._news:
            self._stream.cut()
        self._loop.release(self._stream)
        self._tell()

    def steer(self, steering: Any) -> None:
        """From the next frame on, pick tokens so.

        Args:
            steering: a `kiku.Steering`; None is the model's own likeliest token.

        Raises:
            StreamError: the stream has ended.
            ConfigError: the model cannot be steered so.
        """
        self._steer(self._seat, steering)

    def save(self) -> bytes:
        """Everything that the stream is, for `Recognizer.stream(state)`, also elsewhere.

        The stream itself goes on. Events that have not been fetched are in both.

        Raises:
            StreamError: the stream has ended.
        """
        with self._pushing:
            return self._save(self._seat)

    def next_event(self, timeout: float | None = None) -> Event | None:
        """The next event, as soon as there is one; None after the last, or after `timeout` seconds
        without one.

        Raises:
            Exception: what the engine failed with, once all events before have been given out.
        """
        with self._news:
            self._news.wait_for(lambda: self._stream.num_events or self._stream.done, timeout)
            held_back = self._stream.num_events >= _MAX_EVENTS
            event = self._stream.next_event()
        if held_back:
            self._worker.wake()
        return event

    def poll(self) -> list[Event]:
        """The events that have come and were not fetched; most often none. Raises as
        `next_event`."""
        with self._news:
            events = self._stream.events()
        if len(events) >= _MAX_EVENTS:
            self._worker.wake()
        return events

    @property
    def has_news(self) -> bool:
        """Whether `next_event` would return at once."""
        with self._news:
            return self._stream.num_events > 0 or self._stream.done

    def events(self) -> Iterator[Event]:
        """Every event as it comes, to the last. Leaving the loop early loses none: the next call
        goes on. Raises as `next_event`."""
        while (event := self.next_event()) is not None:
            yield event
            if isinstance(event, End):
                return

    def listen(self, call: Callable[[], None]) -> Callable[[], None]:
        """Have `call` called, by the worker, whenever something has changed; the result ends
        that."""
        with self._news:
            self._listeners.append(call)

        def end() -> None:
            with self._news, suppress(ValueError):
                self._listeners.remove(call)

        return end

    @property
    def duration(self) -> float:
        """Seconds of sound pushed so far."""
        return self._stream.duration

    @property
    def waiting_s(self) -> float:
        """Seconds of sound that wait to be heard: how far the engine lags behind."""
        return self._stream.waiting_s

    @property
    def done(self) -> bool:
        """Whether the slot has been given back; events may still wait."""
        return self._stream.done

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if not self.done:
            self.stop()


class AsyncStream:
    """A `LiveStream` for tasks of one event loop. No call blocks the event loop."""

    def __init__(self, live: LiveStream) -> None:
        """`Recognizer.astream` makes one."""
        self._live = live
        self._changed = changed = asyncio.Event()
        self._order = asyncio.Lock()
        loop = asyncio.get_running_loop()

        def call() -> None:  # it does not hold this stream, which may be forgotten
            with suppress(RuntimeError):  # the event loop has been closed
                loop.call_soon_threadsafe(changed.set)

        self._deafen = live.listen(call)

    async def _until(self, ready: Callable[[], bool]) -> None:
        while not ready():
            self._changed.clear()
            if ready():  # it may have come true before the event was cleared
                return
            await self._changed.wait()
            # Other tasks wait for the same event: they look for themselves, once it is set.

    async def push(
        self, samples: ArrayLike | bytes, *, rate: int | None = None, **how: Any
    ) -> None:
        """See `LiveStream.push`; cancelling it takes nothing."""
        async with self._order:
            self._live.check_open()
            if self._live.waits_when_full:
                await self._until(lambda: self._live.has_room)
            self._live.check_room()
            self._live.push_now(samples, rate=rate, **how)

    async def push_silence(self, seconds: float) -> None:
        """See `LiveStream.push_silence`."""
        async with self._order:
            self._live.check_open()
            if self._live.waits_when_full:
                await self._until(lambda: self._live.has_room)
            self._live.push_silence(seconds)

    async def finalize(self, *, cut: bool = False) -> None:
        """See `LiveStream.finalize`."""
        async with self._order:
            self._live.finalize(cut=cut)

    async def close(self) -> None:
        """See `LiveStream.close`."""
        async with self._order:
            self._live.close()

    def stop(self) -> None:
        """See `LiveStream.stop`."""
        self._live.stop()

    async def steer(self, steering: Any) -> None:
        """See `LiveStream.steer`."""
        await asyncio.to_thread(self._live.steer, steering)

    async def save(self) -> bytes:
        """See `LiveStream.save`."""
        async with self._order:
            return await asyncio.to_thread(self._live.save)

    def poll(self) -> list[Event]:
        """See `LiveStream.poll`."""
        return self._live.poll()

    async def events(self) -> AsyncIterator[Event]:
        """See `LiveStream.events`. For one task at a time."""
        while True:
            await self._until(lambda: self._live.has_news)
            event = self._live.next_event(0)
            if event is None:
                return
            yield event
            if isinstance(event, End):
                return

    @property
    def duration(self) -> float:
        """Seconds of sound pushed so far."""
        return self._live.duration

    @property
    def waiting_s(self) -> float:
        """See `LiveStream.waiting_s`."""
        return self._live.waiting_s

    @property
    def done(self) -> bool:
        """See `LiveStream.done`."""
        return self._live.done

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if not self._live.done:
            self._live.stop()
        self._deafen()
        self._changed.set()  # other tasks learn of the end


def check_queue(max_queue_s: float, when_full: str) -> None:
    """Raise ConfigError for a bound that cannot be."""
    if not max_queue_s >= 0.2:
        raise ConfigError(f"max_queue_s must be at least 0.2 seconds, not {max_queue_s}")
    if when_full not in ("block", "error"):
        raise ConfigError(f"when_full must be 'block' or 'error', not {when_full!r}")


def _abandon(stream: Stream, loop: Loop, worker: Worker) -> None:
    loop.release(stream)
    worker.leave(stream)
