"""One WebSocket under uvicorn: read in turns with others, with a short way for whole messages.

bytes -> a turn's worth -> frame by frame -> one whole message -> the application
                                          -> all else: the library websockets
"""

import asyncio
from collections import deque
from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.protocol import State

from kiku.serve.fair_reader import FairReader
from kiku.serve.wire import ANSWERED

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

_MAX_QUEUED = 8
"""Number of messages waiting for the application at which reading stops."""

_SOUND_BYTES = 2**16
"""Bytes read from one WebSocket in a turn: some messages of sound. Frames are limited too."""

_TURN_FRAMES = 64
"""Frames read from one WebSocket in a turn."""

_WHOLE_BYTES = 2**16
"""Bytes of the longest message put together here; websockets reads longer ones as they come."""

_LINGER_S = 5.0
"""Seconds that a client may send on after a mistake that ends its connection. Many clients read
only when they have sent all, and a connection that is closed over unread bytes loses the answer."""

_LINGER_BYTES = 2**27
"""Bytes that it may send meanwhile."""

_END_S = 1.0
"""Seconds after such a mistake until this side of the connection ends, for which some clients wait.
Others, like aiohttp, forget the close frame if the end comes with it."""

_TEXT, _BINARY = 0x81, 0x82
"""First byte of a frame that is a whole message."""

_CONTINUED = {0x00: True, 0x01: True, 0x02: True, 0x80: False}
"""First byte of a frame: whether more of its message is to come after it."""


class Messages:
    """The messages that wait for the application, where one task fetches them: asyncio's queue
    without what is not needed here."""

    def __init__(self) -> None:
        """Start empty."""
        self._waiting: deque[Any] = deque()
        self._fetcher: asyncio.Future[None] | None = None

    def put_nowait(self, message: Any) -> None:
        """Add a message."""
        self._waiting.append(message)
        if self._fetcher is not None and not self._fetcher.done():
            self._fetcher.set_result(None)

    async def get(self) -> Any:
        """Take the oldest message, as soon as there is one."""
        while not self._waiting:
            self._fetcher = asyncio.get_running_loop().create_future()
            try:
                await self._fetcher
            finally:
                self._fetcher = None
        return self._waiting.popleft()

    def qsize(self) -> int:
        """Number of messages that wait."""
        return len(self._waiting)

    def empty(self) -> bool:
        """Whether no message waits."""
        return not self._waiting


class SocketProtocol(FairReader, WebSocketsSansIOProtocol):
    """A WebSocket of uvicorn's, with a short way for what nearly all frames are: one whole message.

    Everything else goes to the library websockets, frame by frame, so that it never sees a part of
    what was read here. Reading stops when several messages wait; to stop at each, as uvicorn does,
    takes two system calls a message. What a client does not read takes no memory, nor does a
    message that it never ends.
    """

    _turn_bytes = _SOUND_BYTES
    _pong = b""  # the answer to a ping that waits to be written
    _needed = 0  # bytes of the frame that has begun to come
    _passing = 0  # bytes of a long frame that are still to come
    _answered: asyncio.Future[bool] | None = None  # see `ANSWERED`
    _is_parted = False  # whether a message has begun whose last frame is still to come
    _lingers = False  # after a mistake: what comes is dropped
    _num_dropped = 0

    def __init__(self, *given: Any, **options: Any) -> None:
        """See uvicorn."""
        super().__init__(*given, **options)
        self.queue: Any = Messages()
        self._begun = bytearray()
        self._whole_bytes = min(_WHOLE_BYTES, self.config.ws_max_size)

    # What comes.

    def handle_connect(self, event: Any) -> None:
        """See uvicorn."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            self._answered = self.loop.create_future()
            scope: Any = self.scope
            scope[ANSWERED] = self._answered

    def handle_close(self, event: Frame) -> None:
        """See uvicorn."""
        self._resolve_answered(True)
        super().handle_close(event)

    def connection_lost(self, exc: Exception | None) -> None:
        """See uvicorn."""
        self._resolve_answered(False)
        super().connection_lost(exc)

    def _resolve_answered(self, is_answered: bool) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(is_answered)

    def handle_parser_exception(self) -> None:
        """Tell the client its mistake, as uvicorn does, which then closes the connection; here the
        client may send on for a while, so that it reads why."""
        close = self.conn.close_sent
        assert close is not None
        self.queue.put_nowait(
            {"type": "websocket.disconnect", "code": close.code, "reason": close.reason}
        )
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = self._lingers = True
        self.read_paused = False
        self.transport.resume_reading()
        self.loop.call_later(_END_S, self._end_side)
        # While uvicorn sees this timer, it does not close the connection itself.
        self.close_timer = self.loop.call_later(_LINGER_S, self.transport.close)

    def _end_side(self) -> None:
        if not self.transport.is_closing() and self.transport.can_write_eof():
            self.transport.write_eof()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._lingers:
            self._drop(data)
        else:
            super().data_received(data)

    def _drop(self, data: bytes) -> None:
        self._num_dropped += len(data)
        if self._num_dropped > _LINGER_BYTES:
            self.transport.close()

    def _take(self, data: bytes) -> bytes:
        if self._lingers:
            self._drop(data)
            return b""
        if not self.handshake_complete:
            if self.handshake_initiated:  # the client did not wait for the answer
                return data
            self._pass_on(data)
            return b""
        if self._begun:
            self._begun += data
            if len(self._begun) < self._needed:
                return b""
            data = bytes(self._begun)
            self._begun.clear()
        at, size = 0, len(data)
        for _ in range(_TURN_FRAMES):
            at = self._take_frame(data, at)
            if at == size or self._lingers or self.transport.is_closing():
                return b""
        return data[at:]

    def _take_frame(self, data: bytes, at: int) -> int:
        """Read the frame at `at`, as far as it has come. Returns where the next one begins."""
        if self._passing:
            end = min(at + self._passing, len(data))
            self._passing -= end - at
            self._pass_on(data[at:end])
            return end
        head, size, is_masked = _header(data, at)
        if size is None:
            return self._wait_for_bytes(data, at, head)
        end = at + head + size
        if end > len(data):
            if size <= self._whole_bytes:
                return self._wait_for_bytes(data, at, head + size)
            self._passing = end - len(data)
            end = len(data)
        kind = data[at]
        if (
            kind in (_BINARY, _TEXT)
            and is_masked
            and size <= self._whole_bytes
            and not self._is_parted
            and not self.close_sent
        ):
            first = at + head
            payload = apply_mask(data[first:end], data[first - 4 : first])
            if self._deliver(kind, payload):
                return end
        self._is_parted = _CONTINUED.get(kind, self._is_parted)
        self._pass_on(data[at:end])
        return end

    def _wait_for_bytes(self, data: bytes, at: int, needed: int) -> int:
        self._begun += data[at:]
        self._needed = needed
        return len(data)

    def _pass_on(self, data: bytes) -> None:
        WebSocketsSansIOProtocol.data_received(self, data)

    def _deliver(self, kind: int, payload: bytes) -> bool:
        """Give the application a message. Returns False if it is text and no UTF-8."""
        if kind == _BINARY:
            self.queue.put_nowait({"type": "websocket.receive", "bytes": payload})
        else:
            try:
                text = payload.decode()
            except UnicodeDecodeError:
                return False
            self.queue.put_nowait({"type": "websocket.receive", "text": text})
        if self.queue.qsize() >= _MAX_QUEUED and not self.read_paused:
            self._pause()
        return True

    def _pause(self) -> None:
        self.read_paused = True
        self.transport.pause_reading()

    def send_receive_event_to_app(self) -> None:
        """See uvicorn, which stops reading at each message."""
        was_paused = self.read_paused
        self.read_paused = True
        super().send_receive_event_to_app()
        self.read_paused = was_paused
        if not was_paused and self.queue.qsize() >= _MAX_QUEUED and not self.close_sent:
            self._pause()

    def handle_cont(self, event: Frame) -> None:
        """Add the next part of a message; uvicorn keeps each part by itself, and empty ones too."""
        if len(self.frames) < 2:
            self.frames.append(bytearray())  # pyright: ignore[reportArgumentType]
        self.frames[1] += event.data
        if event.fin:
            self.send_receive_event_to_app()

    async def receive(self) -> Any:
        """See uvicorn."""
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            self._wake()
        return message

    def _may_go_on(self) -> bool:
        return not self.read_paused and (self.handshake_complete or not self.handshake_initiated)

    def _num_messages(self) -> int:
        return self.queue.qsize()

    # What goes.

    async def send(self, message: Any) -> None:
        """See uvicorn."""
        if self._lingers:
            raise ClientDisconnected
        if (
            message["type"] != "websocket.send"
            or not self.handshake_complete
            or self.disconnected
            or self.conn.state is not State.OPEN
            or not self.writable.is_set()
        ):
            return await super().send(message)
        data = message.get("bytes")
        kind = _BINARY
        if data is None:
            kind, data = _TEXT, message["text"].encode()
        size = len(data)
        if size < 126:
            head = bytes((kind, size))
        elif size < 2**16:
            head = bytes((kind, 126, size >> 8, size & 0xFF))
        else:
            head = bytes((kind, 127)) + size.to_bytes(8)
        self.transport.write(head + data)
        return None

    def handle_ping(self) -> None:
        """Answer a ping; if the client does not read, only its last one, which is enough."""
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
        """Answer a malformed request for a socket, and close; uvicorn leaves it open."""
        if self.conn.handshake_exc is not None and not self.transport.is_closing():
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    async def run_asgi(self) -> None:
        """See uvicorn, which would log that an application that refused a socket never answered
        it."""
        answer = self.app

        async def answered(*given: Any) -> None:
            await answer(*given)
            if self.initial_response is not None:
                self.handshake_complete = True

        self.app = answered
        await super().run_asgi()


def _header(data: bytes, at: int) -> tuple[int, int | None, bool]:
    """The header of the frame at `at`: its bytes, mask included, those of the payload, and whether
    that is masked. If the header has not come whole: the bytes to wait for, None and False."""
    has = len(data) - at
    size = data[at + 1] & 0x7F if has > 1 else 0
    head = 2 if size < 126 else 4 if size == 126 else 10
    if has < head:
        return head, None, False
    if size > 125:
        size = int.from_bytes(data[at + 2 : at + head])
    is_masked = bool(data[at + 1] & 0x80)
    return head + 4 * is_masked, size, is_masked
