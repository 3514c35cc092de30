"""Handles every WebSocket from its request to its end: access, protocol, and clients who come back.

Also looks after all talks several times a second, and ends them when the service ends.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from kiku.errors import KikuError, NoFreeSlot
from kiku.serve.admission import Busy
from kiku.serve.guard import Guard
from kiku.serve.keys import subprotocol_of
from kiku.serve.logs import connection_line
from kiku.serve.memory import Backlog, give_back
from kiku.serve.protocols.deepgram_query import is_deepgrams
from kiku.serve.protocols.interface import ClientRequest, LiveProtocol, ModelCard, Refusal
from kiku.serve.protocols.refusal_forms import in_form
from kiku.serve.refusals import unavailable
from kiku.serve.service import Service
from kiku.serve.session_keeper import SessionKeeper
from kiku.serve.session_recorder import SessionRecorder
from kiku.serve.session_store import open_store
from kiku.serve.talk import Talk
from kiku.serve.wire import (
    ANSWERED,
    Gone,
    Receive,
    Scope,
    SendMessage,
    WebSocket,
    Wire,
    address_of,
    request_of,
)

_LOG = logging.getLogger("kiku.serve")

MakeProtocol = Callable[[ClientRequest, ModelCard], LiveProtocol]

CHECK_S = 0.25
"""Seconds between two looks for silent clients."""

_TELL_S = 3.0
"""Seconds within which clients must take the last message when the service ends."""

_HAND_OVER_S = 20.0
"""Seconds within which all streams with a session must be saved when the service ends."""

_SAVES = 4
"""Streams that are saved at the same time: a saved stream of a large model has 200 MB."""


class Sockets:
    """The live connections of a service."""

    def __init__(self, service: Service, guard: Guard, routes: Mapping[str, MakeProtocol]) -> None:
        """Start with no connection. `routes` are protocols by path."""
        self._service, self._guard, self._routes = service, guard, routes
        self.talks: set[Talk] = set()
        self._sessions: dict[tuple[str, str], Talk] = {}
        self._sweeping: asyncio.Task[None] | None = None
        self._backlog = Backlog()
        store = service.settings.session_store
        self._keeper = None if store is None else SessionKeeper(service, open_store(store))

    def start(self) -> None:
        """Begin to sweep the store, as the application starts."""
        if self._keeper is not None:
            self._keeper.start()

    async def answer(self, scope: Scope, receive: Receive, send: SendMessage) -> None:
        """Answer one WebSocket, to its end."""
        socket = WebSocket(receive, send, scope.get(ANSWERED))
        await receive()  # "websocket.connect"
        id, owner = str(uuid.uuid4()), address_of(scope)
        try:
            request = request_of(scope, id)
            make = self._routes.get(request.path)
            owner = self._guard.admit(request, owner, is_socket=True)
            if make is None:
                raise Refusal(404, {"error": f"there is no socket at {request.path}"})
            protocol = make(request, self._service.card)
        except (Busy, Refusal) as error:
            refusal = error if isinstance(error, Refusal) else unavailable(error)
            if refusal is error:
                self._service.metrics.errors.labels("refused", str(refusal.status)).inc()
            self._guard.refusals.add(refusal.status, scope["path"], id, owner)
            return await _refuse(socket, in_form(refusal, scope["path"], id))
        with self._guard.connection(owner):
            if protocol.session is not None and await self._come_back(
                socket, protocol, request, owner
            ):
                return
            await self._end_forsaken(protocol, request, owner)
            await self._talk(socket, make, protocol, request, owner)

    async def _talk(
        self,
        socket: WebSocket,
        make: MakeProtocol,
        protocol: LiveProtocol,
        request: ClientRequest,
        owner: str,
    ) -> None:
        talk = Talk(self._service, protocol, owner, request.id)
        try:
            try:
                if not await self._take_over(talk, request):
                    await talk.end()
                    protocol = make(request, self._service.card)  # as if nothing had been tried
                    talk = Talk(self._service, protocol, owner, request.id)
                    await talk.prepare(self._recorder(talk))
            except KikuError as error:
                return await self._refuse(socket, talk, request, error)
            await socket.accept(_subprotocol(protocol, request), _headers(request))
            await self.run(talk, socket)
        except Gone:
            pass
        finally:
            await self.end(talk)

    async def _refuse(
        self, socket: WebSocket, talk: Talk, request: ClientRequest, error: KikuError
    ) -> None:
        """Refuse a client whose talk cannot begin, in its protocol's way. Raises Gone."""
        protocol, busy, refusal = talk.protocol, None, None
        talk.counters.failed(error)
        if isinstance(error, NoFreeSlot):
            busy = error if isinstance(error, Busy) else Busy(str(error), 5)
            # While the service ends all get 503, so that a balancer asks another replica.
            if self._service.is_draining or not protocol.accepts_when_full:
                refusal = unavailable(busy)
        else:
            refusal = protocol.unsupported(error)
        status = 503 if refusal is None else refusal.status
        self._guard.refusals.add(status, request.path, request.id, talk.owner)
        if refusal is not None:
            return await _refuse(socket, in_form(refusal, request.path, request.id))
        await socket.accept(_subprotocol(protocol, request), _headers(request))
        await talk.fail(socket, busy or error)

    def _recorder(self, talk: Talk) -> SessionRecorder | None:
        """The recorder of a new talk, for other processes; None if they cannot have it."""
        if self._keeper is None or talk.session is None:
            return None
        return self._keeper.recorder_for_new(talk.protocol, talk.owner, talk.history)

    async def _take_over(self, talk: Talk, request: ClientRequest) -> bool:
        """Go on with a session that another process has kept. Returns whether that was done.

        Raises:
            Busy: no slot is free, or there was no room for the stored sound in time.
        """
        keeper, protocol = self._keeper, talk.protocol
        if keeper is None or protocol.session is None or protocol.initial_open is None:
            return False
        if not request.first("after"):
            return False
        talk.take_slots(protocol.initial_open.options)  # before its owner loses it
        takeover = await keeper.claim(protocol, talk.owner, request)
        if takeover is None:
            return False
        wanted = protocol.initial_open.options
        if takeover.options.num_sessions() != wanted.num_sessions():
            keeper.refused("it has another number of channels than its client asks for")
            return False
        ways = [takeover] if takeover.state is None else [takeover, takeover.without_state()]
        for way in ways:  # if the saved stream is of another engine, by its sound
            if way is None:
                continue
            try:
                # When the store has forgotten the session, its client has given up.
                async with asyncio.timeout(keeper.ttl_s):
                    recorder = keeper.recorder_for_takeover(protocol, talk.owner, way)
                    await talk.take_over(way, recorder)
            except TimeoutError:
                retry_after_s = self._service.admission.retry_after_s
                raise Busy("there is no room for the session's sound", retry_after_s) from None
            except KikuError as error:
                keeper.refused(str(error))
                continue
            how = "sound" if way.state is None else "exactly"
            self._service.metrics.sessions_moved.labels(how).inc()
            return True
        return False

    async def run(self, talk: Talk, wire: Wire) -> None:
        """Run a talk to the end of its connection."""
        service, protocol = self._service, talk.protocol_name
        self._start_sweep()
        service.count_open()
        service.metrics.connections.labels(protocol).inc()
        service.metrics.opened.labels(protocol).inc()
        self.talks.add(talk)
        if talk.session is not None:
            self._sessions[talk.owner, talk.session] = talk
            if self._keeper is not None and talk.recorder is not None:
                self._keeper.watch(talk, talk.recorder)
        talk.began_at = time.monotonic()
        await talk.run(wire)

    async def end(self, talk: Talk) -> None:
        """End a talk whose connection has ended, unless its client may come back."""
        if talk not in self.talks:
            return await talk.end()
        if talk.session is not None and talk.is_alive:
            self._service.run_in_background(self._keep_for_return(talk))
        else:
            await self._forget(talk)

    async def _keep_for_return(self, talk: Talk) -> None:
        """Keep a talk whose client was cut off, as long as the client comes back in time."""
        try:
            while talk.is_alive and await talk.comes_back(self._service.settings.resume_s):
                pass
        finally:
            await self._forget(talk)

    async def _forget(self, talk: Talk) -> None:
        key = (talk.owner, talk.session or "")
        if self._sessions.get(key) is talk:
            del self._sessions[key]
        self.talks.discard(talk)
        self._service.metrics.connections.labels(talk.protocol_name).dec()
        self._service.count_closed()
        await talk.end()
        if self._keeper is not None:  # not awaited: a store may be slow
            self._service.run_in_background(self._keeper.forget(talk))
        _LOG.info(*connection_line(talk, time.monotonic() - talk.began_at))

    async def _come_back(
        self, socket: WebSocket, protocol: LiveProtocol, request: ClientRequest, owner: str
    ) -> bool:
        """Go on with a session of this process. Returns whether there was one."""
        talk = self._sessions.get((owner, protocol.session or ""))
        text = request.first("after", "")
        if talk is None or not talk.is_alive or not (text and text.isascii() and text.isdigit()):
            return False
        if self._keeper is not None and not await self._keeper.owns(talk, request):
            return False
        if not talk.can_resume(int(text[:12])):
            return False
        await socket.accept(_subprotocol(protocol, request), _headers(request))
        with suppress(Gone):
            await talk.resume(socket, int(text[:12]))
        return True

    async def _end_forsaken(
        self, protocol: LiveProtocol, request: ClientRequest, owner: str
    ) -> None:
        """End a talk whose client begins anew under its name: nobody could come back to it, and its
        slot would stay held as long as clients may be away."""
        talk = self._sessions.get((owner, protocol.session or ""))
        if talk is not None and (talk.is_away or request.first("after") is not None):
            await talk.let_go()

    # All of them.

    def _start_sweep(self) -> None:
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.create_task(self._sweep())

    async def _sweep(self) -> None:
        before = time.monotonic()
        while self.talks:
            await asyncio.sleep(CHECK_S)
            now = time.monotonic()
            self.check_clients(now, held_up_s=max(0.0, now - before - CHECK_S))
            before = now

    def check_clients(self, now: float, held_up_s: float = 0.0) -> None:
        """See which clients are silent or take nothing, and how much sound waits. For `held_up_s`
        since the last look this process was held up: it read and wrote nothing, whatever clients
        did."""
        waiting = 0.0
        for talk in list(self.talks):
            talk.check_client(now, held_up_s)
            talk.counters.flush()
            waiting += talk.waiting_bytes
        self._service.update_room(waiting, max(1, len(self.talks)))
        if self._backlog.has_gone(waiting):
            self._service.run_in_background(give_back())

    async def end_all(self) -> None:
        """Tell all clients that the service ends, and hang up; drop those who do not listen."""
        if self._keeper is not None:
            await self._hand_over(self._keeper)
        for talk in await _within(_TELL_S, {talk: talk.end_service() for talk in self.talks}):
            talk.abort()
        if self._keeper is not None:
            self._keeper.close()

    async def _hand_over(self, keeper: SessionKeeper) -> None:
        """Keep the sessions as they are for other processes, and send their clients there."""
        at_once = asyncio.Semaphore(_SAVES)

        async def one(talk: Talk) -> None:
            async with at_once:
                await keeper.hand_over(talk, await talk.freeze())
            await talk.hand_over()

        kept = [talk for talk in self.talks if talk.recorder is not None and talk.is_alive]
        late = await _within(_HAND_OVER_S, {talk: one(talk) for talk in kept})
        for talk in kept:  # a late one stays as it was written last
            keeper.unwatch(talk)
        for talk in await _within(_TELL_S, {talk: talk.hand_over() for talk in late}):
            talk.abort()


async def _within(seconds: float, calls: Mapping[Talk, Coroutine[Any, Any, None]]) -> list[Talk]:
    """Make all these calls. Cancels those that take longer, and returns their talks."""
    tasks = {asyncio.create_task(call): talk for talk, call in calls.items()}
    if not tasks:
        return []
    done, late = await asyncio.wait(tasks, timeout=seconds)
    for task in late:
        task.cancel()
    await asyncio.gather(*done)
    return [tasks[task] for task in late]


def _subprotocol(protocol: LiveProtocol, request: ClientRequest) -> str | None:
    return protocol.subprotocol or subprotocol_of(request)


def _headers(request: ClientRequest) -> dict[str, str]:
    return {"dg-request-id": request.id} if is_deepgrams(request.path) else {}


async def _refuse(socket: WebSocket, refusal: Refusal) -> None:
    is_text = isinstance(refusal.body, str)
    body = (
        refusal.body.encode()
        if isinstance(refusal.body, str)
        else msgspec.json.encode(refusal.body)
    )
    kind = "text/plain; charset=utf-8" if is_text else "application/json"
    headers = {"Content-Type": kind, **refusal.headers}
    with suppress(OSError):
        await socket.refuse(refusal.status, body, headers)
