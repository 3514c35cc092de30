"""Streams that live: pushed to from any thread or task, stepped by the scheduler's own thread,
fetched from anywhere.

A stream's condition, for who waits for room or for events, goes with its lock (see `open_stream`).
"""

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from kiku.audio import Chunk, gap_of
from kiku.errors import StreamError
from kiku.live.open_stream import OpenStream, PushedSamples
from kiku.live.setup import StreamSetup
from kiku.options import DecodingOptions, callback, timeout_s
from kiku.stream import End, Event, FinalizeRequest


class LiveStream(OpenStream):
    """Push sound in one thread, iterate over events in another; a thread of kiku's does the rest.

    Any method may be called from any thread. Sound is taken in the order of the calls. As a context
    manager it gives its slot back at the end, whether all has been heard or not: `close` and fetch
    the events first.
    """

    def __init__(self, setup: StreamSetup) -> None:
        """`Recognizer.stream` makes one."""
        super().__init__(setup)
        self._changed = threading.Condition(self._lock)
        self._waits = False  # whether somebody waits whom nobody has told
        self._pushers: deque[object] = deque()  # who waits for room, in order
        self._listener: Callable[[], None] | None = None
        # The scheduler knows the sessions, but must not keep this alive.
        this = weakref.ref(self)

        def tell() -> None:
            live = this()
            # Who is about to wait says so first and looks again afterwards.
            if live is not None and (live._waits or live._listener is not None):
                live._tell()

        for session in self._sessions.each:
            session.on_change = tell

    def _tell(self) -> None:
        if self._waits:
            with self._lock:
                self._waits = False
                self._changed.notify_all()
        listener = self._listener
        if listener is not None:
            listener()

    def _wait_until(self, ready: Callable[[], bool], timeout: float | None) -> bool:
        """Wait for `ready()`; the lock is held."""

        def sure() -> bool:
            self._waits = True
            return ready()

        return self._changed.wait_for(sure, timeout)

    # Sound.

    def push(
        self, samples: PushedSamples, *, rate: int | None = None, timeout: float | None = None
    ) -> None:
        """Give the stream some sound.

        Args:
            samples: [S] mono, any length, or [S, C] or [C, S]; or bytes, as the stream's
                `AudioFormat` says.
            rate: samples per second; None is the format's.
            timeout: seconds to wait for room at most, where the stream waits for it.

        Raises:
            StreamClosed: after `close` or `stop`, of which one may come while this waits for room.
                Nothing of this was taken, or as much as the message says.
            QueueFull: too much sound waits to be heard. Nothing of this was taken, or as much as
                the message says.
            AudioError: the rate or the samples cannot be, or where each channel is heard by itself,
                there are more or fewer of them. Nothing was taken.
            InputError: a `timeout` that is no number.
            StreamError: there is no room, and this is a callback (see `listen`), which cannot wait
                for it. Nothing was taken.
        """
        wait_s = None if timeout is None else timeout_s(timeout)
        self._push(self._check(samples, rate), wait_s)

    def push_silence(self, seconds: float, *, timeout: float | None = None) -> None:
        """Sound is missing: a packet was lost, or the client was muted.

        Raises:
            StreamClosed, QueueFull: as `push`.
            AudioError: no time that can be.
        """
        wait_s = None if timeout is None else timeout_s(timeout)
        self._push(gap_of(seconds), wait_s)

    def _push(self, chunk: Chunk, timeout: float | None) -> None:
        with self._lock:
            taken = not self._pushers and self._has_room(chunk.seconds)
            if taken:
                self._check_open()
                self._sessions.push(chunk)
        if taken:
            self._scheduler.wake()
        else:
            self._push_when_there_is_room(chunk, timeout)

    def _push_when_there_is_room(self, chunk: Chunk, timeout: float | None) -> None:
        if self._waits_when_full and timeout != 0:
            self._scheduler.check_may_wait()
        ends = None if timeout is None else time.monotonic() + timeout
        ticket, taken_s = object(), 0.0
        with self._lock:
            self._pushers.append(ticket)
        try:
            for part in self._parts(chunk):
                with self._lock:
                    self._wait_for_room(ticket, part.seconds, ends, taken_s)
                    self._sessions.push(part)
                taken_s += part.seconds
                self._scheduler.wake()
        finally:
            with self._lock:
                self._pushers.remove(ticket)
                self._changed.notify_all()

    def _wait_for_room(
        self, ticket: object, seconds: float, ends: float | None, taken_s: float
    ) -> None:
        def my_turn() -> bool:
            return self._sessions.is_closed or (
                self._pushers[0] is ticket and self._has_room(seconds)
            )

        if self._waits_when_full:
            left = None if ends is None else max(0.0, ends - time.monotonic())
            self._wait_until(my_turn, left)
        self._check_open(taken_s=taken_s)
        if not my_turn():
            raise self._queue_full(taken_s)

    # Requests.

    def finalize(self, tag: str | None = None, *, cut: bool = False) -> None:
        """Have all words that were begun until now, without ending the talk: they come as events,
        and then `Finalized`.

        The delay of the text is let run out at full speed, with silence in the place of the sound
        that has not come, and then taken back. Equal requests at one place are answered once, as
        long as the first of them waits.

        Args:
            tag: comes back in `Finalized`.
            cut: give out the last word as well if it seems to be still spoken. It is then not given
                out again, however it goes on.

        Raises:
            StreamClosed: after `close`.
            QueueFull: too many wait to be answered.
            InputError: a tag that is no text, or `cut` that is no bool.
        """
        self._finalize(FinalizeRequest(tag, cut))

    def close(self) -> None:
        """Say that no more sound comes; the last words and `End` come as events."""
        self._close()

    def stop(self) -> None:
        """Give up: the slot is given back, and what was not heard is dropped. The events that
        wait, the word that is open and `End` can still be fetched."""
        self._request_stop()
        with suppress(StreamError):  # from a callback, or at the end of the program
            self._scheduler.drive(lambda: self.done)

    def set_decoding(self, options: DecodingOptions | None) -> None:
        """Behind the sound that was pushed until now, pick tokens so; None is the model's own
        likeliest token.

        It holds from the frame on in which that sound ends, whether the sound waits or has been
        heard. As text lags sound by the model's delay, the words of the last moment before that
        place are picked so too. Nothing is waited for.

        Raises:
            StreamClosed: after `close`.
            QueueFull: too many changes wait for the sound before them to be heard.
            InputError: `options` are something else.
            ConfigError: the model cannot decode so.
        """
        self._change_decoding(self._new_change(options))

    def save(self) -> bytes:
        """Everything that the stream is, for `Recognizer.stream(state=...)`, also elsewhere.

        The stream itself goes on. Events that have not been fetched are in both.

        Raises:
            StreamError: the stream has ended, or this is a callback (see `listen`).
        """
        return self._scheduler.call(self._save_now)

    # Events.

    def next_event(self, timeout: float | None = None) -> Event | None:
        """The next event, as soon as there is one; None after the last, or after `timeout` seconds
        without one.

        Raises:
            Exception: what the stream failed with, once all events before have been given out.
            StreamError: there is none, and this is a callback (see `listen`), which cannot wait.
        """
        if timeout is not None:
            timeout = timeout_s(timeout)
        ends = None if timeout is None else time.monotonic() + timeout
        while True:
            ended = (
                self._sessions.has_ended
            )  # before it is looked: whatever came until then is found
            event = self._sessions.next_event()
            if event is not None or ended:
                return event
            left = None if ends is None else max(0.0, ends - time.monotonic())
            if left != 0 and not self._sessions.has_news:
                self._scheduler.check_may_wait()
            with self._lock:
                # The end of one channel of several is news, and no event.
                if left == 0 or not self._wait_until(lambda: self._sessions.has_news, left):
                    return None

    def events(self) -> Iterator[Event]:
        """Every event as it comes, to the last. Leaving the loop early loses none: the next call
        goes on. Raises as `next_event`."""
        while (event := self.next_event()) is not None:
            yield event
            if isinstance(event, End):
                return

    def listen(self, call: Callable[[], None] | None) -> None:
        """Have `call` called, by whoever drives, whenever something has changed; None ends that.
        If it raises, the stream ends with that error.

        It is called in the middle of a step, so nothing in it may wait: `save`, and where they
        would wait `push` and `next_event` raise StreamError there. `poll`, `finalize` and
        `set_decoding` never wait.
        """
        self._listener = callback(call, "what listens")

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
