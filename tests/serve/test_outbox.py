"""Messages go out in order over the connection there is, and once."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from kiku.serve.message_history import MessageHistory
from kiku.serve.outbox import Outbox
from kiku.serve.protocols.interface import Hangup, Send
from kiku.serve.service import Service
from kiku.serve.settings import Settings
from kiku.serve.talk_counters import TalkCounters
from kiku.serve.wire import Gone, Wire


class FakeWire:
    """Takes messages while it `takes`; dead, it takes none and says so."""

    def __init__(self, *, takes: bool = True, is_dead: bool = False) -> None:
        self.sent: list[str | bytes] = []
        self.closed: list[tuple[int, str]] = []
        self.is_asked, self.takes = asyncio.Event(), asyncio.Event()
        self.is_dead = is_dead
        if takes:
            self.takes.set()

    async def send(self, data: str | bytes) -> None:
        self.is_asked.set()
        await self.takes.wait()
        if self.is_dead:
            raise Gone
        self.sent.append(data)

    async def close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))


def in_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())

    return run


def outbox(hung_up: list[Hangup] | None = None, *, keeps: bool = False) -> Outbox:
    def note(_: Wire, item: Hangup) -> None:
        if hung_up is not None:
            hung_up.append(item)

    return Outbox(TalkCounters(Service(Settings()), "made up"), note, keeps=keeps)


def put(box: Outbox, *texts: str) -> None:
    for text in texts:
        box.put(Send(text))


@in_a_loop
async def test_who_sends_over_a_connection_that_was_taken_away_goes_on_with_the_next_one() -> None:
    box, stuck, wire = outbox(keeps=True), FakeWire(takes=False), FakeWire()
    box.connect(as_wire(stuck))
    put(box, "one", "two")
    sender = asyncio.create_task(box.flush())
    await stuck.is_asked.wait()
    box.take_wire()
    box.give_up()
    box.give_up()
    box.connect(as_wire(wire), box.history.after(0))
    await sender
    assert (wire.sent, stuck.sent) == (["one", "two"], [])
    assert sender.cancelling() == 0
    assert box.is_broken.is_set()
    assert box.stuck_s(1e12) == 0
    box.give_up()  # nobody sends
    put(box, "three")
    await box.flush()
    assert wire.sent[2:] == ["three"]


@in_a_loop
async def test_a_sender_that_is_to_end_ends_though_it_is_given_up() -> None:
    box, stuck = outbox(), FakeWire(takes=False)
    box.connect(as_wire(stuck))
    put(box, "one")
    sender = asyncio.create_task(box.flush())
    await stuck.is_asked.wait()
    box.take_wire()
    box.give_up()
    sender.cancel()
    await asyncio.wait([sender])
    assert sender.cancelled()
    await box.drained()


@in_a_loop
async def test_of_two_who_flush_one_sends_for_both() -> None:
    box, wire = outbox(), FakeWire(takes=False)
    box.connect(as_wire(wire))
    put(box, "one")
    first = asyncio.create_task(box.flush())
    await wire.is_asked.wait()
    stuck_s = box.stuck_s(1e12)
    assert stuck_s > 0
    box.held_up(1e12, 5.0)
    assert box.stuck_s(1e12) == pytest.approx(stuck_s - 5.0)
    box.held_up(1e12, 1e13)
    assert box.stuck_s(1e12) == 0, "but it is not to be waited for longer than from now on"
    put(box, "two")
    await box.flush()  # returns at once, though nothing can be sent
    assert wire.sent == []
    wire.takes.set()
    await first
    await box.drained()
    assert wire.sent == ["one", "two"]
    assert box.stuck_s(1e12) == 0


@in_a_loop
async def test_behind_a_hangup_nothing_is_sent() -> None:
    hung_up: list[Hangup] = []
    box, wire = outbox(hung_up), FakeWire()
    box.connect(as_wire(wire))
    box.reason = "nobody spoke"
    box.put(Send("last"))
    box.put(goodbye := Hangup(1000))
    box.put(Send("too late"))
    await box.flush()
    assert wire.sent == ["last"]
    assert wire.closed == [(1000, "nobody spoke")]
    assert len(hung_up) == 1
    assert hung_up[0] is goodbye
    assert not box.waiting
    assert box.is_broken.is_set()


@in_a_loop
async def test_a_client_that_comes_back_meanwhile_is_sent_the_rest() -> None:
    box, dead, alive = outbox(keeps=True), FakeWire(takes=False, is_dead=True), FakeWire()
    box.connect(as_wire(dead))
    put(box, "one", "two")
    sending = asyncio.create_task(box.flush())
    await dead.is_asked.wait()
    # It has had nothing: what it has missed comes from the history, and what waited is dropped.
    box.connect(as_wire(alive), [Send("hello"), *box.history.after(0)])
    dead.takes.set()
    await sending
    assert alive.sent == ["hello", "one", "two"]
    assert box.is_connected
    assert box.is_broken.is_set()


@in_a_loop
async def test_a_message_whose_sending_is_cancelled_is_sent_by_the_next_flush() -> None:
    box, wire = outbox(keeps=True), FakeWire(takes=False)
    box.connect(as_wire(wire))
    put(box, "one", "two")
    sending = asyncio.create_task(box.flush())
    await wire.is_asked.wait()
    sending.cancel()  # as at the end of the process, while there is no room in the socket
    await asyncio.wait([sending])
    wire.takes.set()
    put(box, "three")
    await box.flush()
    assert wire.sent == ["one", "two", "three"]


@in_a_loop
async def test_a_message_that_an_earlier_connection_took_drops_none_of_the_next() -> None:
    box, old, new = outbox(keeps=True), FakeWire(takes=False), FakeWire()
    box.connect(as_wire(old))
    put(box, "one", "two")
    sending = asyncio.create_task(box.flush())
    await old.is_asked.wait()
    box.connect(as_wire(new), box.history.after(0))  # the client has had nothing, and says so
    old.takes.set()
    await sending
    assert old.sent == ["one"]
    assert new.sent == ["one", "two"]


@in_a_loop
async def test_without_a_connection_messages_stay_in_the_history_alone() -> None:
    box, wire = outbox(keeps=True), FakeWire()
    put(box, "one")
    box.put(Send("greeting", counted=False))
    await box.flush()
    assert not box.waiting
    box.connect(as_wire(wire))
    await box.flush()
    assert wire.sent == []
    assert box.history.after(0) == [Send("one")]
    assert not outbox().history.count  # of a client that cannot come back nothing is kept


@in_a_loop
async def test_what_another_process_has_told_is_counted_and_not_sent() -> None:
    box, wire = outbox(keeps=True), FakeWire()
    box.restore(MessageHistory(["one"], 1), num_received=2)
    box.connect(as_wire(wire))
    put(box, "two", "three")
    await box.flush()
    assert wire.sent == ["three"]
    assert box.history.count == 3


@in_a_loop
async def test_the_wire_of_another_is_not_taken_away() -> None:
    box, old, new = outbox(), FakeWire(), FakeWire()
    box.connect(as_wire(old))
    box.connect(as_wire(new))
    box.disconnect(as_wire(old))
    assert box.is_connected
    assert box.take_wire() is new
    assert not box.is_connected


def as_wire(wire: FakeWire) -> Any:
    return wire
