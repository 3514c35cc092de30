"""Frames of many live streams are gathered for a step; of few, nothing waits."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from kiku import Recognizer
from kiku.scheduler.rounds import GATHER_FROM, GATHER_S
from kiku.stream import Finalized
from tests import tiny
from tests.fakes import EchoEngine

CONFIG = tiny.model_config()


def test_only_many_quick_live_streams_are_gathered() -> None:
    engine = EchoEngine(GATHER_FROM)
    recognizer = Recognizer(engine, CONFIG, tiny.vocabulary(), name="echo")
    scheduler = recognizer.scheduler
    streams = [recognizer.stream() for _ in range(GATHER_FROM - 1)]
    try:
        assert scheduler._rounds.gather_s == 0.0
        streams.append(recognizer.stream())
        scheduler.steps.seconds = GATHER_S / 2
        assert scheduler._rounds.gather_s == GATHER_S
        scheduler.steps.seconds = GATHER_S  # a step that takes so long gathers them by itself
        assert scheduler._rounds.gather_s == 0.0
        scheduler.steps.seconds = 0.0
        for stream in streams:
            stream.push(np.zeros(CONFIG.frame_size, np.float32))
            stream.close()
        for stream in streams:
            assert [type(event).__name__ for event in stream.events()] == ["End"]
    finally:
        for stream in streams:
            stream.stop()


def test_what_is_gathered_goes_in_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = EchoEngine(GATHER_FROM)
    recognizer = Recognizer(engine, CONFIG, tiny.vocabulary(), name="echo")
    streams = [recognizer.stream() for _ in range(GATHER_FROM)]
    gathers, all_is_given = threading.Event(), threading.Event()

    def gather(seconds: float) -> None:
        assert seconds == GATHER_S
        gathers.set()
        assert all_is_given.wait(60)

    clock = SimpleNamespace(monotonic=time.monotonic, perf_counter=time.perf_counter, sleep=gather)
    monkeypatch.setattr("kiku.scheduler.driver.time", clock)
    streams[0].push(np.zeros(CONFIG.frame_size, np.float32))
    assert gathers.wait(60)
    num_before = len(engine.steps)
    for stream in streams:
        stream.push(np.zeros(CONFIG.frame_size, np.float32))
    for stream in streams:
        stream.close()
    all_is_given.set()
    for stream in streams:
        assert [type(event).__name__ for event in stream.events()] == ["End"]
    assert len(engine.steps[num_before]) == GATHER_FROM


def test_steps_are_told() -> None:
    recognizer = Recognizer(EchoEngine(), CONFIG, tiny.vocabulary(), name="echo")
    scheduler = recognizer.scheduler
    told: list[tuple[int, float]] = []
    began: list[float | None] = []
    scheduler.steps.on_step = lambda frames, seconds: told.append((frames, seconds))
    encode = recognizer.scheduler.engine.backend.encode
    scheduler.engine.backend.encode = lambda *how: (
        began.append(scheduler.round_began) or encode(*how)
    )
    start = time.perf_counter()
    transcript = recognizer.transcribe(np.zeros(60 * CONFIG.frame_size, np.float32), rate=1_000)
    took = time.perf_counter() - start
    assert sum(frames for frames, _ in told) >= transcript.duration * CONFIG.frame_rate
    assert all(seconds > 0 for _, seconds in told)
    assert sum(seconds for _, seconds in told) <= took
    assert len(began) == len(told)
    assert all(at is not None and start < at < start + took for at in began)
    assert scheduler.round_began is None


def test_what_hangs_beside_a_step_is_seen_too() -> None:
    recognizer = Recognizer(EchoEngine(), CONFIG, tiny.vocabulary(), name="echo")
    scheduler = recognizer.scheduler
    began: list[float | None] = []
    with recognizer.stream() as stream:
        session = stream._sessions.first  # pyright: ignore[reportPrivateUsage]
        pending = session.pending
        session.pending = lambda most: began.append(scheduler.round_began) or pending(most)
        stream.push(np.zeros(4 * CONFIG.frame_size, np.float32))
        stream.close()
        list(stream.events())
    assert began
    assert None not in began


def test_a_look_ahead_is_a_step_too() -> None:
    """Whoever asks whether the model comes forward must see one that hangs in a finalize."""
    recognizer = Recognizer(EchoEngine(), CONFIG, tiny.vocabulary(), name="echo")
    scheduler, backend = recognizer.scheduler, recognizer.scheduler.engine.backend
    began: list[float | None] = []
    encode = backend.encode
    backend.encode = lambda *how: began.append(scheduler.round_began) or encode(*how)
    with recognizer.stream() as stream:
        stream.push(np.zeros(4 * CONFIG.frame_size, np.float32))
        stream.finalize("now")
        stream.close()
        events = list(stream.events())
    assert [one.tag for one in events if isinstance(one, Finalized)] == ["now"]
    assert len(began) > 1
    assert None not in began
    assert scheduler.round_began is None
