"""What a service makes of clients that are broken, or want to break it. Nobody else may notice."""

import logging
import socket as system
import time
from collections.abc import Callable, Generator
from typing import Any

import httpx
import msgpack
import pytest

import kiku
from kiku.serve.protocols.interface import ClientRequest, LiveProtocol, ModelCard, Refusal, Send
from kiku.serve.protocols.kyutai import KyutaiProtocol
from kiku.serve.protocols.own import OwnProtocol
from kiku.serve.wire import request_of
from tests.serve.clients import PATIENCE_S, kyutai
from tests.serve.conftest import EXAMPLES
from tests.serve.raw_client import BINARY, CLOSE, CONTINUED, PING, PONG, SOCKETS, TEXT, Raw, frame
from tests.serve.running import Running, running
from tests.serve.talks import wait_for

MODEL = ModelCard("demo", (), ("en",), 0.5, 4, 24_000, "0", 0)
DEEP = 100_000


@pytest.fixture
def alone(demo: kiku.Recognizer) -> Generator[Running]:
    """A service without the connections of other tests."""
    with running(demo, ahead=True) as one:
        yield one


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/nowhere", "/v1/listen"])
def test_a_query_of_too_many_parameters_is_a_mistake_of_the_client(service: Running, path: str):
    answer = httpx.get(f"{service.http}{path}?{'a=1&' * 2_000}")
    assert answer.status_code == 400
    assert "1000 parameters" in answer.text


@pytest.mark.parametrize("path", SOCKETS)
def test_a_socket_with_too_many_parameters_is_refused(service: Running, path: str):
    with Raw(service.port) as client:
        client.ask_socket(path + ("&" if "?" in path else "?") + "a&" * 2_000)
        assert client.head().startswith(b"HTTP/1.1 400")


def test_a_query_just_short_enough_is_read():
    scope = {"path": "/", "headers": [], "query_string": b"a=1&" * 999 + b"a=1"}
    assert len(request_of(scope, "").query) == 1_000
    scope["query_string"] += b"&a=1"
    with pytest.raises(Refusal):
        request_of(scope, "")


@pytest.mark.parametrize("path", SOCKETS)
def test_a_request_line_that_is_too_long_for_a_socket_is_answered(service: Running, path: str):
    with Raw(service.port) as client:
        client.ask_socket(path + ("&" if "?" in path else "?") + "a" * 9_000)
        assert client.head().startswith(b"HTTP/1.1 414")
        client.rest()  # it hangs up


def test_too_many_headers_of_a_socket_are_answered(service: Running):
    with Raw(service.port) as client:
        client.ask_socket(SOCKETS[0], *(f"X-{i}: 1" for i in range(200)))
        assert client.head().startswith(b"HTTP/1.1 431")
        client.rest()


def test_a_host_that_is_none_may_not_come_from_a_page(service: Running):
    with Raw(service.port) as client:
        client.send(b"GET /v1/models HTTP/1.1\r\nHost: [\r\nOrigin: http://here\r\n\r\n")
        assert client.head().startswith(b"HTTP/1.1 403")


# Sockets.


def test_parts_of_a_message_that_never_ends_are_not_kept_one_by_one(alone: Running):
    """A part without a byte is no memory, and the message is whole in the end."""
    with Raw(alone.port) as client:
        client.ask_socket("/v1/realtime?intent=transcription")
        client.head()
        client.frame()
        client.send(frame(TEXT, b'{"type":"input_', last=False))
        for _ in range(20):
            client.send(frame(CONTINUED, b"", last=False) * 1_000)
        protocol = open_sockets(alone)[0]
        wait_for(lambda: len(protocol.frames) == 2 and not protocol._kept)
        client.send(frame(CONTINUED, b"audio_buffer.", last=False))
        client.send(frame(CONTINUED, b'commit"}'))
        assert b"input_audio_buffer_commit_empty" in client.frame()[1]


def test_parts_are_counted_together(demo: kiku.Recognizer):
    with running(demo, max_message_bytes=1_000) as service, Raw(service.port) as client:
        client.ask_socket(SOCKETS[0])
        client.head()
        client.frame()
        client.send(frame(2, b"a" * 100, last=False) + frame(0, b"a" * 100, last=False) * 20)
        kind, data = client.frame()
        assert (kind, data[:2]) == (CLOSE, (1009).to_bytes(2))


def test_too_long_a_message_is_told_to_who_reads_only_when_all_is_sent(demo: kiku.Recognizer):
    with running(demo, max_message_bytes=100_000) as one:
        for path in SOCKETS:
            with Raw(one.port) as client:
                client.ask_socket(path)
                client.head()
                client.send(frame(BINARY, bytes(12 * 2**20)))  # more than any buffer holds
                while (got := client.frame())[0] != CLOSE:
                    pass
                assert got[1][:2] == (1009).to_bytes(2)
                client.send(frame(CLOSE, (1009).to_bytes(2)))
                assert client.head() == b""  # and its side is closed


def test_a_client_that_asks_and_never_reads_is_not_answered_without_end(alone: Running):
    with Raw(alone.port, receive_bytes=4_096) as client:
        client.ask_socket(SOCKETS[0])
        client.head()  # from now on it is one of the open sockets
        for _ in range(100):
            client.send(frame(PING, b"x" * 100) * 200)
        protocol = open_sockets(alone)[0]
        assert protocol.transport.get_write_buffer_size() < 2**17
        client.send(frame(PING, b"the last"))
        while client.frame() != (PONG, b"the last"):
            pass


def test_a_flood_of_messages_loses_none(service: Running):
    """They are read in turns, with rests."""
    message = msgpack.packb({"type": "Audio", "pcm": [0.0]}, use_single_float=True)
    with Raw(service.port) as client:
        client.ask_socket(SOCKETS[0])
        client.head()
        client.send(frame(2, message) * 19_200)
        client.send(frame(2, msgpack.packb({"type": "Marker", "id": 5})))
        steps = 0
        while (told := msgpack.unpackb(client.frame()[1]))["type"] != "Marker":
            steps += told["type"] == "Step"
        assert steps >= 10


def test_text_that_is_none_ends_its_connection(service: Running):
    for path in SOCKETS:
        with Raw(service.port) as client:
            client.ask_socket(path)
            client.head()
            client.send(frame(TEXT, b"\xff\xfe"))
            while (got := client.frame())[0] != CLOSE:
                pass
            assert got[1][:2] == (1007).to_bytes(2)


@pytest.mark.parametrize("make", [KyutaiProtocol, OwnProtocol])
def test_what_is_nested_too_deep_is_a_mistake_of_the_client(
    make: Callable[[ClientRequest, ModelCard], LiveProtocol],
):
    query = (("encoding", "s16le"), ("rate", "24000"))
    protocol = make(ClientRequest("/", query), MODEL)
    deep = b"\x82\xa1a" + b"\x91" * DEEP if make is KyutaiProtocol else '{"a":' * DEEP
    told = [one.data for one in protocol.received(deep) if isinstance(one, Send)]
    assert "cannot be understood" in str(told)


def test_to_begin_anew_while_a_recording_is_decoded_is_no_mistake(service: Running):
    with kyutai(service.ws) as client:
        for _ in range(3):
            client.until("Ready")
            client.send(type="OggOpus", data=b"OggS")
            client.send(type="Init")
        client.until("Ready")
        client.send(type="Marker", id=1)
        client.until("Marker")
        assert all(one["type"] != "Error" for one in client.messages)


def test_a_key_beyond_ascii_is_known_in_every_header(demo: kiku.Recognizer):
    key = "voilà €"
    with running(demo, api_key=(key,)) as service:
        for name in ("Authorization", "kyutai-api-key"):
            for given, status in ((key, 200), (key + "x", 401)):
                value = ("Bearer " if name == "Authorization" else "") + given
                answer = httpx.get(f"{service.http}/v1/models", headers={name: value.encode()})
                assert answer.status_code == status, (name, given)
                with Raw(service.port) as client:
                    client.send(
                        b"GET /api/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
                        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                        b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
                        + f"{name}: {value}\r\n\r\n".encode()
                    )
                    wanted = b"101" if status == 200 else b"401"
                    assert client.head().split()[1] == wanted, (name, given)


# Clients that are gone.


def test_a_connection_holds_little_and_its_system_is_asked_for(service: Running):
    """Sound that waits in the system holds up pings, and a client that is gone says nothing."""
    with Raw(service.port) as client, system.socket() as other:
        other.setsockopt(system.SOL_SOCKET, system.SO_RCVBUF, 2**18)
        client.ask_socket(SOCKETS[0])
        client.head()
        here = client.socket.getsockname()
        (sock,) = (one.transport.get_extra_info("socket") for one in open_sockets(service)
                   if one.transport.get_extra_info("peername") == here)  # fmt: skip
        size = other.getsockopt(system.SOL_SOCKET, system.SO_RCVBUF)  # as this system counts it
        assert sock.getsockopt(system.SOL_SOCKET, system.SO_RCVBUF) == size
        if hasattr(system, "TCP_USER_TIMEOUT"):
            assert sock.getsockopt(system.IPPROTO_TCP, system.TCP_USER_TIMEOUT) == 60_000
    assert service.server.config.timeout_keep_alive == 30


def test_a_socket_is_pinged_and_may_leave_pings_unanswered(
    demo: kiku.Recognizer, service: Running, monkeypatch: pytest.MonkeyPatch
):
    """Pongs may wait behind sound, so they are not what shows that a client is there."""
    assert service.server.config.ws_ping_interval == 10
    assert service.server.config.ws_ping_timeout is None
    monkeypatch.setattr("kiku.serve.server._PING_S", 0.05)
    with running(demo) as one, Raw(one.port) as client:
        client.socket.settimeout(15)  # uvicorn by itself pings every 20 s
        client.ask_socket("/api/stream")
        client.head()
        pings = 0
        while pings < 3:
            pings += client.frame()[0] == PING
        client.send(frame(TEXT, b'{"type":"close"}'))
        while b'"type":"end"' not in client.frame()[1].replace(b" ", b""):
            pass


# Requests.


def test_an_upgrade_that_is_not_offered_is_passed_over_in_silence(
    service: Running, caplog: pytest.LogCaptureFixture
):
    """As `curl --http2` asks for one."""
    with Raw(service.port) as client:
        client.ask(
            "GET /health HTTP/1.1", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
        )  # fmt: skip
        assert b" 200 " in client.head()
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


def test_http_2_by_prior_knowledge_is_refused(service: Running):
    with Raw(service.port) as client:
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        answer = client.rest()  # to its end
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"HTTP/1.1 400 " in answer


def test_a_second_request_that_never_ends_is_closed(demo: kiku.Recognizer):
    with running(demo, header_s=0.3) as service, Raw(service.port) as client:
        client.ask("GET /health HTTP/1.1")
        client.head()
        client.take(len('{"status":"ok"}'))
        client.send(b"GET /health HTT")
        assert client.rest() == b""


def test_a_request_that_takes_its_time_is_not_closed(demo: kiku.Recognizer):
    """Only its head must be there in time."""
    with running(demo, header_s=0.3) as service, Raw(service.port) as client:
        for _ in range(2):
            client.ask("POST /v1/listen HTTP/1.1", "Content-Length: 4")
            time.sleep(0.6)
            client.send(b"nono")
            head = client.head()
            assert head.startswith(b"HTTP/1.1 400")
            client.take(int(head.lower().split(b"content-length: ")[1].split()[0]))


def test_a_decoder_that_is_killed_while_it_waits_is_replaced(alone: Running):
    """The system may do so when memory is short."""
    recording = (EXAMPLES / "digits.wav").read_bytes()
    decoders = alone.service.decoders

    async def kill() -> None:
        decoders.prepare()
        assert decoders._spare is not None
        process = await decoders._spare
        process.kill()
        await process.wait()

    alone.call(kill)
    answer = httpx.post(f"{alone.http}/v1/listen", content=recording, timeout=PATIENCE_S)
    assert answer.status_code == 200


def open_sockets(service: Running) -> list[Any]:
    return [one for one in service.server.server_state.connections if hasattr(one, "queue")]
