"""Streams that live: pushed to from any thread or task, stepped by the scheduler's own thread,
fetched from anywhere.

A stream has one condition, for who waits for room or for events. It is never held while the
scheduler's is asked for (see `scheduler`).
"""

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from numpy.typing import ArrayLike

from kiku.audio import Chunk, gap_of
from kiku.errors import AudioError, QueueFull, StreamClosed, StreamError
from kiku.options import (
    DecodingOptions,
    StreamOptions,
    callback,
    checked_decoding_options,
    timeout_s,
)
from kiku.scheduler import Binding, Scheduler
from kiku.stream import End, Event, FinalizeRequest, WordSession

PushedSamples = ArrayLike | bytes | bytearray | memoryview

_PART = 0.25
"""Share of the queue that is taken at once of a push that is larger than the queue."""


@dataclass(frozen=True, slots=True)
class StreamSetup:
    """What a live stream is made of."""

    scheduler: Scheduler
    options: StreamOptions
    sessions: Sequence[WordSession]
    """One; or one for each channel, in their order."""
    bindings: Sequence[Binding]
    """Theirs."""
    save: Callable[[Sequence[Binding], Sequence[int]], bytes]
    """With what each session had been given."""
    set_decoding: Callable[[Sequence[Binding], DecodingOptions], None]
    """Both are called between two steps."""


class LiveStream:
    """Push sound in one thread, iterate over events in another; a thread of kiku's does the rest.

    Any method may be called from any thread. Sound is taken in the order of the calls. As a context
    manager it gives its slot back at the end, whether all has been heard or not: `close` and fetch
    the events first.
    """

    def __init__(self, setup: StreamSetup) -> None:
        """`Recognizer.stream` makes one."""
        self._setup, self._scheduler = setup, setup.scheduler
        self._sessions, self._options = setup.sessions, setup.options
        self._first = setup.sessions[0]
        self._hears_each = setup.options.channel == "each"
        # Asked for after every frame: most streams have one session.
        self._only = self._first if len(setup.sessions) == 1 else None
        self._max_queue_s = setup.options.max_queue_s + 1e-9
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waits = False  # whether somebody waits whom nobody has told
        self._pushers: deque[object] = deque()  # who waits for room, in order
        self._listener: Callable[[], None] | None = None
        self._stopped = False
        # The scheduler knows the sessions, but must not keep this alive: a forgotten stream gives
        # its slots back.
        this = weakref.ref(self)

        def tell() -> None:
            live = this()
            # Who is about to wait says so first and looks again afterwards.
            if live is not None and (live._waits or live._listener is not None):
                live._tell()

        for session in self._sessions:
            session.on_change = tell
        finalizer = weakref.finalize(self, _abandon, setup.scheduler, list(setup.bindings))
        finalizer.atexit = False

    def __repr__(self) -> str:
        state = "done" if self.done else f"{self.waiting_s:.1f} s wait"
        return f"<LiveStream {self.heard_s:.1f} s heard, {state}>"

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
        self._push(self.check(samples, rate), wait_s)

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
            taken = not self._pushers and self.has_room(chunk.seconds)
            if taken:
                self.check_open()
                self._take(chunk)
        if taken:
            self._scheduler.wake()
        else:
            self._push_when_there_is_room(chunk, timeout)

    def _push_when_there_is_room(self, chunk: Chunk, timeout: float | None) -> None:
        if self.waits_when_full and timeout != 0:
            self._scheduler.check_may_wait()
        ends = None if timeout is None else time.monotonic() + timeout
        ticket, taken_s = object(), 0.0
        with self._lock:
            self._pushers.append(ticket)
        try:
            for part in self.parts(chunk):
                with self._lock:
                    self._wait_for_room(ticket, part.seconds, ends, taken_s)
                    self._take(part)
                taken_s += part.seconds
                self._scheduler.wake()
        finally:
            with self._lock:
                self._pushers.remove(ticket)
                self._changed.notify_all()

    def parts(self, chunk: Chunk) -> list[Chunk]:
        """The sound in parts that fit into the queue.

        Raises:
            StreamClosed: after `close`.
            QueueFull: it never fits, and the stream does not wait.
        """
        self.check_open()
        most = self._options.max_queue_s
        if chunk.seconds <= most:
            return [chunk]
        if self._options.when_full == "error":
            raise QueueFull(
                f"{chunk.seconds:.1f} s of sound were pushed at once, and {most:g} may wait: "
                "push less at a time, or raise max_queue_s"
            )
        return chunk.split(_PART * most)

    def _wait_for_room(
        self, ticket: object, seconds: float, ends: float | None, taken_s: float
    ) -> None:
        def my_turn() -> bool:
            return self._is_closed or (self._pushers[0] is ticket and self.has_room(seconds))

        if self.waits_when_full:
            left = None if ends is None else max(0.0, ends - time.monotonic())
            self._wait_until(my_turn, left)
        self.check_open(taken_s=taken_s)
        if not my_turn():
            raise self.queue_full(taken_s)

    def has_room(self, seconds: float) -> bool:
        """Whether `seconds` of sound fit into the queue; also true of a stream that is closed or
        failed, where a push raises at once."""
        return self.waiting_s + seconds <= self._max_queue_s or self._is_closed

    def queue_full(self, taken_s: float = 0.0) -> QueueFull:
        """The error of a push that found no room, of which so many seconds were taken."""
        return QueueFull(
            f"{self.waiting_s:.1f} s of sound wait to be heard, and "
            f"{self._options.max_queue_s:g} may: push it again later, or drop it and say so with "
            f"push_silence.{_taken(taken_s)}"
        )

    def _take(self, part: Chunk) -> None:
        if not self._hears_each:
            self._first.push(part)
            return
        for channel, session in enumerate(self._sessions):
            # Recordings are not checked, and may lose channels on their way.
            session.push(part.of_channel(channel))

    def take(self, part: Chunk, taken_s: float = 0.0) -> None:
        """Take sound without asking for room; for who has asked and keeps calls in order. So many
        seconds of the push were taken before."""
        with self._lock:
            self.check_open(taken_s=taken_s)
            self._take(part)
        self._scheduler.wake()

    def check(self, samples: PushedSamples, rate: int | None) -> Chunk:
        """See `AudioInput.check`; where each channel is heard by itself, it must be as many."""
        chunk = self._first.input.check(samples, rate)
        count = len(self._sessions)
        if self._hears_each and chunk.num_channels != count:
            raise AudioError(
                f"samples of {chunk.num_channels} channels were pushed, and this stream hears "
                f"{count} one by one: push as many side by side, [S, {count}], or open another "
                f"stream with format=AudioFormat(channels={chunk.num_channels})"
            )
        return chunk

    @property
    def waits_when_full(self) -> bool:
        """Whether a push waits for room."""
        return self._options.when_full == "block"

    @property
    def _is_closed(self) -> bool:
        return self._first.is_closing or self.failure is not None

    @property
    def failure(self) -> Exception | None:
        """What the stream failed with; None while it goes on, or where it has ended well."""
        return next((s.failure for s in self._sessions if s.failure is not None), None)

    def check_open(self, what: str = "sound was pushed", taken_s: float = 0.0) -> None:
        """Raise StreamClosed if nothing more may come, of which `what` is told, and how much of a
        push was taken before; or what a session failed with."""
        try:
            for session in self._sessions:
                session.check_open(what)
        except StreamClosed as error:
            if not taken_s:
                raise
            raise StreamClosed(f"{error}.{_taken(taken_s)}") from None

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
        request = FinalizeRequest(tag, cut)
        with self._lock:
            self.check_open("finalize() was called")
            for session in self._sessions:  # of several channels all are asked, or none
                session.check_finalize()
            for session in self._sessions:
                session.finalize(request)
        self._scheduler.wake()

    def close(self) -> None:
        """Say that no more sound comes; the last words and `End` come as events."""
        with self._lock:
            for session in self._sessions:
                session.check_alive()
                session.close()
        self._scheduler.wake()

    def stop(self) -> None:
        """Give up: the slot is given back, and what was not heard is dropped. The events that
        wait, the word that is open and `End` can still be fetched."""
        self.request_stop()
        with suppress(StreamError):  # from a callback, or at the end of the program
            self._scheduler.drive(lambda: self.done)

    def request_stop(self) -> None:
        """As `stop`, but the slot may be given back a moment later."""
        if not self._stopped:
            self._stopped = True
            for binding in self._setup.bindings:
                self._scheduler.release(binding, cut=True)

    def set_decoding(self, options: DecodingOptions | None) -> None:
        """From the next frame on, pick tokens so; None is the model's own likeliest token.

        Raises:
            StreamError: the stream has ended, or this is a callback (see `listen`).
            InputError: `options` are something else.
            ConfigError: the model cannot decode so.
        """
        self._scheduler.call(lambda: self.set_decoding_now(options))

    def set_decoding_now(self, options: DecodingOptions | None) -> None:
        """The part of `set_decoding` that is done between two steps."""
        self._setup.set_decoding(self._setup.bindings, checked_decoding_options(options))

    def save(self) -> bytes:
        """Everything that the stream is, for `Recognizer.stream(state=...)`, also elsewhere.

        The stream itself goes on. Events that have not been fetched are in both.

        Raises:
            StreamError: the stream has ended, or this is a callback (see `listen`).
        """
        return self._scheduler.call(self.save_now)

    def save_now(self) -> bytes:
        """The part of `save` that is done between two steps."""
        with self._lock:  # nothing is pushed into one channel and not into another
            num_given = [session.num_given for session in self._sessions]
        return self._setup.save(self._setup.bindings, num_given)

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
            ended = self.has_ended  # before it is looked: whatever came until then is found
            event = self._fetch()
            if event is not None or ended:
                return event
            left = None if ends is None else max(0.0, ends - time.monotonic())
            if left != 0 and not self.has_news:
                self._scheduler.check_may_wait()
            with self._lock:
                # The end of one channel of several is news, and no event.
                if left == 0 or not self._wait_until(lambda: self.has_news, left):
                    return None

    def _fetch(self) -> Event | None:
        """The next event; of several channels each in turn, and one `End`."""
        for session in self._sessions:
            while (waiting := len(session.events)) > 0:
                event = session.next_event()
                if event is None:  # another thread has taken it
                    break
                if waiting >= self._options.max_events:
                    self._scheduler.wake()  # it is stepped on
                if isinstance(event, End) and self._others_speak(session):
                    break
                return event
        for session in self._sessions:
            session.check_alive()
        return None

    def _others_speak(self, session: WordSession) -> bool:
        """Whether this session's end is not the end of all."""
        return any(
            other is not session and (other.events or not other.has_ended)
            for other in self._sessions
        )

    def poll(self) -> list[Event]:
        """The events that have come and were not fetched; most often none. Raises as
        `next_event`."""
        events: list[Event] = []
        while True:
            try:
                event = self._fetch()
            except Exception:
                if events:
                    return events  # the next call tells
                raise
            if event is None:
                return events
            events.append(event)

    @property
    def has_news(self) -> bool:
        """Whether `next_event` would return at once."""
        only = self._only
        if only is not None:
            return bool(only.events) or only.done or only.failure is not None
        return any(session.events for session in self._sessions) or self.has_ended

    @property
    def has_ended(self) -> bool:
        """Whether no event will come any more but those that wait."""
        only = self._only
        if only is not None:
            return only.done or only.failure is not None
        return all(session.done for session in self._sessions) or self.failure is not None

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

        It is called in the middle of a step, so nothing in it may wait: `save`, `set_decoding`, and
        where they would wait `push` and `next_event` raise StreamError there. `poll` never waits.
        """
        self._listener = callback(call, "what listens")

    @property
    def duration(self) -> float:
        """Seconds of sound pushed so far."""
        return self._first.duration

    @property
    def waiting_s(self) -> float:
        """Seconds of sound that wait to be heard: how far the engine lags behind."""
        return max(session.waiting_s for session in self._sessions)

    @property
    def heard_s(self) -> float:
        """Seconds of the sound that have been heard, on all channels: the events up to there have
        come. What does not fill a frame yet has not been heard."""
        return min(session.heard_s for session in self._sessions)

    @property
    def done(self) -> bool:
        """Whether the slot is free again; events may still wait."""
        return all(session.done for session in self._sessions)

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


def _taken(seconds: float) -> str:
    """Of the message to who pushed, where not all was taken."""
    return f" The first {seconds:.2f} s of this push were taken." if seconds else ""


def _abandon(scheduler: Scheduler, bindings: Sequence[Binding]) -> None:
    for binding in bindings:
        scheduler.release(binding)
