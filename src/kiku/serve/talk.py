"""One live connection: carries a client's messages to its protocol, does what the protocol wants,
and carries the answers back.

    wire.receive -> protocol.received -> asks (Open, Push, ...) -> talk_stream, in order
    the stream   -> protocol.event    -> messages -> outbox       -> wire.send, in order

A talk knows when it begins and ends, whether its client is silent, and whether it comes back. All
of this runs in one event loop, where nothing is computed: the thread that steps the model converts
and hears the sound.
"""

import asyncio
import logging
from contextlib import suppress
from functools import partial

from kiku.options import StreamOptions
from kiku.serve.message_history import MessageHistory
from kiku.serve.outbox import MAX_WAITING, Outbox
from kiku.serve.protocols.interface import (
    Actions,
    Close,
    Hangup,
    LiveProtocol,
    Push,
    Send,
    ServerEnds,
)
from kiku.serve.service import Service
from kiku.serve.session_recorder import SessionRecorder
from kiku.serve.takeover import Takeover
from kiku.serve.talk_connection import TalkConnection
from kiku.serve.talk_counters import TalkCounters
from kiku.serve.talk_stream import TalkStream
from kiku.serve.tasks import Tasks
from kiku.serve.wire import Gone, Wire

_LOG = logging.getLogger("kiku.serve")

_IDLE_WAITING_S = 0.5
"""Seconds of waiting sound; a stream with more is not idle, even if its client sends nothing."""

_GOODBYES = (1000, 1001)
"""Close codes of clients who do not come back."""

_LEAVE_S = 5.0
"""Seconds within which a client answers that its connection is closed."""

_TELL_S = 5.0
"""Seconds within which a client that has been silent for too long is told its last words."""


class Talk:
    """One client's conversation."""

    def __init__(self, service: Service, protocol: LiveProtocol, owner: str, id: str) -> None:
        """Start without a connection.

        Args:
            service: whose slots it takes.
            protocol: of this connection.
            owner: whose talk it is, for limits and the log.
            id: of its request.
        """
        self._service, self._protocol, self.owner, self.id = service, protocol, owner, id
        self.counters = TalkCounters(service, protocol.name)
        self._tasks = Tasks(self._broken)
        self._outbox = Outbox(self.counters, self._hung_up, keeps=protocol.session is not None)
        self._stream = TalkStream(service, protocol, self._outbox, self.counters, self._tasks)
        self._connection: TalkConnection | None = None  # the present one, or the last
        self._returned = asyncio.Event()  # its client has come back, or is not awaited any more
        self._next_wire: Wire | None = None  # came back last, and waits to go on
        self._hung_up_on: Wire | None = None  # where `ended` was sent last
        self._takeover: Takeover | None = None  # set if another process began the talk
        self._is_frozen = False
        self.has_hung_up = False
        self.began_at = 0.0
        self.code = 1006
        """Close code with which the connection ended."""

    @property
    def protocol_name(self) -> str:
        """Name of its protocol."""
        return self._protocol.name

    @property
    def session(self) -> str | None:
        """See `LiveProtocol.session`."""
        return self._protocol.session

    @property
    def protocol(self) -> LiveProtocol:
        """Protocol of this connection."""
        return self._protocol

    @property
    def history(self) -> MessageHistory:
        """Its counted messages."""
        return self._outbox.history

    @property
    def recorder(self) -> SessionRecorder | None:
        """What is kept of it for other processes, if anything is."""
        return self._stream.recorder

    @property
    def heard_s(self) -> float:
        """Seconds of its stream's sound that were heard."""
        return self._stream.heard_s

    @property
    def told_s(self) -> float:
        """See `TalkStream.told_s`."""
        return self._stream.told_s

    @property
    def waiting_bytes(self) -> float:
        """See `TalkStream.waiting_bytes`."""
        return self._stream.waiting_bytes

    @property
    def is_alive(self) -> bool:
        """Whether its client may come back: its stream could go on, or has ended and the client has
        perhaps not had the last messages."""
        left = self.has_hung_up or self.code in _GOODBYES
        return not left and (self._stream.is_open or self._stream.ended is not None)

    @property
    def is_away(self) -> bool:
        """Whether its connection was cut, and its client may come back."""
        return self.is_alive and not self._outbox.is_connected

    # From its beginning to its end.

    async def prepare(self, recorder: SessionRecorder | None = None) -> None:
        """Open the stream that the protocol wants first.

        Args:
            recorder: collects what other processes need.

        Raises:
            Busy: no slot is free.
        """
        self._stream.recorder = recorder
        if self._protocol.initial_open is not None:
            await self._stream.begin(self._protocol.initial_open)

    def take_slots(self, options: StreamOptions) -> None:
        """Take the slots that its first stream will need. Raises Busy."""
        self._stream.take_slots(options)

    async def take_over(self, takeover: Takeover, recorder: SessionRecorder) -> None:
        """Go on with a session of another process, instead of `prepare`.

        Raises:
            KikuError: the session cannot be gone on with; this talk is of no use then.
        """
        self._takeover = takeover
        counts, options = takeover.stored.head.counts, takeover.session_options
        self._protocol.restore(counts, options, takeover.num_bytes)
        self._outbox.restore(takeover.history, takeover.client.num_received)
        await self._stream.take_over(takeover, recorder)

    async def run(self, wire: Wire) -> None:
        """Talk until one side ends it."""
        if self._takeover is not None:
            then = [Close()] if self._takeover.is_closed else []
            return await self._go_on(wire, self._takeover.client.num_received, then)
        self._outbox.connect(wire)
        await self._read(wire, self._protocol.begin())

    async def fail(self, wire: Wire, error: Exception) -> None:
        """Tell a client that there is no stream for it."""
        self._outbox.connect(wire)
        with suppress(Gone):
            await self._stream.do(self._protocol.failed(error))

    async def end(self) -> None:
        """Give everything back, and hang up on a client who is still there."""
        wire = self._outbox.take_wire()
        self._next_wire = None
        self._tasks.cancel()
        self._stream.close()
        self.counters.flush()
        await _close_replaced(wire)

    async def end_service(self) -> None:
        """Tell the client that the service ends, and hang up."""
        self._stop_waiting()
        error = ServerEnds("the service is shutting down: connect again in a moment")
        with suppress(Gone):
            await self._stream.do(self._protocol.failed(error))
            await self._stream.do([Hangup(1012, str(error))])

    def _stop_waiting(self) -> None:
        """Wait no more for a client who is away to come back."""
        self.has_hung_up = not self._outbox.is_connected
        self._returned.set()

    # A client that comes back.

    def can_resume(self, num_received: int) -> bool:
        """Whether a client who has had `num_received` messages can go on: all later ones are
        kept."""
        return self.is_alive and self.history.has_all_after(num_received)

    async def resume(self, wire: Wire, num_received: int) -> None:
        """Go on with a client who comes back and has had `num_received` messages."""
        previous = self._connection
        before = self._outbox.take_wire()  # perhaps dead, which was not known
        other, self._next_wire = self._next_wire, wire
        self._outbox.give_up()
        for one in (before, other):
            await _close_replaced(one)
        while self._next_wire is wire and previous is not None:
            if await previous.ended(_LEAVE_S):
                break
            previous.leave()  # it only seems to be alive, or is busy
        if self._next_wire is not wire:  # another one has come since, or the talk has ended
            return await _close_replaced(wire)
        self._next_wire = None
        self._returned.set()
        await self._go_on(wire, num_received)

    async def _go_on(self, wire: Wire, num_received: int, then: Actions = ()) -> None:
        """Greet a client who has had `num_received` messages, send it the later ones, and do the
        actions `then`."""
        stream = self._stream
        # A request under way when the connection was cut is finished, or will be before new ones.
        recorder = stream.recorder
        self._protocol.found(num_received, None if recorder is None else recorder.generation)
        greeting = self._protocol.resumed(stream.taken_s)
        messages: list[Send | Hangup] = [one for one in greeting if isinstance(one, Send)]
        messages += self.history.after(num_received)
        if not stream.is_open:  # it has come to its end meanwhile
            messages.append(stream.ended or Hangup(1000))
        self._outbox.connect(wire, messages)
        await self._read(wire, then)

    async def comes_back(self, seconds: float) -> bool:
        """Wait for the client to come back. Returns whether it did, and has left again."""
        last = self._connection
        if last is None or last.has_ended:  # otherwise the client was faster than this call
            self._returned.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._returned.wait()
            if self._connection is last:
                return False
        if self.has_hung_up or self._connection is None:
            return False
        await self._connection.ended()
        return True

    def _hung_up(self, wire: Wire, item: Hangup) -> None:
        """Note that the client is being hung up on."""
        if item is self._stream.ended:  # over a dead connection it would not arrive
            self._hung_up_on = wire
            self._tasks.start(partial(self._await_close_answer, wire, item.code))
        else:
            self.has_hung_up, self.code = True, item.code

    async def _await_close_answer(self, wire: Wire, code: int) -> None:
        """Forget a session that has ended once its client has had all of it."""
        if await wire.is_answered() and self._hung_up_on is wire:
            self.has_hung_up, self.code = True, code
            self._returned.set()

    # What the client sends.

    async def _read(self, wire: Wire, actions: Actions) -> None:
        """Take what the client sends until it leaves. An error in the protocol's code ends the
        connection."""
        connection = self._connection = TalkConnection(wire)
        with connection:
            try:
                try:
                    await self._take(connection, actions)
                except Gone as gone:
                    if gone.may_listen:
                        await self._finish_for_reader()
                    if not self.has_hung_up and self._hung_up_on is not wire:
                        self.code = gone.code
            except Exception as error:
                await self._broken(error)
            finally:
                self._outbox.disconnect(wire)

    async def _take(self, connection: TalkConnection, actions: Actions) -> None:
        """Do these actions, and then what the client's messages ask for. Raises Gone."""
        received, counters = self._protocol.received, self.counters
        stream, outbox, protocol = self._stream, self._outbox, self._protocol
        await stream.do(actions)
        await outbox.flush()
        connection.not_quiet()
        while not connection.is_leaving:
            message = await connection.receive()
            if self._is_frozen:
                continue  # not taken: the client sends it to the next process
            counters.num_received += len(message)
            actions = received(message)
            if len(actions) == 1 and actions[0].__class__ is Push:
                await stream.push(actions[0])  # pyright: ignore[reportArgumentType]
                connection.not_quiet()
            else:
                await stream.do(actions)
                if not protocol.awaits_sound or any(isinstance(one, Push) for one in actions):
                    connection.not_quiet()
            if len(outbox.waiting) > MAX_WAITING:
                await outbox.drained()
            while stream.keeps_too_much or (protocol.is_full and not self.has_hung_up):
                if connection.is_leaving:
                    break
                await asyncio.sleep(0.1)

    async def _finish_for_reader(self) -> None:
        """Send what a client that sends no more has asked for, as long as more is heard."""
        is_broken = self._outbox.is_broken
        with suppress(Gone):
            actions = self._protocol.client_finished()
            if actions is None:
                return
            await self._stream.do(actions)
            heard_s = -1.0
            while not is_broken.is_set() and self.heard_s != heard_s:
                heard_s = self.heard_s
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._service.settings.write_s):
                        await is_broken.wait()

    def _drop(self) -> None:
        """Drop a client that takes no messages. That of a session may come back, and goes on behind
        what it has sent: all of it is taken, as soon as the stream has room."""
        if self.session is None or not self.is_alive:
            self.abort()
            return
        self._outbox.take_wire()
        self._outbox.give_up()  # so that the stream's events come, which makes room
        if self._connection is not None:
            self._connection.leave()

    def abort(self) -> None:
        """Drop the present connection without a message; nobody may come back to the talk."""
        if self._connection is not None:
            self._connection.abort()

    async def _broken(self, error: Exception) -> None:
        """Log an error in this program, as one in a protocol, and end this connection alone."""
        _LOG.error("%s: the %s connection failed", self.id, self._protocol.name, exc_info=error)
        self.counters.failed(error)
        with suppress(Gone):
            await self._stream.do([Hangup(1011, "an internal error of the server")])

    # Going over to another process.

    async def freeze(self) -> bytes | None:
        """Stop the talk, and save its stream as it stands: nothing more is taken or sent here.
        Returns None if the stream cannot be saved."""
        self._is_frozen = True
        return await self._stream.save()

    async def hand_over(self) -> None:
        """Send the client to another process, which goes on with the session."""
        self._stop_waiting()
        with suppress(Gone):
            await self._stream.do([Hangup(1012, "the session continues elsewhere: connect again")])

    async def let_go(self) -> None:
        """End without a message, as another process goes on with the session already."""
        wire, connection = self._outbox.take_wire(), self._connection
        self.has_hung_up = True
        self._returned.set()
        if wire is None or connection is None:
            self.abort()  # what its last message asked for is of no use any more
            return
        try:
            async with asyncio.timeout(_LEAVE_S):
                await _close_replaced(wire)
                await connection.ended()
        except TimeoutError:  # a connection that only seems to be alive
            self.abort()

    # Time.

    def check_client(self, now: float, held_up_s: float = 0.0) -> None:
        """See whether the client has been silent, or takes nothing; called several times a second.

        Args:
            now: a clock in seconds.
            held_up_s: seconds for which this process did nothing since the last call; they do not
                count as silence of the client.
        """
        settings, connection = self._service.settings, self._connection
        self.counters.look(self._stream.waiting_s)
        if connection is not None and connection.reads_since:
            connection.reads_since = min(now, connection.reads_since + held_up_s)
            connection.quiet_since = min(now, connection.quiet_since + held_up_s)
        self._outbox.held_up(now, held_up_s)
        if self._outbox.stuck_s(now) > settings.write_s:
            _LOG.warning("%s does not read its messages, so it is disconnected", self.id)
            self.counters.errors("SlowReader")
            self._drop()
            return
        if connection is None or not connection.reads_since:
            return
        if self._stream.waiting_s > _IDLE_WAITING_S:
            connection.reads_since = connection.quiet_since = now
            return
        silent_s, quiet_s = now - connection.reads_since, now - connection.quiet_since
        quiet_after_s = self._protocol.quiet_after_s
        while connection.num_quiet < len(quiet_after_s):
            after_s = quiet_after_s[connection.num_quiet]
            if quiet_s < after_s:
                break
            connection.num_quiet += 1
            self._tasks.start(partial(self._stream.do, self._protocol.quiet(after_s)))
        if silent_s > settings.idle_s:
            connection.reads_since = 0.0
            self._outbox.reason = f"nothing was received for {settings.idle_s:g} seconds"
            self._tasks.start(partial(self._end_idle, connection))

    async def _end_idle(self, connection: TalkConnection) -> None:
        """Tell a client that has been silent for too long what was heard, and hang up."""
        reason = self._outbox.reason
        if self._stream.is_open:
            await self._stream.do(self._protocol.idle(reason))
            if await connection.ended(_TELL_S):
                return
        await self._stream.do([Hangup(1000, reason)])


async def _close_replaced(wire: Wire | None) -> None:
    """Hang up on a client whose session another connection goes on with. One that takes nothing
    does not hold up the other for long."""
    if wire is not None:
        with suppress(Gone, OSError, RuntimeError, TimeoutError):
            async with asyncio.timeout(_LEAVE_S):
                await wire.close(1012, "the session continues elsewhere")
