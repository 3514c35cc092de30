"""Live streams for threads: `LiveStream`.

Threads wait for room or for events on a condition that shares the stream's lock (see
`open_stream`).
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
    """Push sound in one thread and iterate over events in another; a thread of kiku does the rest.

    Any method may be called from any thread. Sound is taken in the order of the calls. Used as a
    context manager, the stream gives its slot back at the end of the block, even if sound still
    waits: call `close` and fetch the events first.
    """

    def __init__(self, setup: StreamSetup) -> None:
        """`Recognizer.stream` makes one."""
        super().__init__(setup)
        self._changed = threading.Condition(self._lock)
        self._waits = False  # whether a thread waits that was not notified yet
        self._pushers: deque[object] = deque()  # calls that wait for room, in order
        self._listener: Callable[[], None] | None = None
        # The scheduler knows the sessions, but must not keep this alive.
        this = weakref.ref(self)

        def notify() -> None:
            live = this()
            # A thread that is about to wait sets `_waits` first and then checks again.
            if live is not None and (live._waits or live._listener is not None):
                live._notify()

        for session in self._sessions.each:
            session.on_change = notify

    def _notify(self) -> None:
        if self._waits:
            with self._lock:
                self._waits = False
                self._changed.notify_all()
        listener = self._listener
        if listener is not None:
            listener()

    def _wait_until(self, ready: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until `ready()` is true; the caller holds the lock."""

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
            timeout: how many seconds to wait for room; None waits without a limit. A stream with
                `when_full="error"` never waits.

        Raises:
            StreamClosed: the stream was closed or stopped, before the call or while it waited for
                room. None of the sound was taken, or as much as the message says.
            QueueFull: too much sound waits to be processed. None of this sound was taken, or as
                much as the message says.
            AudioError: the rate or the samples are impossible; or each channel is transcribed
                separately, and the number of channels is another. Nothing was taken.
            InputError: `timeout` is not a number.
            StreamError: there is no room, and the call comes from a callback (see `listen`), which
                cannot wait. Nothing was taken.
        """
        wait_s = None if timeout is None else timeout_s(timeout)
        self._push(self._check(samples, rate), wait_s)

    def push_silence(self, seconds: float, *, timeout: float | None = None) -> None:
        """Push silence for sound that is missing: a packet was lost, or the client was muted.

        Raises:
            StreamClosed, QueueFull: as `push`.
            AudioError: the number of seconds is impossible.
        """
        wait_s = None if timeout is None else timeout_s(timeout)
        self._push(gap_of(seconds), wait_s)

    def _push(self, chunk: Chunk, timeout: float | None) -> None:
        self._scheduler.check_process()
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
        """Bring all words that have begun so far, without ending the stream: they come as events,
        followed by `Finalized`.

        The model hears silence for the length of its text delay, at full speed; afterwards its
        state is put back to where it was. While a request waits, further equal requests at the same
        place are not answered separately.

        Args:
            tag: comes back in `Finalized`.
            cut: also give out the last word if it seems to be still spoken. It is then not given
                out again, however it goes on.

        Raises:
            StreamClosed: after `close`.
            QueueFull: too many requests wait to be answered.
            InputError: `tag` is not text, or `cut` is not a bool.
        """
        self._finalize(FinalizeRequest(tag, cut))

    def close(self) -> None:
        """Declare that no more sound comes; the last words and `End` follow as events."""
        self._close()

    def stop(self) -> None:
        """Give the slot back at once, and drop the sound that was not processed. The events that
        wait, the last unfinished word and `End` can still be fetched."""
        self._request_stop()
        with suppress(StreamError):  # from a callback, or at the end of the program
            self._scheduler.drive(lambda: self.done)

    def set_decoding(self, options: DecodingOptions | None) -> None:
        """Change how tokens are picked after the sound that was pushed so far; None picks the
        model's own likeliest token.

        The change takes effect at the frame in which that sound ends, whether the sound still waits
        or was processed. Text lags sound by the model's delay, so the change also affects the words
        of the last moment before that place. The call does not wait.

        Raises:
            StreamClosed: after `close`.
            QueueFull: too many changes wait for the sound before them to be processed.
            InputError: `options` are not DecodingOptions.
            ConfigError: this model cannot decode like this.
        """
        self._change_decoding(self._new_change(options))

    def save(self) -> bytes:
        """The whole state of the stream as bytes, for `Recognizer.stream(state=...)` in this or
        another process.

        The stream itself goes on. Events that were not fetched are kept in both.

        Raises:
            StreamError: the stream has ended, or this is a callback (see `listen`).
        """
        call = self._scheduler.call
        given = call(self._given_now)
        while not call(lambda: self._convert_before(given)):
            pass  # others are stepped
        return call(lambda: self._setup.copy(given)).to_bytes()

    # Events.

    def next_event(self, timeout: float | None = None) -> Event | None:
        """Wait for the next event; None after the last, or after `timeout` seconds without one.

        Raises:
            Exception: what the stream failed with, after all events before it.
            StreamError: there is no event, and the call comes from a callback (see `listen`), which
                cannot wait.
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
            self._scheduler.check_process()
            left = None if ends is None else max(0.0, ends - time.monotonic())
            if left != 0 and not self._sessions.has_news:
                self._scheduler.check_may_wait()
            with self._lock:
                # The end of one of several channels wakes this thread, but is no event.
                if left == 0 or not self._wait_until(lambda: self._sessions.has_news, left):
                    return None

    def events(self) -> Iterator[Event]:
        """Iterate over the events as they come, to the last. Leaving the loop early loses no event:
        the next call continues. Raises as `next_event`."""
        while (event := self.next_event()) is not None:
            yield event
            if isinstance(event, End):
                return

    def listen(self, call: Callable[[], None] | None) -> None:
        """Have `call` called whenever something has changed; None stops that. If `call` raises, the
        stream ends with that error.

        The thread that drives the scheduler calls it in the middle of a step, so it must not wait:
        inside it `save` raises StreamError, and so do `push` and `next_event` where they would have
        to wait. `poll`, `finalize` and `set_decoding` never wait.
        """
        self._listener = callback(call, "call")

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
