"""A good stream beside each kind of hostile client: it is answered frame by frame all the while."""

import io
import os
import socket as system
import time
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from typing import Any

import av
import msgpack
import numpy as np
import pytest

from tests.serve.clients import FRAME, kyutai, samples_of
from tests.serve.conftest import EXAMPLES
from tests.serve.raw_client import BINARY, PING, SOCKETS, TEXT, Raw, frame
from tests.serve.running import Running

SOUND = samples_of(EXAMPLES / "digits.wav")[: 32 * FRAME]
ROUND = 4
"""Frames of the good stream between two doings of the hostile client."""

Hostile = Generator[None]
KYUTAI, OWN, REALTIME = SOCKETS[:3]


def opened(service: Running, path: str, *headers: str, receive_bytes: int | None = None) -> Raw:
    """A socket; it waits for the slot of the one before."""
    while True:
        client = Raw(service.port, receive_bytes)
        client.ask_socket(path, *headers)
        head = client.head()
        if b" 101 " in head:
            return client
        assert b" 503 " in head
        client.socket.close()
        time.sleep(0.05)


def reads_nothing(service: Running) -> Hostile:
    """It speaks, asks for answers to its pings, and takes none."""
    sound = msgpack.packb({"type": "Audio", "pcm": [0.0] * FRAME}, use_single_float=True)
    with opened(service, KYUTAI, receive_bytes=4_096) as client:
        here = client.socket.getsockname()
        connections: Any = service.server.server_state.connections
        (sock,) = (one.transport.get_extra_info("socket") for one in list(connections)
                   if one.transport.get_extra_info("peername") == here)  # fmt: skip
        sock.setsockopt(system.SOL_SOCKET, system.SO_SNDBUF, 4_096)  # the system keeps less
        while True:
            client.send(frame(BINARY, sound) + frame(PING, b"x" * 120) * 1_000)
            yield


def never_ends_its_head(service: Running) -> Hostile:
    with Raw(service.port) as client:
        for byte in b"GET /api/stream HTTP/1.1\r\nHost: a\r\nX-A: b\r\n":
            client.send(bytes([byte]))
            yield


def breaks_off(service: Running) -> Hostile:
    """Half a frame of a socket, half a head, half a body; the connections stay open."""
    with opened(service, OWN) as socket, Raw(service.port) as head, Raw(service.port) as body:
        socket.send(frame(BINARY, bytes(2_000))[:1_000])
        head.send(b"POST /v1/listen HTTP/1.1\r\nHo")
        body.ask("POST /v1/listen HTTP/1.1", "Content-Length: 1000")
        body.send(bytes(500))
        while True:
            yield


def sends_random_bytes(service: Running) -> Hostile:
    dice = np.random.default_rng(7)
    while True:
        with Raw(service.port) as plain, suppress(ConnectionError):
            plain.send(dice.bytes(5_000))
        with opened(service, SOCKETS[dice.integers(len(SOCKETS))]) as client:
            with suppress(ConnectionError):
                client.send(dice.bytes(5_000))
            yield


def says_all_in_the_wrong_order(service: Running) -> Hostile:
    """Ends before anything has begun, commits of nothing, sound after the end."""
    while True:
        with opened(service, OWN) as a, opened(service, REALTIME) as b:
            with suppress(ConnectionError):
                a.send(frame(TEXT, b'{"type":"close"}') + frame(BINARY, bytes(FRAME * 2)))
                b.send(frame(TEXT, b'{"type":"input_audio_buffer.commit"}') * 20)
                b.send(frame(TEXT, b'{"type":"session.update","session":{"type":"realtime"}}') * 20)
            yield


def says_it_will_be_endless(service: Running) -> Hostile:
    while True:
        with opened(service, KYUTAI) as client, Raw(service.port) as body:
            with suppress(ConnectionError):
                client.send(b"\x82\xff" + (2**62).to_bytes(8) + bytes(10_000))
            body.ask("POST /v1/listen HTTP/1.1", f"Content-Length: {2**62}")
            assert b" 413 " in body.head()
            yield


def sends_compressed_bombs(service: Running) -> Hostile:
    bomb = zlib.compress(bytes(2**24), 9)
    while True:
        offer = "Sec-WebSocket-Extensions: permessage-deflate"
        with opened(service, OWN, offer) as client, Raw(service.port) as body:
            data = frame(BINARY, bomb)
            with suppress(ConnectionError):
                client.send(bytes([data[0] | 0x40]) + data[1:])  # as if it were agreed on
            body.ask("POST /v1/listen HTTP/1.1", "Content-Encoding: deflate",
                     f"Content-Length: {len(bomb)}")  # fmt: skip
            assert b" 415 " in body.head()
            yield


def lies_in_its_header(service: Running) -> Hostile:
    """A recording that says that it holds hours, and is cut."""
    wav = b"RIFF\xff\xff\xff\x7fWAVEfmt " + bytes.fromhex("10000000 0100 0100 80bb0000 00770100")
    wav += bytes.fromhex("0200 1000") + b"data\xf0\xff\xff\x7f" + bytes(20_000)
    with opened(service, "/api/stream?container=true") as client:
        client.send(frame(BINARY, wav))
        while True:
            yield


def an_hour_in_a_small_file() -> bytes:
    """Opus packets of 120 ms of silence each."""
    data = io.BytesIO()
    with av.open(data, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=48_000)
        stream.layout = "mono"  # pyright: ignore[reportAttributeAccessIssue]
        stream.encode(None)
        for i in range(30_000):
            packet = av.Packet(b"\xfb\x06" + b"\xff\xfe" * 6)
            packet.stream, packet.pts, packet.duration = stream, i * 5_760, 5_760
            container.mux(packet)
    return data.getvalue()


def sends_an_hour_in_a_small_file(service: Running) -> Hostile:
    data = an_hour_in_a_small_file()
    assert len(data) < 2**20
    with Raw(service.port) as client:
        client.ask("POST /v1/listen HTTP/1.1", f"Content-Length: {len(data)}")
        client.send(data)
        while True:
            yield


def uploads_a_gigabyte(service: Running) -> Hostile:
    part = os.urandom(2**20)
    with Raw(service.port) as client:
        client.ask("POST /v1/listen HTTP/1.1", f"Content-Length: {10**9}")
        while True:
            client.send(part)
            client.send(part)
            yield


def speak_beside(service: Running, hostile: Iterator[None]) -> list[dict[str, Any]]:
    """What a stream is told, which sends a frame when the one before is answered."""
    with kyutai(service.ws) as client:
        client.until("Ready")
        for i, at in enumerate(range(0, len(SOUND), FRAME)):
            if i % ROUND == 0:
                next(hostile)
            client.speak(SOUND[at : at + FRAME])
            client.until("Step")
        client.finish()
        return [{name: one for name, one in message.items() if name != "prs"}
                for message in client.messages]  # fmt: skip


def nobody() -> Hostile:
    while True:
        yield


@pytest.fixture(scope="module")
def told_alone(service: Running) -> list[dict[str, Any]]:
    return speak_beside(service, nobody())


@pytest.mark.parametrize(
    "hostile",
    [reads_nothing, never_ends_its_head, breaks_off, sends_random_bytes,
     says_all_in_the_wrong_order, says_it_will_be_endless, sends_compressed_bombs,
     lies_in_its_header, sends_an_hour_in_a_small_file, uploads_a_gigabyte],
)  # fmt: skip
def test_a_good_stream_notices_nothing(
    service: Running, told_alone: list[dict[str, Any]], hostile: Callable[[Running], Hostile]
):
    """Every message is as alone: words, times, and a step for every frame. Each frame waits for the
    answer to the one before, so a service that does not answer meanwhile ends the test."""
    with closing(hostile(service)) as doing:
        assert speak_beside(service, doing) == told_alone
    words = [one["text"] for one in told_alone if one["type"] == "Word"]
    assert words == ["seven", "three", "zero"]
    steps = [one for one in told_alone if one["type"] == "Step"]
    assert len(steps) >= len(SOUND) // FRAME
