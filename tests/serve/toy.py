"""A service whose streams, store and connections do what a test says, when it says so.

Everything between them is real: sockets, talks, outboxes, recorders, the keeper and takeovers. It
all runs in one event loop, without threads, network or model, so an order of events that takes a
slow disk and a kill elsewhere is a line here.
"""

import asyncio
import json
import pickle
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar
from urllib.parse import urlencode

import numpy as np
import pytest

import kiku
from kiku.errors import ConfigError
from kiku.options import DecodingOptions, StreamOptions
from kiku.serve import session_keeper, sockets
from kiku.serve.app import App
from kiku.serve.service import Service
from kiku.serve.session_store import Claim, Outcome, StoreDown, Write, next_generation
from kiku.serve.settings import Settings
from kiku.serve.store_thread import StoreThread
from kiku.serve.talk import Talk
from kiku.stream import End, Event, Finalized, WordEnd
from kiku.text import TurnEnd, TurnStart, Word

RATE, FRAME = 24_000, 1_920
FRAME_S = FRAME / RATE

WORD_S, GAP_S, DELAY_S = 0.24, 0.4, 0.48
"""The sound of a word, the silence behind it, and by how much text lags sound."""

TOLD_S = 0.16
"""A word is told to last so long: its end comes before the end of its sound, as with real ones."""

T = TypeVar("T")


def toy_sound(count: int) -> bytes:
    """Silence, and the words "0", "1", ...: each a run of one sample value of its own."""
    parts = [np.zeros(round(0.32 * RATE), "<i2")]
    for i in range(count):
        parts.append(np.full(round(WORD_S * RATE), 3000 + 10 * i, "<i2"))
        parts.append(np.zeros(round(GAP_S * RATE), "<i2"))
    return np.concatenate(parts).tobytes()


@dataclass
class _Heard:
    """All that a toy stream remembers: it is saved as it stands."""

    start_s: float
    """Of the silence before its sound, which stands for what an earlier stream has heard."""
    shift_s: float
    samples: np.ndarray = field(default_factory=lambda: np.zeros(0, "<i2"))
    heard_s: float = 0.0
    asked: list[tuple[float, str | None]] = field(default_factory=list)
    told: set[float] = field(default_factory=set)
    events: list[Event] = field(default_factory=list)
    is_closed: bool = False
    has_ended: bool = False
    in_turn: bool = False
    marks: list[tuple[float, str]] = field(default_factory=list)
    """Words to expect, and where in the sound each was set: a word has the last one before it."""


class ToyStream:
    """Stands in for `AsyncStream`. It hears as much as `hear` says, and no more.

    What it hears of a word that was cut off is another word, "~0". With `turns` its one turn begins
    right behind the first word that it tells, and ends with it.
    """

    def __init__(
        self, options: StreamOptions, state: bytes | None = None, shift_s: float = 0.0, *,
        turns: bool = False,
    ) -> None:  # fmt: skip
        start_s = options.start_s
        self.memory: _Heard = pickle.loads(state) if state else _Heard(start_s, shift_s)
        if not state:
            self._mark(0.0, options.decoding)
        self._turns = turns
        self._silence_s = 0.0 if state else start_s  # that is still to be pushed
        self._news = asyncio.Event()
        self.failure: Exception | None = None
        self.is_stopped = False

    @property
    def duration(self) -> float:
        memory = self.memory
        return memory.start_s - self._silence_s + len(memory.samples) / RATE

    @property
    def heard_s(self) -> float:
        return self.memory.heard_s

    @property
    def waiting_s(self) -> float:
        return max(0.0, self.duration - self.heard_s)

    @property
    def done(self) -> bool:
        return self.memory.has_ended or self.is_stopped

    def push_now(self, samples: Any, rate: int | None = None) -> bool:
        new = np.frombuffer(samples, "<i2")
        self.memory.samples = np.concatenate([self.memory.samples, new])
        return True

    async def push(self, samples: Any, rate: int | None = None) -> None:
        self.push_now(samples)

    async def push_silence(self, seconds: float) -> None:
        self._silence_s = max(0.0, self._silence_s - seconds)

    async def finalize(self, tag: str | None = None, *, cut: bool = False) -> None:
        self.memory.asked.append((self.duration, tag))

    async def set_decoding(self, options: DecodingOptions) -> None:
        if not all(one.text.isascii() for one in options.phrases):
            raise ConfigError("the vocabulary cannot spell that")
        self._mark(self.duration, options)

    def _mark(self, time: float, options: DecodingOptions) -> None:
        self.memory.marks.append((time, "".join(one.text for one in options.phrases)))

    async def close(self) -> None:
        self.memory.is_closed = True

    async def save(self) -> bytes:
        return pickle.dumps(self.memory)

    def stop(self) -> None:
        self.is_stopped = True
        self._news.set()

    def poll(self) -> list[Event]:
        events, self.memory.events = self.memory.events, []
        return events

    async def progress(self, heard_s: float) -> list[Event]:
        while not (self.memory.events or self.done or self.heard_s > heard_s):
            self._news.clear()
            await self._news.wait()
        return self.poll()

    def hear(self, seconds: float) -> None:
        """Hear so much more of the sound."""
        memory = self.memory
        now = min(self.duration, memory.heard_s + seconds)
        while memory.asked and memory.asked[0][0] <= now + 1e-9:
            time, tag = memory.asked.pop(0)
            self._tell_words(time, time, may_cut=True)
            memory.events.append(Finalized(time, None, tag))
        memory.heard_s = max(memory.heard_s, now)
        is_end = memory.is_closed and now >= self.duration - 1e-9
        self._tell_words(memory.heard_s, memory.heard_s - DELAY_S * (not is_end), may_cut=is_end)
        if is_end and not memory.has_ended:
            if memory.in_turn:
                memory.events.append(TurnEnd(self.duration, 1.0))
            memory.events.append(End(self.duration))
            memory.has_ended = True
        self._news.set()

    def _tell_words(self, until_s: float, told_until_s: float, *, may_cut: bool) -> None:
        memory = self.memory
        samples = memory.samples[: max(0, round((until_s - memory.start_s) * RATE))]
        edges = [0, *(np.flatnonzero(np.diff(samples)) + 1).tolist(), len(samples)]
        for first, last in pairwise(edges):
            start_s, end_s = memory.start_s + first / RATE, memory.start_s + last / RATE
            key = round(start_s, 3)
            is_whole = last < len(samples) or may_cut
            if key in memory.told or not is_whole or end_s > told_until_s + 1e-9:
                continue
            if last - first < FRAME // 2 or not samples[first]:
                continue
            memory.told.add(key)
            text = str((int(samples[first]) - 3000) // 10)
            text += [mark for time, mark in memory.marks if time <= start_s + 1e-6][-1]
            text = text if end_s - start_s > 0.75 * WORD_S else f"~{text}"
            start_s += memory.shift_s
            end_s = min(end_s, start_s + TOLD_S)
            memory.events += [Word(text, start_s, end_s, 1.0), WordEnd(end_s)]
            if self._turns and not memory.in_turn:
                memory.in_turn = True
                memory.events.append(TurnStart(start_s))


class ToyStore:
    """A store in memory."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[int, dict[str, bytes]]] = {}

    def begin(self, name: str, ttl_s: float) -> int:
        generation = next_generation(self.found[name][0] if name in self.found else 0)
        self.found[name] = (generation, {})
        return generation

    def claim(self, name: str, ttl_s: float) -> Claim | None:
        last, values = self.found.get(name, (0, {}))
        if not values:
            return None
        generation = next_generation(last)
        self.found[name] = (generation, values)
        return Claim(generation, dict(values))

    def write(self, writes: Sequence[Write]) -> list[Outcome]:
        return [self._write(one) for one in writes]

    def _write(self, one: Write) -> Outcome:
        if one.name not in self.found:
            return Outcome.UNKNOWN
        generation, values = self.found[one.name]
        if generation != one.generation:
            return Outcome.TAKEN
        for name in one.drop:
            values.pop(name, None)
        values.update(one.values)
        return Outcome.KEPT

    def remove(self, name: str, generation: int, ttl_s: float) -> None:
        if self.found.get(name, (0, {}))[0] == generation:
            self.found[name] = (next_generation(generation), {})

    def sweep(self, ttl_s: float) -> None:
        pass

    def close(self) -> None:
        pass


class ToyThread(StoreThread):
    """Makes its calls in the event loop: at once, or when `run` says so while the store `is_slow`;
    they fail while it `is_down`."""

    def __init__(self, name: str) -> None:
        self.is_slow = self.is_down = False
        self._toy_calls: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()

    async def call(self, function: Callable[[], T], timeout_s: float) -> T:
        if self.is_down:
            raise StoreDown("it is down")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._toy_calls.append((function, future))
        if not self.is_slow:
            self.run()
        return await future

    def run(self) -> None:
        """Make all calls that wait."""
        while self._toy_calls:
            function, future = self._toy_calls.popleft()
            try:
                result = function()
            except Exception as error:
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():  # its caller may have given up
                    future.set_result(result)

    def give_up(self) -> None:
        """Have the callers wait no more; their calls are still made later."""
        for _, future in self._toy_calls:
            if not future.done():
                future.set_exception(StoreDown("it does not answer"))

    def forget(self) -> None:
        """Drop the calls that wait, as where the process was killed."""
        self._toy_calls.clear()

    def close(self, last: Callable[[], None] | None = None) -> None:
        self.run()


class Connection:
    """A client's WebSocket to an application, without a network."""

    def __init__(self, app: App, path: str = "/api/stream", **query: Any) -> None:
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.messages: list[dict[str, Any]] = []
        """All that came, in order."""
        self.has_room = asyncio.Event()
        """Cleared while the client takes nothing: nothing is written then, and all sends wait."""
        self.has_room.set()
        self.status: int | None = None
        """Of the answer, if it was refused."""
        self.code: int | None = None
        """With which it was closed, from either side."""
        scope = {
            "type": "websocket", "path": path, "query_string": urlencode(query).encode(),
            "headers": [], "client": ("1.2.3.4", 5), "subprotocols": [],
        }  # fmt: skip
        self._queue.put_nowait({"type": "websocket.connect"})
        self.task = asyncio.create_task(app.sockets.answer(scope, self._queue.get, self._send))

    async def _send(self, message: Any) -> None:
        if message["type"] != "websocket.accept":
            await self.has_room.wait()
        if self.code is not None:
            raise OSError
        if message["type"] == "websocket.send":
            self.messages.append(json.loads(message["text"]))
        elif message["type"] == "websocket.http.response.start":
            self.status = message["status"]
        elif message["type"] == "websocket.close":
            self.cut(message["code"])

    def give(self, data: bytes | str) -> None:
        """Send a message."""
        kind = "bytes" if isinstance(data, bytes) else "text"
        self._queue.put_nowait({"type": "websocket.receive", kind: data})

    def tell(self, **command: Any) -> None:
        """Send a command."""
        self.give(json.dumps(command))

    def cut(self, code: int = 1006) -> None:
        """End it, so that the service learns of it."""
        self.code = code
        self.hang_up(code)
        self.has_room.set()

    def hang_up(self, code: int = 1006) -> None:
        """Send nothing more; what is sent to it still arrives."""
        self._queue.put_nowait({"type": "websocket.disconnect", "code": code})

    @property
    def is_open(self) -> bool:
        """Whether it was accepted and greeted, and has not ended."""
        return self.code is None and bool(self.messages)


async def settle(turns: int = 40) -> None:
    """Let all tasks come to where they wait."""
    for _ in range(turns):
        await asyncio.sleep(0)


class ToyService:
    """An application that keeps its sessions in a store that others share."""

    def __init__(self, demo: kiku.Recognizer, shift_s: float = 0.0, *, turns: bool = False) -> None:
        """`shift_s`: by how much its streams tell words later that were begun in the middle;
        `turns`: whether they tell turns."""
        settings = Settings(session_store="/dev/null/none", resume_s=60, drain_s=0.0)
        self.app = App(Service(settings, demo))
        self._shift_s, self._turns = shift_s, turns
        keeper = self.app.sockets._keeper
        assert keeper is not None
        self.keeper = keeper
        self.app.service.open = self._open  # type: ignore[method-assign]

    async def _open(
        self, options: StreamOptions, *, recorded: bool = False, state: bytes | None = None
    ) -> Any:
        shift_s = self._shift_s if options.start_s else 0.0
        return ToyStream(options, state, shift_s, turns=self._turns)

    @property
    def threads(self) -> list[ToyThread]:
        """For writes and for claims."""
        found: list[Any] = [self.keeper._writer, self.keeper._claimer]
        return found

    @property
    def talks(self) -> list[Talk]:
        """All that there are, also those whose client is away, in the order in which they began."""
        return sorted(self.app.sockets.talks, key=lambda talk: talk.began_at)

    async def hear(self, seconds: float) -> None:
        """Have all streams hear so much more."""
        for talk in self.talks:
            stream: Any = talk._stream._stream
            if stream is not None:
                stream.hear(seconds)
        await settle()

    async def write(self) -> None:
        """Write all talks that have changed, as every second."""
        for one in list(self.keeper._watched.values()):
            if one.writing is None:
                task = asyncio.create_task(self.keeper._write_changed([one], time.monotonic()))
                await settle()
                del task

    async def kill(self, *, writes: bool) -> None:
        """End it at once. `writes`: whether what waits to be written still is."""
        for thread in self.threads:
            if writes:
                thread.run()
            thread.forget()
        self.keeper._watched.clear()
        for talk in self.talks:
            talk._outbox.take_wire()
            talk._tasks.cancel()

    async def end(self) -> None:
        """End it in order."""
        await self.app.drain(0.0)


@pytest.fixture
def toy_store(monkeypatch: pytest.MonkeyPatch) -> ToyStore:
    """The store of all services of a test, whose keepers do nothing by themselves."""
    store = ToyStore()
    monkeypatch.setattr(sockets, "open_store", lambda _: store)
    monkeypatch.setattr(session_keeper, "StoreThread", ToyThread)
    monkeypatch.setattr(session_keeper, "_CHECK_S", 0.01)
    for name in ("_TICK_S", "_SWEEP_S"):
        monkeypatch.setattr(session_keeper, name, 1e6)
    return store
