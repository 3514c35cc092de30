"""Clients who ask for more finalizes than a stream takes at a time: all are answered, in order."""

import asyncio
import base64
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

import kiku
from kiku.errors import QueueFull
from kiku.serve.protocols.interface import (
    Actions,
    Base,
    ClientRequest,
    FinalizeStream,
    ModelCard,
    Push,
)
from kiku.serve.protocols.kyutai import KyutaiProtocol
from kiku.serve.service import Service
from kiku.serve.settings import Settings
from kiku.serve.talk import Talk
from kiku.serve.wire import Gone
from tests.serve.clients import PATIENCE_S, samples_of
from tests.serve.conftest import EXAMPLES
from tests.serve.running import Running

MANY = 50
"""A stream takes 32 at a time."""

BEFORE_S = 60
"""Of sound that is still to be heard when they are asked for."""


def pcm(samples: np.ndarray) -> bytes:
    return (samples * 32_767).round().astype("<i2").tobytes()


def packed(**message: Any) -> bytes:
    return msgpack.packb(message, use_single_float=True)  # pyright: ignore[reportReturnType]


def as_json(**message: Any) -> str:
    return json.dumps(message)


@dataclass
class Client:
    """How clients of one protocol speak."""

    path: str
    sound: Callable[[np.ndarray], str | bytes]
    finalize: Callable[[int], str | bytes]
    end: str | bytes
    is_answer: Callable[[dict[str, Any]], bool]
    word: Callable[[dict[str, Any]], str | None]


def _append(samples: np.ndarray) -> str:
    return as_json(type="input_audio_buffer.append", audio=base64.b64encode(pcm(samples)).decode())


def _final(message: dict[str, Any]) -> str | None:
    return message["channel"]["alternatives"][0]["transcript"] if message.get("is_final") else None


RAW = "encoding=linear16&sample_rate=24000"
FORCED = "EndOfTurn"
CLIENTS = {
    "kyutai": Client(
        "/api/asr-streaming",
        lambda samples: packed(type="Audio", pcm=samples.tolist()),
        lambda number: packed(type="Marker", id=number),
        packed(type="Marker", id=-1),
        lambda one: one["type"] == "Marker" and one["id"] >= 0,
        lambda one: one["text"] if one["type"] == "Word" else None,
    ),
    "own": Client(
        "/api/stream",
        pcm,
        lambda number: as_json(type="finalize", tag=str(number)),
        as_json(type="close"),
        lambda one: one["type"] == "finalized",
        lambda one: one["text"] if one["type"] == "word" else None,
    ),
    "deepgram": Client(
        f"/v1/listen?{RAW}",
        pcm,
        lambda _: as_json(type="Finalize"),
        as_json(type="CloseStream"),
        lambda one: bool(one.get("from_finalize")),
        _final,
    ),
    "flux": Client(
        f"/v2/listen?{RAW}&model=flux-general-en",
        pcm,
        lambda _: as_json(type="ForceEndTurn"),
        as_json(type="CloseStream"),
        lambda one: False,  # without a word there is no turn to end
        lambda one: one["transcript"] if one.get("event") == FORCED else None,
    ),
    "realtime": Client(
        "/v1/realtime?intent=transcription",
        _append,
        lambda _: as_json(type="input_audio_buffer.commit"),
        as_json(type="input_audio_buffer.commit", event_id="last"),  # an error: nothing is there
        lambda one: one["type"].endswith("input_audio_transcription.completed"),
        lambda one: one.get("transcript"),
    ),
}
"""By their names."""


def received(name: str, socket: ClientConnection, count: int) -> list[dict[str, Any]]:
    """All that comes, up to the end or as many answers."""
    found: list[dict[str, Any]] = []
    client = CLIENTS[name]
    with suppress(ConnectionClosed):
        while name in ("own", "deepgram", "flux") or sum(map(client.is_answer, found)) < count:
            message = socket.recv(PATIENCE_S)
            is_text = isinstance(message, str)
            found.append(json.loads(message) if is_text else msgpack.unpackb(message))
    return found


@pytest.mark.parametrize("name", CLIENTS)
def test_all_are_answered_and_no_sound_is_lost(
    service: Running, demo: kiku.Recognizer, name: str
) -> None:
    client, digits = CLIENTS[name], samples_of(EXAMPLES / "digits.wav")
    second = np.zeros(24_000, np.float32)
    with connect(service.ws + client.path, max_size=None) as socket:
        if name == "realtime":
            turns = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}
            socket.send(as_json(type="session.update", session=turns))
        for _ in range(BEFORE_S):
            socket.send(client.sound(second))
        for number in range(MANY):
            socket.send(client.sound(second[:2_400]))
            socket.send(client.finalize(number))
        for at in range(0, len(digits), 2_400):
            socket.send(client.sound(digits[at : at + 2_400]))
        socket.send(client.sound(second))
        socket.send(client.finalize(MANY))
        socket.send(client.end)
        found = received(name, socket, MANY + 1)
    refused = [one for one in found if one["type"].lower() == "error" or "REJECTED" in one.values()]
    told = [one.get("error", {}).get("event_id") for one in refused]
    assert told == (["last"] if name == "realtime" else [])
    if name != "flux":
        assert sum(map(client.is_answer, found)) == MANY + 1
    text = " ".join(filter(None, map(client.word, found)))
    assert text == demo.transcribe(EXAMPLES / "digits.wav").text
    if name == "kyutai":
        assert [one["id"] for one in found if client.is_answer(one)] == list(range(MANY + 1))


# The talk.


class FullStream:
    """A stream that takes a finalize at the third time."""

    waiting_s, duration, done, failure = 0.0, 0.0, False, None

    def __init__(self) -> None:
        self.num_tried = 0
        self.asked: list[Any] = []

    async def finalize(self, tag: str | None, *, cut: bool) -> None:
        self.num_tried += 1
        if self.num_tried < 3:
            raise QueueFull("many wait")
        self.asked.append(tag)

    async def push(self, samples: bytes, *, rate: int | None = None) -> None:
        self.asked.append(samples)

    def stop(self) -> None:
        pass


def test_a_finalize_that_finds_no_room_waits_and_what_is_asked_behind_it() -> None:
    async def play() -> FullStream:
        protocol = KyutaiProtocol(ClientRequest("/"), ModelCard("demo"))
        stream: Any = FullStream()
        one = Talk(Service(Settings()), protocol, "somebody", "1")._stream
        one._stream = stream
        await asyncio.gather(
            one.do([FinalizeStream("a")]), one.do([Push(b"ab"), FinalizeStream("b")])
        )
        return stream

    stream = asyncio.run(play())
    assert stream.asked == ["a", b"ab", "b"]


def test_a_finalize_waits_no_longer_for_a_stream_that_is_given_up() -> None:
    class Never(FullStream):
        async def finalize(self, tag: str | None, *, cut: bool) -> None:
            one._stream = None
            raise QueueFull("many wait")

    protocol = KyutaiProtocol(ClientRequest("/"), ModelCard("demo"))
    stream: Any = Never()
    one = Talk(Service(Settings()), protocol, "somebody", "1")._stream
    one._stream = stream
    asyncio.run(one.do([FinalizeStream("a")]))


class Keeper(Base):
    """A protocol that keeps one message, and no more."""

    name = "keeper"

    def __init__(self) -> None:
        self.messages: list[str | bytes] = []
        self.num_asked, self.keeps = 0, True

    @property
    def is_full(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        self.num_asked += 1
        return self.keeps

    def received(self, message: str | bytes) -> Actions:
        self.messages.append(message)
        return ()

    def failed(self, error: Exception) -> Actions:
        return ()


class Endless:
    """A client who sends on."""

    def __init__(self, protocol: Keeper) -> None:
        self._protocol = protocol
        self._is_closed = False

    async def receive(self) -> str | bytes:
        await asyncio.sleep(0)
        if self._is_closed or len(self._protocol.messages) > 5:
            raise Gone(1000)
        return b"more"

    async def close(self, code: int, reason: str) -> None:
        self._is_closed = True


@pytest.mark.parametrize("is_ended", [False, True])
def test_a_client_of_a_protocol_that_keeps_much_is_not_read(is_ended: bool) -> None:
    async def play() -> None:
        protocol: Any = Keeper()
        wire: Any = Endless(protocol)
        talk = Talk(Service(Settings()), protocol, "somebody", "1")
        reading = asyncio.create_task(talk.run(wire))
        while protocol.num_asked < 3 and not reading.done():
            await asyncio.sleep(0.01)
        assert len(protocol.messages) == 1
        if is_ended:
            await talk.end_service()
        else:
            protocol.keeps = False
        async with asyncio.timeout(PATIENCE_S):
            await reading
        assert len(protocol.messages) == (1 if is_ended else 6)

    asyncio.run(play())
