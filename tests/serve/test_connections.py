"""What a WebSocket's bytes become is what uvicorn and websockets make of them, however they are cut
and whatever they are; only quicker."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from kiku.serve import socket_connection
from kiku.serve.socket_connection import Messages, SocketProtocol

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SIZES = (30_000, 80_000)
"""Of the longest message: shorter and longer than what is put together here."""
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN = 128


class Transport:
    """A client's end: keeps what was written and asked for."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.is_closed = self.is_paused = self.is_ended = False
        self.pauses = 0

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        assert not self.is_ended
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_ended = True

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        self.is_paused = True
        self.pauses += 1

    def resume_reading(self) -> None:
        self.is_paused = False

    def get_extra_info(self, name: str) -> None:
        return None


@dataclass
class Heard:
    """What became of a connection."""

    messages: list[Any] = field(default_factory=list)
    written: bytes = b""
    is_ended: bool = False
    """Whether nothing more is heard of it."""


async def connected(kind: type[Any], app: Any, max_size: int = SIZES[1]) -> tuple[Any, Transport]:
    config = uvicorn.Config(
        app, ws_max_size=max_size, ws_per_message_deflate=False, log_config=None
    )
    config.load()
    protocol, transport = kind(config, ServerState(), {}), Transport()
    protocol.connection_made(transport)
    protocol.data_received(REQUEST)
    while not protocol.handshake_complete:
        await asyncio.sleep(0)
    del transport.written[: transport.written.index(b"\r\n\r\n") + 4]
    return protocol, transport


async def quiet(protocol: Any) -> None:
    """Until all that was given has been read and fetched."""
    while getattr(protocol, "_kept", b"") and not protocol.transport.is_closing():
        await asyncio.sleep(0.001)
    for _ in range(4):
        await asyncio.sleep(0)


async def hear(kind: type[Any], parts: Sequence[bytes], max_size: int = SIZES[1]) -> Heard:
    heard = Heard()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            heard.messages.append(message)
        heard.messages.append(message)

    protocol, transport = await connected(kind, app, max_size)
    for part in parts:
        if not transport.is_closed:
            protocol.data_received(part)
            await quiet(protocol)
    heard.written, heard.is_ended = bytes(transport.written), transport.is_closed
    if kind is SocketProtocol:  # which may read on
        heard.is_ended |= protocol._lingers
    protocol.connection_lost(None)
    await quiet(protocol)
    return heard


def frame(first: int, data: bytes, mask: bytes = b"\x11\x00\xa5\xff", length: int = -1) -> bytes:
    """A client's frame; `length` is what it says of itself, in as many bytes as that takes."""
    size = len(data) if length < 0 else length
    if size < 126:
        head = bytes([first, 128 | size])
    elif size < 2**16:
        head = bytes([first, 254]) + size.to_bytes(2)
    else:
        head = bytes([first, 255]) + size.to_bytes(8)
    return head + mask + bytes(one ^ mask[i % 4] for i, one in enumerate(data))


def data_of(draw: st.DrawFn) -> bytes:
    size = draw(st.sampled_from([0, 1, 2, 7, 125, 126, 127, 300, 9_606, 65_535, 65_536, 70_000]))
    return (draw(st.binary(min_size=1, max_size=8)) * (size // 1 + 1))[:size]


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Most are right, and many a whole message."""
    kind = draw(st.sampled_from(["whole"] * 6 + ["parts", "control", "odd", "bare"]))
    if kind == "whole":
        opcode = draw(st.sampled_from([BINARY, BINARY, TEXT]))
        data = data_of(draw)
        letters = draw(st.sampled_from([b"\xc3\xa9"] * 3 + [b"\xff"]))
        return frame(FIN | opcode, data if opcode == BINARY else letters * (len(data) // 2))
    if kind == "parts":
        between = frame(FIN | PING, b"in between") if draw(st.booleans()) else b""
        first = frame(draw(st.sampled_from([TEXT, BINARY])), b"a" * 300)
        last = frame(draw(st.sampled_from([FIN | CONT] * 4 + [FIN | TEXT])), b"c")
        return first + between + frame(CONT, b"b") + last
    if kind == "control":
        data = draw(st.binary(max_size=20))
        return frame(FIN | draw(st.sampled_from([PING, PONG])), data)
    if kind == "bare":
        return bytes([FIN | BINARY, 5]) + b"bare!"
    return frame(draw(st.integers(0, 255)), draw(st.binary(max_size=130)))


LONGER = [
    b"",
    b"\x82",
    *[frame(FIN | BINARY, b"x" * 50, length=size) for size in (51, 300, 99_999, 2**63 - 1)],
]
"""What says that it is longer than it is, or than may be."""


@settings(max_examples=60)
@given(
    sent=st.lists(frames(), max_size=6),
    last=st.sampled_from(LONGER),
    max_size=st.sampled_from(SIZES),
    data=st.data(),
)
def test_whatever_comes_is_read_as_websockets_reads_it(
    sent: list[bytes], last: bytes, max_size: int, data: st.DataObject
) -> None:
    sent = [*sent, last]
    whole = b"".join(sent)
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=5).map(sorted))
    ends = [*cuts, len(whole)]
    parts = [whole[a:b] for a, b in zip([0, *cuts], ends, strict=True) if b > a]
    heard = asyncio.run(hear(SocketProtocol, parts, max_size))
    # uvicorn drops what came in one piece with a mistake behind it.
    assert heard == asyncio.run(hear(WebSocketsSansIOProtocol, sent, max_size))


def test_a_frame_may_come_byte_by_byte() -> None:
    sent = frame(FIN | BINARY, b"sound" * 30) + frame(FIN | TEXT, b"words")
    heard = asyncio.run(hear(SocketProtocol, [sent[i : i + 1] for i in range(len(sent))]))
    assert heard.messages == [
        {"type": "websocket.receive", "bytes": b"sound" * 30},
        {"type": "websocket.receive", "text": "words"},
        {"type": "websocket.disconnect", "code": 1005},
    ]


def test_a_long_message_is_read_as_it_comes() -> None:
    sent = frame(FIN | BINARY, b"long" * 18_000) + frame(FIN | BINARY, b"short")
    heard = asyncio.run(hear(SocketProtocol, [sent[:20], sent[20:50_000], sent[50_000:]]))
    assert [one.get("bytes") for one in heard.messages[:2]] == [b"long" * 18_000, b"short"]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 200_000])
def test_what_is_sent_is_what_websockets_sends(size: int) -> None:
    async def sent(kind: type[Any]) -> bytes:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "bytes": b"\x05" * size})
            await send({"type": "websocket.send", "text": "é" * size})
            await send({"type": "websocket.close", "code": 1000})

        protocol, transport = await connected(kind, app)
        await quiet(protocol)
        protocol.close_timer.cancel()
        return bytes(transport.written)

    written = asyncio.run(sent(SocketProtocol))
    assert written == asyncio.run(sent(WebSocketsSansIOProtocol))
    assert len(written) > 3 * size


def test_nothing_is_sent_to_who_has_closed_or_reads_nothing() -> None:
    async def run() -> None:
        going = asyncio.Event()
        ended: list[type[BaseException]] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            await going.wait()
            try:
                await send({"type": "websocket.send", "bytes": b"late"})
            except OSError as error:
                ended.append(type(error))

        protocol, transport = await connected(SocketProtocol, app)
        protocol.pause_writing()
        going.set()
        await quiet(protocol)
        assert not transport.written
        protocol.resume_writing()
        await quiet(protocol)
        assert transport.written == b"\x82\x04late"

        going.clear()
        protocol, transport = await connected(SocketProtocol, app)
        protocol.data_received(frame(FIN | CLOSE, (1000).to_bytes(2)))
        answered = bytes(transport.written)
        going.set()
        await quiet(protocol)
        assert transport.written == answered
        assert len(ended) == 1

        going.clear()
        protocol, transport = await connected(SocketProtocol, app)
        transport.close()
        protocol.connection_lost(None)
        going.set()
        await quiet(protocol)
        assert len(ended) == 2

    asyncio.run(run())


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (frame(TEXT, b"a") + frame(FIN | BINARY, b"b"), 1002),
        (frame(FIN | TEXT, b"\xff"), 1007),
        (frame(FIN | BINARY, bytes(SIZES[1] + 1)), 1009),
        (bytes([FIN | BINARY, 1, 0]), 1002),
    ],
)
def test_a_mistake_is_told_once_and_ends_the_connection(frames: bytes, code: int) -> None:
    behind = frame(FIN | BINARY, b"not heard any more")
    heard = asyncio.run(hear(SocketProtocol, [frame(FIN | TEXT, b"heard") + frames + behind]))
    assert [one.get("text", one.get("code")) for one in heard.messages] == ["heard", code]
    assert heard.written[2:4] == code.to_bytes(2)
    assert heard.is_ended


@asynccontextmanager
async def after_a_mistake(app: Any) -> AsyncIterator[tuple[Any, Transport]]:
    """A connection whose client has sent too long a message, and sends on."""
    protocol, transport = await connected(SocketProtocol, app, SIZES[0])
    protocol.data_received(frame(FIN | BINARY, b"", length=10**9) + bytes(1_000))
    yield protocol, transport
    protocol.connection_lost(None)
    await quiet(protocol)


async def until_gone(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


def test_who_has_made_a_mistake_may_send_on_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its connection is not closed over unread bytes, which would lose it the answer."""
    monkeypatch.setattr(socket_connection, "_LINGER_BYTES", 10**6)

    async def run() -> None:
        async with after_a_mistake(until_gone) as (protocol, transport):
            await quiet(protocol)  # the application has left
            for _ in range(9):
                protocol.data_received(bytes(100_000))
                await quiet(protocol)
                assert not transport.is_closed
                assert not transport.is_paused
            protocol.data_received(bytes(100_001))
            assert transport.is_closed
        monkeypatch.setattr(socket_connection, "_END_S", 0.0)
        async with after_a_mistake(until_gone) as (protocol, transport):
            assert not transport.is_ended
            await quiet(protocol)
            assert transport.is_ended
            assert not transport.is_closed
        monkeypatch.setattr(socket_connection, "_LINGER_S", 0.0)
        async with after_a_mistake(until_gone) as (protocol, transport):
            assert not transport.is_closed
            await quiet(protocol)
            assert transport.is_closed

    asyncio.run(run())


def test_what_waits_when_a_mistake_comes_is_heard_and_nothing_more_is_sent() -> None:
    async def run() -> None:
        going, heard = asyncio.Event(), list[Any]()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await going.wait()
            for message in ({"type": "websocket.send", "bytes": b""}, {"type": "websocket.close"}):
                with pytest.raises(ClientDisconnected):
                    await send(message)
            heard.extend([await receive() for _ in range(9)])

        protocol, transport = await connected(SocketProtocol, app, SIZES[0])
        mistake = frame(FIN | BINARY, b"", length=10**9)
        protocol.data_received(frame(FIN | BINARY, b"sound") * 8)
        assert transport.is_paused
        protocol.data_received(mistake)
        assert not transport.is_paused
        going.set()
        await quiet(protocol)
        assert [one.get("bytes", one.get("code")) for one in heard] == [b"sound"] * 8 + [1009]
        protocol.connection_lost(None)

    asyncio.run(run())


def test_what_comes_after_the_end_is_dropped() -> None:
    async def run() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 1000})
            with pytest.raises(RuntimeError):
                await send({"type": "websocket.send", "bytes": b"late"})

        protocol, transport = await connected(SocketProtocol, app)
        await quiet(protocol)
        written, waiting = bytes(transport.written), protocol.queue.qsize()
        protocol.data_received(frame(FIN | BINARY, b"late"))
        assert (transport.written, protocol.queue.qsize()) == (written, waiting)
        protocol.data_received(frame(FIN | CLOSE, (1000).to_bytes(2)))
        assert transport.is_closed

    asyncio.run(run())


def test_nothing_more_is_read_while_messages_wait() -> None:
    async def run() -> None:
        going = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await going.wait()
            while (await receive())["type"] == "websocket.receive":
                pass

        protocol, transport = await connected(SocketProtocol, app)
        for count in range(1, 9):
            protocol.data_received(frame(FIN | BINARY, b"sound"))
            assert transport.is_paused == (count == 8)
        going.set()
        await quiet(protocol)
        assert not transport.is_paused
        assert transport.pauses == 1

    asyncio.run(run())


def test_many_frames_at_once_are_read_in_turns() -> None:
    """So that all other connections have theirs in between."""

    async def run() -> None:
        taken: list[int] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                taken.append(len(message["bytes"]))

        protocol, transport = await connected(SocketProtocol, app)
        protocol.data_received(frame(FIN | BINARY, b"") * 1_000)
        assert protocol.queue.qsize() <= 64
        assert transport.is_paused
        while len(taken) < 1_000:
            assert protocol.queue.qsize() <= 128
            await asyncio.sleep(0.001)
        await quiet(protocol)
        await asyncio.sleep(0.05)
        assert not transport.is_paused

    asyncio.run(run())


def test_a_message_that_nobody_fetches_any_more_is_kept() -> None:
    async def run() -> None:
        messages = Messages()
        waiting = asyncio.ensure_future(messages.get())
        await asyncio.sleep(0)
        waiting.cancel()
        messages.put_nowait("first")
        with pytest.raises(asyncio.CancelledError):
            await waiting
        messages.put_nowait("second")
        assert messages.qsize() == 2
        assert [await messages.get(), await messages.get()] == ["first", "second"]
        assert messages.empty()

    asyncio.run(run())
