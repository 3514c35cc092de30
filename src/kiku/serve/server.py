"""The process of `kiku serve`: the system's sockets, uvicorn and signals, to the last."""

import asyncio
import logging
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from kiku.errors import ConfigError, KikuError
from kiku.serve.app import App
from kiku.serve.service import Service
from kiku.serve.settings import Settings
from kiku.serve.wyoming_server import WyomingServer, check_open_to_all

_LOG = logging.getLogger("kiku.serve")

_RECEIVE_BYTES = 2**18
"""Of a connection, in the system's buffer: sound that waits there holds up the client's pings."""

_GONE_MS = 60_000
"""A client whose system does not answer for so long is gone."""

_PING_S = 10.0
_HEADER_BYTES = 2**15


class Server(uvicorn.Server):
    """uvicorn, which on SIGTERM lets the app finish what is open; a second signal ends at once."""

    def __init__(self, config: uvicorn.Config, app: App) -> None:
        super().__init__(config)
        self._app = app
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the end."""
        if self._loop is None or self._draining is not None or not self.started:
            self.should_exit = self.force_exit = True
            return
        self._loop.call_soon_threadsafe(self.begin_end)

    def begin_end(self) -> None:
        """Finish what is open, then end."""
        if self._draining is None:
            _LOG.info("ending: what is open may go on for %g s", self._app.service.settings.drain_s)
            self._draining = asyncio.ensure_future(self._end())

    async def _end(self) -> None:
        try:
            await self._app.drain()
        finally:
            self.should_exit = True


def make_server(app: App) -> Server:
    """A uvicorn server as this service wants it."""
    settings = app.service.settings
    config = uvicorn.Config(
        app,  # pyright: ignore[reportArgumentType]
        host=settings.host,
        port=settings.port,
        http=_http_protocol(settings.header_s),
        ws=SocketProtocol,
        ws_max_size=settings.max_message_bytes,
        # Sound does not shrink, a bomb does; and it costs the client 0.9 ms a frame.
        ws_per_message_deflate=False,
        ws_ping_interval=_PING_S,
        # Pongs wait behind sound that is not read yet. Who is gone is known by TCP (`_GONE_MS`).
        ws_ping_timeout=None,
        h11_max_incomplete_event_size=_HEADER_BYTES,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
        log_config=None,
        access_log=False,
        server_header=False,
    )
    return Server(config, app)


_AHEAD = 8
"""Messages that wait for the application before no more are read."""


_TURN_BYTES = 2**14
"""Of one connection, at a time: thousands of frames or chunks without a byte in them fit in there,
and all others wait while they are read."""


_LONG_S = 0.002
"""A turn that takes so long is made of what is no sound."""

_MESSAGE_S = 2e-5
"""What the application needs for a message, at least."""

_OTHERS = 4.0
"""So many times as long as a long turn others have theirs."""


class _InTurns:
    """Reads a little of a connection, and then lets others have their turn. The system's loop would
    give megabytes at once."""

    loop: asyncio.AbstractEventLoop
    transport: Any
    _turn_at = 0.0
    _num_taken = 0
    _kept = b""
    _next: asyncio.Handle | None = None
    _rests = False  # after a long turn

    def _take(self, data: bytes) -> None:
        """Read what has come."""
        raise NotImplementedError

    def _may_go_on(self) -> bool:
        """Whether more may be read now."""
        return True

    def _num_messages(self) -> int:
        """How many wait for the application."""
        return 0

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        now = self.loop.time()
        if now != self._turn_at:
            self._turn_at, self._num_taken = now, 0
        self._num_taken += len(data)
        if self._num_taken <= _TURN_BYTES and not self._kept:
            self._take(data)
        else:
            self._keep(data)

    def _keep(self, data: bytes) -> None:
        """Read it later."""
        self._kept += data
        self.transport.pause_reading()
        if self._next is None:
            self._next = self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """The next turn."""
        self._next, self._rests = None, False
        if self.transport.is_closing():
            self._kept = b""
        elif not self._may_go_on():
            self._next = self.loop.call_later(_PAUSED_S, self._go_on)
        elif self._kept:
            data, self._kept = self._kept[:_TURN_BYTES], self._kept[_TURN_BYTES:]
            began = time.perf_counter()
            try:
                self._take(data)
            except BaseException:
                self.transport.abort()
                raise
            used_s = time.perf_counter() - began + _MESSAGE_S * self._num_messages()
            if used_s > _LONG_S:
                self._rests = True
                self._next = self.loop.call_later(_OTHERS * used_s, self._go_on)
            else:
                self._next = self.loop.call_soon(self._go_on)
        else:
            self._resume()

    def _resume(self) -> None:
        self.transport.resume_reading()

    def _wake(self) -> None:
        """More may be read from now on."""
        if self._rests:
            return
        if self._next is not None:
            self._next.cancel()
            self._next = self.loop.call_soon(self._go_on)
        else:
            self.transport.resume_reading()


_PAUSED_S = 0.25
"""So often it is looked whether more may be read, if nobody says so."""


class SocketProtocol(_InTurns, WebSocketsSansIOProtocol):
    """Stops reading when several messages wait, not at each: that is two calls of the system a
    message. What a client does not read, and what it never ends, takes no memory."""

    _pong = b""  # that waits to be written

    def _take(self, data: bytes) -> None:
        if self.handshake_initiated and not self.handshake_complete:  # a client in a hurry
            return self._keep(data)
        return WebSocketsSansIOProtocol.data_received(self, data)

    def _may_go_on(self) -> bool:
        return not self.read_paused and (self.handshake_complete or not self.handshake_initiated)

    def _num_messages(self) -> int:
        return self.queue.qsize()

    async def receive(self) -> Any:
        """See uvicorn."""
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            self._wake()
        return message

    def handle_cont(self, event: Frame) -> None:
        """The next part of a message; uvicorn keeps each by itself, and empty ones too."""
        if len(self.frames) < 2:
            self.frames.append(bytearray())  # pyright: ignore[reportArgumentType]
        self.frames[1] += event.data
        if event.fin:
            self.send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Answer the last of the pings of a client that does not read: that is enough for it."""
        self._pong = b"".join(self.conn.data_to_send())
        if self.writable.is_set():
            self._write_pong()

    def resume_writing(self) -> None:
        """See uvicorn."""
        super().resume_writing()
        self._write_pong()

    def _write_pong(self) -> None:
        pong, self._pong = self._pong, b""
        if pong and not self.close_sent and not self.transport.is_closing():
            self.transport.write(pong)

    def end_bad_request(self) -> None:
        """Answer a request for a socket that cannot be read; uvicorn leaves it open."""
        if self.conn.handshake_exc is not None and not self.transport.is_closing():
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    async def run_asgi(self) -> None:
        """See uvicorn, which takes an application that refused a socket for one that forgot it, and
        says so in the log."""
        answer = self.app

        async def answered(*given: Any) -> None:
            await answer(*given)
            if self.initial_response is not None:
                self.handshake_complete = True

        self.app = answered
        await super().run_asgi()

    def send_receive_event_to_app(self) -> None:
        """See uvicorn."""
        was_paused = self.read_paused
        self.read_paused = True  # so that uvicorn does not pause
        super().send_receive_event_to_app()
        self.read_paused = was_paused
        if not was_paused and self.queue.qsize() >= _AHEAD and not self.close_sent:
            self.read_paused = True
            self.transport.pause_reading()


def _http_protocol(header_s: float) -> type[H11Protocol]:
    class Impatient(_InTurns, H11Protocol):
        """Closes a connection whose first request, or next one, does not come in time."""

        _header_timer: asyncio.TimerHandle | None = None
        _is_upgraded = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._header_timer = self.loop.call_later(header_s, self._is_late)

        def _resume(self) -> None:
            if not self.flow.read_paused:
                super()._resume()

        def _take(self, data: bytes) -> None:
            if self._is_upgraded:  # nobody sends so early
                return
            H11Protocol.data_received(self, data)
            if not self._awaits_head:
                self._forget()
            elif self._header_timer is None and not self._is_upgraded:
                self._header_timer = self.loop.call_later(header_s, self._is_late)

        @property
        def _awaits_head(self) -> bool:
            """Whether no request is there that is not answered."""
            cycle: Any = self.cycle
            return cycle is None or cycle.response_complete

        def _is_late(self) -> None:
            if self._awaits_head and not self.transport.is_closing():
                self.transport.close()

        def handle_websocket_upgrade(self, event: Any) -> None:
            self._is_upgraded = True
            self._forget()
            super().handle_websocket_upgrade(event)
            protocol = self.transport.get_protocol()
            if isinstance(protocol, SocketProtocol):
                protocol.end_bad_request()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        def _forget(self) -> None:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None

    return Impatient


def listening_socket(host: str, port: int, option: str = "--port") -> socket.socket:
    """A socket that listens.

    Args:
        host: its address.
        port: its number; 0 takes one that is free.
        option: which the number comes from, for the error.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, proto, _, address = found[0]
        sock = socket.socket(family, kind, proto)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections take these over.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _GONE_MS)
        sock.bind(address)
        sock.listen(1024)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} cannot be listened on ({error.strerror or error}): choose another "
            f"--host or {option}"
        ) from None
    sock.setblocking(False)
    return sock


def run(settings: Settings, announce: Callable[[str], None] | None = None) -> None:
    """Serve until a signal ends it.

    Args:
        settings: of the service.
        announce: is told the address, once clients are answered.

    Raises:
        KikuError: the settings, the address or the model cannot be.
    """
    app = App(Service(settings))
    sock = listening_socket(settings.host, settings.port)
    wyoming: WyomingServer | None = None
    if settings.wyoming_port is not None:
        check_open_to_all(settings)
        sock_there = listening_socket(settings.host, settings.wyoming_port, "--wyoming-port")
        wyoming = WyomingServer(app, sock_there)
    server = make_server(app)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(app, server, sock, wyoming, announce))


async def _serve(
    app: App,
    server: Server,
    sock: socket.socket,
    wyoming: WyomingServer | None,
    announce: Callable[[str], None] | None,
) -> None:
    serving = asyncio.create_task(server.serve([sock]))
    if announce is not None:
        host, port = sock.getsockname()[:2]
        announce(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    try:
        await app.loaded()
    except KikuError:
        server.should_exit = True
        await serving
        raise
    if wyoming is not None:
        await wyoming.start()
        _LOG.info("Wyoming at port %d", wyoming.port)
    _LOG.info("ready: %s", app.service.recognizer)
    await serving
    if wyoming is not None:
        await wyoming.close()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
