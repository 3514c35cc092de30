"""What is asked of a stream keeps its order, however slowly a client takes its messages."""

import asyncio
from typing import Any

from kiku.serve.protocols.interface import ClientRequest, FinalizeStream, ModelCard, Send
from kiku.serve.protocols.kyutai import KyutaiProtocol
from kiku.serve.service import Service
from kiku.serve.settings import Settings
from kiku.serve.talk import Talk


class SlowWire:
    """Takes a message when it is told to."""

    def __init__(self) -> None:
        self.takes, self.is_asked = asyncio.Event(), asyncio.Event()

    async def receive(self) -> str | bytes:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, data: str | bytes) -> None:
        self.is_asked.set()
        await self.takes.wait()

    async def close(self, code: int, reason: str) -> None:
        pass


def test_asks_behind_a_message_come_before_those_of_the_next() -> None:
    asked: list[str | None] = []

    class Stream:
        waiting_s, duration, done = 0.0, 0.0, False

        async def finalize(self, tag: str | None, *, cut: bool) -> None:
            asked.append(tag)

        def stop(self) -> None:
            pass

    async def talk() -> None:
        protocol = KyutaiProtocol(ClientRequest("/"), ModelCard("demo"))
        talk = Talk(Service(Settings()), protocol, "somebody", "1")
        wire: Any = SlowWire()
        stream: Any = Stream()
        talk._outbox.connect(wire)
        one = talk._stream
        one._stream = stream
        first = asyncio.create_task(one.do([Send("words"), FinalizeStream("first")]))
        await wire.is_asked.wait()
        second = asyncio.create_task(one.do([FinalizeStream("second")]))
        await asyncio.sleep(0)
        wire.takes.set()
        await asyncio.gather(first, second)

    asyncio.run(talk())
    assert asked == ["first", "second"]
