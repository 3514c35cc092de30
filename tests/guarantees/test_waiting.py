"""Whoever finds no free slot waits for one, where somebody can free it."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

import kiku
from kiku.errors import NoFreeSlot
from tests.guarantees.conftest import LONG_S, texts

Load = Callable[..., kiku.Recognizer]
DIGITS = "seven three zero one nine four"


def test_threads_share_one_slot(load: Load, digits: NDArray[np.float32]) -> None:
    rec = load()
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(rec.transcribe, digits, rate=24_000) for _ in range(4)]
        assert [one.result(LONG_S).text for one in found] == [DIGITS] * 4


def test_a_list_goes_through_one_slot(load: Load, digits: NDArray[np.float32]) -> None:
    rec = load()
    found = rec.transcribe([np.tile(digits, 3), digits, np.zeros(2_400, np.float32)], rate=24_000)
    assert [one.text for one in found] == [" ".join([DIGITS] * 3), DIGITS, ""]
    assert rec.free_slots == 1


def test_a_thread_that_holds_all_slots_itself_is_told(load: Load) -> None:
    rec = load(2)
    streams = [rec.stream(), rec.stream()]
    with pytest.raises(NoFreeSlot):
        rec.transcribe(np.zeros(24_000, np.float32), rate=24_000)
    with pytest.raises(NoFreeSlot):
        rec.tokens(np.zeros(24_000, np.float32))
    with pytest.raises(NoFreeSlot):
        rec.stream()
    streams[0].close()
    assert rec.transcribe(np.zeros(24_000, np.float32), rate=24_000).words == ()
    streams[1].stop()


def test_a_stream_waits_as_long_as_it_was_told(load: Load, digits: NDArray[np.float32]) -> None:
    rec = load()
    first = rec.stream()
    with pytest.raises(NoFreeSlot):
        rec.stream(timeout=0.1)
    threading.Timer(0.3, first.stop).start()
    second = rec.stream(timeout=LONG_S)
    second.push(digits)
    second.close()
    assert " ".join(texts(second)) == DIGITS


def num_waiting(rec: kiku.Recognizer) -> int:
    """Those who stand in line for a slot."""
    line = list(rec.scheduler._openings.waiting)  # pyright: ignore[reportPrivateUsage]
    return sum(not one.cancelled for one in line)


def test_tasks_wait_in_order_and_may_give_up(load: Load) -> None:
    async def main() -> None:
        rec = load()
        first = await rec.astream()
        with pytest.raises(NoFreeSlot):
            await rec.astream()
        with pytest.raises(NoFreeSlot):
            await rec.astream(timeout=0.05)
        waiting: list[asyncio.Task[kiku.AsyncStream]] = []
        for number in range(3):  # they stand in line one behind the other
            waiting.append(asyncio.create_task(rec.astream(timeout=LONG_S)))
            while num_waiting(rec) <= number:
                await asyncio.sleep(0.001)
        waiting[0].cancel()
        first.stop()
        second = await waiting[1]
        assert not waiting[2].done()
        waiting[2].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        async with second:
            await second.push(np.zeros(2_400, np.float32))
        assert rec.free_slots == 1
        for _ in range(20):  # cancelled at any moment: no slot is lost
            task = asyncio.create_task(rec.astream(timeout=LONG_S))
            await asyncio.sleep(0.001)
            task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(result, kiku.AsyncStream):
                result.stop()
        fresh = await rec.astream(timeout=LONG_S)
        fresh.stop()

    asyncio.run(main())


def test_channels_are_not_waited_for_that_only_this_thread_could_free(load: Load) -> None:
    """Each takes a slot, and one of the two there are is held here."""
    rec = load(2)
    stereo, each = np.zeros((24_000, 2), np.float32), kiku.StreamOptions(channel="each")
    live = kiku.StreamOptions(channel="each", format=kiku.AudioFormat(channels=2))
    calls = [lambda: rec.transcribe(stereo, each, rate=24_000), lambda: rec.stream(live)]
    with rec.stream():
        for call in calls:
            with pytest.raises(NoFreeSlot, match="2 slots are needed at once, but 1 of 2 are free"):
                call()
    assert rec.transcribe(stereo, each, rate=24_000).text == ""
