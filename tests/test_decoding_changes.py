"""Decoding that changes in the middle of a live stream: what is picked, as words and by frames."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import kiku
from kiku import AudioFormat, DecodingOptions, Hotword, LiveStream, Recognizer, StreamOptions, Word
from kiku.decoding.hotwords import PhraseTrie
from kiku.engine import StepOutput
from kiku.errors import ConfigError, QueueFull
from tests import tiny
from tests.engine.engines import KINDS, make_engine
from tests.fakes import EchoEngine

CONFIG = tiny.model_config()
SIZE = CONFIG.frame_size
LONG_S = 30.0
"""Nothing here takes so long, unless it never comes."""


class Noting(EchoEngine):
    """Notes of each frame of a slot how many codebooks were read."""

    def __init__(self, slots: int = 1) -> None:
        super().__init__(slots)
        self.read: dict[int, list[int | None]] = {}

    def step(
        self,
        slots: Sequence[int],
        frames: NDArray[np.float32],
        counts: Sequence[int] | None = None,
    ) -> StepOutput:
        for slot, count in zip(slots, counts or [1] * len(slots), strict=True):
            self.read.setdefault(slot, []).extend([self.decoding[slot][1]] * count)
        return super().step(slots, frames, counts)


def echo(engine: EchoEngine) -> Recognizer:
    return Recognizer(engine, CONFIG, tiny.vocabulary(), name="echo")


def codebooks(number: int) -> DecodingOptions:
    return DecodingOptions(num_codebooks=number)


def ended(stream: LiveStream) -> list[kiku.Event]:
    stream.close()
    return list(stream.events())


def silence(num_frames: int, num_channels: int = 1) -> NDArray[np.float32]:
    return np.zeros((num_frames * SIZE, num_channels), np.float32)


def test_on_all_channels_it_holds_from_the_same_frame_on() -> None:
    engine = Noting(slots=2)
    rec = echo(engine)
    options = StreamOptions(channel="each", format=AudioFormat(channels=2), recovery=None)
    with rec.stream(options) as stream:

        def ask() -> None:  # in one round, so that all of it waits
            stream.push(silence(12, 2))
            stream.set_decoding(codebooks(2))
            stream.push(silence(8, 2))

        rec.scheduler.call(ask)
        ended(stream)
    for slot in (0, 1):
        assert engine.read[slot][:20] == [None] * 12 + [2] * 8


def test_a_saved_stream_changes_where_it_would_have() -> None:
    options = StreamOptions(decoding=codebooks(1), recovery=None)
    rec = echo(Noting())
    with rec.stream(options) as stream:

        def ask_and_save() -> bytes:
            stream.push(silence(6))
            stream.set_decoding(codebooks(2))
            stream.push(silence(3))
            return stream._setup.copy(stream._given_now()).to_bytes()  # pyright: ignore[reportPrivateUsage]

        state = rec.scheduler.call(ask_and_save)
    for wanted, after in (
        (None, 2),  # as the saved stream would
        (StreamOptions(recovery=None, decoding=codebooks(2)), 2),
        (StreamOptions(recovery=None, decoding=codebooks(3)), 3),
        (StreamOptions(recovery=None), None),
    ):
        engine = Noting()
        with echo(engine).stream(wanted, state=state) as stream:
            stream.push(silence(4))
            ended(stream)
        assert engine.read[0][:13] == [1] * 6 + [2] * 3 + [after] * 4
    with pytest.raises(ConfigError):
        rec.stream(StreamOptions(decoding=codebooks(30)), state=state)
    assert rec.free_slots == 1


def test_a_state_that_is_full_of_changes_takes_the_options_of_who_goes_on() -> None:
    rec = echo(Noting())
    with rec.stream() as stream:

        def ask_and_save() -> bytes:
            stream.push(silence(1))
            for i in range(32):
                stream.set_decoding(codebooks(1 + i % 2))
            with pytest.raises(QueueFull):
                stream.set_decoding(codebooks(3))
            return stream._setup.copy(stream._given_now()).to_bytes()  # pyright: ignore[reportPrivateUsage]

        state = rec.scheduler.call(ask_and_save)
    engine = Noting()
    with echo(engine).stream(StreamOptions(decoding=codebooks(4)), state=state) as stream:
        stream.push(silence(1))
        ended(stream)
    assert engine.read[0][:2] == [None, 4]


@pytest.mark.parametrize(
    ("wanted", "spelled"),
    [
        (None, [1]),  # as the saved stream was opened
        (StreamOptions(decoding=DecodingOptions(hotwords=["one"])), [1]),
        (StreamOptions(decoding=DecodingOptions(hotwords=["one", "two"])), [1, 2]),
        (StreamOptions(), [1]),
    ],
)
def test_who_goes_on_has_each_list_of_hotwords_spelled_once(
    wanted: StreamOptions | None, spelled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand phrases take a while: not once more for each channel."""
    options = StreamOptions(
        channel="each", format=AudioFormat(channels=2),
        decoding=DecodingOptions(hotwords=["one"]),
    )  # fmt: skip
    with echo(EchoEngine(2)).stream(options) as stream:
        stream.push(silence(3, 2))
        state = stream.save()
    counts: list[int] = []

    class Counted(PhraseTrie):
        def __init__(self, hotwords: Sequence[Hotword], *more: Any) -> None:
            counts.append(len(hotwords))
            super().__init__(hotwords, *more)

    monkeypatch.setattr("kiku.decoding.picker.PhraseTrie", Counted)
    with echo(EchoEngine(2)).stream(wanted, state=state) as stream:
        assert counts == spelled
        pickers = [binding.options.picker for binding in stream._setup.bindings]  # pyright: ignore[reportPrivateUsage]
        assert pickers[0] is None or pickers[0] is not pickers[1], "each remembers what it wrote"


CHANGES = [
    DecodingOptions(temperature=0.9, seed=3),
    DecodingOptions(temperature=0.9, seed=3, hotwords=["one", kiku.Hotword("two", boost=9.0)]),
    DecodingOptions(hotwords=["three"]),
    DecodingOptions(num_codebooks=2),
]


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=6, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_the_words_are_the_same_whether_the_sound_waits_or_was_heard(
    kind: str, data: st.DataObject
) -> None:
    rec = Recognizer(make_engine(kind), CONFIG, tiny.vocabulary(), name="tiny")
    sound = np.random.default_rng(4).standard_normal(40 * SIZE).astype(np.float32) * 0.3
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sound)), min_size=1, max_size=5)))
    wanted = [data.draw(st.sampled_from(CHANGES)) for _ in cuts]
    parts = np.split(sound, cuts)

    def said(waits: Sequence[bool]) -> list[tuple[str, float, float]]:
        with rec.stream(StreamOptions(decoding=CHANGES[0])) as stream:

            def ask(some: Any) -> None:  # in one round
                for part, options in some:
                    stream.push(part)
                    stream.set_decoding(options)

            asked: list[Any] = []
            for part, options, wait in zip(parts[:-1], wanted, waits, strict=True):
                asked.append((part, options))
                if not wait:
                    rec.scheduler.call(lambda some=asked: ask(some))
                    asked = []
                    rec.scheduler.drive(lambda: stream.waiting_s == 0, LONG_S)
            rec.scheduler.call(lambda: ask(asked))
            stream.push(parts[-1])
            return [(e.text, e.start, e.end) for e in ended(stream) if isinstance(e, Word)]

    alike = said([True] * len(cuts))
    assert said([False] * len(cuts)) == alike
    assert said(data.draw(st.lists(st.booleans(), min_size=len(cuts), max_size=len(cuts)))) == alike


@pytest.mark.parametrize("kind", KINDS)
def test_random_numbers_go_on_where_the_rest_changes(kind: str) -> None:
    rec = Recognizer(make_engine(kind), CONFIG, tiny.vocabulary(), name="tiny")
    sound = np.random.default_rng(4).standard_normal(60 * SIZE).astype(np.float32) * 0.3

    def said(change: DecodingOptions | None) -> list[tuple[str, float]]:
        with rec.stream(StreamOptions(decoding=CHANGES[0], recovery=None)) as stream:
            stream.push(sound[: 20 * SIZE])
            if change is not None:
                stream.set_decoding(change)
            stream.push(sound[20 * SIZE :])
            return [(e.text, e.start) for e in ended(stream) if isinstance(e, Word)]

    assert said(replace(CHANGES[0], cooldown_s=1.0)) == said(None)
    assert said(replace(CHANGES[0], seed=4)) != said(None)


def test_a_task_that_asks_comes_behind_its_pushes_and_before_those_after_it() -> None:
    engine = Noting()
    rec = echo(engine)

    async def main() -> None:
        async with await rec.astream(StreamOptions(max_queue_s=0.8, recovery=None)) as stream:
            await asyncio.gather(  # the first does not fit into the queue
                stream.push(silence(25)),
                stream.set_decoding(codebooks(2)),
                stream.push(silence(5)),
                stream.set_decoding(codebooks(3)),
            )
            await stream.push(silence(5))
            await stream.close()
            async for _ in stream.events():
                pass

    asyncio.run(main())
    assert engine.read[0][:35] == [None] * 25 + [2] * 5 + [3] * 5


def test_nothing_is_waited_for() -> None:
    """While the model is busy, a change is taken."""
    engine = Noting()
    rec = echo(engine)
    go = threading.Event()
    went_on: list[bool] = []
    with rec.stream() as stream:
        rec.scheduler.submit(lambda: went_on.append(go.wait(LONG_S)))
        stream.push(silence(3))
        stream.set_decoding(codebooks(2))
        assert not went_on
        go.set()
        stream.push(silence(3))
        ended(stream)
    assert engine.read[0][:6] == [None] * 3 + [2] * 3
