"""The stream of one talk: does what the protocol asks, and gives the protocol what is heard.

    asks (Open, Push, FinalizeStream, ...) -> a decoder, for a container -> the stream, in order
    the stream -> protocol.event -> messages -> the outbox

Messages never wait for asks: a client whose sound finds no room still gets its words. Knows of its
slots, and of what is kept for other processes; does not know the connection.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kiku.audio import StreamWarning
from kiku.errors import AudioError, ConfigError, KikuError, QueueFull, StreamClosed, StreamError
from kiku.live import AsyncStream
from kiku.options import StreamOptions
from kiku.serve.admission import HeldSlots
from kiku.serve.client_progress import Overlap
from kiku.serve.decoder import RecordingDecoder
from kiku.serve.decoding_history import PlannedChanges
from kiku.serve.live_recording import LiveRecording
from kiku.serve.outbox import Outbox
from kiku.serve.protocols.interface import (
    Action,
    Actions,
    Close,
    Decode,
    FinalizeStream,
    Hangup,
    LiveProtocol,
    Open,
    Push,
    PushGap,
    Send,
)
from kiku.serve.service import Service
from kiku.serve.session_recorder import SessionRecorder
from kiku.serve.sound_backlog import SoundBacklog
from kiku.serve.stream_events import StreamEvents
from kiku.serve.takeover import Takeover, push_gap
from kiku.serve.talk_counters import TalkCounters
from kiku.serve.tasks import Tasks

_REJECTIONS = (AudioError, ConfigError, QueueFull, StreamClosed)
"""Errors of a message, after which the stream goes on."""

_ROOM_S = 0.05
"""Seconds between two attempts to ask a stream with many finalizes for one more."""

_SAVE_S = 5.0
"""Seconds within which all that was asked of a stream must be done, so that it can be saved."""


class TalkStream:
    """Takes one client's sound, and gives the words that are heard in it."""

    def __init__(
        self,
        service: Service,
        protocol: LiveProtocol,
        outbox: Outbox,
        counters: TalkCounters,
        tasks: Tasks,
    ) -> None:
        """Start without a stream.

        Args:
            service: whose slots it takes.
            protocol: says what is to be done, and makes messages of what is heard.
            outbox: sends the messages.
            counters: count what is heard.
            tasks: of the talk.
        """
        self._service, self._protocol, self._outbox = service, protocol, outbox
        self._counters, self._tasks = counters, tasks
        self._slots = HeldSlots(service.permit)
        self._stream: AsyncStream | None = None
        self._decoder: RecordingDecoder | None = None
        self._listener: asyncio.Task[None] | None = None
        self._asking = asyncio.Lock()
        self._asks: deque[list[Action]] = deque()
        self._backlog = SoundBacklog()
        self._told_s: float | None = None  # see `told_s`; None while nothing is being told
        self._ended_s = 0.0  # sound it had taken when it ended
        self._overlap: Overlap | None = None  # with what another process has told
        self._planned = PlannedChanges()
        self.recorder: SessionRecorder | None = None
        """What is kept of it for other processes, if anything is."""
        self.ended: Hangup | None = None
        """How the client of a session is hung up on, once the stream has come to its end."""

    @property
    def is_open(self) -> bool:
        """Whether there is a stream, which takes sound or is still heard."""
        return self._stream is not None

    @property
    def heard_s(self) -> float:
        """Seconds of its sound that were heard."""
        return 0.0 if self._stream is None else self._stream.heard_s

    @property
    def told_s(self) -> float:
        """Seconds of its sound whose events were given to the outbox, all of them. Less than
        `heard_s` while a client takes no messages: events that come meanwhile wait in the stream,
        and only their sound brings them back if this process is killed."""
        return self.heard_s if self._told_s is None else self._told_s

    @property
    def waiting_s(self) -> float:
        """Seconds of its sound that wait to be heard."""
        return 0.0 if self._stream is None else self._stream.waiting_s

    @property
    def taken_s(self) -> float:
        """Seconds of sound that it has taken, in the session's time."""
        return self._ended_s if self._stream is None else self._stream.duration

    @property
    def waiting_bytes(self) -> float:
        """Bytes of memory of the sound that waits, which is in the client's own format."""
        return self._backlog.num_bytes

    @property
    def keeps_too_much(self) -> bool:
        """Whether so much sound waits that no more is read until some of it has been heard."""
        return self.waiting_bytes > self._service.room_bytes

    # From its beginning to its end.

    def take_slots(self, options: StreamOptions) -> None:
        """Take the slots that a first stream with these options will need. Raises Busy."""
        self._slots.hold(options.num_sessions())

    async def begin(self, first: Open) -> None:
        """Open the first stream. Raises Busy: no slot is free."""
        self.take_slots(first.options)
        await self._open(first)
        if self.recorder is not None:
            self.recorder.opened(first.options, first.container)

    async def take_over(self, takeover: Takeover, recorder: SessionRecorder) -> None:
        """Go on with the stream of another process, instead of `begin`.

        Raises:
            KikuError: that stream cannot be gone on with.
        """
        state = takeover.state
        self.recorder = recorder
        self._overlap = recorder.overlap = takeover.overlap
        if takeover.has_ended:
            self.ended, self._ended_s = Hangup(1000), takeover.end_s
            self._slots.give_back()
            return
        stream = await self._open(Open(takeover.options), state)
        if state is None:
            await push_gap(stream, takeover.start_s)
        self._planned = PlannedChanges(takeover.changes, takeover.sound)
        for gap_s, data in takeover.parts:
            given = PushGap(gap_s) if gap_s else Push(takeover.sound.pushed(data))
            if state is None:
                await self._ask(given)
            elif isinstance(given, PushGap):
                recorder.gap(gap_s)
            else:
                recorder.pushed(given.samples)
        if state is not None:
            recorder.skip_to(stream.duration, takeover.num_bytes)
        for one in takeover.finalizes:  # which the recorder knows already
            self._counters.asked_at = time.monotonic()
            await self._request(stream, partial(stream.finalize, one.tag, cut=one.cut))

    async def save(self) -> bytes | None:
        """Save the stream as it stands, and send nothing more. None if it cannot be saved."""
        stream, listener = self._stream, self._listener
        if listener is not None:
            listener.cancel()  # it has sent all that it has fetched
            await asyncio.wait([listener])
        if stream is None or self._decoder is not None:
            return None
        try:
            async with asyncio.timeout(_SAVE_S), self._asking:
                return None if self._asks else await stream.save()
        except (TimeoutError, KikuError):
            return None

    def close(self) -> None:
        """Give everything back; no client comes back for what is left."""
        self.ended = None
        self._drop()
        self._slots.give_back()

    async def _open(self, wanted: Open, state: bytes | None = None) -> AsyncStream:
        options = replace(
            wanted.options, max_queue_s=self._service.settings.read_ahead_s, when_full="block"
        )
        stream = self._stream = await self._service.open(options, state=state)
        self.ended = self._told_s = None
        self._planned = PlannedChanges()
        self._backlog = SoundBacklog(stream)
        self._listener = self._tasks.start(partial(self._listen, stream))
        if wanted.container:
            decoder = self._decoder = await self._service.decoders.decode()
            recording = LiveRecording(decoder, stream, options)
            self._tasks.start(partial(self._hear, recording, decoder, stream))
        return stream

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        self._backlog = SoundBacklog()
        decoder, self._decoder = self._decoder, None
        if stream is not None:
            self._counters.duration += stream.duration
            stream.stop()
        if decoder is not None:
            self._service.run_in_background(decoder.close())

    # What the protocol wants.

    async def push(self, sound: Push) -> None:
        """As `do`, for sound alone, which most messages are: a short way if nothing waits."""
        stream = self._stream
        has_asks = self._asks or self._planned or self._asking.locked()
        if stream is None or self._decoder is not None or has_asks:
            return await self.do([sound])
        self._counters.pushed()
        try:
            if not stream.push_now(sound.samples, sound.rate):
                return await self.do([sound])
            self._backlog.add(sound.samples)
            if self.recorder is not None:
                self.recorder.pushed(sound.samples)
        except _REJECTIONS as error:
            self._counters.failed(error)
            await self.do(self._protocol.rejected(error))
        except Exception as error:
            if error is not stream.failure and not isinstance(error, StreamError):
                raise
        return None

    async def do(self, actions: Actions) -> None:
        """Do what the protocol wants: messages at once, asks in their order."""
        outbox, asks = self._outbox, None
        for action in actions:
            if action.__class__ is Send or action.__class__ is Hangup:
                outbox.put(action)  # pyright: ignore[reportArgumentType]
            elif asks is None:
                asks = [action]
            else:
                asks.append(action)
        if asks is not None:
            # Before anything is awaited, so that asks of the client's next message come after.
            self._asks.append(asks)
        if outbox.waiting:
            await outbox.flush()
        if asks is not None:
            async with self._asking:
                while self._asks:
                    await self._ask_all(self._asks.popleft())

    async def _ask_all(self, asks: Iterable[Action]) -> None:
        waiting, outbox = deque(asks), self._outbox
        while waiting:
            try:
                more = await self._ask(waiting.popleft())
            except _REJECTIONS as error:
                self._counters.failed(error)
                more = self._protocol.rejected(error)
            except Exception as error:
                failure = None if self._stream is None else self._stream.failure
                if error is not failure and not isinstance(error, StreamError):
                    raise
                continue  # the stream has failed: its events say how
            for action in more:
                if isinstance(action, Send | Hangup):
                    outbox.put(action)
                else:
                    waiting.append(action)
            if outbox.waiting:
                await outbox.flush()

    async def _ask(self, action: Action) -> Actions:
        """Ask the stream for one thing. Returns what the protocol wants after that."""
        stream, recorder = self._stream, self.recorder
        if isinstance(action, Open):
            return await self._reopen(action)
        if stream is None:
            return ()
        if self._decoder is not None and isinstance(action, FinalizeStream | PushGap | Decode):
            await self._decoder.settled()  # all sound before them is heard first
            if self._stream is not stream:
                return ()
        match action:
            case Push(samples, rate):
                self._counters.pushed()
                if self._decoder is not None:
                    await self._decoder.feed(bytes(samples))
                else:
                    await self._push(stream, samples, rate)
            case PushGap(seconds):
                await stream.push_silence(seconds)
                if recorder is not None:
                    recorder.gap(seconds)
                await self._make_changes(stream)
            case FinalizeStream(tag, cut):
                self._counters.asked_at = time.monotonic()
                is_done = await self._request(stream, partial(stream.finalize, tag, cut=cut))
                if is_done and recorder is not None:
                    recorder.asked(tag, cut)
            case Decode(options):
                if not await self._request(stream, partial(stream.set_decoding, options)):
                    return ()
                self._planned = PlannedChanges()  # they came before it
                if recorder is not None:
                    recorder.decoding(options)
                return self._protocol.decoded()
            case Close():
                self._counters.asked_at = time.monotonic()
                if self._decoder is not None:
                    self._decoder.end()
                else:
                    await stream.close()
                if recorder is not None:
                    recorder.closed()
            case _:
                raise AssertionError(f"there is no action {action!r}")
        return ()

    async def _push(
        self, stream: AsyncStream, samples: NDArray[np.generic] | bytes, rate: int | None
    ) -> None:
        """Push sound, and change the decoding where another process has changed it."""
        while True:
            part, samples = self._planned.cut(samples, stream.duration)
            await stream.push(part, rate=rate)
            self._backlog.add(part)
            if self.recorder is not None:
                self.recorder.pushed(part)
            await self._make_changes(stream)
            if not len(samples):
                break

    async def _make_changes(self, stream: AsyncStream) -> None:
        for options in self._planned.due(stream.duration):
            await self._request(stream, partial(stream.set_decoding, options))

    async def _request(self, stream: AsyncStream, ask: Callable[[], Awaitable[None]]) -> bool:
        """Ask for a finalize, or for other decoding, as soon as the stream takes one more: a client
        may ask for many ahead, and its sound after them waits as long. Returns whether that was
        done before the stream was given up."""
        while self._stream is stream:
            try:
                await ask()
                return True
            except QueueFull:
                await asyncio.sleep(_ROOM_S)
        return False

    async def _reopen(self, wanted: Open) -> Actions:
        self._drop()
        try:
            self._slots.hold(wanted.options.num_sessions())
            self._overlap = None
            await self._open(wanted)
            if self.recorder is not None:
                self.recorder.opened(wanted.options, wanted.container)
        except KikuError as error:
            self._counters.failed(error)
            return self._protocol.failed(error)
        return self._protocol.opened()

    async def _hear(
        self, recording: LiveRecording, decoder: RecordingDecoder, stream: AsyncStream
    ) -> None:
        """Push the sound of the client's recording, and report what is wrong with it."""
        try:
            async for part in recording.parts():
                if isinstance(part, StreamWarning):
                    if self._stream is stream:  # which cannot know of it
                        self._counters.count_event(part)
                        await self.do(self._protocol.event(part, stream.waiting_s))
                    continue
                while self.keeps_too_much:
                    await asyncio.sleep(0.1)
                await stream.push_chunk(part)
                if part.data is not None:
                    self._backlog.add(part.data)
        except AudioError as error:
            if self._decoder is not decoder:  # it was stopped, hence the error
                return
            self._counters.failed(error)
            await self.do(self._protocol.rejected(error))
        except Exception as error:
            if error is not stream.failure and not isinstance(error, StreamError):
                raise
            return  # the stream's events say how
        with suppress(StreamError):
            await stream.close()

    # What the stream says.

    async def _listen(self, stream: AsyncStream) -> None:
        """Carry the stream's events to the protocol, to the last."""
        heard = StreamEvents(stream, self._protocol, self._counters, self.recorder, self._overlap)
        while not heard.has_ended:
            try:
                events = await heard.wait()
            except Exception as error:
                if self._stream is stream:
                    self._counters.failed(error)
                    actions = self._protocol.failed(error)
                    self._end(stream, actions)
                    await self.do(actions)
                return
            if self._stream is not stream:
                return
            actions = heard.actions(events)
            if heard.has_ended:
                if self._outbox.reason and not any(isinstance(one, Hangup) for one in actions):
                    actions.append(Hangup(1000))
                self._end(stream, actions)
            self._told_s = heard.heard_s
            await self.do(actions)
            self._told_s = None

    def _end(self, stream: AsyncStream, actions: Actions) -> None:
        """Note that the stream has come to its end; `actions` say so to the client. Its slots are
        free, and a session waits for its client until that has had the last messages."""
        self._ended_s = stream.duration
        self._drop()
        self._slots.give_back()
        if self._protocol.session is None:
            return
        hangups = [one for one in actions if isinstance(one, Hangup)]
        self.ended = hangups[0] if hangups else None
        if self.recorder is not None:
            self.recorder.ended()
