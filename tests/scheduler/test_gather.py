"""Frames of many live streams are gathered for a step; of few, nothing waits."""

import numpy as np

import kiku
from kiku.scheduler.scheduler import GATHER_FROM, GATHER_S


def test_only_many_quick_live_streams_are_gathered() -> None:
    recognizer = kiku.load("demo", slots=GATHER_FROM)
    scheduler = recognizer.scheduler
    streams = [recognizer.stream() for _ in range(GATHER_FROM - 1)]
    try:
        assert scheduler.gather_s == 0.0
        streams.append(recognizer.stream())
        scheduler._step_s = GATHER_S / 2
        assert scheduler.gather_s == GATHER_S
        scheduler._step_s = GATHER_S  # a step that takes so long gathers them by itself
        assert scheduler.gather_s == 0.0
        scheduler._step_s = 0.0
        for stream in streams:
            stream.push(np.zeros(1_920, np.float32))
            stream.close()
        for stream in streams:
            assert [type(event).__name__ for event in stream.events()] == ["End"]
    finally:
        for stream in streams:
            stream.stop()


def test_steps_are_told() -> None:
    recognizer = kiku.load("demo")
    told: list[tuple[int, float]] = []
    recognizer.scheduler.on_step = lambda frames, seconds: told.append((frames, seconds))
    transcript = recognizer.transcribe("examples/digits.wav")
    assert sum(frames for frames, _ in told) >= transcript.duration * 12.5
    assert all(seconds > 0 for _, seconds in told)
    assert recognizer.scheduler.step_began is None
