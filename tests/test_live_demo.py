"""Live streams on the demo model: the examples always, and people that it never heard where their
recordings are at hand."""

import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import kiku
from kiku import (
    AudioFormat,
    Event,
    Finalized,
    Recognizer,
    Recovery,
    StreamOptions,
    StreamWarning,
    TurnEnd,
    TurnStart,
    Word,
)
from kiku.audio import as_mono, read_chunks
from kiku.engine import SlotEngine, StepOutput
from kiku.evaluate.aligning import word_errors
from kiku.stream import LoopPolicy, StallPolicy
from tests.fakes import Driven
from tests.test_demo import RATE, sound_of, strings_of_people

DEFAULT = Recovery()
LONG_S = 120.0
"""Nothing here takes so long, unless it never comes."""


def until(ready: Callable[[], bool]) -> None:
    ends = time.monotonic() + LONG_S
    while not ready():
        assert time.monotonic() < ends
        time.sleep(0.005)


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return kiku.load("demo", engine="onnx", slots=8, threads=1)


@pytest.fixture(scope="module")
def people(shared_data: Path) -> list[NDArray[np.float32]]:
    """Half a minute to a minute of people each."""
    strings = [sound for sound, _ in strings_of_people(shared_data, 24)]
    return [np.concatenate(strings[i : i + 6]) for i in range(0, 24, 6)]


def texts(events: Sequence[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Word)]


def heard(
    rec: Recognizer,
    sound: NDArray[np.float32],
    points: Sequence[int],
    *,
    recovery: Recovery | None = DEFAULT,
) -> list[Event]:
    """Live, with a finalize at each of the samples `points`."""
    stream = Driven(rec, StreamOptions(recovery=recovery))
    events: list[Event] = []
    at = 0
    for point in [*sorted(points), len(sound)]:
        stream.push(sound[at:point])
        at = point
        events += stream.run()
        if point < len(sound):
            stream.finalize(str(point))
    stream.close()
    return events + stream.run()


@pytest.fixture(scope="module")
def plainly(
    recognizer: Recognizer, people: list[NDArray[np.float32]]
) -> Callable[[int], list[str]]:
    """`plainly(i)`: the words of one of `people`, without recovery."""
    return cache(lambda i: texts(heard(recognizer, people[i], [], recovery=None)))


def test_twenty_finalizes_a_minute_change_no_word_of_the_examples(
    recognizer: Recognizer, repo_root: Path
) -> None:
    files = [repo_root / "examples" / name for name in ("digits.wav", "answers.mp3")]
    sound = np.concatenate([sound_of(path) for path in files] * 2)
    points = np.random.default_rng(2).integers(0, len(sound), 24)
    with_them = heard(recognizer, sound, points.tolist())
    assert texts(with_them) == texts(heard(recognizer, sound, []))
    assert sum(isinstance(event, Finalized) for event in with_them) == 24


def test_twenty_finalizes_a_minute_change_no_word_of_people(
    recognizer: Recognizer, people: list[NDArray[np.float32]]
) -> None:
    for seed, sound in enumerate(people[:2]):
        count = round(20 * len(sound) / RATE / 60)
        assert count >= 8
        points = np.random.default_rng(seed).integers(0, len(sound), count)
        events = heard(recognizer, sound, points.tolist())
        assert texts(events) == texts(heard(recognizer, sound, []))
        starts = [event.start for event in events if isinstance(event, Word)]
        assert starts == sorted(starts)


def test_a_finalize_brings_the_last_word_half_a_second_early(
    recognizer: Recognizer, repo_root: Path
) -> None:
    """Cut right behind the last word, when its text has not come."""
    sound = sound_of(repo_root / "examples/digits.wav")
    last = recognizer.transcribe(sound, rate=24_000).words[-1]
    loud = np.flatnonzero(np.abs(sound) > 0.05 * np.abs(sound).max())
    with recognizer.stream() as stream:
        stream.push(sound[: loud[-1] + RATE // 5])
        before: list[Event] = []
        until(lambda: stream.waiting_s < 0.08)
        before += stream.poll()
        stream.finalize()
        while True:
            event = stream.next_event(LONG_S)
            assert event is not None
            before.append(event)
            if isinstance(event, Finalized):
                break
    assert texts(before)[-1] == last.text
    assert event.open_word is None


def test_people_that_speak_at_once_are_heard_as_if_each_were_alone(
    recognizer: Recognizer, people: list[NDArray[np.float32]]
) -> None:
    sounds = [sound[: 15 * RATE] for sound in people]
    expected = [result.text.split() for result in recognizer.transcribe(sounds, rate=24_000)]
    assert sum(map(len, expected)) > 30
    found: dict[int, list[str]] = {}

    def talk(i: int) -> None:
        random = np.random.default_rng(i)
        with recognizer.stream(timeout=LONG_S) as stream:
            at = 0
            while at < len(sounds[i]):
                size = int(random.integers(1, RATE))
                stream.push(sounds[i][at : at + size])
                at += size
            stream.close()
            found[i] = texts(list(stream.events()))

    threads = [threading.Thread(target=talk, args=(i,)) for i in range(len(sounds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(len(sounds))] == expected


def test_a_stream_that_moves_to_another_process_loses_no_word(
    recognizer: Recognizer, people: list[NDArray[np.float32]]
) -> None:
    sound = people[0]
    whole = recognizer.transcribe(sound, rate=24_000).words
    cut = len(sound) * 2 // 5
    with recognizer.stream() as stream:
        stream.push(sound[:cut])
        until(lambda: stream.waiting_s <= 0.5)
        first = stream.poll()
        state = stream.save()
    with kiku.load("demo", engine="onnx", threads=1).stream(state=state) as stream:
        stream.push(sound[cut:])
        stream.close()
        rest = list(stream.events())
    found = [event for event in [*first, *rest] if isinstance(event, Word)]
    assert [(w.text, w.start, w.end) for w in found] == [(w.text, w.start, w.end) for w in whole]


def test_a_telephone_is_heard(recognizer: Recognizer, repo_root: Path) -> None:
    """8 kHz and mu-law, in packets of 20 ms, on one of two channels."""
    import av

    chunks = read_chunks(str(repo_root / "examples/digits.wav"), 8_000)
    sound = np.concatenate(list(chunks))
    codec = av.CodecContext.create("pcm_mulaw", "w")
    codec.sample_rate, codec.layout, codec.format = 8_000, "mono", "s16"
    pcm = (np.clip(sound, -1, 1) * 32767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
    frame.sample_rate = 8_000
    voice = b"".join(bytes(packet) for packet in codec.encode(frame))
    both = np.stack([np.full(len(voice), 0xFF, np.uint8), np.frombuffer(voice, np.uint8)], axis=1)
    written = AudioFormat(encoding="mulaw", channels=2)
    with recognizer.stream(StreamOptions(format=written, channel=1)) as stream:
        for at in range(0, len(both), 160):
            stream.push(both[at : at + 160].tobytes())
        stream.close()
        events = list(stream.events())
    expected = recognizer.transcribe(str(repo_root / "examples/digits.wav")).text.split()
    assert texts(events) == expected
    assert not [event for event in events if isinstance(event, StreamWarning)]
    assert as_mono(sound).size == len(voice)


def test_turns_of_people_begin_and_end(
    recognizer: Recognizer, people: list[NDArray[np.float32]]
) -> None:
    pause = np.zeros(3 * RATE, np.float32)
    with recognizer.stream(StreamOptions(turns=True)) as stream:
        for sound in people:
            stream.push(sound[: 4 * RATE])
            stream.push(pause)
        stream.close()
        events = list(stream.events())
    starts = [event.time for event in events if isinstance(event, TurnStart)]
    ends = [event.time for event in events if isinstance(event, TurnEnd)]
    assert len(starts) == len(ends) >= len(people)
    for i in range(len(people)):
        first, last = i * 7.0, i * 7.0 + 4.0
        assert any(first - 0.5 <= start <= last for start in starts)
        assert any(last < end <= last + 3.2 for end in ends), "told in the pause behind it"


def test_listening_again_without_need_changes_hardly_a_word(
    recognizer: Recognizer,
    people: list[NDArray[np.float32]],
    plainly: Callable[[int], list[str]],
) -> None:
    eager = Recovery((StallPolicy(after_s=0.8, share=0.2),))
    wrong = total = redecodes = 0
    for i, sound in enumerate(people):
        plain = plainly(i)
        events = heard(recognizer, sound, [], recovery=eager)
        redecodes += sum(isinstance(event, StreamWarning) for event in events)
        total += len(plain)
        wrong += word_errors(plain, texts(events))
    assert total > 80
    assert redecodes >= 3
    assert wrong / total < 0.05


class Faulty:
    """The demo's engine with a decoder that can only write certain tokens from some frame on, until
    it is made to decode again."""

    def __init__(self, engine: SlotEngine, at: int, tokens: Sequence[int]) -> None:
        self._engine, self._at, self._tokens = engine, at, tokens
        self._calls = self.redecodes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def pick(self, logits: NDArray[np.float32]) -> int:
        self._calls += 1
        if self._calls > self._at and not self.redecodes:
            return self._tokens[self._calls % len(self._tokens)]
        return int(np.argmax(logits))

    def redecode(
        self, slot: int, frames: int, *, most: int | None = None
    ) -> tuple[StepOutput, int]:
        self.redecodes += 1
        return self._engine.redecode(slot, frames, most=most)


def of_people(
    recognizer: Recognizer,
    sound: NDArray[np.float32],
    engine: Faulty,
    recovery: Recovery | None,
) -> list[Event]:
    """What is said of a sound by a decoder that goes wrong."""
    rec = Recognizer(
        engine,  # pyright: ignore[reportArgumentType]
        recognizer.config,
        recognizer.vocabulary,
        name="faulty",
    )
    stream = Driven(rec, StreamOptions(recovery=recovery), picker=engine.pick)
    stream.push(sound)
    stream.close()
    return stream.run()


def test_a_decoder_that_freezes_on_people_is_woken(
    recognizer: Recognizer,
    people: list[NDArray[np.float32]],
    plainly: Callable[[int], list[str]],
) -> None:
    pad = recognizer.config.pad_id
    recovery = Recovery((StallPolicy(after_s=3.0, share=0.3),))
    for i, sound in enumerate(people[:2]):
        good = plainly(i)
        frozen = Faulty(recognizer.scheduler.engine, 100, [pad])
        lost = texts(of_people(recognizer, sound, frozen, None))
        assert len(lost) < 0.6 * len(good)
        woken = Faulty(recognizer.scheduler.engine, 100, [pad])
        events = of_people(recognizer, sound, woken, recovery)
        kinds = [event.kind for event in events if isinstance(event, StreamWarning)]
        assert "frozen" in kinds
        assert word_errors(good, texts(events)) <= 0.12 * len(good)


def test_a_decoder_that_loops_on_people_is_brought_back(
    recognizer: Recognizer,
    people: list[NDArray[np.float32]],
    plainly: Callable[[int], list[str]],
) -> None:
    pieces = recognizer.vocabulary.encode("stop")
    loop = [recognizer.config.word_start_id, *pieces]
    recovery = Recovery((LoopPolicy(),))
    for i, sound in enumerate(people[:2]):
        good = plainly(i)
        forever = texts(
            of_people(recognizer, sound, Faulty(recognizer.scheduler.engine, 100, loop), None)
        )
        assert forever[-50:] == ["stop"] * 50
        events = of_people(
            recognizer, sound, Faulty(recognizer.scheduler.engine, 100, loop), recovery
        )
        assert [event.kind for event in events if isinstance(event, StreamWarning)].count(
            "loop"
        ) == 1
        found = texts(events)
        assert found.count("stop") < good.count("stop") + 20
        half = len(good) // 2
        assert word_errors(good[-half:], found[-half:]) <= 0.12 * half
