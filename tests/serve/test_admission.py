"""Slots are given in the order in which they were asked for, and never twice."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiku.errors import ConfigError
from kiku.serve.admission import Admission, Busy

LONG_S = 30.0


def test_what_is_free_is_given_at_once_and_the_next_is_told():
    admission = Admission(2, 0)
    first, second = admission.take(), admission.take()
    with pytest.raises(Busy) as busy:
        admission.take()
    assert 1 <= busy.value.retry_after_s <= 60
    first.release()
    first.release()  # twice gives back once
    assert admission.num_taken == 1
    admission.take()
    second.release()


def test_more_than_there_are_is_never_given():
    async def ask() -> None:
        admission = Admission(2, 5)
        with pytest.raises(ConfigError, match=r"3 channels .* and there are 2"):
            await admission.wait(3, LONG_S)
        with pytest.raises(ConfigError):
            admission.take(3)
        admission.check_count(2)
        with pytest.raises(ConfigError):
            admission.check_count(3)

    asyncio.run(ask())


def test_who_waits_comes_in_turn():
    async def play() -> list[str]:
        admission, order = Admission(1, 5), list[str]()
        held = admission.take()

        async def visit(name: str) -> None:
            with await admission.wait(1, LONG_S):
                order.append(name)
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(visit(name)) for name in "abc"]
        await asyncio.sleep(0)
        assert admission.num_waiting == 3
        with pytest.raises(Busy):  # who stands in front is not passed
            admission.take()
        held.release()
        await asyncio.gather(*tasks)
        assert admission.num_taken == 0
        return order

    assert asyncio.run(play()) == ["a", "b", "c"]


def test_the_queue_is_bounded_and_so_is_the_wait():
    async def play() -> None:
        admission = Admission(1, 1)
        held = admission.take()
        first = asyncio.create_task(admission.wait(1, LONG_S))
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await admission.wait(1, LONG_S)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        with pytest.raises(Busy):
            await admission.wait(1, 0.0)
        assert admission.num_waiting == 0
        held.release()
        assert (await admission.wait(1, LONG_S)).count == 1

    asyncio.run(play())


def test_who_waits_for_many_does_not_block_for_ever_those_behind():
    async def play() -> None:
        admission = Admission(2, 5)
        held = admission.take()
        many = asyncio.create_task(admission.wait(2, LONG_S))
        few = asyncio.create_task(admission.wait(1, LONG_S))
        await asyncio.sleep(0)
        assert not few.done()
        many.cancel()
        assert (await few).count == 1
        held.release()

    asyncio.run(play())


@given(st.lists(st.sampled_from(["ask", "leave", "cancel", "turn"]), max_size=60))
def test_slots_are_never_lost_nor_given_twice(steps: list[str]):
    async def play() -> None:
        admission = Admission(3, 4)
        waiting: list[asyncio.Task[object]] = []
        held: list[object] = []

        async def visit() -> None:
            held.append(await admission.wait(1 + len(held) % 2, LONG_S))

        for step in steps:
            if step == "ask":
                waiting.append(asyncio.create_task(visit()))
            elif step == "leave" and held:
                held.pop(0).release()  # type: ignore[attr-defined]
            elif step == "cancel" and waiting:
                waiting.pop(0).cancel()
            else:
                await asyncio.sleep(0)
            assert 0 <= admission.num_taken <= 3
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for permit in held:
            permit.release()  # type: ignore[attr-defined]
        assert admission.num_taken == 0
        assert admission.num_waiting == 0

    asyncio.run(play())


def test_who_exchanges_its_slot_for_more_comes_before_all_that_wait():
    """Two that exchange at once do not wait for each other."""

    async def play() -> list[str]:
        admission, order = Admission(2, 1), list[str]()

        async def visit(name: str) -> None:
            permit = await admission.wait(1, LONG_S)
            await asyncio.sleep(0)
            with await admission.exchange(permit, 2, LONG_S) as both:
                order.append(name)
                assert (admission.num_taken, both.count, permit.count) == (2, 2, 0)
                await asyncio.sleep(0)

        async def wait() -> None:
            with await admission.wait(1, LONG_S):
                order.append("waits")

        tasks = [asyncio.create_task(one) for one in (visit("a"), visit("b"), wait())]
        async with asyncio.timeout(LONG_S):
            await asyncio.gather(*tasks)
        assert admission.num_taken == admission.num_waiting == 0
        return order

    assert sorted(asyncio.run(play())[:2]) == ["a", "b"]


def test_more_than_there_are_is_not_given_in_exchange_either():
    async def play() -> None:
        admission = Admission(2, 1)
        with admission.take() as held:
            with pytest.raises(ConfigError, match=r"3 channels .* and there are 2"):
                await admission.exchange(held, 3, LONG_S)
            assert admission.num_taken == 1
            with admission.take():
                with pytest.raises(Busy):
                    await admission.exchange(held, 2, 0)
                assert admission.num_taken == 1
        assert admission.num_taken == 0

    asyncio.run(play())
