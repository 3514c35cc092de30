"""A live stream in its slots: what `LiveStream` and `AsyncStream` share. Nothing here waits.

A stream has one lock, for what its sessions must be told together: of several channels all are
pushed to, asked and closed, or none. It is never held while the scheduler's condition is asked for
(see `scheduler`).
"""

import threading
import weakref
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, NoReturn, cast

from numpy.typing import ArrayLike

from kiku.audio import Chunk
from kiku.decoding import TokenPicker
from kiku.errors import (
    AudioError,
    ConfigError,
    InputError,
    QueueFull,
    StreamClosed,
    StreamError,
)
from kiku.options import AudioFormat, DecodingOptions, StreamOptions, checked_decoding_options
from kiku.scheduler import Binding, Member, Scheduler, SlotOptions
from kiku.stream import DecodingChange, End, Event, FinalizeRequest, WordSession
from kiku.stream.saved import pack_stream, unpack_stream

PushedSamples = ArrayLike | bytes | bytearray | memoryview

_PART = 0.25
"""Share of the queue that is taken at once of a push that is larger than the queue."""


@dataclass(slots=True)
class StreamSetup:
    """What a live stream is made of."""

    scheduler: Scheduler
    options: StreamOptions
    bindings: Sequence[Binding]
    """One; or one for each channel, in their order. Their sessions are `WordSession`s."""
    state_key: Callable[[], bytes | None]
    """That streams are signed with when they are saved."""

    @property
    def sessions(self) -> list[WordSession]:
        """What holds the slots."""
        return [cast("WordSession", binding.session) for binding in self.bindings]

    def save(self, num_given: Sequence[int]) -> bytes:
        """The stream as bytes, with what each session had been given; between two steps."""
        for binding in self.bindings:
            self.scheduler.settle(binding)
        engine = self.scheduler.engine
        sessions: list[dict[str, Any]] = []
        for binding, session, given in zip(self.bindings, self.sessions, num_given, strict=True):
            picker = binding.options.picker
            sessions.append(
                {
                    "session": session.save(given),
                    "slot": engine.save(binding.slot),
                    "picker": picker.save() if isinstance(picker, TokenPicker) else None,
                }
            )
        return pack_stream({"sessions": sessions}, self.state_key())

    def release(self, *, cut: bool = False) -> None:
        """See `Scheduler.release`."""
        _release(self.scheduler, self.bindings, cut=cut)


def _release(scheduler: Scheduler, bindings: Sequence[Binding], *, cut: bool = False) -> None:
    for binding in bindings:
        scheduler.release(binding, cut=cut)


class SavedStream:
    """A saved stream that has been unpacked, and is not trusted yet."""

    def __init__(self, state: bytes, key: bytes | None) -> None:
        """What `StreamSetup.save` gave.

        Raises:
            StreamError: it is something else, damaged, or signed with another key.
        """
        tree = unpack_stream(state, key)
        sessions: Any = tree.get("sessions")
        listed = cast("list[Any]", sessions if isinstance(sessions, list) else [])
        whole = tree.keys() == {"sessions"}
        if not whole or not listed or not all(map(_is_session, listed)):
            raise StreamError("the saved stream is damaged: parts of it are missing")
        self._sessions = cast("list[dict[str, Any]]", listed)

    @property
    def num_channels(self) -> int:
        """Channels that are heard one by one; 0 where they are mixed."""
        first = self._sessions[0]["session"].get("channel")
        return 0 if first is None else len(self._sessions)

    def hears(self, options: StreamOptions) -> StreamOptions:
        """`options` with the channels that were heard one by one, whatever they say."""
        if self.num_channels:
            format = AudioFormat(channels=self.num_channels)
            return replace(options, channel="each", format=format)
        return replace(options, channel="mix") if options.channel == "each" else options

    def members(
        self, sessions: Sequence[WordSession], decoding: DecodingOptions | None
    ) -> list[Member]:
        """New sessions, put to where the saved ones were, with their slots.

        Args:
            sessions: one, or one for each channel.
            decoding: how tokens are picked after the sound that was pushed before the save; None
                goes on as the saved stream would.

        Raises:
            StreamError: it is damaged, or of another model.
            ConfigError: the model cannot decode so.
        """
        # Hotwords are spelled here: once, however many channels and changes want them.
        changes: dict[DecodingOptions, DecodingChange] = {}
        members = [
            self._member(session, saved, changes)
            for session, saved in zip(sessions, self._sessions, strict=False)
        ]
        if decoding is not None:
            change = changes.get(decoding) or sessions[0].new_change(decoding)
            for session in sessions:
                session.change_decoding(change)
        return members

    def _member(
        self,
        session: WordSession,
        saved: dict[str, Any],
        changes: dict[DecodingOptions, DecodingChange],
    ) -> Member:
        session.restore(saved["session"])
        decoding = session.decoding
        try:
            change = changes.get(decoding) or session.new_change(decoding)
        except ConfigError as error:
            raise StreamError(
                f"the saved stream is of another model, or damaged ({error})"
            ) from error
        changes[decoding] = change
        picker = deepcopy(change.picker)  # others begin with the same
        if picker is not None and saved["picker"] is not None:
            picker.restore(saved["picker"])
        return Member(session, SlotOptions(picker, decoding.num_codebooks), saved["slot"])


def _is_session(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and cast("dict[str, Any]", value).keys() == {"session", "slot", "picker"}
        and isinstance(value["session"], dict)
        and isinstance(value["slot"], bytes)
    )


class OpenStream:
    """What can be asked of every live stream, and what both kinds do without waiting."""

    def __init__(self, setup: StreamSetup) -> None:
        """`Recognizer` opens them."""
        self._setup, self._scheduler, self._options = setup, setup.scheduler, setup.options
        self._sessions = setup.sessions
        self._first = self._sessions[0]
        self._hears_each = setup.options.channel == "each"
        # Asked for after every frame: most streams have one session.
        self._only = self._first if len(self._sessions) == 1 else None
        self._max_queue_s = setup.options.max_queue_s + 1e-9
        self._waits_when_full = setup.options.when_full == "block"
        self._lock = threading.Lock()
        self._stopped = False
        # A forgotten stream gives its slots back. The setup is not bound: through the key of its
        # states it holds the recognizer, which may hold the stream.
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

    @property
    def failure(self) -> Exception | None:
        """What the stream failed with; None while it goes on, or where it has ended well."""
        return next((s.failure for s in self._sessions if s.failure is not None), None)

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

    # Sound.

    def _check(self, samples: PushedSamples, rate: int | None) -> Chunk:
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

    def _parts(self, chunk: Chunk) -> list[Chunk]:
        """The sound in parts that fit into the queue.

        Raises:
            StreamClosed: after `close`.
            QueueFull: it never fits, and the stream does not wait.
        """
        self._check_open()
        most = self._options.max_queue_s
        if chunk.seconds <= most:
            return [chunk]
        if not self._waits_when_full:
            raise QueueFull(
                f"{chunk.seconds:.1f} s of sound were pushed at once, and {most:g} may wait: "
                "push less at a time, or raise max_queue_s"
            )
        return chunk.split(_PART * most)

    def _has_room(self, seconds: float) -> bool:
        """Whether `seconds` of sound fit into the queue; also true of a stream that is closed or
        failed, where a push raises at once."""
        return self.waiting_s + seconds <= self._max_queue_s or self._is_closed

    def _queue_full(self, taken_s: float = 0.0) -> QueueFull:
        """The error of a push that found no room, of which so many seconds were taken."""
        return QueueFull(
            f"{self.waiting_s:.1f} s of sound wait to be heard, and "
            f"{self._options.max_queue_s:g} may: push it again later, or drop it and say so with "
            f"push_silence.{_taken(taken_s)}"
        )

    def _take(self, part: Chunk) -> None:
        """Give sound to the sessions; the lock is held."""
        if not self._hears_each:
            self._first.push(part)
            return
        for channel, session in enumerate(self._sessions):
            # Recordings are not checked, and may lose channels on their way.
            session.push(part.of_channel(channel))

    @property
    def _is_closed(self) -> bool:
        return self._first.is_closing or self.failure is not None

    def _check_open(self, what: str = "sound was pushed", taken_s: float = 0.0) -> None:
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

    def _finalize(self, request: FinalizeRequest) -> None:
        with self._lock:
            self._check_open("finalize() was called")
            for session in self._sessions:  # of several channels all are asked, or none
                session.check_finalize()
            for session in self._sessions:
                session.finalize(request)
        self._scheduler.wake()

    def _close(self) -> None:
        with self._lock:
            for session in self._sessions:
                session.check_alive()
                session.close()
        self._scheduler.wake()

    def _request_stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._setup.release(cut=True)

    def _new_change(self, options: DecodingOptions | None) -> DecodingChange:
        return self._first.new_change(checked_decoding_options(options))

    def _change_decoding(self, change: DecodingChange) -> None:
        with self._lock:
            self._check_open("set_decoding() was called")
            for session in self._sessions:  # of several channels all change there, or none
                session.check_change()
            for session in self._sessions:
                session.change_decoding(change)
        self._scheduler.wake()

    def _save_now(self) -> bytes:
        """The part of `save` that is done between two steps."""
        with self._lock:  # nothing is pushed into one channel and not into another
            num_given = [session.num_given for session in self._sessions]
        return self._setup.save(num_given)

    # Events.

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

    @property
    def _has_news(self) -> bool:
        """Whether there is an event, or none will come any more."""
        only = self._only
        if only is not None:
            return bool(only.events) or only.done or only.failure is not None
        return any(session.events for session in self._sessions) or self._has_ended

    @property
    def _has_ended(self) -> bool:
        """Whether no event will come any more but those that wait."""
        only = self._only
        if only is not None:
            return only.done or only.failure is not None
        return self.done or self.failure is not None


def _taken(seconds: float) -> str:
    """Of the message to who pushed, where not all was taken."""
    return f" The first {seconds:.2f} s of this push were taken." if seconds else ""
