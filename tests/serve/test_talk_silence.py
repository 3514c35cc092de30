"""A process that is held up does not take that for its clients' silence."""

import asyncio
import time
from typing import Any

import pytest

from kiku.serve import sockets
from kiku.serve.guard import Guard
from kiku.serve.keys import Keys
from kiku.serve.protocols.interface import Actions, ClientRequest, FinalizeStream, ModelCard, Push
from kiku.serve.protocols.kyutai import KyutaiProtocol
from kiku.serve.service import Service
from kiku.serve.settings import Settings
from kiku.serve.sockets import Sockets
from kiku.serve.talk import Talk


class SilentWire:
    """A client that sends nothing."""

    async def receive(self) -> str | bytes:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, data: str | bytes) -> None:
        pass

    async def close(self, code: int, reason: str) -> None:
        pass


class Listening(KyutaiProtocol):
    """Notes of what silences it was told."""

    def __init__(self) -> None:
        super().__init__(ClientRequest("/"), ModelCard("demo"))
        self.silences: list[float] = []

    def received(self, message: str | bytes) -> Actions:
        return [Push(b""), FinalizeStream()] if message == BOTH else super().received(message)

    def quiet(self, seconds: float) -> Actions:
        self.silences.append(seconds)
        return ()


@pytest.mark.parametrize("held_up_s", [0.0, 50.0, 500.0])
def test_the_time_that_a_process_was_held_up_is_no_silence(held_up_s: float) -> None:
    first_s = KyutaiProtocol.quiet_after_s[0]

    async def play() -> list[float]:
        protocol, wire = Listening(), SilentWire()
        talk = Talk(Service(Settings()), protocol, "somebody", "1")
        given: Any = wire
        running = asyncio.create_task(talk.run(given))
        await asyncio.sleep(0.05)
        now = time.monotonic() + 50.0 + first_s / 2
        talk.check_client(now, held_up_s)
        await asyncio.sleep(0)
        before = list(protocol.silences)
        talk.check_client(now + first_s)
        await asyncio.sleep(0)
        assert protocol.silences == [first_s]  # it was silent all the same
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return before

    assert asyncio.run(play()) == ([] if held_up_s else [first_s])


class TalkingWire(SilentWire):
    """A client that sends these messages, and nothing after them."""

    def __init__(self, *messages: str | bytes) -> None:
        self._left = list(messages)
        self.may_send, self.has_sent = asyncio.Event(), asyncio.Event()

    async def receive(self) -> str | bytes:
        await self.may_send.wait()
        if self._left:
            return self._left.pop(0)
        self.has_sent.set()
        return await super().receive()


BOTH = b"sound and a finalize"
SOUND = b"\x82\xa4type\xa5Audio\xa3pcm\x91\xca" + bytes(4)
EMPTY, MARKER = b"\x82\xa4type\xa5Audio\xa3pcm\x90", b"\x82\xa4type\xa6Marker\xa2id\x01"


@pytest.mark.parametrize(
    ("messages", "is_quiet"),
    [
        ([SOUND], False),
        ([BOTH], False),
        ([EMPTY], True),
        ([MARKER], True),
        (["text"], True),
        ([SOUND, MARKER, "text"], False),
    ],
)
def test_only_sound_ends_the_silence_of_a_client_of_kyutais(
    messages: list[str | bytes], is_quiet: bool
) -> None:
    first_s = KyutaiProtocol.quiet_after_s[0]

    async def play() -> list[float]:
        protocol, wire = Listening(), TalkingWire(*messages)
        talk = Talk(Service(Settings()), protocol, "somebody", "1")
        given: Any = wire
        running = asyncio.create_task(talk.run(given))
        while talk._connection is None or not talk._connection.reads_since:
            await asyncio.sleep(0)
        now = time.monotonic()
        talk._connection.quiet_since = now - 2 * first_s  # when the last sound came
        wire.may_send.set()
        await wire.has_sent.wait()
        talk.check_client(now)
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return protocol.silences

    assert asyncio.run(play()) == ([first_s] if is_quiet else [])


def test_the_sweep_tells_how_long_it_was_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "CHECK_S", 0.01)
    told: list[float] = []

    async def play() -> None:
        settings = Settings()
        every = Sockets(Service(settings), Guard(settings, Keys(())), {})
        talk: Any = object()
        every.talks.add(talk)

        def look(now: float, held_up_s: float = 0.0) -> None:
            told.append(held_up_s)
            if len(told) == 1:
                time.sleep(0.3)  # whatever keeps the event loop from going round
            elif len(told) == 8:
                every.talks.clear()

        monkeypatch.setattr(every, "check_clients", look)
        began = time.monotonic()
        await asyncio.wait_for(every._sweep(), 60.0)
        assert sum(told) <= time.monotonic() - began, "each time is told once"

    asyncio.run(play())
    assert max(told[1:]) >= 0.28
