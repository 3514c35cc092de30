"""One live connection: carries a client's messages to its protocol, does what the protocol wants,
and carries what comes of it back.

    wire.receive -> protocol.received -> asks (Open, Push, Finalize, ...) -> the stream, in order
    the stream   -> protocol.event    -> messages                         -> wire.send, in order

Messages never wait for asks: a client whose sound finds no room is still told its words. All of it
is in one event loop, where nothing is computed: the sound is converted and heard by the thread that
steps the model.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiku.errors import AudioError, ConfigError, KikuError, QueueFull, StreamClosed, StreamError
from kiku.live_async import AsyncStream
from kiku.options import StreamOptions
from kiku.serve.admission import Permit
from kiku.serve.decoder import Decoder
from kiku.serve.figures import Figures
from kiku.serve.history import History
from kiku.serve.keeping import Keeping
from kiku.serve.moving import Moved, push_gap
from kiku.serve.protocols.interface import (
    Action,
    Actions,
    Close,
    Decode,
    Finalize,
    Gap,
    Hangup,
    LiveProtocol,
    Open,
    Push,
    Send,
    ServerEnds,
)
from kiku.serve.service import Service
from kiku.serve.told import Overlap
from kiku.serve.wire import Gone, Wire
from kiku.stream import End

_LOG = logging.getLogger("kiku.serve")

_REJECTIONS = (AudioError, ConfigError, QueueFull, StreamClosed)
"""What is wrong with a message, and not with the stream."""

_MOST_ANSWERS = 256
"""So many messages may wait to be sent before no more are read."""

_BEHIND_S = 0.5
"""A stream with more sound waiting is not idle, even if its client sends nothing."""

_GOODBYES = (1000, 1001)
"""A client that closes with these does not come back."""

_LEAVE_S = 5.0
"""Within which a client answers that its connection is closed."""

_TELL_S = 5.0
"""Within which a client that has been silent for too long is told its last words."""

_FREEZE_S = 5.0
"""Within which what was asked of a stream must be done, so that it can be saved."""


class Talk:
    """One client's conversation."""

    def __init__(self, service: Service, protocol: LiveProtocol, owner: str, id: str) -> None:
        """Not connected yet.

        Args:
            service: whose slots it takes.
            protocol: of this connection.
            owner: whose it is, for limits and the log.
            id: of its request.
        """
        self._service, self._protocol, self.owner, self.id = service, protocol, owner, id
        self._wire: Wire | None = None
        self._permit: Permit | None = None
        self._stream: AsyncStream | None = None
        self._decoder: Decoder | None = None
        self._asking = asyncio.Lock()
        self._asks: deque[list[Action]] = deque()
        self._out: deque[Send | Hangup] = deque()
        self._is_flushing = False
        self._drained = asyncio.Event()
        self._drained.set()  # nothing is being sent
        # Of a session: whether its client has left, is awaited, and has come back.
        self._left, self._let_go, self._returned = (asyncio.Event() for _ in range(3))
        self._newcomer: Wire | None = None  # who has come back last, and waits to go on
        self.history = History()
        """Its counted messages."""
        # Of a session whose stream has come to its end: how its client is hung up on, on which wire
        # that was done last, and how much sound the stream had taken.
        self._ended: Hangup | None = None
        self._told_on: Wire | None = None
        self._why = ""  # it ends, where its client is silent
        self._taken_s = 0.0
        self._num_pushed, self._pushed_from_s = 0, 0.0  # bytes of sound, and from where on
        self._moved: Moved | None = None  # it was begun by another process
        self._overlap: Overlap | None = None
        self.keeping: Keeping | None = None
        """What is kept of it for other processes, if anything is."""
        self._is_frozen = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._is_aborted = False  # the reader is cancelled by the talk itself
        self._listener: asyncio.Task[None] | None = None
        self.has_hung_up = False
        self._is_quit = asyncio.Event()  # nothing can be sent any more
        self.began_at = 0.0
        self.code = 1006
        """With which the connection ended."""
        # What the sweep looks at.
        self._reads_since = self._sends_since = 0.0  # 0: it does not
        self._num_quiet = 0
        self.figures = Figures(service, protocol.name)

    @property
    def protocol_name(self) -> str:
        """Which protocol it is."""
        return self._protocol.name

    @property
    def session(self) -> str | None:
        """See `LiveProtocol.session`."""
        return self._protocol.session

    @property
    def protocol(self) -> LiveProtocol:
        """Of this connection."""
        return self._protocol

    @property
    def heard_s(self) -> float:
        """Seconds of its stream's sound that were heard."""
        return 0.0 if self._stream is None else self._stream.heard_s

    @property
    def waiting_s(self) -> float:
        """Seconds of its sound that wait to be heard."""
        return 0.0 if self._stream is None else self._stream.waiting_s

    @property
    def waiting_bytes(self) -> float:
        """What the sound that waits takes of memory: it waits in the client's own format."""
        stream = self._stream
        if stream is None or not self._num_pushed:
            return 0.0
        pushed_s = max(stream.duration - self._pushed_from_s, stream.waiting_s, 1e-3)
        return stream.waiting_s / pushed_s * self._num_pushed

    @property
    def is_alive(self) -> bool:
        """Whether its client may come back: its stream could go on, or has ended and the client has
        perhaps not had the last messages."""
        left = self.has_hung_up or self.code in _GOODBYES
        return not left and (self._stream is not None or self._ended is not None)

    # From its beginning to its end.

    async def prepare(self) -> None:
        """Open the stream that the protocol wants first.

        Raises:
            Busy: no slot is free.
        """
        first = self._protocol.first
        if first is not None:
            self.take_slots(first.options)
            await self._open_stream(first)
            if self.keeping is not None:
                self.keeping.opened(first.options, first.container)

    def take_slots(self, options: StreamOptions) -> None:
        """Hold what its first stream will need. Raises Busy."""
        if self._permit is None:
            self._permit = self._service.permit(num_slots(options))

    async def take_over(self, moved: Moved, keeping: Keeping) -> None:
        """In the place of `prepare`: go on with a session of another process.

        Raises:
            KikuError: it cannot be gone on with; this talk is of no use then.
        """
        head, state = moved.stored.head, moved.state
        self._protocol.restore(head.counts, moved.options, moved.num_bytes)
        self.history, self.keeping, self._overlap = moved.history, keeping, moved.overlap
        self._moved = moved
        if moved.has_ended:
            self._ended, self._taken_s = Hangup(1000), moved.end_s
            self._give_back()
            return
        await self._open_stream(Open(moved.options), state)
        stream = self._stream
        assert stream is not None
        if state is None:
            await push_gap(stream, moved.start_s)
        for gap_s, data in moved.parts:
            given = Gap(gap_s) if gap_s else Push(moved.sound.pushed(data))
            if state is None:
                await self._ask(given)
            elif isinstance(given, Gap):
                keeping.gap(gap_s)
            else:
                keeping.pushed(given.samples)
        if state is not None:
            keeping.unknown(stream.duration, moved.num_bytes)
        for tag, cut in moved.finalizes:
            await self._ask(Finalize(tag, cut))

    async def run(self, wire: Wire) -> None:
        """Talk until one side ends it."""
        if self._moved is not None:
            then = [Close()] if self._moved.is_closed else []
            return await self._go_on(wire, self._moved.client.num_received, then)
        self._wire = wire
        await self._read(wire, self._protocol.begin())

    async def fail(self, wire: Wire, error: Exception) -> None:
        """Tell a client that there is no stream for it."""
        self._wire = wire
        with suppress(Gone):
            await self.do(self._protocol.failed(error))

    def can_resume(self, num_received: int) -> bool:
        """Whether a client who has had so many messages can go on: what it has missed is kept."""
        return self.is_alive and self.history.knows_behind(num_received)

    async def resume(self, wire: Wire, num_received: int) -> None:
        """Go on with a client who comes back and has had so many messages."""
        before, self._wire = self._wire, None  # that nobody knew to be dead
        other, self._newcomer = self._newcomer, wire
        for one in (before, other):
            await _give_way(one)
        await self._let_go.wait()
        if self._newcomer is not wire:  # another one has come since, or the talk has ended
            return await _give_way(wire)
        self._newcomer = None
        self._let_go.clear()  # whoever comes now waits until this one has left
        self._returned.set()
        await self._go_on(wire, num_received)

    async def _go_on(self, wire: Wire, num_received: int, then: Actions = ()) -> None:
        """Greet a client who has had so many messages, tell it the others, and do what is to be
        done then."""
        again = self.history.behind(num_received)
        # A request under way when the connection was cut is finished, or will be before others.
        taken_s = self._taken_s if self._stream is None else self._stream.duration
        self._wire = wire
        self._out.clear()
        for one in [*self._protocol.resumed(taken_s), *again]:
            if isinstance(one, Send):
                self._out.append(one)
        if self._stream is None:  # it has come to its end meanwhile
            self._out.append(self._ended or Hangup(1000))
        await self._read(wire, then)

    async def comes_back(self, seconds: float) -> bool:
        """Wait for the client to come back; whether it did, and has left again."""
        self._returned.clear()
        self._let_go.set()
        try:
            async with asyncio.timeout(seconds):
                await self._returned.wait()
        except TimeoutError:
            if not self._returned.is_set():
                return False
        self._let_go.clear()
        if self.has_hung_up:
            return False
        await self._left.wait()
        return True

    async def _read(self, wire: Wire, actions: Actions) -> None:
        """Take what the client sends until it leaves. A mistake in the protocol ends the
        connection."""
        self._reader = me = asyncio.current_task()
        self._left.clear()
        self._is_aborted = False
        clock, received, figures = time.monotonic, self._protocol.received, self.figures
        try:
            await self.do(actions)
            await self._flush()
            while True:
                self._reads_since = clock()
                message = await wire.receive()
                self._reads_since, self._num_quiet = 0.0, 0
                if self._is_frozen:
                    continue  # it is not taken: the client sends it to the next process
                figures.num_received += len(message)
                actions = received(message)
                if len(actions) == 1 and actions[0].__class__ is Push and not self._asks:
                    await self._push(actions[0])  # pyright: ignore[reportArgumentType]
                else:
                    await self.do(actions)
                if len(self._out) > _MOST_ANSWERS:
                    await self._drained.wait()
                while self._keeps_too_much:
                    await asyncio.sleep(0.1)
        except Gone as gone:
            if gone.may_listen:
                await self._tell_rest()
            if not self.has_hung_up and self._told_on is not wire:
                self.code = gone.code
        except asyncio.CancelledError:
            if not self._is_aborted or me is None or me.uncancel():
                raise  # somebody else ends the connection
        except Exception as error:
            await self._broken(error)
        finally:
            if self._reader is me:
                self._reads_since = 0.0
                self._left.set()
            if self._wire is wire:
                self._wire = None

    @property
    def _keeps_too_much(self) -> bool:
        """Whether no more is read until some of what waits has been heard."""
        return self.waiting_bytes > self._service.room_bytes

    async def _tell_rest(self) -> None:
        """Tell a client that sends no more what it has asked for, as long as that goes on."""
        with suppress(Gone):
            actions = self._protocol.said_all()
            if actions is None:
                return
            await self.do(actions)
            heard_s = -1.0
            while not self._is_quit.is_set() and self.heard_s != heard_s:
                heard_s = self.heard_s
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._service.settings.write_s):
                        await self._is_quit.wait()

    async def end(self) -> None:
        """Give everything back, and hang up on who is still there."""
        wire, self._wire = self._wire, None
        self._ended = self._newcomer = None
        self._let_go.set()
        for task in list(self._tasks):
            task.cancel()
        self._drop_stream()
        self._give_back()
        self.figures.flush()
        await _give_way(wire)

    async def end_service(self) -> None:
        """The service goes down: tell the client, and hang up."""
        self.has_hung_up = self._wire is None  # nobody may come back any more
        self._returned.set()
        error = ServerEnds("the service is ending: connect again in a moment")
        with suppress(Gone):
            await self.do(self._protocol.failed(error))
            await self.do([Hangup(1012, str(error))])

    # Going over to another process.

    async def freeze(self) -> bytes | None:
        """Its stream as it stands, saved: nothing more is taken or told here. None where it cannot
        be saved."""
        stream, listener = self._stream, self._listener
        self._is_frozen = True
        if listener is not None:
            listener.cancel()  # what it has fetched it has told
            await asyncio.wait([listener])
        if stream is None or self._decoder is not None:
            return None
        try:
            async with asyncio.timeout(_FREEZE_S), self._asking:
                return None if self._asks else await stream.save()
        except (TimeoutError, KikuError):
            return None

    async def hand_over(self) -> None:
        """Another process goes on with it: its client is to connect again."""
        self.has_hung_up = self._wire is None
        self._returned.set()
        with suppress(Gone):
            await self.do([Hangup(1012, "the session goes on elsewhere: connect again")])

    async def let_go(self) -> None:
        """Another process goes on with it already: end without a word."""
        wire, self._wire = self._wire, None
        self.has_hung_up = True
        self._returned.set()
        if wire is None:
            return
        try:
            async with asyncio.timeout(_LEAVE_S):
                await _give_way(wire)
                await self._left.wait()
        except TimeoutError:  # a connection that only seems to be alive
            self.abort()

    async def _push(self, sound: Push) -> None:
        """As `do` of sound alone, which most messages are: the short way where nothing waits."""
        stream = self._stream
        if stream is None or self._decoder is not None or self._asking.locked():
            return await self.do([sound])
        self.figures.pushed()
        try:
            if not stream.push_now(sound.samples, sound.rate):
                return await self.do([sound])
            self._num_pushed += _size_of(sound.samples)
            if self.keeping is not None:
                self.keeping.pushed(sound.samples)
        except _REJECTIONS as error:
            self.figures.failed(error)
            await self.do(self._protocol.rejected(error))
        except Exception as error:
            if error is not stream.failure and not isinstance(error, StreamError):
                raise
        return None

    # What the protocol wants.

    async def do(self, actions: Actions) -> None:
        """Do what the protocol wants: messages at once, asks in their order."""
        asks: list[Action] | None = None
        for action in actions:
            if action.__class__ is Send or action.__class__ is Hangup:
                self._put(action)  # pyright: ignore[reportArgumentType]
            elif asks is None:
                asks = [action]
            else:
                asks.append(action)
        if asks is not None:
            # Before anything is awaited: what the client's next message asks comes behind.
            self._asks.append(asks)
        if self._out:
            await self._flush()
        if asks is not None:
            async with self._asking:
                while self._asks:
                    await self._ask_all(self._asks.popleft())

    def _put(self, item: Send | Hangup) -> None:
        if isinstance(item, Send) and item.counted and self._protocol.session is not None:
            self.history.add(item)
            if self._moved is not None and self.history.count <= self._moved.client.num_received:
                return  # its client has it from the other process
        self._out.append(item)

    async def _flush(self) -> None:
        """Send what waits; if somebody else is at it, he sends this too."""
        if self._is_flushing:
            return
        out, figures = self._out, self.figures
        self._is_flushing = True
        self._drained.clear()
        try:
            while out and (wire := self._wire) is not None:
                item = out.popleft()
                self._sends_since = time.monotonic()
                if isinstance(item, Hangup):
                    out.clear()
                    self._is_quit.set()
                    if item is self._ended:  # written into a dead connection it is not told yet
                        self._told_on = wire
                        self._spawn(partial(self._learn, wire, item.code))
                    else:
                        self.has_hung_up, self.code = True, item.code
                    await wire.close(item.code, item.reason or self._why)
                    return
                figures.num_sent += len(item.data)
                try:
                    await wire.send(item.data)
                except Gone:  # who reads learns it, too
                    self._wire = None if self._wire is wire else self._wire
                    self._is_quit.set()
            if self._wire is None:
                out.clear()  # the history of a session has them
        finally:
            self._is_flushing, self._sends_since = False, 0.0
            self._drained.set()

    async def _learn(self, wire: Wire, code: int) -> None:
        """Forget a session that has ended once its client has had all of it."""
        if await wire.is_answered() and self._told_on is wire:
            self.has_hung_up, self.code = True, code
            self._returned.set()

    async def _ask_all(self, asks: Iterable[Action]) -> None:
        waiting = deque(asks)
        while waiting:
            try:
                more = await self._ask(waiting.popleft())
            except _REJECTIONS as error:
                self.figures.failed(error)
                more = self._protocol.rejected(error)
            except Exception as error:
                failure = None if self._stream is None else self._stream.failure
                if error is not failure and not isinstance(error, StreamError):
                    raise
                continue  # the stream has failed: its events say how
            for action in more:
                if isinstance(action, Send | Hangup):
                    self._put(action)
                else:
                    waiting.append(action)
            if self._out:
                await self._flush()

    async def _ask(self, action: Action) -> Actions:
        """Ask the stream for one thing; what the protocol wants then."""
        stream, keeping = self._stream, self.keeping
        if isinstance(action, Open):
            return await self._reopen(action)
        if stream is None:
            return ()
        if self._decoder is not None and isinstance(action, Finalize | Gap | Decode):
            await self._decoder.settled()  # they come behind the sound before them
            if self._stream is not stream:
                return ()
        match action:
            case Push(samples, rate):
                self.figures.pushed()
                if self._decoder is not None:
                    await self._decoder.feed(bytes(samples))
                else:
                    await stream.push(samples, rate=rate)
                    self._num_pushed += _size_of(samples)
                    if keeping is not None:
                        keeping.pushed(samples)
            case Gap(seconds):
                await stream.push_silence(seconds)
                if keeping is not None:
                    keeping.gap(seconds)
            case Finalize(tag, cut):
                self.figures.asked_at = time.monotonic()
                await stream.finalize(tag, cut=cut)
                if keeping is not None:
                    keeping.asked(tag, cut)
            case Decode(options):
                await stream.set_decoding(options)
                if keeping is not None:
                    keeping.decoding(options)
                return self._protocol.decoded()
            case Close():
                self.figures.asked_at = time.monotonic()
                if self._decoder is not None:
                    self._decoder.end()
                else:
                    await stream.close()
                if keeping is not None:
                    keeping.closed()
            case _:
                raise AssertionError(f"there is no action {action!r}")
        return ()

    async def _reopen(self, wanted: Open) -> Actions:
        self._drop_stream()
        try:
            count = num_slots(wanted.options)
            if self._permit is None or self._permit.count != count:
                if self._permit is not None:
                    self._permit.release()
                self._permit = self._service.permit(count)
            await self._open_stream(wanted)
            self._overlap = None
            if self.keeping is not None:
                self.keeping.opened(wanted.options, wanted.container)
        except KikuError as error:
            self.figures.failed(error)
            return self._protocol.failed(error)
        return self._protocol.opened()

    async def _open_stream(self, wanted: Open, state: bytes | None = None) -> None:
        options = replace(
            wanted.options, max_queue_s=self._service.settings.read_ahead_s, when_full="block"
        )
        stream = self._stream = await self._service.open(options, state=state)
        self._ended = None
        self._num_pushed, self._pushed_from_s = 0, stream.duration
        self._listener = self._spawn(partial(self._listen, stream))
        if wanted.container:
            decoder = self._decoder = await self._service.decoders.decode()
            self._spawn(partial(self._decode, decoder, stream))

    def _drop_stream(self) -> None:
        stream, self._stream = self._stream, None
        decoder, self._decoder = self._decoder, None
        if stream is not None:
            self.figures.duration += stream.duration
            stream.stop()
        if decoder is not None:
            self._service.keep(decoder.close())

    # What the stream says.

    async def _listen(self, stream: AsyncStream) -> None:
        """Carry the stream's events to the protocol, to the last."""
        protocol, heard_s, ended = self._protocol, 0.0, False
        while not ended:
            try:
                if protocol.wants_progress:
                    events = await stream.progress(heard_s)
                else:
                    events = await stream.batch()
            except Exception as error:
                if self._stream is stream:
                    self.figures.failed(error)
                    actions = protocol.failed(error)
                    self._end_stream(stream, actions)
                    await self.do(actions)
                return
            if self._stream is not stream:
                return
            # Before the events are fetched: they are then all that belong to so much sound, and
            # one that is done has no more.
            is_done, heard_s = stream.done, stream.heard_s
            try:
                events += stream.poll()
            except Exception:  # it is raised again when these have been told
                is_done = False
            actions = list[Action]()
            waiting_s = stream.waiting_s
            if self._overlap is not None:
                events = self._overlap.of(events, heard_s)
            for event in events:
                actions += protocol.event(event, waiting_s)
                self.figures.told(event, waiting_s)
                if self.keeping is not None:
                    self.keeping.say(event)
                ended = ended or isinstance(event, End)
            if protocol.wants_progress and not ended:
                actions += protocol.heard(heard_s, waiting_s)
            if ended or (not events and is_done):
                ended = True
                if self._why and not any(isinstance(one, Hangup) for one in actions):
                    actions.append(Hangup(1000))
                self._end_stream(stream, actions)
            await self.do(actions)

    def _end_stream(self, stream: AsyncStream, actions: Actions) -> None:
        """The stream has come to its end; this is told of it. Its slot is free, and a session waits
        for its client until that has had the last messages."""
        self._taken_s = stream.duration
        self._drop_stream()
        self._give_back()
        if self._protocol.session is None:
            return
        hangups = [one for one in actions if isinstance(one, Hangup)]
        self._ended = hangups[0] if hangups else None
        if self.keeping is not None:
            self.keeping.ended()

    def _give_back(self) -> None:
        """The slot of a stream that has ended."""
        if self._permit is not None:
            self._permit.release()
            self._permit = None

    async def _decode(self, decoder: Decoder, stream: AsyncStream) -> None:
        """Push what a decoder makes of the client's bytes."""
        try:
            async for chunk in decoder.chunks():
                while self._keeps_too_much:
                    await asyncio.sleep(0.1)
                await stream.push_chunk(chunk)
                if chunk.data is not None:
                    self._num_pushed += _size_of(chunk.data)
        except AudioError as error:
            if self._decoder is not decoder:  # it was stopped, and that is what it says
                return
            self.figures.failed(error)
            await self.do(self._protocol.rejected(error))
        except Exception as error:
            if error is not stream.failure and not isinstance(error, StreamError):
                raise
            return  # the stream's events say how
        with suppress(StreamError):
            await stream.close()

    # Time.

    def look(self, now: float) -> None:
        """See whether the client has been silent, or takes nothing; called several times a
        second."""
        settings, protocol = self._service.settings, self._protocol
        if self._sends_since and now - self._sends_since > settings.write_s:
            _LOG.warning("%s takes no messages: it is dropped", self.id)
            self.figures.errors("SlowReader")
            self.abort()
            return
        if not self._reads_since:
            return
        if self.waiting_s > _BEHIND_S:
            self._reads_since = now
            return
        silent_s = now - self._reads_since
        while self._num_quiet < len(protocol.quiet_after_s):
            after_s = protocol.quiet_after_s[self._num_quiet]
            if silent_s < after_s:
                break
            self._num_quiet += 1
            self._spawn(partial(self.do, protocol.quiet(after_s)))
        if silent_s > settings.idle_s:
            self._reads_since = 0.0
            self._why = f"nothing came for {settings.idle_s:g} seconds"
            self._spawn(self._end_idle)

    async def _end_idle(self) -> None:
        """Tell a client that has been silent for too long what was heard, and hang up."""
        if self._stream is not None:
            await self.do(self._protocol.idle(self._why))
            with suppress(TimeoutError):
                async with asyncio.timeout(_TELL_S):
                    await self._left.wait()
                    return
        await self.do([Hangup(1000, self._why)])

    def abort(self) -> None:
        """Drop the connection without a word."""
        if self._reader is not None and not (self._left.is_set() or self._is_aborted):
            self._is_aborted = True
            self._reader.cancel()

    def _spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guarded(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """A mistake in a protocol ends its own connection."""
        try:
            await work()
        except Gone:
            pass
        except Exception as error:
            await self._broken(error)

    async def _broken(self, error: Exception) -> None:
        """A mistake of this program's own: it ends this connection alone."""
        _LOG.error("%s: the %s connection failed", self.id, self._protocol.name, exc_info=error)
        self.figures.failed(error)
        with suppress(Gone):
            await self.do([Hangup(1011, "an error of the server's own")])


def _size_of(samples: NDArray[np.generic] | bytes) -> int:
    return len(samples) if isinstance(samples, bytes) else samples.nbytes


async def _give_way(wire: Wire | None) -> None:
    """Hang up on a client whose session another connection goes on with."""
    if wire is not None:
        with suppress(Gone, OSError, RuntimeError):
            await wire.close(1012, "the session goes on elsewhere")


def num_slots(options: StreamOptions) -> int:
    return options.format.channels if options.channel == "each" else 1
