"""What both kinds of live streams have in common: `OpenStream`. Nothing here waits.

A stream has one lock, under which its sessions are changed (see `sessions`). It is never held while
the scheduler's condition is asked for (see `scheduler`). A fork may copy it while it is held, so
`check_process` comes first.
"""

import threading
import weakref
from collections.abc import Sequence
from typing import NoReturn

from numpy.typing import ArrayLike

from kiku.audio import Chunk
from kiku.errors import InputError, QueueFull, StreamClosed
from kiku.live.sessions import StreamSessions
from kiku.live.setup import StreamSetup
from kiku.options import DecodingOptions, checked_decoding_options
from kiku.scheduler import Binding, Scheduler
from kiku.stream import DecodingChange, Event, FinalizeRequest

PushedSamples = ArrayLike | bytes | bytearray | memoryview

_PART = 0.25
"""A push that is larger than the queue is split into parts of this share of the queue."""


class OpenStream:
    """What can be asked of every live stream, and what both kinds do without waiting."""

    def __init__(self, setup: StreamSetup) -> None:
        """`Recognizer` opens them."""
        self._setup, self._scheduler = setup, setup.scheduler
        self._sessions = StreamSessions(setup.sessions, setup.options, setup.scheduler.wake)
        self._max_queue_s = setup.options.max_queue_s
        self._waits_when_full = setup.options.when_full == "block"
        self._lock = threading.Lock()
        self._stopped = False
        # A stream that nobody refers to any more gives its slots back. The setup is not bound:
        # through the key of its states it holds the recognizer, which may hold the stream.
        weakref.finalize(self, _release, setup.scheduler, setup.bindings).atexit = False

    def __repr__(self) -> str:
        state = "done" if self.done else f"{self.waiting_s:.1f} s wait"
        return f"<{type(self).__name__} {self.heard_s:.1f} s heard, {state}>"

    def __reduce__(self) -> NoReturn:
        raise InputError(
            "a live stream cannot be copied or sent to another process: send what save() gives, "
            "and open it there with stream(state=...)"
        )

    @property
    def duration(self) -> float:
        """Seconds of sound pushed so far."""
        return self._sessions.first.duration

    @property
    def waiting_s(self) -> float:
        """Seconds of sound that wait to be processed: how far the engine lags behind. What
        does not fill a frame is not counted."""
        return self._sessions.waiting_s

    @property
    def heard_s(self) -> float:
        """Seconds of sound that were processed, on all channels: the events up to there have come.
        Sound that does not fill a frame yet is not counted."""
        return self._sessions.heard_s

    @property
    def done(self) -> bool:
        """Whether the slot is free again; events may still wait."""
        return self._sessions.done

    @property
    def failure(self) -> Exception | None:
        """What the stream failed with; None while it goes on, or if it has ended well."""
        return self._sessions.failure

    def poll(self) -> list[Event]:
        """All events that have come and were not fetched; most often none. Raises as
        `next_event`."""
        events: list[Event] = []
        while True:
            try:
                event = self._sessions.next_event()
            except Exception:
                if events:
                    return events  # the next call raises it
                raise
            if event is None:
                if not events:
                    self._scheduler.check_process()
                return events
            events.append(event)

    # Sound.

    def _check(self, samples: PushedSamples, rate: int | None) -> Chunk:
        """See `AudioInput.check` and `StreamSessions.check_channels`."""
        chunk = self._sessions.first.input.check(samples, rate)
        self._sessions.check_channels(chunk)
        return chunk

    def _parts(self, chunk: Chunk) -> list[Chunk]:
        """The sound in parts that fit into the queue.

        Raises:
            StreamClosed: after `close`.
            QueueFull: it never fits, and the stream does not wait.
        """
        self._check_open()
        most = self._max_queue_s
        if chunk.seconds <= most:
            return [chunk]
        if not self._waits_when_full:
            raise QueueFull(
                f"{chunk.seconds:.1f} s of sound were pushed at once, but at most {most:g} may "
                "wait: push less at a time, or raise max_queue_s"
            )
        return chunk.split(_PART * most)

    def _has_room(self, seconds: float) -> bool:
        """Whether `seconds` of sound fit into the queue; also true of a stream that is closed or
        failed, where a push raises at once."""
        sessions = self._sessions
        # Both sides are sums of seconds, which may be off by a rounding.
        return sessions.waiting_s + seconds <= self._max_queue_s + 1e-9 or sessions.is_closed

    def _queue_full(self, taken_s: float = 0.0) -> QueueFull:
        """The error of a push that found no room after `taken_s` seconds of it were taken."""
        return QueueFull(
            f"{self.waiting_s:.1f} s of sound are waiting to be processed, and at most "
            f"{self._max_queue_s:g} may: push it again later, or drop it and replace it with "
            f"push_silence.{_taken(taken_s)}"
        )

    def _check_open(self, what: str = "sound was pushed", taken_s: float = 0.0) -> None:
        """See `StreamSessions.check_open`; the message also names the seconds of a push that were
        taken before."""
        try:
            self._sessions.check_open(what)
        except StreamClosed as error:
            if not taken_s:
                raise
            raise StreamClosed(f"{error}.{_taken(taken_s)}") from None

    # Requests.

    def _finalize(self, request: FinalizeRequest) -> None:
        self._scheduler.check_process()
        with self._lock:
            self._check_open("finalize() was called")
            self._sessions.finalize(request)
        self._scheduler.wake()

    def _close(self) -> None:
        self._scheduler.check_process()
        with self._lock:
            self._sessions.close()
        self._scheduler.wake()

    def _request_stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            _release(self._scheduler, self._setup.bindings, cut=True)

    def _new_change(self, options: DecodingOptions | None) -> DecodingChange:
        return self._sessions.first.new_change(checked_decoding_options(options))

    def _change_decoding(self, change: DecodingChange) -> None:
        self._scheduler.check_process()
        with self._lock:
            self._check_open("set_decoding() was called")
            self._sessions.change_decoding(change)
        self._scheduler.wake()

    # The parts of `save` that are done between two steps.

    def _given_now(self) -> list[int]:
        """How many pieces of sound and requests each session was given."""
        with self._lock:  # nothing is pushed into one channel and not into another
            return [session.num_given for session in self._sessions.each]

    def _convert_before(self, given: Sequence[int]) -> bool:
        """Convert a little of the sound that was given before; whether none is left."""
        sessions = zip(self._sessions.each, given, strict=True)
        return all([session.convert_before(number) for session, number in sessions])


def _release(scheduler: Scheduler, bindings: Sequence[Binding], *, cut: bool = False) -> None:
    for binding in bindings:
        scheduler.release(binding, cut=cut)


def _taken(seconds: float) -> str:
    """The end of an error's message, if a part of the push was taken."""
    return f" The first {seconds:.2f} s of this push were accepted." if seconds else ""
