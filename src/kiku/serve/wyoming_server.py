"""Answers Wyoming's clients on a TCP port of their own, where they expect the service.

Their talks are handled as those of WebSockets: with the same slots, figures, limits, log lines and
end.
"""

import asyncio
import logging
import socket
import uuid
from contextlib import suppress

from kiku.errors import ConfigError
from kiku.serve.admission import Busy
from kiku.serve.app import App
from kiku.serve.protocols.interface import ClientRequest, Refusal
from kiku.serve.protocols.wyoming import WyomingProtocol, error_bytes
from kiku.serve.settings import Settings, is_loopback
from kiku.serve.talk import Talk
from kiku.serve.wire import Gone

_LOG = logging.getLogger("kiku.serve")

_READ_BYTES = 2**14
"""Bytes that are read at once: half a second of Home Assistant's sound."""

_MANY_LINES = 256
"""Number of line ends in what is read at once, many more than sound has by chance; with more, other
connections have their turn first."""

_LINE_S = 1e-4
"""Seconds that the connection then waits for each of the lines."""

_SEND_BYTES = 2**20
"""Bytes that a client need not have read before it is waited for: Home Assistant's older versions
read nothing until all their sound is sent, and an hour's text is less than this."""

_LINGER_S = 1.0
"""Seconds for which the rest of a client's sound is read after the last message: a connection that
is closed over unread bytes takes away what the client has not read yet."""


class TcpWire:
    """A `Wire` over a TCP connection; its messages are bytes as they come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Wrap a connection that is open."""
        self._reader, self._writer = reader, writer
        self._is_closed = False
        self._reading = asyncio.Lock()
        writer.transport.set_write_buffer_limits(high=_SEND_BYTES)

    async def receive(self) -> bytes:
        """See `Wire`."""
        async with self._reading:
            data = await self._read()
        if not data or self._is_closed:
            raise Gone(1000, may_listen=not self._is_closed)
        num_lines = data.count(b"\n")
        if num_lines > _MANY_LINES:
            await asyncio.sleep(_LINE_S * num_lines)
        return data

    async def _read(self) -> bytes:
        """Read what has come; nothing at the end."""
        try:
            return await self._reader.read(_READ_BYTES)
        except OSError:
            return b""

    async def send(self, data: str | bytes) -> None:
        """See `Wire`."""
        if self._is_closed or self._writer.is_closing():
            raise Gone
        try:
            self._writer.write(data.encode() if isinstance(data, str) else data)
            await self._writer.drain()
        except OSError:
            raise Gone from None

    async def close(self, code: int, reason: str) -> None:
        """See `Wire`; TCP has neither code nor reason."""
        if self._is_closed:
            return
        self._is_closed = True  # what is still read is dropped
        with suppress(OSError, TimeoutError, RuntimeError):
            async with asyncio.timeout(_LINGER_S):
                await self._writer.drain()
                self._writer.write_eof()
                async with self._reading:
                    while await self._read():
                        pass
        self._writer.close()
        with suppress(OSError, TimeoutError):  # what is still to be written would be dropped
            async with asyncio.timeout(_LINGER_S):
                await self._writer.wait_closed()

    async def is_answered(self) -> bool:
        """See `Wire`; TCP does not say, so it is True."""
        return True

    def abort(self) -> None:
        """End the connection at once."""
        self._is_closed = True
        self._writer.transport.abort()


class WyomingServer:
    """Answers Wyoming's clients, next to an application and with its service."""

    def __init__(self, app: App, sock: socket.socket) -> None:
        """`sock` listens already; see `kiku.serve.server.listening_socket`."""
        self._app, self._sock = app, sock
        self._server: asyncio.Server | None = None
        self._answering: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port at which it listens."""
        return int(self._sock.getsockname()[1])

    async def start(self) -> None:
        """Answer clients from now on."""
        self._server = await asyncio.start_server(self._take, sock=self._sock, limit=_READ_BYTES)

    async def close(self) -> None:
        """Answer no more clients; the application's `drain` ends the talks that go on."""
        if self._server is not None:
            self._server.close()
        if self._answering:
            _, late = await asyncio.wait(self._answering, timeout=2 * _LINGER_S)
            for task in late:
                task.cancel()

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._answer(reader, writer))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection, to its end."""
        wire = TcpWire(reader, writer)
        try:
            await self._talk(wire, str(writer.get_extra_info("peername", ("?",))[0]))
        except Gone:
            pass
        finally:
            wire.abort()

    async def _talk(self, wire: TcpWire, address: str) -> None:
        app, service = self._app, self._app.service
        request = ClientRequest("wyoming", id=str(uuid.uuid4()))
        try:
            app.guard.admit_without_key(address)
            protocol = WyomingProtocol(request, service.card)
        except (Busy, Refusal) as error:
            kind = "Busy" if isinstance(error, Busy) else "Refusal"
            service.metrics.errors.labels("wyoming", kind).inc()
            status = error.status if isinstance(error, Refusal) else 503
            app.guard.refusals.add(status, request.path, request.id, address)
            await wire.send(error_bytes("busy", str(error)))
            return await wire.close(1013, str(error))
        with app.guard.connection(address):
            talk = Talk(service, protocol, address, request.id)
            try:
                await app.sockets.run(talk, wire)
                await wire.close(1000, "")
            finally:
                await app.sockets.end(talk)


def check_open_to_all(settings: Settings) -> None:
    """Raise ConfigError if Wyoming's port would let in clients that the other port keeps out."""
    if settings.keys() and not settings.insecure and not is_loopback(settings.host):
        raise ConfigError(
            f"Wyoming has no API keys, and --host {settings.host} can be reached from other "
            "machines: give --insecure to accept all clients at --wyoming-port, or leave that out"
        )
