"""Talks that are resumed in orders of events that take a slow disk, a full socket and a kill: no
word is lost, none is told twice."""

import asyncio
import dataclasses
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import wraps
from typing import Any, TypeVar

import pytest

import kiku
from kiku.serve import talk as talks
from kiku.serve.session_keeper import SessionKeeper
from kiku.serve.talk_stream import TalkStream
from kiku.text import TurnStart
from tests.serve.toy import (
    FRAME_S,
    RATE,
    Connection,
    ToyService,
    ToyStream,
    settle,
    toy_sound,
    toy_store,
)

__all__ = ["toy_store"]

pytestmark = pytest.mark.usefixtures("toy_store")

FRAME_BYTES = 3_840

T = TypeVar("T")


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(**given: Any) -> None:
        asyncio.run(to_its_end(test(**given)))

    return run


async def to_its_end(test: Coroutine[Any, Any, T]) -> T:
    try:
        return await test
    finally:  # services have things to do behind the last message, and some wait for a store
        for _ in range(2):
            await settle()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
        await settle()


class Client:
    """Keeps its sound, counts messages, and comes back to any service."""

    def __init__(
        self, num_words: int, *, says_told: bool = True, marks: Mapping[int, str] | None = None
    ) -> None:
        """`marks`: a word to expect from each of these words on; "" changes something else."""
        self._sound, self._says_told = toy_sound(num_words), says_told
        self.marks = {bytes_before(i): mark for i, mark in (marks or {}).items()}
        self.connection: Connection | None = None
        self.words: list[str] = []
        self.messages: list[dict[str, Any]] = []
        """Those of its session that it has read, without greetings."""
        self.ready: dict[str, Any] = {}
        self._num_read = 0  # of this connection
        self._told_s = 0.0
        self._num_sent = 0  # bytes
        self.frame_bytes = FRAME_BYTES
        self._has_closed = False
        self.num_resumed = self.num_begun = 0

    @property
    def has_ended(self) -> bool:
        return bool(self.messages) and self.messages[-1]["type"] == "end"

    async def connect(self, service: ToyService, **query: Any) -> None:
        query = {"session": "s", "rate": RATE, **query}
        query = {name: value for name, value in query.items() if value is not None}
        if self.ready:
            query["after"] = len(self.messages)
            if self._says_told:
                query["told"] = self._told_s
            if "generation" in self.ready:
                query["generation"] = self.ready["generation"]
        self.connection, self._num_read = Connection(service.app, **query), 0
        await settle()
        self.greet()

    def greet(self) -> None:
        """Read the greeting, if it has come."""
        connection = self.connection
        if connection is None or self._num_read or not connection.messages:
            return
        known, self.ready = bool(self.ready), connection.messages[0]
        assert self.ready["type"] == "ready"
        self._num_read = 1
        self._num_sent, self._has_closed = self.ready["taken_bytes"], False
        if known and not self.ready["resumed"]:
            self.words, self.messages, self._told_s = [], [], 0.0
            self.num_begun += 1
        assert self.ready["count"] == len(self.messages)
        self.num_resumed += known and self.ready["resumed"]

    def read(self, count: int = 1_000) -> None:
        """Read so many of the messages that have come."""
        self.greet()
        while self.connection is not None and count > 0:
            if self._num_read >= len(self.connection.messages):
                break
            message = self.connection.messages[self._num_read]
            self._num_read += 1
            if message["type"] == "lag":
                continue
            count -= 1
            self.messages.append(message)
            if message["type"] == "word":
                self.words.append(message["text"])
                self._told_s = message["end"]

    async def speak(self, num_frames: int) -> None:
        """Send so much more of the sound, and after all of it that no more comes."""
        self.greet()
        if self.connection is None or not self.connection.is_open:
            return
        for _ in range(num_frames):
            piece = self._sound[self._num_sent : self._num_sent + self.frame_bytes]
            for place, mark in self.marks.items():
                if self._num_sent <= place < self._num_sent + len(piece):
                    size = place - self._num_sent
                    self.connection.give(piece[:size])
                    given: dict[str, Any] = {"hotwords": [mark]} if mark else {"temperature": 0}
                    self.connection.tell(type="configure", **given)
                    piece, self._num_sent = piece[size:], place
            self._num_sent += len(piece)
            if piece:
                self.connection.give(piece)
        if self._num_sent >= len(self._sound) and not self._has_closed:
            self._has_closed = True
            self.connection.tell(type="close")
        await settle()

    async def finish(self, service: ToyService) -> None:
        """Send the rest, and read to the end."""
        await self.speak(10_000)
        await service.hear(1e6)
        self.read()
        assert self.has_ended

    def cut(self) -> None:
        """Lose the connection. What was not read never came."""
        if self.connection is not None and self.connection.code is None:
            self.connection.cut()
        self.connection = None


def bytes_before(word: int) -> int:
    """Bytes of sound up to a place in the silence before a word."""
    return len(toy_sound(word)) - 2 * round(0.05 * RATE)


def marked(count: int, marks: Mapping[int, str]) -> list[str]:
    """The words, each with what was to be expected when it was spoken."""
    found = [[mark for first, mark in marks.items() if first <= i] for i in range(count)]
    return [f"{i}{''.join(one[-1:])}" for i, one in enumerate(found)]


def texts(count: int) -> list[str]:
    return [str(i) for i in range(count)]


@in_a_loop
async def test_nothing_comes_between(demo: kiku.Recognizer) -> None:
    a, client = ToyService(demo), Client(12)
    await client.connect(a)
    await client.finish(a)
    assert client.words == texts(12)


@in_a_loop
async def test_words_that_a_client_without_room_was_not_told_are_heard_again(
    demo: kiku.Recognizer,
) -> None:
    """It sends on for half a minute, and its service is killed."""
    a, b, client = ToyService(demo), ToyService(demo), Client(50)
    await client.connect(a)
    assert client.connection is not None
    await client.speak(20)
    await a.hear(1.6)
    client.read()
    client.connection.has_room.clear()
    for _ in range(35):
        await client.speak(12)
        await a.hear(1.0)
        await a.write()
    assert a.talks[0].heard_s > 30
    await a.kill(writes=False)
    client.cut()
    await client.connect(b)
    assert client.num_resumed == 1
    assert client.num_begun == 0
    await client.finish(b)
    assert client.words == texts(50)


@in_a_loop
async def test_a_service_that_ends_while_it_hears_stored_sound_again_has_nothing_told_twice(
    demo: kiku.Recognizer,
) -> None:
    a, b, c, client = ToyService(demo), ToyService(demo), ToyService(demo), Client(12)
    await client.connect(a)
    await client.speak(20)
    await a.hear(1.5)
    await a.write()
    await client.speak(60)
    await a.hear(4.0)  # and is killed before it has written what it tells of that
    client.read()
    assert len(client.words) > 4
    await a.kill(writes=False)
    client.cut()
    await client.connect(b)
    await client.speak(60)
    await b.hear(1.0)  # which has not come to the words that a has told
    await b.end()
    client.read()
    await client.connect(c)
    assert c.app.service.metrics.sessions_moved.labels("exactly")._value.get() == 1
    await client.finish(c)
    assert client.words == texts(12)


@in_a_loop
async def test_of_two_finalizes_with_one_tag_the_open_one_is_asked_again(
    demo: kiku.Recognizer,
) -> None:
    a, b, c, client = ToyService(demo), ToyService(demo), ToyService(demo), Client(12)
    await client.connect(a)
    assert client.connection is not None
    for _ in range(2):
        await client.speak(20)
        client.connection.tell(type="finalize", tag="page")
    await settle()
    await a.hear(2.0)  # and comes to the first
    await a.write()
    client.read()
    assert client.messages[-1]["type"] == "finalized"
    for last, service in ((a, b), (b, c)):  # of which b does not come to it either
        await last.kill(writes=False)
        client.cut()
        await client.connect(service)
        await service.write()
    await client.finish(c)
    assert [word.strip("~") for word in client.words] == texts(12)
    kinds = [message["type"] for message in client.messages]
    assert kinds.count("finalized") == 2


@in_a_loop
async def test_a_session_that_has_taken_no_sound_yet_is_known_all_the_same(
    demo: kiku.Recognizer,
) -> None:
    a, client = ToyService(demo), Client(12)
    await client.connect(a)
    assert client.connection is not None
    client.connection.tell(type="configure", temperature=-1)  # which is refused
    await settle()
    client.read()
    assert len(client.messages) == 1
    for num_frames in (0, 40):
        client.cut()
        await settle()
        await client.connect(a)
        assert client.ready["resumed"]
        await client.speak(num_frames)
        await a.hear(2.0)
        client.read()
    await client.finish(a)
    assert client.words == texts(12)
    assert client.num_begun == 0


@in_a_loop
async def test_a_word_that_came_without_its_end_is_told_the_end(demo: kiku.Recognizer) -> None:
    a, b, client = ToyService(demo), ToyService(demo), Client(12)
    await client.connect(a)
    await client.speak(20)
    await a.hear(1.5)
    await a.write()
    await client.speak(40)
    await a.hear(4.0)
    while client.words != texts(5):
        client.read(1)
    await a.kill(writes=False)
    client.cut()
    await client.connect(b)
    await client.finish(b)
    kinds = [message["type"] for message in client.messages]
    assert client.words == texts(12)
    assert kinds == ["word", "word_end"] * 12 + ["end"]
    ends = [message["end"] for message in client.messages if message["type"] == "word_end"]
    assert ends == [message["end"] for message in client.messages if message["type"] == "word"]


@in_a_loop
async def test_a_turn_that_is_left_out_is_kept_for_who_comes_next(demo: kiku.Recognizer) -> None:
    a, b, client = ToyService(demo), ToyService(demo), Client(12)
    await client.connect(a)
    await client.speak(20)
    await a.hear(1.5)
    await a.write()
    await client.speak(40)
    await a.hear(4.0)
    client.read()
    await a.kill(writes=False)
    client.cut()
    await client.connect(b)
    (talk,) = b.talks
    stream: Any = talk._stream._stream
    stream.memory.events.append(TurnStart(1.0))  # before what the client says it was told
    await b.hear(0.1)
    assert talk.recorder is not None
    assert talk.recorder.progress.turns == {"": "open"}
    client.read()
    assert all(message["type"] != "turn_start" for message in client.messages)


@in_a_loop
async def test_a_turn_that_was_not_told_after_its_word_is_told_after_two_kills(
    demo: kiku.Recognizer,
) -> None:
    a, b, c = (ToyService(demo, turns=True) for _ in range(3))
    client = Client(6)
    await client.connect(a)
    await client.speak(14)
    await a.write()
    await a.hear(1.12)
    client.read(2)
    assert [message["type"] for message in client.messages] == ["word", "word_end"]
    for last, service in ((a, b), (b, c)):
        await last.kill(writes=False)
        client.cut()
        await client.connect(service)
        await client.speak(1)
        await service.hear(0.08)
        await service.write()  # before it has heard that word again
        (talk,) = service.talks
        assert talk.recorder is not None
        assert talk.recorder.progress.again_from_s == 0.0
    await client.finish(c)
    kinds = [message["type"] for message in client.messages]
    assert client.words == texts(6)
    assert kinds.count("turn_start") == kinds.count("turn_end") == 1
    assert words_before_a_turn(client) == 1
    assert talk.recorder.progress.again_from_s is None


@in_a_loop
async def test_a_service_that_has_not_noticed_that_another_went_on_does_not_count_for_it(
    demo: kiku.Recognizer,
) -> None:
    a, b, client = ToyService(demo), ToyService(demo), Client(12)
    await client.connect(a)
    assert "generation" not in client.ready  # of a session that the store does not know yet
    await client.speak(20)
    await a.hear(1.5)
    await a.write()
    client.read()
    a.threads[0].is_slow = True  # its writes hang: it does not learn that it has lost the session
    await client.speak(60)
    await a.hear(4.0)
    client.read(4)
    client.cut()
    await a.write()
    await client.connect(b)
    # The end of the last word comes twice: from here on the numbers are not those of a.
    await client.speak(60)
    await b.hear(4.0)
    client.read(3)
    client.cut()
    await client.connect(a)
    assert client.connection is not None
    assert client.ready["generation"] == a.talks[-1].recorder.generation
    await client.finish(a)
    assert client.words == texts(12)


@in_a_loop
async def test_a_message_without_room_comes_once_from_a_service_that_ends(
    demo: kiku.Recognizer,
) -> None:
    a, b, client = ToyService(demo), ToyService(demo), Client(12)
    await client.connect(a)
    assert client.connection is not None
    client.connection.has_room.clear()
    await client.speak(40)
    await a.hear(3.2)
    ending = asyncio.create_task(a.end())
    await settle()
    client.connection.has_room.set()
    await ending
    client.read()
    assert client.connection.code == 1012
    await client.connect(b)
    await client.finish(b)
    assert client.words == texts(12)
    assert b.app.service.metrics.sessions_moved.labels("exactly")._value.get() == 1


@pytest.mark.parametrize(
    ("later", "wanted"), [({}, {1: "a", 55: "b"}), ({50: "c"}, {1: "a", 50: "c"}),
                          ({50: ""}, {1: "a", 50: "b"}), ({50: "漢"}, {1: "a", 55: "b"})],
)  # fmt: skip
@in_a_loop
async def test_a_change_that_lies_beyond_the_stored_sound_is_made_where_it_was(
    demo: kiku.Recognizer, later: dict[int, str], wanted: dict[int, str]
) -> None:
    """More sound waits than is stored, and the client does not send the change again; if it makes
    another one in that sound, that holds, unless it is refused."""
    marks = {1: "a", 55: "b"}
    a, b, client = ToyService(demo), ToyService(demo), Client(70, marks=marks)
    await client.connect(a)
    await client.speak(450)
    await a.write()
    client.marks = {bytes_before(i): mark for i, mark in later.items()}
    await a.kill(writes=False)
    client.cut()
    await client.connect(b)
    assert 29 < client.ready["taken_s"] < 32
    client.frame_bytes = 5_000  # it cuts its sound otherwise now
    await client.finish(b)
    assert client.words == marked(70, wanted)


async def came_to(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


@in_a_loop
async def test_a_connection_that_takes_nothing_does_not_keep_its_session_from_the_next_one(
    demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even its close gets through, and the service is in the middle of a message to it."""
    monkeypatch.setattr(talks, "_LEAVE_S", 0.05)
    a, client = ToyService(demo), Client(12)
    await client.connect(a)
    assert client.connection is not None
    await client.speak(20)
    client.connection.has_room.clear()
    await a.hear(2.0)
    holder = client.connection
    await client.connect(a)
    await came_to(lambda: client.connection is not None and client.connection.is_open)
    await client.finish(a)
    assert client.words == texts(12)
    assert client.num_resumed == 1
    await came_to(holder.task.done)


def without_room(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Streams take the first half of a message's sound, and the rest once this is set."""
    has_room, take = asyncio.Event(), ToyStream.push_now

    async def push(self: ToyStream, samples: Any, rate: int | None = None) -> None:
        half = len(samples) // 4 * 2
        take(self, samples[:half])
        await has_room.wait()
        take(self, samples[half:])

    monkeypatch.setattr(ToyStream, "push_now", lambda *_: has_room.is_set() and take(*_))
    monkeypatch.setattr(ToyStream, "push", push)
    return has_room


@in_a_loop
async def test_of_two_who_wait_for_a_busy_connection_the_first_does_not_end_the_last(
    demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, client = ToyService(demo), Client(12)
    await client.connect(a)
    has_room = without_room(monkeypatch)
    client.frame_bytes = 40 * FRAME_BYTES
    await client.speak(1)
    monkeypatch.setattr(talks, "_LEAVE_S", 0.05)
    await client.connect(a)
    first = client.connection
    monkeypatch.setattr(talks, "_LEAVE_S", 60.0)
    await client.connect(a)
    last = client.connection
    assert first is not None
    assert last is not None
    await came_to(first.task.done)
    assert a.talks[0]._next_wire is not None
    has_room.set()
    await settle()
    assert last.is_open
    await client.finish(a)
    assert client.words == texts(12)
    assert client.num_resumed == 1


async def with_messages_that_are_not_taken(
    a: ToyService, client: Client, **query: Any
) -> Connection:
    """A client that has sent sound, and takes none of its messages any more."""
    await client.connect(a, **query)
    assert client.connection is not None
    await client.speak(20)
    client.connection.has_room.clear()
    await a.hear(1.6)
    return client.connection


def drop(a: ToyService) -> None:
    """Drop the clients who have taken no message for `write-s`."""
    a.app.sockets.check_clients(time.monotonic() + 2 * a.app.service.settings.write_s)


@pytest.mark.parametrize("is_killed", [False, True])
@in_a_loop
async def test_what_a_client_has_sent_is_taken_whole_though_it_takes_no_messages_and_is_dropped(
    demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch, is_killed: bool
) -> None:
    a, b, client = ToyService(demo), ToyService(demo), Client(12)
    dropped = await with_messages_that_are_not_taken(a, client)
    has_room = without_room(monkeypatch)
    client.frame_bytes = 40 * FRAME_BYTES
    await client.speak(1)
    drop(a)
    await settle()
    has_room.set()
    await settle()
    assert dropped.task.done()
    client.read()
    client.cut()
    if is_killed:
        await a.write()
        await a.kill(writes=True)
    await client.connect(b if is_killed else a)
    assert client.ready["resumed"]
    await client.finish(b if is_killed else a)
    assert client.words == texts(12)


@in_a_loop
async def test_events_make_room_for_what_a_dropped_client_has_sent(
    demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, client = ToyService(demo), Client(12)
    await with_messages_that_are_not_taken(a, client)
    (talk,) = a.talks
    without_room(monkeypatch)
    await client.speak(1)
    await a.hear(0.16)
    assert talk.told_s < talk.heard_s
    drop(a)
    await a.hear(1.0)
    assert talk.told_s == talk.heard_s


@pytest.mark.parametrize("is_idle", [False, True])
@in_a_loop
async def test_a_client_that_takes_no_messages_and_sends_nothing_is_dropped_at_once(
    demo: kiku.Recognizer, is_idle: bool
) -> None:
    a, client = ToyService(demo), Client(12)
    dropped = await with_messages_that_are_not_taken(a, client)
    (talk,) = a.talks
    if is_idle:  # it has been told, or would have been, that it is silent for too long
        assert talk._connection is not None
        talk._connection.reads_since = 0.0
    drop(a)
    await settle()
    assert dropped.task.done()
    client.read()
    client.cut()
    await client.connect(a)
    await client.finish(a)
    assert client.words == texts(12)


@in_a_loop
async def test_who_comes_back_to_a_busy_connection_is_not_forgotten_after_a_while(
    demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on before anything waits for it."""
    a, client = ToyService(demo), Client(12)
    settings = dataclasses.replace(a.app.service.settings, resume_s=0.05)
    monkeypatch.setattr(a.app.service, "settings", settings)
    await client.connect(a)
    has_room = without_room(monkeypatch)
    await client.speak(1)
    await client.connect(a)
    has_room.set()
    await asyncio.sleep(0.2)
    await client.finish(a)
    assert client.words == texts(12)
    assert client.num_resumed == 1


@in_a_loop
async def test_a_client_that_comes_back_and_is_cut_off_at_once_may_come_again(
    demo: kiku.Recognizer,
) -> None:
    a, client = ToyService(demo), Client(12)
    await client.connect(a)
    await client.speak(20)
    client.cut()
    begun = a.talks
    for _ in range(2):
        await settle()
        back = Connection(a.app, session="s", rate=RATE, after=0)
        back.hang_up()
    await settle()
    await client.connect(a)
    assert a.talks == begun
    await client.finish(a)
    assert client.words == texts(12)


@in_a_loop
async def test_a_client_that_takes_no_messages_is_dropped_though_too_much_of_its_sound_waits(
    demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, client = ToyService(demo), Client(12)
    dropped = await with_messages_that_are_not_taken(a, client)
    monkeypatch.setattr(TalkStream, "keeps_too_much", True)
    await client.speak(2)
    drop(a)
    await came_to(dropped.task.done)
    monkeypatch.undo()
    (talk,) = a.talks
    assert talk.is_away


@pytest.mark.parametrize("session", [None, "s"])
@in_a_loop
async def test_a_client_that_cannot_come_back_is_dropped_at_once_whatever_it_has_sent(
    demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch, session: str | None
) -> None:
    a, client = ToyService(demo), Client(12)
    dropped = await with_messages_that_are_not_taken(a, client, session=session)
    a.talks[0].has_hung_up = session is not None
    without_room(monkeypatch)
    await client.speak(1)
    drop(a)
    await settle()
    assert dropped.task.done()
    assert not a.talks


@in_a_loop
async def test_a_dropped_client_that_begins_anew_does_not_wait_for_what_it_has_sent(
    demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, client = ToyService(demo), Client(12)
    dropped = await with_messages_that_are_not_taken(a, client)
    has_room = without_room(monkeypatch)
    await client.speak(1)
    drop(a)
    await settle()
    assert not dropped.task.done()
    anew = Client(12)
    await anew.connect(a)
    assert dropped.task.done()
    assert len(a.talks) == 1
    has_room.set()
    await anew.finish(a)
    assert anew.words == texts(12)


@in_a_loop
async def test_a_takeover_that_finds_no_room_for_the_stored_sound_is_given_up(
    demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c, client = ToyService(demo), ToyService(demo), ToyService(demo), Client(12)
    await client.connect(a)
    await client.speak(20)
    await a.hear(1.5)
    await a.write()
    client.read()
    await a.kill(writes=False)
    client.cut()
    with monkeypatch.context() as stuck:

        async def push(*given: Any, **options: Any) -> None:
            await asyncio.Event().wait()

        stuck.setattr(ToyStream, "push", push)
        stuck.setattr(SessionKeeper, "ttl_s", 0.05)
        await client.connect(b)
        assert client.connection is not None
        await came_to(client.connection.task.done)
        assert client.connection.status == 503
        await settle()
        assert b.app.service.admission.num_taken == 0
        assert not b.app.sockets.talks
    await client.connect(c)
    await client.finish(c)
    assert client.words == texts(12)


class Walk:
    """A session in which things happen in an order that is drawn, until it is let come to its
    end."""

    def __init__(self, demo: kiku.Recognizer, seed: int, options: frozenset[str]) -> None:
        """`options`: "told", the client says it; "two", services at a time; "slow", the store is
        at times; "drains"; "finalizes"; "shifts", later streams tell words a frame later; "turns"
        are told; "marks", the client changes in mid-talk what is to be expected."""
        self._demo, self.options, self._dice = demo, options, random.Random(seed)
        self.client = Client(
            14, says_told="told" in options, marks=MARKS if "marks" in options else {}
        )
        self._services = [self._service() for _ in range(1 + ("two" in options))]
        self._here = 0  # where the client was last
        self.log: list[str] = []
        self.num_kills = 0

    def _service(self) -> ToyService:
        shift_s = FRAME_S if "shifts" in self.options else 0.0
        return ToyService(self._demo, shift_s, turns="turns" in self.options)

    async def go(self) -> None:
        """Let things happen, and then the session end."""
        steps = {
            self._speak: 30, self._hear: 25, self._read: 13, self._write: 10, self._lose: 6,
            self._return: 6, self._kill: 3, self._drain: 2 * ("drains" in self.options),
            self._finalize: 3 * ("finalizes" in self.options),
            self._block: 3, self._hang: 6 * ("slow" in self.options),
        }  # fmt: skip
        await self._return()
        for step in self._dice.choices(list(steps), list(steps.values()), k=120):
            await step()
            await self._notice()
        for service in self._services:
            for thread in service.threads:
                thread.is_slow = thread.is_down = False
                thread.run()
        while not self.client.has_ended:
            await self._return()
            if self.client.connection is not None:
                self.client.connection.has_room.set()
            await self._speak(50)
            await self._services[self._here].hear(2.0)
            self.client.read()
            await self._notice()

    @property
    def _any(self) -> ToyService:
        return self._dice.choice(self._services)

    async def _notice(self) -> None:
        """The client learns that it was hung up on."""
        connection = self.client.connection
        if connection is not None and connection.code is not None:
            self.client.read()
            if not self.client.has_ended:
                self.client.cut()
        await settle()

    async def _speak(self, num_frames: int = 0) -> None:
        await self.client.speak(num_frames or self._dice.choice((1, 3, 6, 12)))

    async def _hear(self) -> None:
        await self._any.hear(self._dice.choice((0.08, 0.3, 0.8, 2.0)))

    async def _read(self) -> None:
        self.client.read(self._dice.choice((1, 2, 3, 9)))

    async def _write(self) -> None:
        await self._any.write()

    async def _lose(self) -> None:
        self.client.read(self._dice.choice((0, 1, 99)))
        self._read_a_word_to_its_end()
        if self.client.connection is not None and self._dice.random() < 0.3:
            self.client.connection.has_room.set()
            self.client.connection = None  # and the service does not notice
        self.client.cut()
        self._note("cut")

    def _read_a_word_to_its_end(self) -> None:
        """A client that does not say `told` goes by the number of messages, and loses nothing if
        those of a word come together."""
        messages = self.client.messages
        while "told" not in self.options and messages and messages[-1]["type"] == "word":
            count = len(messages)
            self.client.read(1)
            if len(messages) == count:
                break

    async def _return(self) -> None:
        connection = self.client.connection
        if connection is not None and not connection.task.done():
            self.client.greet()
            return
        self._here = self._dice.randrange(len(self._services))
        await self.client.connect(self._services[self._here])
        for _ in range(4):  # whoever owns the session is asked for a moment
            if connection is not None and connection.messages:
                break
            await asyncio.sleep(0.01)
            await settle()
        self.client.greet()
        self._note(f"at {self._here}: {self.client.ready}")

    async def _kill(self) -> None:
        at = self._dice.randrange(len(self._services))
        self.num_kills += 1
        writes = self._dice.random() < 0.5
        if "finalizes" in self.options and "told" not in self.options:
            # The answers to finalizes are numbered, too, and die with what was not written: by
            # numbers alone nobody can know how many words the client has had.
            await self._services[at].write()
            writes = True
        await self._services[at].kill(writes=writes)
        self._services[at] = self._service()
        if at == self._here:
            self.client.read(self._dice.choice((0, 99)))
            self._read_a_word_to_its_end()
            self.client.cut()
        self._note(f"kill {at}")

    async def _drain(self) -> None:
        at = self._dice.randrange(len(self._services))
        service, self._services[at] = self._services[at], self._service()
        for thread in service.threads:
            thread.is_slow = thread.is_down = False
            thread.run()
        if self.client.connection is not None:
            self.client.connection.has_room.set()
        await service.end()
        self._note(f"end {at}")

    async def _finalize(self) -> None:
        connection = self.client.connection
        if connection is not None and connection.is_open:
            connection.tell(type="finalize", tag="x")
            await settle()
            self._note("finalize")

    async def _block(self) -> None:
        connection = self.client.connection
        if connection is not None and connection.messages:
            if connection.has_room.is_set():
                connection.has_room.clear()
            else:
                connection.has_room.set()
            await settle()

    async def _hang(self) -> None:
        thread = self._dice.choice(self._any.threads)
        match self._dice.randrange(4):
            case 0:
                thread.is_slow = True
            case 1:
                thread.is_slow = False
                thread.run()
            case 2:
                thread.give_up()
            case _:
                thread.is_down = not thread.is_down
        await settle()
        self._note(f"store {thread.is_slow} {thread.is_down}")

    def _note(self, what: str) -> None:
        count, words = len(self.client.messages), " ".join(self.client.words[-3:])
        self.log.append(f"{what} (has {count}: {words})")


MARKS = {3: "a", 5: "b", 6: "c", 10: "d"}

WALKS = {
    "told": (0,), "told shifts drains": (20, 21), "told two drains": (7, 20),
    "told two slow drains shifts": (0, 1), "two drains": (0,), "drains finalizes": (0,),
    "told drains finalizes shifts": (2, 13), "told turns": (0,), "told two turns": (15,),
    "told marks drains shifts": (0,), "two drains marks": (0,),
}  # fmt: skip
"""By options: seeds of which most have found something."""


async def walk(demo: kiku.Recognizer, seed: int, options: str) -> Walk:
    one = Walk(demo, seed, frozenset(options.split()))
    try:
        async with asyncio.timeout(60):
            await one.go()
    except BaseException:
        print("\n".join(one.log))
        raise
    words = [word.strip("~") for word in one.client.words]  # a finalize may come within a word
    assert words == marked(14, MARKS if "marks" in one.options else {}), "\n".join(one.log)
    if "turns" in one.options:
        assert words_before_a_turn(one.client) <= 1, "\n".join(one.log)
    return one


def words_before_a_turn(client: Client) -> int:
    kinds = [message["type"] for message in client.messages]
    return kinds[: kinds.index("turn_start")].count("word") if "turn_start" in kinds else len(kinds)


def walks(demo: kiku.Recognizer, seeds: Iterable[int], options: str) -> list[Walk]:
    return [asyncio.run(to_its_end(walk(demo, seed, options))) for seed in seeds]


@pytest.mark.parametrize("options", WALKS)
def test_in_any_order_no_word_is_lost_and_none_told_twice(demo: kiku.Recognizer, options: str):
    done = walks(demo, WALKS[options], options)
    assert sum(one.num_kills for one in done) > 0
    assert sum(one.client.num_resumed for one in done) > 0


@pytest.mark.heavy
@pytest.mark.parametrize("options", WALKS)
def test_in_many_orders_no_word_is_lost_and_none_told_twice(demo: kiku.Recognizer, options: str):
    done = walks(demo, range(100, 130), options)
    least = 2 if "slow" in options else 3  # who finds a store that does not answer begins anew
    num_resumed = sum(one.client.num_resumed for one in done)
    assert num_resumed > least * sum(one.client.num_begun for one in done)
