"""The process of `kiku serve`: the system's sockets, uvicorn and signals, from start to end."""

import asyncio
import logging
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType

import uvicorn

from kiku.errors import ConfigError, KikuError, StreamError
from kiku.serve.app import App
from kiku.serve.http_connection import http_protocol
from kiku.serve.service import Service
from kiku.serve.settings import Settings
from kiku.serve.socket_connection import SocketProtocol
from kiku.serve.wyoming_server import WyomingServer, check_open_to_all

_LOG = logging.getLogger("kiku.serve")

_RECEIVE_BYTES = 2**18
"""Bytes of the system's buffer of a connection: sound that waits in it holds up the client's
pings."""

_GONE_MS = 60_000
"""Milliseconds without an answer of its system after which a client is gone."""

_ANSWER_S = 8
"""Seconds within which requests that the end has broken off must be answered: longer than a client
that is refused may go on sending."""

_LOOK_S = 5.0
"""Seconds between checks whether the model is dead."""

_PING_S = 10.0
_HEADER_BYTES = 2**15


class Server(uvicorn.Server):
    """uvicorn, which on SIGTERM lets the app finish what is open; a second signal ends at once."""

    def __init__(self, config: uvicorn.Config, app: App) -> None:
        super().__init__(config)
        self._app = app
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._num_signals = 0
        self.asked_to_end: Callable[[], bool] = lambda: False
        """Says whether a signal came before this could handle any."""

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        was_asked = self.asked_to_end()  # always: from here on signals are handled here
        if self._num_signals or was_asked:
            self.begin_end()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the end at the first signal; at the next one, end at once."""
        self._num_signals += 1
        if self._num_signals > 1 or self._draining is not None:
            self.should_exit = self.force_exit = True
        elif self.started and self._loop is not None:  # before that, `startup` looks for it
            self._loop.call_soon_threadsafe(self.begin_end)

    def begin_end(self) -> None:
        """Finish what is open, then end."""
        if self._draining is None:
            _LOG.info(
                "shutting down: open streams and uploads may go on for %g s",
                self._app.service.settings.drain_s,
            )
            self._draining = asyncio.ensure_future(self._end())

    async def _end(self) -> None:
        try:
            await self._app.drain()
        finally:
            self.should_exit = True


def make_server(app: App) -> Server:
    """A uvicorn server, configured for this service."""
    settings = app.service.settings
    config = uvicorn.Config(
        app,  # pyright: ignore[reportArgumentType]
        host=settings.host,
        port=settings.port,
        http=http_protocol(settings.header_s),
        ws=SocketProtocol,
        ws_max_size=settings.max_message_bytes,
        # Compression does not shrink sound, lets in bombs, and costs the client 0.9 ms a frame.
        ws_per_message_deflate=False,
        ws_ping_interval=_PING_S,
        # Pongs wait behind sound that is not read yet. TCP finds out who is gone (`_GONE_MS`).
        ws_ping_timeout=None,
        h11_max_incomplete_event_size=_HEADER_BYTES,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_ANSWER_S,
        log_config=None,
        access_log=False,
        server_header=False,
    )
    return Server(config, app)


def listening_socket(host: str, port: int, option: str = "--port") -> socket.socket:
    """A socket that listens.

    Args:
        host: its address.
        port: its number; 0 takes one that is free.
        option: which the number comes from, for the error.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    sock: socket.socket | None = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, proto, _, address = found[0]
        sock = socket.socket(family, kind, proto)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections take over these options.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _GONE_MS)
        sock.bind(address)
        sock.listen(1024)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror or error}): choose another --host "
            f"or {option}"
        ) from None
    sock.setblocking(False)
    return sock


def run(
    settings: Settings,
    announce: Callable[[str], None] | None = None,
    asked_to_end: Callable[[], bool] | None = None,
) -> None:
    """Serve until a signal ends it.

    Args:
        settings: of the service.
        announce: is called with the address, once clients can connect.
        asked_to_end: says whether a signal came before this handles them.

    Raises:
        KikuError: the settings or the address are not valid, the model cannot be loaded, or it
            broke.
    """
    app = App(Service(settings))
    with ExitStack() as opened:
        sock = opened.enter_context(listening_socket(settings.host, settings.port))
        wyoming: WyomingServer | None = None
        if settings.wyoming_port is not None:
            check_open_to_all(settings)
            there = listening_socket(settings.host, settings.wyoming_port, "--wyoming-port")
            wyoming = WyomingServer(app, opened.enter_context(there))
        server = make_server(app)
        if asked_to_end is not None:
            server.asked_to_end = asked_to_end
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
    if not serving.done():
        if wyoming is not None:
            await wyoming.start()
            _LOG.info("Wyoming at port %d", wyoming.port)
        _LOG.info("ready: %s", app.service.recognizer)
    watching = asyncio.create_task(_watch(app.service, server))
    await serving
    watching.cancel()
    if wyoming is not None:
        await wyoming.close()
    await app.service.decoders.close()  # after a second signal nobody else has done it
    if watching.done() and not watching.cancelled():
        raise StreamError(watching.result())


async def _watch(service: Service, server: Server) -> str:
    """End the process when its model is dead, so that its supervisor starts another. Returns the
    reason."""
    while not service.is_dead:
        await asyncio.sleep(_LOOK_S)
    why = f"the process ends because its model failed: {service.why_not_ready}"
    _LOG.critical("%s", why)
    server.begin_end()
    return why


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
