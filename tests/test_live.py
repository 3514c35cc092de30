"""Live streams: any threads and tasks, bounded queues, bad days, save and resume."""

import asyncio
import gc
import inspect
import math
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import kiku
from kiku import (
    AsyncStream,
    AudioFormat,
    DecodingOptions,
    End,
    Event,
    Finalized,
    LiveStream,
    Partial,
    Pause,
    Recognizer,
    StreamOptions,
    StreamWarning,
    TurnStart,
    Word,
    WordEnd,
)
from kiku.audio import Chunk, array_chunks
from kiku.engine import SlotEngine, StepOutput
from kiku.errors import (
    AudioError,
    ConfigError,
    InputError,
    NoFreeSlot,
    QueueFull,
    StreamClosed,
    StreamError,
)
from kiku.live import setup
from kiku.live.waiters import _BELLS  # pyright: ignore[reportPrivateUsage]
from kiku.stream import FinalizeRequest, WordSession, event_to_dict
from kiku.stream.frame_source import FrameSource
from tests import tiny
from tests.engine.engines import KINDS, make_engine
from tests.fakes import PAD, EchoEngine, hold_back, spoken

CONFIG = tiny.model_config()
SIZE = CONFIG.frame_size
ONE, TWO, THREE, ED = (tiny.PIECES.index(p) for p in ("▁one", "▁two", "▁three", "ed"))
LONG_S = 30.0
"""Nothing here takes so long, unless it never comes."""


def recognizer(engine: SlotEngine | None = None, slots: int = 1) -> Recognizer:
    engine = engine or EchoEngine(slots)
    return Recognizer(engine, CONFIG, tiny.vocabulary(), name="echo")


def sentence(*words: int) -> NDArray[np.float32]:
    return spoken([t for word in words for t in (3, 0, word, 3, 3)], SIZE)


def noise(num_frames: int, seed: int) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(num_frames * SIZE) * 0.3).astype(np.float32)


def until(ready: Callable[[], bool]) -> None:
    ends = time.monotonic() + LONG_S
    while not ready():
        assert time.monotonic() < ends
        time.sleep(0.001)


def texts(events: Sequence[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Word)]


def rounded(event: Event) -> dict[str, object]:
    """As sums in another order give it too: which slots step together is chance."""
    return {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in event_to_dict(event).items()
    }


class Gated(EchoEngine):
    """Steps only while its gate is open."""

    def __init__(self, slots: int = 1) -> None:
        super().__init__(slots)
        self.gate = threading.Event()
        self.entered = threading.Event()

    def step(
        self,
        slots: Sequence[int],
        frames: NDArray[np.float32],
        counts: Sequence[int] | None = None,
    ) -> StepOutput:
        self.entered.set()
        assert self.gate.wait(LONG_S)
        return super().step(slots, frames, counts)


def test_words_come_while_one_speaks() -> None:
    with recognizer().stream() as stream:
        stream.push(sentence(ONE))
        event = stream.next_event(LONG_S)
        assert isinstance(event, Word)
        assert event.text == "one"
        stream.push(sentence(TWO))
        stream.close()
        events = list(stream.events())
        assert texts(events) == ["two"]
        assert events[-1] == End(pytest.approx(10 * 0.08))
        assert list(stream.events()) == []
        assert stream.next_event() is None


def test_leaving_the_loop_loses_no_event() -> None:
    with recognizer().stream() as stream:
        stream.push(sentence(ONE, TWO, THREE))
        stream.close()
        seen: list[Event] = []
        for _ in range(20):
            for event in stream.events():
                seen.append(event)
                break
    assert texts(seen) == ["one", "two", "three"]


def test_one_thread_speaks_and_another_listens() -> None:
    with recognizer().stream() as stream:
        sound = sentence(*[ONE, TWO, THREE] * 20)

        def speak() -> None:
            for piece in np.array_split(sound, 97):
                stream.push(piece)
            stream.close()

        thread = threading.Thread(target=speak)
        thread.start()
        assert texts(list(stream.events())) == ["one", "two", "three"] * 20
        thread.join(LONG_S)


class Overtaken(deque[Event]):
    """Events of which another thread takes the next just before it is taken."""

    others: Sequence[Event] = ()

    def popleft(self) -> Event:
        if not self.others:
            self.others = (super().popleft(),)
        return super().popleft()


@pytest.mark.parametrize("num_channels", [1, 2])
def test_an_event_that_another_thread_has_taken_is_no_error(num_channels: int) -> None:
    format = AudioFormat(channels=num_channels, channels_axis=1)
    with recognizer(slots=2).stream(StreamOptions(channel="each", format=format)) as stream:
        stream.push(np.stack([sentence(ONE)] * num_channels, axis=1))
        stream.close()
        until(lambda: stream.done)
        first = stream._sessions.first
        overtaken = first.events = Overtaken([first.events[-1]])
        found = stream.poll()
        assert isinstance(overtaken.others[0], End)
        assert texts(found) == ["one"] * (num_channels - 1), "those of the other channel"
        assert stream.next_event() is None


@pytest.mark.parametrize("num_channels", [1, 2])
def test_events_that_come_while_one_is_fetched_do_not_put_a_stream_to_sleep(
    num_channels: int,
) -> None:
    """The last that fits comes just before one is taken: too late for who took it to have seen it,
    and early enough for the driver to hold the stream back."""
    most, format = 4, AudioFormat(channels=num_channels, channels_axis=1)
    options = StreamOptions(channel="each", format=format, max_events=most, recovery=None)
    silence = np.zeros((4 * SIZE, num_channels), np.float32)
    with recognizer(slots=num_channels).stream(options) as stream:
        session = stream._sessions.each[-1]
        assert session.on_room == stream._scheduler.wake, "or the driver would sleep on for a while"

        class Full(deque[Event]):
            """Fills up when the first event is taken, before it is taken."""

            is_begun = False

            def popleft(self) -> Event:
                if not self.is_begun:
                    self.is_begun = True
                    self.extend([WordEnd(0.0)] * (most - len(self)))
                    stream.push(silence)
                    stream.close()
                    for _ in range(2):  # the round that finds it full is over after the second
                        stream._scheduler.call(lambda: None)
                return super().popleft()

        until(lambda: stream.waiting_s == 0)
        stream._scheduler.call(lambda: None)
        full = session.events = session._writer.events = Full([WordEnd(0.0)] * (most - 1))
        for _ in range(most):
            assert stream.next_event(LONG_S) == WordEnd(0.0)
        assert isinstance(stream.next_event(LONG_S), End)
        assert full.is_begun


def test_leaving_frees_the_slot_and_ends_the_worker() -> None:
    rec = recognizer()
    for _ in range(3):
        with rec.stream() as stream:
            stream.push(sentence(ONE))
        until(lambda: rec.free_slots == 1)
        with pytest.raises(StreamClosed):
            stream.push(sentence(TWO))
    until(lambda: not [t for t in threading.enumerate() if t.name == "kiku-driver"])


def test_what_is_open_when_one_stops_comes_out() -> None:
    rec = recognizer()
    stream = rec.stream()
    stream.push(spoken([3, 0, ONE], SIZE))
    until(lambda: stream.waiting_s == 0)
    stream.stop()
    events = stream.poll()
    assert isinstance(events[-1], End)
    assert texts(events) == ["one"]
    assert rec.free_slots == 1


def test_a_forgotten_stream_gives_its_slot_back() -> None:
    engine = EchoEngine()
    rec = recognizer(engine)
    stream = rec.stream()
    stream.push(sentence(ONE))
    del stream
    gc.collect()
    assert rec.free_slots == 1, "whoever asks for it next gets it"
    until(lambda: engine.free_slots == 1)
    rec.stream().stop()


def test_a_recognizer_that_keeps_its_stream_is_forgotten_with_it() -> None:
    rec: Any = recognizer()
    engine, rec.talk = rec.scheduler.engine, rec.stream()
    del rec
    gc.collect()
    until(lambda: gc.collect() >= 0 and engine.free_slots == 1)


def test_sound_before_the_start_makes_room_without_a_frame() -> None:
    options = StreamOptions(start_s=100.0, max_queue_s=1.0)
    with recognizer().stream(options) as stream:
        for _ in range(12):
            stream.push_silence(10.0, timeout=LONG_S)
        until(lambda: stream.heard_s > 0)

    async def push() -> None:
        async with await recognizer().astream(options) as stream:
            async with asyncio.timeout(LONG_S):
                for _ in range(12):
                    await stream.push_silence(10.0)

    asyncio.run(push())


def beside_no_round(
    rec: Recognizer, stream: LiveStream, ask: Callable[[], None], save: bool = False
) -> threading.Thread:
    """Call `ask` in a thread while no round is made, until it returns or waits for room; then save
    the stream before the next round."""
    thread = threading.Thread(target=ask, daemon=True)

    def hold() -> None:
        thread.start()
        until(lambda: not thread.is_alive() or (bool(stream._pushers) and stream._waits))
        if save:
            stream._setup.copy(stream._given_now())

    rec.scheduler.call(hold)
    return thread


@pytest.mark.parametrize(
    ("first_s", "second_s", "queue_s", "start_s"),
    [(0.05, 0.96, 1.0, 0.0), (0.05, 29.98, 30.0, 0.0), (0.02, 0.19, 0.2, 1000.0)],
)
def test_what_fills_no_frame_keeps_no_push_waiting(
    first_s: float, second_s: float, queue_s: float, start_s: float
) -> None:
    """Nobody is told when it is converted, so it takes no room before that."""
    rec, rate = recognizer(), CONFIG.sample_rate
    options = StreamOptions(max_queue_s=queue_s, start_s=start_s)
    first, second = (np.zeros(int(s * rate), np.float32) for s in (first_s, second_s))
    with rec.stream(options) as stream:
        until(lambda: stream.waiting_s == 0)

        def push() -> None:
            stream.push(first)
            stream.push(second)

        pushing = beside_no_round(rec, stream, push)
        pushing.join(LONG_S)
        assert not pushing.is_alive()
        assert stream.duration == pytest.approx(first_s + second_s, abs=1e-3)

    async def main() -> None:
        gate, entered = threading.Event(), threading.Event()

        def hold() -> None:
            entered.set()
            assert gate.wait(LONG_S)

        async with await rec.astream(options) as stream:
            while stream.waiting_s > 0:
                await asyncio.sleep(0.001)
            held = asyncio.create_task(asyncio.to_thread(rec.scheduler.call, hold))
            assert await asyncio.to_thread(entered.wait, LONG_S)
            assert stream.push_now(first)
            pushing = asyncio.create_task(stream.push(second))
            await asyncio.sleep(0)  # it is in line
            gate.set()
            async with asyncio.timeout(LONG_S):
                await pushing
            await held

    asyncio.run(main())


@pytest.mark.parametrize("is_saved", [False, True])
def test_sound_before_the_start_makes_room_beside_a_request_and_a_save(is_saved: bool) -> None:
    rec = recognizer()
    with rec.stream(StreamOptions(start_s=100.0, max_queue_s=10.0)) as stream:
        until(lambda: stream.waiting_s == 0)

        def push() -> None:
            stream.push_silence(10.0)
            if not is_saved:  # a save converts what waits, before the driver does
                stream.set_decoding(DecodingOptions(num_codebooks=3))
            stream.push_silence(10.0)

        pushing = beside_no_round(rec, stream, push, is_saved)
        pushing.join(LONG_S)
        assert not pushing.is_alive()


def test_a_full_house_is_told_at_once_or_waited_for() -> None:
    rec = recognizer()
    first = rec.stream()
    with pytest.raises(NoFreeSlot):
        rec.stream()
    with pytest.raises(NoFreeSlot):
        rec.stream(timeout=0.02)
    threading.Timer(0.05, first.stop).start()
    with rec.stream(timeout=LONG_S) as second:
        second.push(sentence(TWO))
        second.close()
        assert texts(list(second.events())) == ["two"]


def test_sound_that_comes_too_fast_is_refused_or_waited_with() -> None:
    engine = Gated()
    rec = recognizer(engine)
    with rec.stream(StreamOptions(max_queue_s=1.0, when_full="error")) as stream:
        stream.push(np.zeros(SIZE, np.float32))
        assert engine.entered.wait(LONG_S)
        stream.push(np.zeros(12 * SIZE, np.float32))
        with pytest.raises(QueueFull, match="are waiting to be processed"):
            stream.push(sentence(ONE))
        before = stream.duration
        engine.gate.set()
        until(lambda: stream.waiting_s == 0)
        stream.push(sentence(TWO))
        stream.close()
        assert texts(list(stream.events())) == ["two"]
        assert stream.duration == pytest.approx(before + 5 * 0.08)


def test_a_push_waits_for_room() -> None:
    engine = Gated()
    with recognizer(engine).stream(StreamOptions(max_queue_s=1.0)) as stream:
        stream.push(np.zeros(SIZE, np.float32))
        assert engine.entered.wait(LONG_S)
        stream.push(np.zeros(12 * SIZE, np.float32))
        with pytest.raises(QueueFull):
            stream.push(sentence(ONE), timeout=0.02)
        threading.Timer(0.05, engine.gate.set).start()
        stream.push(sentence(TWO))
        stream.close()
        assert texts(list(stream.events())) == ["two"]


def test_a_push_that_is_larger_than_the_queue_comes_in_parts_and_in_order() -> None:
    sound = sentence(*[ONE, TWO, THREE] * 10)
    with recognizer().stream(StreamOptions(max_queue_s=0.4)) as stream:
        threads = [threading.Thread(target=stream.push, args=(sound,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG_S)
        stream.close()
        assert texts(list(stream.events())) == ["one", "two", "three"] * 30
        assert stream.duration == pytest.approx(3 * len(sound) / CONFIG.sample_rate)


def test_what_never_fits_is_refused_at_once_or_taken_as_far_as_it_fits() -> None:
    engine = Gated()
    rec = recognizer(engine)
    long = np.zeros(20 * SIZE, np.float32)
    with rec.stream(StreamOptions(max_queue_s=1.0, when_full="error")) as stream:
        with pytest.raises(QueueFull, match=r"1\.6 s of sound were pushed at once"):
            stream.push(long)
        assert stream.duration == 0
    with rec.stream(StreamOptions(max_queue_s=1.0)) as stream:
        stream.push(np.zeros(SIZE, np.float32))
        assert engine.entered.wait(LONG_S)
        with pytest.raises(QueueFull, match=r"The first 1\.00 s of this push were acc"):
            stream.push(long, timeout=0.02)
        assert stream.duration == pytest.approx(1.08)
        engine.gate.set()


@pytest.mark.parametrize("ends", ["close", "stop"])
def test_a_push_during_which_a_stream_ends_says_how_and_how_much_was_taken(ends: str) -> None:
    said = rf"after {ends}\(\): open another stream\. The first [0-3]\.\d\d s of this push were acc"
    options, long = StreamOptions(max_queue_s=1.0), noise(50, 0)  # 4 s

    def end(stream: LiveStream | AsyncStream, engine: Gated) -> None:
        stream._close() if ends == "close" else stream._request_stop()
        engine.gate.set()

    async def in_a_task() -> None:
        engine = Gated()
        stream = await recognizer(engine).astream(options)
        task = asyncio.ensure_future(stream.push(long))
        while stream.duration == 0:
            await asyncio.sleep(0.001)
        end(stream, engine)
        with pytest.raises(StreamClosed, match=said):
            await task

    asyncio.run(in_a_task())
    engine, caught = Gated(), list[StreamClosed]()

    def push() -> None:
        with pytest.raises(StreamClosed, match=said) as raised:
            stream.push(long)
        caught.append(raised.value)

    with recognizer(engine).stream(options) as stream:
        thread = threading.Thread(target=push)
        thread.start()
        until(lambda: stream.duration > 0)
        end(stream, engine)
        thread.join(LONG_S)
        assert caught


def test_stopping_wakes_a_push_that_waits() -> None:
    engine = Gated()
    stream = recognizer(engine).stream(StreamOptions(max_queue_s=0.5))
    failed: list[BaseException] = []

    def push() -> None:
        try:
            while True:
                stream.push(np.zeros(20 * SIZE, np.float32))
        except StreamError as error:
            failed.append(error)

    thread = threading.Thread(target=push)
    thread.start()
    assert engine.entered.wait(LONG_S)
    until(lambda: len(stream._pushers) > 0)
    threading.Timer(0.05, engine.gate.set).start()  # the step that is under way comes to its end
    stream.stop()
    thread.join(LONG_S)
    assert isinstance(failed[0], StreamClosed)


def test_what_the_engine_is_still_busy_with_was_not_heard() -> None:
    engine = Gated()
    with recognizer(engine).stream() as stream:
        stream.push(sentence(ONE))
        assert engine.entered.wait(LONG_S)
        until(lambda: stream.waiting_s == 0)
        assert stream.heard_s == 0  # frames were taken, and no word of them has come
        engine.gate.set()
        until(lambda: stream.heard_s > 0.3)
        assert texts(stream.poll()) == ["one"]
        stream.close()
        list(stream.events())
        assert stream.heard_s == pytest.approx(stream.duration)


def test_events_that_nobody_fetches_hold_the_stream_back() -> None:
    with recognizer().stream(StreamOptions(max_queue_s=4.0, max_events=20)) as stream:

        def fill() -> None:
            while True:
                stream.push(sentence(ONE), timeout=1.0)

        with pytest.raises(QueueFull):
            fill()
        held = stream.poll()
        assert 20 <= len(held) < 20 + 2 * 8, "what one more step gave"
        until(lambda: stream.waiting_s < 2.0)
        stream.push(sentence(TWO))
        more = [stream.next_event(LONG_S) for _ in range(10)]
        assert None not in more


class Fails(EchoEngine):
    """Cannot step slot 0 any more after some steps."""

    def step(
        self,
        slots: Sequence[int],
        frames: NDArray[np.float32],
        counts: Sequence[int] | None = None,
    ) -> StepOutput:
        if 0 in slots and self.heard[0] >= 4:
            raise RuntimeError("out of memory")
        return super().step(slots, frames, counts)


def test_a_step_that_fails_ends_its_stream_with_all_it_had_and_no_other() -> None:
    rec = recognizer(Fails(2))
    bad, good = rec.stream(), rec.stream()
    bad.push(spoken([3, 0, ONE, ED], SIZE))
    until(lambda: bad.waiting_s == 0)
    bad.push(sentence(TWO))
    until(lambda: bad.done)
    good.push(sentence(THREE))
    good.close()
    assert texts(list(good.events())) == ["three"]
    event = bad.next_event()
    assert isinstance(event, Word)
    assert event.text == "oneed"
    bad.next_event()  # its end
    for call in (bad.next_event, bad.poll, lambda: bad.push(sentence(ONE))):
        with pytest.raises(RuntimeError, match="out of memory"):
            call()
    assert rec.free_slots == 2


def test_garbage_is_refused_and_the_stream_lives() -> None:
    with recognizer().stream() as stream:
        for garbage in (np.array(["x"]), np.zeros((3, 3, 3)), np.full(9, 1e9, np.float32)):
            with pytest.raises(AudioError):
                stream.push(garbage)
        for rate in (0, 10**9):
            with pytest.raises(AudioError):
                stream.push(sentence(ONE), rate=rate)
        stream.push(sentence(ONE))
        stream.close()
        assert texts(list(stream.events())) == ["one"]


def test_one_bad_float_in_bytes_does_not_end_the_stream() -> None:
    bad = np.float32(8.5e37).tobytes()
    floats = StreamOptions(format=AudioFormat(encoding="f32le"))
    with recognizer().stream(floats) as stream:
        stream.push(sentence(ONE).tobytes() + bad)
        stream.push(sentence(TWO).tobytes())
        stream.close()
        found = list(stream.events())
    assert texts(found) == ["one", "two"]
    assert "not_finite" in {event.kind for event in found if isinstance(event, StreamWarning)}


def test_what_comes_after_the_end_is_told_by_its_name() -> None:
    with recognizer().stream() as stream:
        stream.close()
        with pytest.raises(StreamClosed, match="sound was pushed after close"):
            stream.push(sentence(ONE))
        with pytest.raises(StreamClosed, match=r"finalize\(\) was called after close"):
            stream.finalize()


def test_what_is_asked_for_is_said() -> None:
    options = StreamOptions(partials=True, pauses=True, turns="high", recovery=None)  # pyright: ignore
    with recognizer(make_engine("onnx")).stream(options) as stream:
        stream.push(noise(60, 3))
        stream.finalize()
        stream.close()
        events = list(stream.events())
    kinds = {type(event) for event in events}
    assert {Word, Partial, Pause, Finalized, kiku.TurnStart, kiku.TurnEnd, End} <= kinds
    pauses = [event for event in events if isinstance(event, Pause)]
    assert len(pauses[0].probabilities) == 4
    with recognizer(make_engine("onnx")).stream(StreamOptions(recovery=None)) as stream:
        stream.push(noise(60, 3))
        stream.close()
        assert {type(event) for event in stream.events()} == {Word, kiku.WordEnd, End}


@pytest.mark.parametrize(
    "wrong",
    [
        StreamOptions(decoding=DecodingOptions(hotwords=["ß"])),
        StreamOptions(decoding=DecodingOptions(num_codebooks=9)),
        StreamOptions(channel="each", format=AudioFormat(channels=2)),
    ],
)
def test_what_cannot_be_is_refused_and_no_slot_is_lost(wrong: StreamOptions) -> None:
    rec = Recognizer(make_engine("onnx"), CONFIG, tiny.vocabulary(), name="tiny")
    with pytest.raises(ConfigError):
        rec.stream(wrong)
    assert rec.free_slots == 1


@pytest.mark.parametrize("wrong", ["en", {"turns": True}, {}, False, DecodingOptions()])
def test_no_door_takes_for_options_what_is_none(wrong: Any) -> None:
    rec = recognizer()
    sound = (CONFIG.sample_rate, sentence(ONE))
    with rec.stream() as stream:
        state = stream.save()
    doors: list[Callable[[], object]] = [
        lambda: rec.transcribe(sound, wrong),
        lambda: rec.transcribe([sound], wrong),
        lambda: rec.transcription(sound, wrong),
        lambda: rec.transcriptions([sound], wrong),
        lambda: rec.stream(wrong),
        lambda: rec.stream(wrong, state=state),
        lambda: asyncio.run(rec.astream(wrong)),  # pyright: ignore
    ]
    for door in doors:
        with pytest.raises(InputError, match=r"StreamOptions\("):
            door()
    assert rec.free_slots == 1
    with rec.stream() as stream:
        if not isinstance(wrong, DecodingOptions):
            with pytest.raises(InputError, match=r"DecodingOptions\("):
                stream.set_decoding(wrong)
        stream.push(sentence(ONE))
        stream.close()
        assert texts(list(stream.events())) == ["one"], "the stream goes on"


def test_decoding_changes_in_mid_stream() -> None:
    engine = EchoEngine()
    options = StreamOptions(decoding=DecodingOptions(temperature=0.5))
    with recognizer(engine).stream(options) as stream:
        assert engine.decoding[0][0] is not None
        stream.set_decoding(None)
        until(lambda: engine.decoding[0] == (None, None))
        stream.set_decoding(DecodingOptions(num_codebooks=3))
        until(lambda: engine.decoding[0] == (None, 3))
        with pytest.raises(ConfigError):
            stream.set_decoding(DecodingOptions(num_codebooks=30))
        stream.push(sentence(ONE))
        stream.close()
        assert texts(list(stream.events())) == ["one"]
        with pytest.raises(StreamClosed, match=r"set_decoding\(\) was called after close\(\)"):
            stream.set_decoding(None)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=4, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_streams_from_many_threads_give_what_each_gives_alone(
    kind: str, data: st.DataObject
) -> None:
    """Random offsets, chunks and lifetimes, finalizes in between, more streams than slots, some of
    which break off or push garbage."""
    count = data.draw(st.integers(2, 5))
    lengths = [data.draw(st.integers(1, 30)) for _ in range(count)]
    cuts = [data.draw(st.lists(st.integers(1, 5 * SIZE), min_size=1, max_size=8)) for _ in lengths]
    rude = [data.draw(st.booleans()) for _ in lengths]
    expected = [words_alone(kind, n, seed) for seed, n in enumerate(lengths)]
    rec = Recognizer(make_engine(kind, slots=2), CONFIG, tiny.vocabulary(), name="tiny")
    found: dict[int, list[Word]] = {}
    errors: list[BaseException] = []

    def talk(i: int) -> None:
        try:
            sound = noise(lengths[i], i)
            with rec.stream(timeout=LONG_S) as stream:
                at, step = 0, 0
                while at < len(sound):
                    size = cuts[i][step % len(cuts[i])]
                    stream.push(sound[at : at + size])
                    at, step = at + size, step + 1
                    if rude[i]:
                        with pytest.raises(AudioError):
                            stream.push(np.array(["?"]))
                if rude[i] and i % 2:
                    return  # hangs up
                stream.close()
                found[i] = [event for event in stream.events() if isinstance(event, Word)]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=talk, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
    assert not errors
    for i, words in found.items():
        assert [(w.text, w.start, w.end) for w in words] == expected[i]


@cache
def alone(kind: str) -> Recognizer:
    """One that nobody shares."""
    return Recognizer(make_engine(kind), CONFIG, tiny.vocabulary(), name="tiny")


@cache
def words_alone(kind: str, num_frames: int, seed: int) -> list[tuple[str, float, float]]:
    """The words of some noise, with their times."""
    words = alone(kind).transcribe(noise(num_frames, seed), rate=CONFIG.sample_rate)
    return [(w.text, w.start, w.end) for w in words]


def with_turns(temperature: float) -> StreamOptions:
    return StreamOptions(decoding=DecodingOptions(temperature=temperature), turns=True)


@cache
def undisturbed(kind: str, temperature: float, rate: int | None) -> list[dict[str, object]]:
    """The events of a stream that hears the whole sound at once."""
    with alone(kind).stream(with_turns(temperature)) as stream:
        stream.push(sound_at(rate), rate=rate)
        stream.close()
        return list(map(rounded, stream.events()))


NUM_FRAMES = 30
"""Three windows of the decoder, five of the codec."""


def sound_at(rate: int | None) -> NDArray[np.float32]:
    """[S] of `NUM_FRAMES`, at the model's rate or at 8 kHz."""
    return noise(NUM_FRAMES * (1 if rate is None else 8), 9)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=6, suppress_health_check=[HealthCheck.too_slow])
@given(
    at=st.integers(0, NUM_FRAMES * SIZE),
    chunk=st.integers(SIZE // 2, 6 * SIZE),
    temperature=st.sampled_from([0.0, 0.8]),
    rate=st.sampled_from([None, 8_000]),
)
def test_a_saved_stream_goes_on_elsewhere_with_no_word_lost_or_doubled(
    kind: str, at: int, chunk: int, temperature: float, rate: int | None
) -> None:
    sound = sound_at(rate)
    at = at * (1 if rate is None else 8)

    def fresh() -> Recognizer:
        return Recognizer(make_engine(kind), CONFIG, tiny.vocabulary(), name="tiny")

    def push(stream: LiveStream, sound: NDArray[np.float32]) -> None:
        for first in range(0, len(sound), chunk):
            stream.push(sound[first : first + chunk], rate=rate)

    options = with_turns(temperature)
    with fresh().stream(options) as stream:
        push(stream, sound[:at])
        state = stream.save()
    with fresh().stream(options, state=state) as stream:
        push(stream, sound[at:])
        stream.close()
        assert list(map(rounded, stream.events())) == undisturbed(kind, temperature, rate)


@pytest.mark.parametrize("at", [0, 3 * SIZE, 7 * SIZE + 100])
@pytest.mark.parametrize(
    "wanted",
    [
        StreamOptions(start_s=0.16),
        StreamOptions(end_s=1.0),
        StreamOptions(start_s=0.32, end_s=1.02, signal_checks=False),
    ],
)
def test_a_resumed_stream_hears_the_same_part_of_the_sound(wanted: StreamOptions, at: int) -> None:
    sound = sentence(PAD, ONE, TWO, THREE, ONE)

    def ended(stream: LiveStream, sound: NDArray[np.float32]) -> list[dict[str, object]]:
        stream.push(sound)
        stream.finalize()
        stream.close()
        return list(map(rounded, stream.events()))

    with recognizer().stream(wanted) as stream:
        stream.push(sound[:at])
        state = stream.save()
        uninterrupted = ended(stream, sound[at:])
    assert [event["text"] for event in uninterrupted if "text" in event]
    for options in (None, wanted, StreamOptions(start_s=0.3, end_s=5.0)):
        with recognizer().stream(options, state=state) as stream:
            assert ended(stream, sound[at:]) == uninterrupted


def test_a_state_that_cannot_be_gone_on_with() -> None:
    rec = Recognizer(make_engine("onnx"), CONFIG, tiny.vocabulary(), name="tiny")
    with rec.stream() as stream:
        stream.push(noise(10, 0))
        state = stream.save()
    for bad, message in (
        (b"", "not saved"),
        (b"RIFF" + state, "not saved"),
        (state[:-1], "damaged, cut short"),
        (state[:200] + bytes([state[200] ^ 1]) + state[201:], "damaged, cut short"),
    ):
        with pytest.raises(StreamError, match=message):
            rec.stream(state=bad)
    other = Recognizer(make_engine("torch"), CONFIG, tiny.vocabulary(), name="tiny")
    with pytest.raises(StreamError, match="another model or engine"):
        other.stream(state=state)
    assert (rec.free_slots, other.free_slots) == (1, 1)
    with pytest.raises(StreamError, match="ended"):
        stream.save()


def test_finalize_in_the_middle_of_a_talk() -> None:
    with recognizer().stream() as stream:
        stream.push(sentence(ONE))
        stream.finalize()
        stream.push(sentence(TWO))
        stream.close()
        kinds = [
            event.text if isinstance(event, Word) else "final"
            for event in stream.events()
            if isinstance(event, Word | Finalized)
        ]
    assert kinds == ["one", "final", "two"]


@pytest.mark.parametrize("tag", [3, 1.5, True, b"x", ["a"], {"a": 1}, object()])
def test_a_finalize_that_no_saved_state_could_hold_is_refused(tag: Any) -> None:
    with recognizer().stream() as stream:
        with pytest.raises(InputError, match=r"must be text or None.*finalize\(str\(tag\)\)"):
            stream.finalize(tag)
        with pytest.raises(InputError, match="cut must be True or False"):
            stream.finalize("t", cut="yes")  # pyright: ignore[reportArgumentType]
        stream.push(sentence(ONE))
        stream.finalize("t", cut=np.True_)  # pyright: ignore[reportArgumentType]
        state = stream.save()
    with recognizer().stream(state=state) as stream:
        stream.close()
        found = list(stream.events())
    assert [event.tag for event in found if isinstance(event, Finalized)] == ["t"]
    assert texts(found) == ["one"]


def test_a_finalize_for_which_one_channel_has_no_room_is_taken_by_none() -> None:
    engine = Gated(2)
    options = StreamOptions(channel="each", format=AudioFormat(channels=2, channels_axis=1))
    with recognizer(engine).stream(options) as stream:
        stream.push(np.stack([sentence(ONE)] * 2, axis=1))
        assert engine.entered.wait(LONG_S)
        for i in range(31):
            stream.finalize(str(i))
        stream._sessions.each[1].finalize(FinalizeRequest("31"))
        with pytest.raises(QueueFull, match="32 finalizes are waiting"):
            stream.finalize("too many")
        engine.gate.set()
        stream.close()
        told = [event for event in stream.events() if isinstance(event, Finalized)]
    for channel, count in ((0, 31), (1, 32)):
        tags = [event.tag for event in told if event.channel == channel]
        assert tags == [str(i) for i in range(count)]


def test_tasks_speak_and_listen() -> None:
    rec = recognizer(slots=3)

    async def talk(*words: int) -> list[str]:
        async with await rec.astream(StreamOptions(max_queue_s=1.0), timeout=LONG_S) as stream:

            async def speak() -> None:
                for piece in np.array_split(sentence(*words), 31):
                    await stream.push(piece)
                await stream.push_silence(1.0)
                await stream.finalize()
                await stream.close()

            speaking = asyncio.create_task(speak())
            events = [event async for event in stream.events()]
            await speaking
            assert sum(isinstance(event, Finalized) for event in events) == 1
            assert stream.done
            return texts(events)

    async def main() -> list[list[str]]:
        return await asyncio.gather(*[talk(*[ONE, TWO, THREE][: 1 + i % 3]) for i in range(12)])

    assert asyncio.run(main()) == [["one", "two", "three"][: 1 + i % 3] for i in range(12)]
    assert rec.free_slots == 3


def test_tasks_are_refused_or_wait_like_threads() -> None:
    async def main() -> None:
        engine = Gated()
        rec = recognizer(engine)
        async with await rec.astream(StreamOptions(when_full="error", max_queue_s=0.5)) as stream:
            with pytest.raises(NoFreeSlot):
                await rec.astream()
            with pytest.raises(NoFreeSlot):
                await rec.astream(timeout=0.02)
            with pytest.raises(QueueFull, match="at once"):
                await stream.push(np.zeros(20 * SIZE, np.float32))
            await stream.push(np.zeros(SIZE, np.float32))
            await asyncio.to_thread(engine.entered.wait, LONG_S)
            await stream.push(np.zeros(6 * SIZE, np.float32))
            with pytest.raises(QueueFull, match="are waiting to be processed"):
                await stream.push(np.zeros(SIZE, np.float32))
            engine.gate.set()
        with pytest.raises(StreamClosed):
            await stream.push(np.zeros(SIZE, np.float32))
        async with await rec.astream(timeout=LONG_S) as stream:
            await stream.push(sentence(ONE))
            await stream.set_decoding(None)
            await stream.close()
            assert texts([event async for event in stream.events()]) == ["one"]

    asyncio.run(main())


Big = NDArray[np.float32] | bytearray | list[float]


def as_bytes(sound: NDArray[np.float32]) -> bytearray:
    return bytearray((sound * 32768).astype("<i2").tobytes())


@pytest.mark.parametrize("big", [lambda x: x, as_bytes, list], ids=["array", "bytearray", "list"])
def test_no_call_overtakes_a_push_that_is_looked_at_in_another_thread(
    big: Callable[[NDArray[np.float32]], Big], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = big(sentence(ONE, TWO)), as_bytes(sentence(THREE))
    monkeypatch.setattr("kiku.live.async_stream._QUICK_BYTES", 2 * len(sentence(ONE, TWO)) - 1)
    looked_at = AsyncStream._check
    threads: set[int] = set()

    def slowly(stream: AsyncStream, samples: NDArray[np.float32], rate: int | None) -> Chunk:
        if samples is first:
            threads.add(threading.get_ident())
            time.sleep(0.05)
        return looked_at(stream, samples, rate)

    monkeypatch.setattr(AsyncStream, "_check", slowly)

    class Noting(EchoEngine):
        """How many frames had been heard where three codebooks are read from."""

        def __init__(self) -> None:
            super().__init__()
            self.at_change: list[int] = []

        def set_decoding(self, slot: int, picker: Any = None, **how: Any) -> None:
            super().set_decoding(slot, picker, **how)
            if how["num_codebooks"] == 3:
                self.at_change.append(self.heard[slot])

    engine, three = Noting(), DecodingOptions(num_codebooks=3)
    rec = recognizer(engine)

    async def said(*calls: Callable[[AsyncStream], Awaitable[object]], **options: Any) -> list[str]:
        async with await rec.astream(StreamOptions(**options), timeout=LONG_S) as stream:
            await asyncio.gather(*[call(stream) for call in calls])
            await stream.close()
            return [
                event.text if isinstance(event, Word) else f"{event.time:.1f}"
                async for event in stream.events()
                if isinstance(event, Word | Finalized)
            ]

    async def resumed() -> list[str]:
        async with await rec.astream(timeout=LONG_S) as stream:
            _, state = await asyncio.gather(stream.push(first), stream.save())
        async with await rec.astream(state=state, timeout=LONG_S) as stream:
            await stream.close()
            return texts([event async for event in stream.events()])

    async def main() -> None:
        for when_full in ("block", "error"):
            both = [lambda s: s.push(first), lambda s: s.push(second)]
            assert await said(*both, when_full=when_full) == ["one", "two", "three"]
        one = ["one", "two"]
        assert await said(lambda s: s.push(first), lambda s: s.close()) == one
        assert await said(lambda s: s.push(first), lambda s: s.finalize()) == [*one, "0.8"]
        after = await said(lambda s: s.push(first), lambda s: s.push_silence(0.4))
        assert after == one
        assert await said(lambda s: s.push(first), lambda s: s.set_decoding(three)) == one
        assert engine.at_change == [10]
        assert await resumed() == one
        with pytest.raises(StreamClosed):
            await said(lambda s: s.push(first), lambda s: s.close(), lambda s: s.push(second))

    asyncio.run(main())
    assert threads
    assert threading.get_ident() not in threads


def test_a_push_that_cannot_be_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kiku.live.async_stream._QUICK_BYTES", 0)

    async def main() -> list[str]:
        async with await recognizer().astream() as stream:
            wrong = stream.push(np.full(10, 1e9, np.float32))
            told, _ = await asyncio.gather(
                wrong, stream.push(sentence(ONE)), return_exceptions=True
            )
            assert isinstance(told, AudioError)
            left = asyncio.create_task(stream.push(sentence(THREE)))
            after = asyncio.create_task(stream.push(sentence(TWO)))
            await asyncio.sleep(0)
            left.cancel()
            await after
            await stream.close()
            return texts([event async for event in stream.events()])

    assert asyncio.run(main()) == ["one", "two"]


def test_opening_that_is_cancelled_leaves_no_slot_behind() -> None:
    engine = Gated(2)
    rec = recognizer(engine)

    async def main() -> None:
        async with await rec.astream() as stream:
            await stream.push(np.zeros(SIZE, np.float32))
            await asyncio.to_thread(engine.entered.wait, LONG_S)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(rec.astream(), 0.05)
            engine.gate.set()
            while rec.free_slots != 1:
                await asyncio.sleep(0.001)

    asyncio.run(main())
    assert rec.free_slots == 2


def test_a_task_that_listens_learns_that_another_one_left() -> None:
    async def main() -> None:
        rec = recognizer()
        async with await rec.astream() as stream:

            async def listen() -> list[Event]:
                return [event async for event in stream.events()]

            listening = asyncio.create_task(listen())
            await asyncio.sleep(0)
        events = await asyncio.wait_for(listening, LONG_S)
        assert isinstance(events[-1], End)

    asyncio.run(main())


def test_saving_wakes_whoever_waits_for_what_it_brought() -> None:
    rec = recognizer()
    with rec.stream() as stream:
        stream.push(spoken([3, 0, ONE, 3, 3], SIZE))
        until(lambda: stream.waiting_s == 0)
        rec.scheduler.call(stream.poll)  # when the step that took the last frame is over
        found: list[Event | None] = []
        thread = threading.Thread(target=lambda: found.append(stream.next_event(LONG_S)))
        thread.start()

        def ask_and_save() -> None:  # the driver cannot do what is due before `save` does
            stream.finalize()
            assert stream._sessions.first.pending() is not None
            stream._setup.copy(stream._given_now())

        rec.scheduler.call(ask_and_save)
        thread.join(LONG_S)
        assert isinstance(found[0], Finalized)


@contextmanager
def conversions(on_one: Callable[[int], object] = lambda number: None) -> Generator[list[int]]:
    """How many pieces of sound were converted at once, each time; `on_one` gets its number."""
    taken: list[int] = []
    convert = FrameSource.convert

    def counted(source: FrameSource, enough: int, most: int | None = None) -> None:
        before = source.num_taken
        convert(source, enough, most)
        taken.append(source.num_taken - before)
        on_one(len(taken))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FrameSource, "convert", counted)
        yield taken


def waits_all_the_time(session: WordSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if others always came before it."""
    monkeypatch.setattr(session, "pending", lambda most: 0)


def test_sound_that_waits_is_converted_little_by_little_for_a_save(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Others are stepped in between, and what is pushed meanwhile is not saved."""
    words = [ONE, TWO, THREE] * 9
    rec = recognizer()
    with rec.stream() as stream:
        session = stream._sessions.first
        waits_all_the_time(session, monkeypatch)
        stream.push(sentence(*words))
        num_waiting = len(session._inbox.items)
        with conversions(lambda number: number == 3 and stream.push(sentence(TWO))) as taken:
            state = stream.save()
    assert num_waiting > 10
    assert taken == [1] * num_waiting + [0]
    with rec.stream(state=state) as stream:
        stream.close()
        assert texts(list(stream.events())) == [tiny.PIECES[word].lstrip("▁") for word in words]


def test_so_it_is_for_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        rec = recognizer()
        async with await rec.astream() as stream:
            session = stream._sessions.first
            waits_all_the_time(session, monkeypatch)
            await stream.push(sentence(*[ONE, TWO, THREE] * 9))
            num_waiting = len(session._inbox.items)
            with conversions() as taken:
                assert await stream.save()
            assert taken == [1] * num_waiting + [0]

    asyncio.run(main())


@pytest.mark.parametrize("slow", ["pack_stream", "unpack_stream"])
def test_other_streams_are_heard_while_one_is_written_or_read(
    slow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A saved 1B has 200 MB: to write, sign and check them takes longer than a step."""
    rec = recognizer(slots=3)
    begun, go_on = threading.Event(), threading.Event()
    real = getattr(setup, slow)

    def held(*given: Any) -> Any:
        begun.set()
        assert go_on.wait(LONG_S)
        return real(*given)

    with rec.stream() as stream, rec.stream() as other, ThreadPoolExecutor(1) as pool:
        stream.push(sentence(ONE)[:SIZE])
        saved = stream.save()
        monkeypatch.setattr(setup, slow, held)
        reading = slow == "unpack_stream"
        job = pool.submit(partial(rec.stream, state=saved) if reading else stream.save)
        assert begun.wait(LONG_S)
        try:
            other.push(sentence(TWO))
            other.close()
            assert texts(list(other.events())) == ["two"]
            stream.push(sentence(ONE)[SIZE:])  # does not wait either
            stream.close()
            assert texts(list(stream.events())) == ["one"]
        finally:
            go_on.set()
        resumed = job.result()
        with rec.stream(state=resumed) if isinstance(resumed, bytes) else resumed as again:
            again.push(sentence(ONE)[SIZE:])
            again.close()
            assert texts(list(again.events())) == ["one"]


def test_a_listener_that_fails_ends_its_own_stream() -> None:
    rec = recognizer(slots=2)
    with rec.stream() as stream, rec.stream() as other:
        stream.listen(lambda: 1 // 0)
        stream.push(sentence(ONE))
        with pytest.raises(ZeroDivisionError):
            list(stream.events())
        other.push(sentence(TWO))
        other.close()
        assert texts(list(other.events())) == ["two"]


Asked = Callable[[LiveStream], object]


@pytest.mark.parametrize(
    "ask",
    [
        lambda stream: stream.save(),
        lambda stream: stream.push_silence(40.0),
        lambda stream: stream.push(noise(2_000, 0), timeout=LONG_S),
        lambda stream: stream.next_event(),
        lambda stream: list(stream.events()),
        lambda stream: stream.next_event(LONG_S),
    ],
    ids=["save", "push_silence", "push", "next_event", "events", "with timeout"],
)
def test_a_listener_is_refused_what_would_wait_for_its_own_caller(ask: Asked) -> None:
    rec = recognizer(slots=2)
    with rec.stream() as stream, rec.stream() as other:
        refused: list[str] = []

        def listener() -> None:
            stream.poll()
            if not refused:
                with pytest.raises(StreamError, match="another thread") as caught:
                    ask(stream)
                refused.append(str(caught.value))

        stream.listen(listener)
        stream.push(sentence(ONE))
        until(lambda: bool(refused))
        stream.listen(None)
        assert stream.duration == pytest.approx(len(sentence(ONE)) / 1_000), "nothing was taken"
        stream.push(sentence(TWO))
        for one in (stream, other):
            one.close()
            events = list(one.events())
            assert isinstance(events[-1], End)
            assert texts(events)[-1:] == (["two"] if one is stream else [])


def test_a_listener_may_do_what_waits_for_nobody() -> None:
    engine = EchoEngine()
    with recognizer(engine).stream() as stream:
        done: list[object] = []

        def listener() -> None:
            if not done:
                stream.push_silence(0.1)
                stream.set_decoding(DecodingOptions(num_codebooks=3))
                stream.push(noise(1, 0), timeout=0)
                with pytest.raises(QueueFull):
                    stream.push(noise(5_000, 0), timeout=0)
                done.append(stream.next_event(0))
                stream.close()

        stream.listen(listener)
        stream.push(sentence(ONE))
        assert isinstance(list(stream.events())[-1], End)
        assert done
        assert engine.decoding[0] == (None, 3)


def test_a_listener_that_stops_a_stream_that_is_stopped_hangs_nobody() -> None:
    two = StreamOptions(channel="each", format=AudioFormat(channels=2, channels_axis=1))
    rec = recognizer(slots=2)
    with rec.stream(two) as stream:
        stream.listen(stream.stop)
        thread = threading.Thread(target=stream.stop, daemon=True)
        thread.start()
        thread.join(LONG_S)
        assert not thread.is_alive()
        assert isinstance(list(stream.events())[-1], End)
    assert rec.free_slots == 2


def test_a_listener_may_wait_for_a_lock_under_which_another_stream_is_pushed() -> None:
    rec = recognizer(slots=2)
    first, second = rec.stream(), rec.stream()
    lock, holds, listens = threading.Lock(), threading.Event(), threading.Event()

    def listener() -> None:
        listens.set()
        with lock:
            pass

    def push() -> None:
        with lock:
            holds.set()
            listens.wait(LONG_S)
            second.push(sentence(ONE))

    driver = rec.scheduler._driver  # pyright: ignore[reportPrivateUsage]
    first.listen(listener)
    until(lambda: driver._rests)  # pyright: ignore[reportPrivateUsage]
    threads = [threading.Thread(target=one, daemon=True) for one in (push, first.stop)]
    for thread in threads:
        thread.start()
        holds.wait(LONG_S)
    for thread in threads:
        thread.join(LONG_S)
        assert not thread.is_alive()
    assert first.done
    second.close()
    assert texts(list(second.events())) == ["one"]


def test_a_stream_that_is_dropped_calls_no_other_one() -> None:
    """The garbage collector may drop it in a thread that holds the other stream's lock."""
    rec = recognizer(slots=2)
    first, second = rec.stream(), [rec.stream()]
    (binding,) = first._setup.bindings  # pyright: ignore[reportPrivateUsage]
    called: list[threading.Thread] = []
    first.listen(lambda: called.append(threading.current_thread()))

    def drop() -> None:
        with first._lock:  # pyright: ignore[reportPrivateUsage]
            # As `stop` of another thread does, of which the driver does not know yet.
            rec.scheduler._sessions.leave(binding, cut=True)  # pyright: ignore[reportPrivateUsage]
            second.clear()

    waiting = threading.Thread(target=lambda: list(first.events()), daemon=True)
    dropping = threading.Thread(target=drop, daemon=True)
    waiting.start()
    until(lambda: first._waits)  # pyright: ignore[reportPrivateUsage]
    dropping.start()
    for thread in (dropping, waiting):
        thread.join(LONG_S)
        assert not thread.is_alive()
    assert called
    assert dropping not in called
    assert rec.free_slots == 2


def test_an_event_loop_that_is_gone_stops_nobody() -> None:
    rec = recognizer()
    first = rec.stream()
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(rec.astream(timeout=LONG_S))
    loop.run_until_complete(asyncio.sleep(0.05))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(waiting)
    loop.close()
    first.stop()
    with rec.stream() as second:
        second.push(sentence(TWO))
        second.close()
        assert texts(list(second.events())) == ["two"]


@pytest.mark.parametrize("is_rung", [False, True], ids=["closed", "closed with news"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_task_that_listens_in_a_loop_that_was_closed_holds_no_slot(is_rung: bool) -> None:
    rec = recognizer()

    async def listen() -> AsyncStream:
        stream = await rec.astream(StreamOptions(recovery=None))
        task = asyncio.ensure_future(anext(aiter(stream.events())))
        await asyncio.sleep(0)
        assert not task.done()
        return stream

    def push_to_a_closed_loop() -> None:
        loop = asyncio.new_event_loop()
        stream = loop.run_until_complete(listen())
        for i in range(20):  # each of which would wake the task
            if i == is_rung:  # so that what wakes it waits in the loop, or finds it closed
                loop.close()
            assert stream.push_now(sentence(ONE))
            until(lambda: texts(stream.poll()) == ["one"])
        bells = [one() for one in list(_BELLS.values())]
        assert sum(0 if bell is None else len(bell._rung) for bell in bells) <= is_rung

    push_to_a_closed_loop()
    until(lambda: gc.collect() >= 0 and rec.free_slots == 1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_task_that_waits_for_a_slot_in_a_loop_that_was_closed_gets_none() -> None:
    rec = recognizer()

    async def ask() -> None:
        task = asyncio.ensure_future(rec.astream(timeout=LONG_S))
        while not rec.scheduler._openings.waiting:  # pyright: ignore[reportPrivateUsage]
            await asyncio.sleep(0.001)
        assert not task.done()

    with rec.stream():
        loop = asyncio.new_event_loop()
        loop.run_until_complete(ask())
        loop.close()
        del loop
        gc.collect()
    until(lambda: rec.free_slots == 1)
    rec.scheduler.call(lambda: None)  # another round
    assert rec.free_slots == 1


def test_a_failure_can_be_raised_any_number_of_times() -> None:
    with recognizer(Fails()).stream() as stream:
        stream.push(sentence(ONE, TWO))
        until(lambda: stream.done)
        stream.poll()
        depths: list[int] = []
        for _ in range(20):
            with pytest.raises(RuntimeError, match="out of memory") as caught:
                stream.poll()
            depths.append(len(caught.traceback))
        assert depths[0] == depths[-1]


def test_a_task_that_is_cancelled_leaves_its_slot() -> None:
    rec = recognizer()

    async def listen() -> None:
        async with await rec.astream() as stream:
            async for _ in stream.events():
                pass

    async def main() -> None:
        task = asyncio.create_task(listen())
        while rec.free_slots:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert rec.free_slots == 1

    asyncio.run(main())


def test_a_recording_and_who_speaks_share_every_step() -> None:
    """While a file goes through the same slots, each step is short, and in the same calls."""

    class Permitted(EchoEngine):
        def __init__(self) -> None:
            super().__init__(2)
            self.permits, self.entered = threading.Semaphore(0), threading.Semaphore(0)

        def step(
            self,
            slots: Sequence[int],
            frames: NDArray[np.float32],
            counts: Sequence[int] | None = None,
        ) -> StepOutput:
            self.entered.release()
            assert self.permits.acquire(timeout=LONG_S)
            return super().step(slots, frames, counts)

    engine = Permitted()
    rec = recognizer(engine)
    plain = StreamOptions(recovery=None)
    with rec.stream(plain) as stream:
        result = rec.transcription(
            np.zeros(3_000 * SIZE, np.float32), plain, rate=CONFIG.sample_rate
        )
        thread = threading.Thread(target=result.result)
        thread.start()
        for _ in range(30):
            assert engine.entered.acquire(timeout=LONG_S)
            stream.push(np.zeros(SIZE, np.float32))
            until(lambda: result._recording.sessions[0].waiting_s > 1.0)
            engine.permits.release()
        assert engine.entered.acquire(timeout=LONG_S)
        steps = list(engine.steps)
        engine.permits.release(10_000)
        stream.close()
        list(stream.events())
        thread.join(LONG_S)
    # Also before anybody speaks: who is there may do so at the next moment.
    assert steps[:30] == [{1: 2}] + [{0: 1, 1: 1}] * 29


def test_channels_live_side_by_side_and_end_once() -> None:
    options = StreamOptions(channel="each", format=AudioFormat(channels=2), recovery=None)
    rec = recognizer(slots=2)
    both = np.stack([sentence(ONE, ONE), sentence(TWO, THREE)], axis=1)
    with rec.stream(options) as stream:
        for at in range(0, len(both), 70):
            stream.push(both[at : at + 70])
        stream.finalize("t")
        stream.close()
        events = list(stream.events())
        assert stream.poll() == []
    for channel, said in enumerate((["one", "one"], ["two", "three"])):
        ours = [event for event in events if getattr(event, "channel", None) == channel]
        assert texts(ours) == said
        assert [event.tag for event in ours if isinstance(event, Finalized)] == ["t"]
    assert [event for event in events if isinstance(event, End)] == [End(pytest.approx(0.8))]
    assert isinstance(events[-1], End)
    assert rec.free_slots == 2


def test_all_channels_are_asked_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    options = StreamOptions(channel="each", format=AudioFormat(channels=2), recovery=None)

    def is_full(*_: object) -> None:
        raise QueueFull("many wait")

    engine = EchoEngine(slots=2)
    with recognizer(engine).stream(options) as stream:
        stream.push(np.stack([sentence(ONE), sentence(TWO)], axis=1))
        with monkeypatch.context() as patch:
            patch.setattr(stream._sessions.each[1], "check_finalize", is_full)
            patch.setattr(stream._sessions.each[1], "check_change", is_full)
            with pytest.raises(QueueFull):
                stream.finalize("t")
            with pytest.raises(QueueFull):
                stream.set_decoding(DecodingOptions(num_codebooks=3))
        stream.close()
        assert not any(isinstance(event, Finalized) for event in stream.events())
    assert set(engine.decoding.values()) == {(None, None)}


@pytest.mark.parametrize(
    ("channels", "pushed"), [(1, (2,)), (2, (3,)), (2, (1,)), (2, ())], ids=str
)
def test_more_or_fewer_channels_than_are_heard_are_refused_and_the_stream_goes_on(
    channels: int, pushed: tuple[int, ...]
) -> None:
    format = AudioFormat(channels=channels, channels_axis=1)
    options = StreamOptions(channel="each", format=format, recovery=None)
    rec = recognizer(slots=2)
    good = np.stack([sentence(word) for word in (ONE, TWO)[:channels]], axis=1)
    bad = np.zeros((len(good), *pushed), np.float32)
    count = pushed[0] if pushed else 1
    said = (
        f"{count} channels were pushed, but this stream transcribes {channels} .*channels={count}"
    )
    with rec.stream(options) as stream:
        stream.push(good)
        before_s = stream.duration
        with pytest.raises(AudioError, match=said):
            stream.push(bad)
        assert stream.duration == before_s
        stream.push_silence(0.16)
        stream.push(good)
        stream.close()
        assert sorted(texts(list(stream.events()))) == sorted(2 * ["one", "two"][:channels])

    async def main() -> None:
        async with await rec.astream(options) as stream:
            with pytest.raises(AudioError, match=said):
                await stream.push(bad)
            with pytest.raises(AudioError, match=said):
                stream.push_now(bad)

    asyncio.run(main())


def test_a_channel_that_a_recording_loses_is_silent_in_a_stream() -> None:
    """Chunks of a recording are not checked."""
    options = StreamOptions(channel="each", format=AudioFormat(channels=2), recovery=None)
    rec, rate = recognizer(slots=2), CONFIG.sample_rate
    both = np.stack([sentence(ONE), sentence(TWO)], axis=1)

    async def main() -> list[Event]:
        async with await rec.astream(options) as stream:
            for chunk in (*array_chunks(both, rate), *array_chunks(sentence(THREE), rate)):
                await stream.push_chunk(chunk)
            await stream.close()
            return [event async for event in stream.events()]

    events = asyncio.run(main())
    words = [(event.text, event.channel) for event in events if isinstance(event, Word)]
    assert sorted(words) == [("one", 0), ("three", 0), ("two", 1)]


def pushed(
    options: StreamOptions, chunks: Sequence[Chunk], resumed_at: int | None = None
) -> list[Event]:
    """The events of a recording's chunks; the stream is saved and resumed before one of them."""
    rec, plain = recognizer(), StreamOptions(recovery=None)

    async def main() -> list[Event]:
        stream, found = await rec.astream(options), list[Event]()
        for number, chunk in enumerate(chunks):
            if number == resumed_at:
                saved = await stream.save()
                stream.stop()
                stream = await rec.astream(plain, state=saved, timeout=LONG_S)
            await stream.push_chunk(chunk)
        await stream.close()
        try:
            async for event in stream.events():
                found.append(event)
        except AudioError:
            found.append(End(-1.0))
        return found

    return asyncio.run(main())


@pytest.mark.parametrize("resumed_at", [None, 1])
def test_one_channel_that_a_recording_loses_is_silent_in_a_stream(resumed_at: int | None) -> None:
    options, rate = StreamOptions(channel=1, recovery=None), CONFIG.sample_rate
    (both,) = array_chunks(np.stack([sentence(ONE), sentence(TWO)], axis=1), rate)
    (mono,) = array_chunks(sentence(THREE), rate)
    events = pushed(options, [both, mono, both, mono], resumed_at)
    assert texts(events) == ["two", "two"]
    assert isinstance(end := events[-1], End)
    assert end.duration == pytest.approx(20 * 0.08)
    (warning,) = (event for event in events if isinstance(event, StreamWarning))
    assert (warning.kind, warning.time) == ("damaged", pytest.approx(5 * 0.08))
    assert "has 1 channel from 0.40 s on: those from 1 on are silent" in warning.message
    assert pushed(options, [mono, both]) == [End(-1.0)], "it was never there"


def test_words_before_a_place_that_cannot_be_converted_are_not_lost() -> None:
    rate = CONFIG.sample_rate
    (good,) = array_chunks(sentence(ONE, TWO), rate)
    bad = Chunk(np.full(SIZE, 100.0, np.float32), rate, SIZE, 1)
    events = pushed(StreamOptions(recovery=None), [good, bad, good])
    assert texts(events) == ["one", "two"]
    assert events[-1] == End(-1.0)


def test_the_end_of_one_channel_is_not_the_end() -> None:
    """Whoever waits for the next event waits on, in threads and in tasks."""

    options = StreamOptions(channel="each", format=AudioFormat(channels=2), recovery=None)
    both = np.stack([sentence(ONE, ONE), sentence(TWO, THREE)], axis=1)

    rec = recognizer(slots=2)
    with rec.stream(options) as stream:
        hold_back(stream._sessions.each[1], stream._sessions.first)
        stream.push(both)
        stream.close()
        events = list(stream.events())
        assert texts(events) == ["one", "one", "two", "three"]
        assert isinstance(events[-1], End)
        assert stream.next_event(LONG_S) is None

    async def main() -> list[Event]:
        async with await rec.astream(options) as stream:
            hold_back(stream._sessions.each[1], stream._sessions.first)
            await stream.push(both)
            await stream.close()
            return [event async for event in stream.events()]

    events = asyncio.run(main())
    assert texts(events) == ["one", "one", "two", "three"]
    assert sum(isinstance(event, End) for event in events) == 1


def test_channels_are_saved_and_gone_on_with_together() -> None:
    options = StreamOptions(channel="each", format=AudioFormat(channels=2), recovery=None)
    both = np.stack([sentence(ONE, ONE), sentence(TWO, THREE)], axis=1)
    with recognizer(slots=2).stream(options) as stream:
        stream.push(both[: 4 * SIZE])
        state = stream.save()
    others = (
        StreamOptions(turns=True),
        StreamOptions(channel=1),
        StreamOptions(channel="each", format=AudioFormat(channels=3)),
    )
    for wanted in (None, options, *others):
        with recognizer(slots=2).stream(wanted, state=state) as stream:
            with pytest.raises(AudioError, match="transcribes 2 channels separately"):
                stream.push(both[:, 0])
            stream.push(both[4 * SIZE :])
            stream.close()
            events = list(stream.events())
        for channel, said in enumerate((["one", "one"], ["two", "three"])):
            assert texts([e for e in events if getattr(e, "channel", None) == channel]) == said
        turns = {e.channel for e in events if isinstance(e, TurnStart)}
        assert turns == ({0, 1} if wanted is others[0] else set())


@pytest.mark.parametrize("channel", ["mix", 1])
def test_what_was_not_heard_by_channels_is_not_when_it_goes_on(channel: Any) -> None:
    both = np.stack([sentence(ONE, TWO)] * 2, axis=1)
    with recognizer().stream(StreamOptions(channel=channel)) as stream:
        stream.push(both[: 4 * SIZE])
        state = stream.save()
    each = StreamOptions(channel="each", format=AudioFormat(channels=2), turns=True)
    with recognizer().stream(each, state=state) as stream:
        stream.push(both[4 * SIZE :])
        stream.close()
        events = list(stream.events())
    assert texts(events) == ["one", "two"]
    assert {e.channel for e in events if isinstance(e, TurnStart | Word)} == {None}


def test_a_signed_state_is_taken_with_its_key_alone() -> None:
    rec = recognizer()
    rec.state_key = b"secret"
    with rec.stream() as stream:
        stream.push(sentence(ONE))
        state = stream.save()
    with rec.stream(state=state) as stream:
        stream.close()
        assert texts(list(stream.events())) in (["one"], [])
    for key, message in ((b"other", "another key"), (None, "is signed")):
        rec.state_key = key
        with pytest.raises(StreamError, match=message):
            rec.stream(state=state)
    assert rec.free_slots == 1


@pytest.mark.parametrize("wrong", ["1", "a", math.nan, [1.0], True, object()])
def test_a_timeout_that_is_no_number_is_refused_at_every_door(wrong: Any) -> None:
    rec = recognizer()
    sound = np.zeros(SIZE, np.float32)
    said = "timeout must be a number of seconds"
    for call in (
        lambda: rec.stream(timeout=wrong),
        lambda: rec.transcribe(sound, rate=1_000, timeout=wrong),
        lambda: rec.transcription(sound, rate=1_000, timeout=wrong),
    ):
        with pytest.raises(InputError, match=said):
            call()
    with rec.stream() as stream:
        for call in (
            lambda: stream.push(sound, timeout=wrong),
            lambda: stream.push_silence(0.1, timeout=wrong),
            lambda: stream.next_event(wrong),
        ):
            with pytest.raises(InputError, match=said):
                call()
        assert stream.duration == 0

    async def main() -> None:
        with pytest.raises(InputError, match=said):
            await rec.astream(timeout=wrong)
        async with await rec.astream() as stream:
            for call in (
                lambda: stream.push(sound, timeout=wrong),
                lambda: stream.push_silence(0.1, timeout=wrong),
                lambda: stream.next_event(wrong),
            ):
                with pytest.raises(InputError, match=said):
                    await call()
            assert stream.duration == 0

    asyncio.run(main())
    assert rec.free_slots == 1


@pytest.mark.parametrize("timeout", [None, math.inf, 1e300, 10**30, np.float32(LONG_S), 0, -1])
def test_a_timeout_may_be_any_number_or_none(timeout: Any) -> None:
    rec = recognizer()
    waits = timeout is None or timeout > 0

    def push_to_who_waits() -> None:
        until(lambda: stream._waits or not waits)
        stream.push(sentence(ONE, TWO), timeout=timeout)
        stream.close()

    with rec.stream(timeout=timeout) as stream:
        thread = threading.Thread(target=push_to_who_waits)
        thread.start()
        if waits:
            assert isinstance(stream.next_event(timeout), Word)
        thread.join(LONG_S)
        until(lambda: stream.done)
        assert texts(stream.poll())[-1:] == ["two"]
        assert stream.next_event(timeout) is None

    async def main() -> None:
        async with await rec.astream(timeout=timeout) as stream:
            await stream.push(sentence(ONE, TWO), timeout=timeout)
            await stream.close()
            while not stream.done:
                await asyncio.sleep(0.001)
            assert isinstance(await stream.next_event(timeout), Word)

    asyncio.run(main())


@pytest.mark.parametrize("wrong", ["1", None, True, [1.0]])
def test_silence_of_no_number_of_seconds_is_refused(wrong: Any) -> None:
    with recognizer().stream() as stream:
        with pytest.raises(AudioError, match="must be a number of seconds"):
            stream.push_silence(wrong)
        stream.push_silence(np.float32(0.5))  # pyright: ignore[reportArgumentType]
        assert stream.duration == 0.5


def test_what_cannot_be_called_does_not_listen() -> None:
    with recognizer().stream() as stream:
        with pytest.raises(InputError, match="call must be a function"):
            stream.listen(3)  # pyright: ignore[reportArgumentType]
        stream.push(sentence(ONE))
        stream.close()
        assert texts(list(stream.events())) == ["one"]


@pytest.mark.parametrize("key", ["abc", 3, bytearray(b"abc")])
def test_a_key_that_is_no_bytes_is_refused_when_it_is_set(key: Any) -> None:
    rec = recognizer()
    rec.state_key = b"known"
    with pytest.raises(InputError, match="state_key must be bytes or None"):
        rec.state_key = key
    assert rec.state_key == b"known"


def test_a_task_has_the_calls_that_a_thread_has() -> None:
    for name, call in inspect.getmembers(LiveStream, inspect.isfunction):
        if name.startswith("_") or name == "listen":  # tasks need no callback
            continue
        same = inspect.signature(getattr(AsyncStream, name)).parameters
        assert list(same) == list(inspect.signature(call).parameters), name


def test_a_task_fetches_the_next_event_or_none_in_time() -> None:
    async def main() -> None:
        async with await recognizer().astream() as stream:
            for timeout in (0, 0.01):
                assert await stream.next_event(timeout) is None
            fetching = asyncio.ensure_future(stream.next_event())
            await stream.push(sentence(ONE, TWO))
            assert isinstance(await fetching, Word)
            await stream.close()
            kinds = [type(event) async for event in stream.events()]
            assert kinds == [WordEnd, Word, WordEnd, End]
            assert await stream.next_event() is None

    asyncio.run(main())


def test_a_failure_that_is_a_timeout_is_told_as_a_failure() -> None:
    class TimesOut(EchoEngine):
        def step(self, *args: Any) -> StepOutput:
            raise TimeoutError("of the engine")

    async def main() -> None:
        stream = await recognizer(TimesOut()).astream(StreamOptions(max_queue_s=0.5))
        with pytest.raises(TimeoutError, match="of the engine"):
            await stream.push(noise(60, 0), timeout=LONG_S)
        with pytest.raises(TimeoutError, match="of the engine"):
            await stream.next_event(LONG_S)

    asyncio.run(main())


def test_a_task_waits_for_room_as_long_as_it_says() -> None:
    async def main() -> None:
        engine = Gated()
        stream = await recognizer(engine).astream(StreamOptions(max_queue_s=1.0))
        await stream.push(noise(12, 0))
        first = asyncio.ensure_future(stream.push(noise(12, 0)))
        await asyncio.sleep(0)
        for push in (
            stream.push(noise(1, 0), timeout=0.02),
            stream.push_silence(0.1, timeout=0.02),
        ):
            with pytest.raises(QueueFull, match=r"may: push it again later"):
                await push
        engine.gate.set()
        await first
        while stream.waiting_s > 0:
            await asyncio.sleep(0.001)
        engine.gate.clear()
        with pytest.raises(QueueFull, match=r"The first \d\.\d\d s of this push were acc"):
            await stream.push(noise(60, 0), timeout=0.02)
        engine.gate.set()
        await stream.close()
        assert isinstance([event async for event in stream.events()][-1], End)

    asyncio.run(main())


def test_what_is_shown_of_a_stream_is_what_was_heard() -> None:
    rec = recognizer()
    with rec.stream() as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream._sessions.first, "pending", lambda most: 0)
        stream.push_silence(3.0)
        assert repr(stream) == f"<LiveStream 0.0 s heard, {stream.waiting_s:.1f} s wait>"
