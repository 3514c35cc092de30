"""Whatever is pushed, asked for or left lying: memory, queues and waits have bounds."""

import gc
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

import kiku
from kiku.audio import AudioInput, Chunk
from kiku.errors import QueueFull
from kiku.options import StreamOptions
from kiku.scheduler.rounds import Rounds
from kiku.stream import Finalized
from tests.guarantees.conftest import LONG_S, texts

Load = Callable[..., kiku.Recognizer]
DIGITS = ["seven", "three", "zero", "one", "nine", "four"]


def held_up(rec: kiku.Recognizer) -> threading.Event:
    """Until the event is set, nothing is stepped."""
    go = threading.Event()
    rec.scheduler.submit(lambda: go.wait(LONG_S))
    return go


def test_one_large_push_waits_for_room(load: Load, digits: NDArray[np.float32]) -> None:
    rec = load()
    stream = rec.stream(StreamOptions(max_queue_s=2.0))
    most: list[float] = []
    stream.listen(lambda: most.append(stream.waiting_s))
    stream.push(np.tile(digits, 4))
    stream.close()
    assert texts(stream) == DIGITS * 4
    assert max(most) <= 2.0 + 1 / 12.5 + rec.config.silence_prefix_s + 2.0


@pytest.mark.parametrize("rate", [24_000, 48_000, 192_000])
def test_a_large_push_is_converted_in_pieces_between_which_others_are_heard(
    load: Load, monkeypatch: pytest.MonkeyPatch, rate: int
) -> None:
    rec = load(2)
    converted: list[float] = [0.0]
    make, feed = Rounds.make, AudioInput.feed

    def noted_make(rounds: Rounds) -> int:
        converted.append(0.0)
        return make(rounds)

    def noted_feed(self: AudioInput, chunk: Chunk) -> NDArray[np.float32]:
        converted[-1] += chunk.seconds
        return feed(self, chunk)

    monkeypatch.setattr(Rounds, "make", noted_make)
    monkeypatch.setattr(AudioInput, "feed", noted_feed)
    with rec.stream() as other, rec.stream() as stream:
        stream.push(np.zeros(20 * rate, np.float32), rate=rate)
        stream.close()
        assert texts(stream) == []
        assert sum(converted) == pytest.approx(20.0)
        assert max(converted) <= 4 / 12.5 + 0.25 + 1e-6
        assert other.waiting_s == 0.0


def test_what_never_fits_is_refused_at_once(load: Load) -> None:
    stream = load().stream(StreamOptions(max_queue_s=2.0, when_full="error"))
    with pytest.raises(QueueFull, match="pushed at once"):
        stream.push(np.zeros(24_000 * 3, np.float32))
    with pytest.raises(QueueFull, match="pushed at once"):
        stream.push_silence(3_600)
    assert stream.duration == 0


def test_a_push_that_finds_no_room_in_time_says_what_it_took(load: Load) -> None:
    rec = load()
    stream = rec.stream(StreamOptions(max_queue_s=2.0))
    go = held_up(rec)
    with pytest.raises(QueueFull, match=r"first 2\.00 s"):
        stream.push_silence(10, timeout=0.3)
    with pytest.raises(QueueFull, match="are waiting to be processed"):
        stream.push(np.zeros(240, np.float32), timeout=0.0)
    assert stream.duration == pytest.approx(2.0)
    go.set()
    stream.stop()


def test_an_hour_of_silence_is_heard_in_bounded_memory(load: Load) -> None:
    stream = load().stream(StreamOptions(max_queue_s=5.0, recovery=None))
    most: list[int] = []
    session = stream._sessions.first  # pyright: ignore[reportPrivateUsage]
    stream.listen(lambda: most.append(session._source.frames.num_samples))  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(QueueFull):
        stream.push_silence(3_600, timeout=1.0)
    assert max(most) < 24_000 * 20
    stream.stop()


def test_equal_finalizes_are_one(load: Load, digits: NDArray[np.float32]) -> None:
    rec = load()
    stream = rec.stream()
    go = held_up(rec)
    stream.push(digits[:72_000])
    for tag in (None, None, "a", "a", "b"):
        stream.finalize(tag)
    stream.finalize("c", cut=True)
    go.set()
    stream.push(digits[72_000:])
    stream.close()
    tags = [event.tag for event in stream.events() if isinstance(event, Finalized)]
    assert tags == [None, "a", "b", "c"]


def test_a_finalize_that_is_asked_for_again_and_again_is_never_refused(load: Load) -> None:
    rec = load()
    stream = rec.stream()
    go = held_up(rec)
    for _ in range(100):
        stream.finalize("a")
    go.set()
    stream.close()
    assert [event.tag for event in stream.events() if isinstance(event, Finalized)] == ["a"]


def test_too_many_finalizes_are_refused_and_answered_ones_count_no_more(load: Load) -> None:
    rec = load()
    stream = rec.stream()
    go = held_up(rec)
    for i in range(32):
        stream.push_silence(0.01)
        stream.finalize(str(i))
    with pytest.raises(QueueFull, match="32 finalizes"):
        stream.finalize("too many")
    go.set()
    answered: list[str | None] = []
    while len(answered) < 32:
        event = stream.next_event(LONG_S)
        assert event is not None
        if isinstance(event, Finalized):
            answered.append(event.tag)
    assert answered == [str(i) for i in range(32)]
    stream.finalize("again")
    stream.stop()


def test_events_that_nobody_fetches_hold_the_stream_up(
    load: Load, digits: NDArray[np.float32]
) -> None:
    rec = load()
    stream = rec.stream(StreamOptions(max_events=4))
    stream.push(digits)
    stream.close()
    deadline = time.monotonic() + LONG_S
    while not stream._sessions.has_news or stream.waiting_s > 5.0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)
    assert stream.waiting_s > 0.5
    assert texts(stream) == DIGITS


def test_forgotten_streams_give_their_slots_back(load: Load, digits: NDArray[np.float32]) -> None:
    rec = load(2)
    for _ in range(6):
        stream = rec.stream(timeout=LONG_S)
        stream.push(digits[:48_000])
        del stream
        gc.collect()
    deadline = time.monotonic() + LONG_S
    while rec.free_slots < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_forgotten_transcription_gives_its_slot_back(
    load: Load, digits: NDArray[np.float32]
) -> None:
    rec = load()
    job = rec.transcription(np.tile(digits, 20), rate=24_000)
    next(iter(job))
    assert rec.free_slots == 0
    del job
    gc.collect()
    assert rec.free_slots == 1
