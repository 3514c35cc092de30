"""Who reads from a connection ends it, and nothing else of the task that reads."""

import asyncio

import pytest

from kiku.serve.talk_connection import TalkConnection


class QuietWire:
    """A client whose messages come when the test says so."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[bytes] = asyncio.Queue()

    async def receive(self) -> str | bytes:
        return await self.messages.get()

    async def send(self, data: str | bytes) -> None:
        pass

    async def close(self, code: int, reason: str) -> None:
        pass

    async def is_answered(self) -> bool:
        return True


class Reader:
    """A task that reads, takes each message as soon as it may, and does something afterwards."""

    def __init__(self) -> None:
        self.wire = QuietWire()
        self.connection = TalkConnection(self.wire)
        self.may_take = asyncio.Event()
        self.num_taken = 0
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> str:
        with self.connection as connection:
            while not connection.is_leaving:
                await connection.receive()
                await self.may_take.wait()
                self.num_taken += 1
        await asyncio.sleep(0)
        return "went on"


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_who_waits_for_a_message_leaves_at_once() -> None:
    async def main() -> None:
        reader = Reader()
        await turn()
        assert reader.connection.reads_since > 0
        reader.connection.leave()
        reader.connection.abort()
        reader.connection.abort()
        assert await reader.task == "went on"
        assert reader.connection.has_ended
        assert reader.connection.reads_since == 0

    asyncio.run(main())


def test_who_takes_a_message_takes_it_whole_unless_the_connection_is_aborted() -> None:
    async def main() -> None:
        for is_aborted in (False, True):
            reader = Reader()
            reader.wire.messages.put_nowait(b"")
            reader.wire.messages.put_nowait(b"")
            await turn()
            reader.connection.leave()
            assert not await reader.connection.ended(0)
            if is_aborted:
                reader.connection.abort()
            else:
                reader.may_take.set()
            assert await reader.task == "went on"
            assert await reader.connection.ended()
            assert reader.num_taken == (not is_aborted)
            assert reader.wire.messages.qsize() == 1

    asyncio.run(main())


@pytest.mark.parametrize("is_aborted", [False, True])
def test_a_task_that_is_ended_from_outside_ends(is_aborted: bool) -> None:
    async def main() -> None:
        reader = Reader()
        await turn()
        if is_aborted:
            reader.connection.abort()
        reader.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader.task
        assert reader.connection.has_ended

    asyncio.run(main())


def test_a_connection_that_has_ended_is_not_aborted() -> None:
    async def main() -> None:
        reader = Reader()
        reader.wire.messages.put_nowait(b"")
        await turn()
        reader.connection.leave()
        reader.may_take.set()
        await reader.connection.ended()
        reader.connection.abort()
        assert await reader.task == "went on"

    asyncio.run(main())
