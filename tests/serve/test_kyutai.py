"""Clients that behave as Kyutai's scripts and as Unmute do, against a running service."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import msgpack
import numpy as np
import pytest
import websockets
from websockets.asyncio.client import ClientConnection

import kiku
from kiku.engine.core import SlotEngine
from tests.serve.clients import FRAME, PATIENCE_S, RATE, samples_of
from tests.serve.conftest import EXAMPLES
from tests.serve.kyutai_types import checked
from tests.serve.running import Running

PATH = "/api/asr-streaming"
HEADERS = {"kyutai-api-key": "public_token"}
LONG_S = 240.0
"""Nothing takes so long, unless it never comes."""

T = TypeVar("T")


def run(make: Callable[[], Awaitable[T]]) -> T:
    async def work() -> T:
        async with asyncio.timeout(LONG_S):
            return await make()

    return asyncio.run(work())


def packed(**message: Any) -> bytes:
    data: Any = msgpack.packb(message, use_bin_type=True, use_single_float=True)
    return data


def audio(samples: "Sequence[float] | np.ndarray") -> bytes:
    return packed(type="Audio", pcm=[float(one) for one in samples])


SECOND = audio([0.0] * RATE)


class FileScript:
    """As the script that sends a file: all at once, silence behind its Marker, gone at Marker."""

    def __init__(self, sound: np.ndarray) -> None:
        self._sound = sound
        self.words: list[dict[str, Any]] = []
        self.sent_all = False

    @property
    def text(self) -> str:
        return " ".join(word["text"] for word in self.words)

    async def talk(self, address: str, **options: Any) -> None:
        """To the end; raises where the connection does not last until all is sent and told."""
        async with websockets.connect(
            address + PATH, additional_headers=HEADERS, **options
        ) as socket:
            sending = asyncio.create_task(self._send(socket))
            await asyncio.gather(sending, self._receive(socket))

    async def _send(self, socket: ClientConnection) -> None:
        await socket.send(SECOND)
        for first in range(0, len(self._sound), FRAME):
            await socket.send(audio(self._sound[first : first + FRAME]))
            await asyncio.sleep(0.001)
        for _ in range(5):
            await socket.send(SECOND)
        await socket.send(packed(type="Marker", id=0))
        for _ in range(35):
            await socket.send(SECOND)
        self.sent_all = True

    async def _receive(self, socket: ClientConnection) -> None:
        async for data in socket:
            assert isinstance(data, bytes)
            message = checked(data)
            match message["type"]:
                case "Word":
                    self.words.append(message)
                case "EndWord":
                    self.words[-1]["stop_time"] = message["stop_time"]
                case "Marker":
                    assert message["id"] == 0
                    return
                case _:
                    pass


def heard(demo: kiku.Recognizer, sound: np.ndarray) -> kiku.Transcript:
    """What the model makes of a file with the script's silence around it."""
    silence = np.zeros(RATE, np.float32)
    return demo.transcribe(np.concatenate([silence, sound, *[silence] * 5]), rate=RATE)


def test_the_file_script(service: Running, demo: kiku.Recognizer):
    sound = samples_of(EXAMPLES / "answers.mp3")[:-777]  # so that the last message is short
    client = FileScript(sound)
    run(lambda: client.talk(service.ws))
    assert client.sent_all
    wanted = heard(demo, sound)
    assert wanted.words
    assert [(word["text"], word["start_time"], word["stop_time"]) for word in client.words] == [
        (word.text, round(word.start, 3), round(word.end, 3)) for word in wanted.words
    ]


STEP_S = 0.08 / 6
"""Six times as fast as the sound comes."""

PING_S = 1.0


def test_the_file_script_outlives_a_server_that_is_slower_than_it(
    service: Running, demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch
):
    """Ten minutes at once, on a model that is twice as fast as sound, with pings every 20 s: here
    it is all so much shorter. A server that stops reading when it has enough dies of it, as the
    client's pings wait behind its sound."""
    sound = np.tile(samples_of(EXAMPLES / "answers.mp3"), 4)
    wanted = heard(demo, sound).text
    decode = SlotEngine.decode

    def slow(self: SlotEngine, slots: Any, codes: Any, counts: Any = None) -> Any:
        time.sleep(STEP_S * (1 if counts is None else max(counts)))
        return decode(self, slots, codes, counts)

    monkeypatch.setattr(SlotEngine, "decode", slow)
    client = FileScript(sound)
    began = time.monotonic()
    run(lambda: client.talk(service.ws, ping_interval=PING_S, ping_timeout=PING_S))
    assert client.sent_all
    assert client.text == wanted
    assert len(wanted.split()) > 20
    # Or this tries nothing.
    assert time.monotonic() - began > 3 * PING_S


def test_the_microphone_script(service: Running, demo: kiku.Recognizer):
    """Prints a bar where the third pause head says so behind a word."""
    sound = samples_of(EXAMPLES / "answers.mp3")
    sound = np.pad(sound, (0, 2 * RATE - len(sound) % FRAME + FRAME))

    async def talk() -> list[str]:
        printed: list[str] = []
        async with websockets.connect(service.ws + PATH, additional_headers=HEADERS) as socket:
            for first in range(0, len(sound) - FRAME + 1, FRAME):
                await socket.send(audio(sound[first : first + FRAME]))
            steps_left, has_speech = len(sound) // FRAME, False
            while steps_left:
                data = await socket.recv()
                assert isinstance(data, bytes)
                message = checked(data)
                if message["type"] == "Step":
                    steps_left -= 1
                    if message["prs"][2] > 0.5 and has_speech:
                        printed.append("|")
                        has_speech = False
                elif message["type"] == "Word":
                    printed.append(message["text"])
                    has_speech = True
        return printed

    printed = run(talk)
    words = [one for one in printed if one != "|"]
    assert words[:4] == demo.transcribe(EXAMPLES / "answers.mp3").text.split()[:4]
    assert printed[-1] == "|"


class Unmute:
    """Counts time by Steps, hears pauses by the third head, and flushes with silence."""

    def __init__(self) -> None:
        self.time_s = -0.5
        self.num_steps = 0
        self.pause = 1.0
        self.words: list[str] = []
        self.news = asyncio.Event()
        self._socket: ClientConnection | None = None

    async def start(self, address: str) -> None:
        self._socket = await websockets.connect(address + PATH, additional_headers=HEADERS)
        first = await self._socket.recv()
        assert isinstance(first, bytes)
        kind = checked(first)["type"]
        if kind != "Ready":
            await self._socket.close()
            raise RuntimeError(kind)

    async def send(self, samples: np.ndarray) -> None:
        assert self._socket is not None
        await self._socket.send(packed(type="Audio", pcm=samples.tolist()))

    async def shut_down(self) -> None:
        assert self._socket is not None
        await self._socket.close()

    async def listen(self) -> None:
        assert self._socket is not None
        async for data in self._socket:
            assert isinstance(data, bytes)
            message = checked(data)
            match message["type"]:
                case "Step":
                    self.time_s += 0.08
                    self.num_steps += 1
                    if self.num_steps > 12:
                        share = 1 - math.exp(-0.08 / 0.01)
                        self.pause += share * (message["prs"][2] - self.pause)
                case "Word":
                    self.words.append(message["text"])
                    self.pause = 0.0
                case "EndWord":
                    pass
                case kind:
                    raise AssertionError(f"{kind} was not asked for")
            self.news.set()

    def has_stepped(self, count: int) -> bool:
        return self.num_steps >= count

    def has_passed(self, seconds: float) -> bool:
        return self.time_s > seconds

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.news.clear()
            await self.news.wait()


def test_unmute(service: Running, demo: kiku.Recognizer):
    """Two turns: each ends with a pause, a flush of silence, and all words there."""
    sound = samples_of(EXAMPLES / "digits.wav")
    sound = np.pad(sound, (0, -len(sound) % FRAME))
    silence = np.zeros(FRAME, np.float32)

    async def talk() -> list[list[str]]:
        client, turns = Unmute(), []
        await client.start(service.ws)
        listening = asyncio.create_task(client.listen())
        num_sent = 0
        for _ in range(2):
            for first in range(0, len(sound), FRAME):
                await client.send(sound[first : first + FRAME])
                num_sent += 1
            await client.until(partial(client.has_stepped, num_sent))
            while not (client.words and client.pause > 0.6):  # the room goes on
                await client.send(silence)
                num_sent += 1
                await client.until(partial(client.has_stepped, num_sent))
                assert num_sent < 1_000
            flushed_s = client.time_s + 0.5
            for _ in range(math.ceil(0.5 / 0.08) + 1):
                await client.send(silence)
                num_sent += 1
            await client.until(partial(client.has_passed, flushed_s))
            turns.append(client.words)
            client.words = []
        await client.until(partial(client.has_stepped, num_sent))
        await client.shut_down()
        await listening
        assert client.num_steps == num_sent  # a Step for each frame, and no more
        return turns

    wanted = demo.transcribe(EXAMPLES / "digits.wav").text.split()
    assert run(talk) == [wanted, wanted]


def test_unmute_at_a_full_service_goes_elsewhere(service: Running):
    ends = time.monotonic() + PATIENCE_S
    while service.service.admission.num_taken:  # the streams of other tests are still leaving
        assert time.monotonic() < ends
        time.sleep(0.02)

    async def talk() -> None:
        four = [Unmute() for _ in range(4)]
        for one in four:
            await one.start(service.ws)
        with pytest.raises(RuntimeError, match="Error"):
            await Unmute().start(service.ws)
        for one in four:
            await one.shut_down()

    run(talk)
