"""What a step takes of each session: live frames at once, recordings where there is room."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from kiku import Recognizer, StreamOptions
from kiku.scheduler import Binding
from kiku.scheduler import pacing as room
from kiku.scheduler.binding import SlotOptions
from kiku.scheduler.pacing import Pacing
from tests import tiny
from tests.fakes import EchoEngine

FRAME_S = 0.08


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def binding(slot: int, *, live: bool) -> Binding:
    return Binding(None, None, slot, SlotOptions(), live=live)  # pyright: ignore


def chosen(
    pacing: Pacing, waiting: Sequence[tuple[Binding, int]], bindings: Sequence[Binding] = ()
) -> dict[int, int]:
    """Frames by slot."""
    everybody = bindings or [one for one, _ in waiting]
    num_live = sum(one.live for one in everybody)
    return {one.slot: n for one, n in pacing.choose(waiting, everybody, num_live)}


@pytest.mark.parametrize("live", [False, True])
def test_recordings_among_themselves_take_whole_blocks(live: bool) -> None:
    pacing = Pacing(FRAME_S, 8)
    waiting = [(binding(i, live=live and i == 0), n) for i, n in enumerate((20, 3, 8))]
    assert chosen(pacing, waiting[: 1 if live else 3]) == ({0: 8} if live else {0: 8, 1: 3, 2: 8})


def test_many_streams_have_room_in_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    pacing = Pacing(FRAME_S, 8)
    waiting = [(binding(i, live=False), 8) for i in range(3)]
    monkeypatch.setattr(room, "STEP_FRAMES", 9)
    assert chosen(pacing, waiting) == {0: 3, 1: 3, 2: 3}
    monkeypatch.setattr(room, "STEP_FRAMES", 2)
    assert chosen(pacing, waiting) == {0: 1, 1: 1, 2: 1}


def test_beside_live_frames_backlogs_move_by_little_and_in_turn() -> None:
    pacing = Pacing(FRAME_S, 8, Clock())
    live = [(binding(i, live=True), room.LIVE_FRAMES) for i in range(8)]
    backlogs = [(binding(8, live=False), 20), (binding(9, live=True), room.LIVE_FRAMES + 1)]
    backlogs += [(binding(10, live=False), 1)]
    of_live = dict.fromkeys(range(8), room.LIVE_FRAMES)
    assert chosen(pacing, [*backlogs, *live]) == {**of_live, 8: 1, 9: 1}
    assert chosen(pacing, [*backlogs, *live]) == {**of_live, 8: 1, 10: 1}
    assert chosen(pacing, [*backlogs, *live]) == {**of_live, 9: 1, 10: 1}
    assert chosen(pacing, [*backlogs, *live[:3]]) == {**dict.fromkeys(range(3), 2), 8: 1}


def test_a_recording_fills_the_time_until_the_next_live_frame() -> None:
    clock = Clock()
    pacing = Pacing(FRAME_S, 16, clock)
    live, recording = binding(0, live=True), binding(1, live=False)
    both = [live, recording]
    chosen(pacing, [(live, 1)], both)  # the next is expected at 100.08
    clock.now = 100.019
    assert chosen(pacing, [(recording, 20)], both) == {1: 3}, "a quarter of a frame's time each"
    clock.now += 3 * 0.004
    pacing.stepped(3)
    for _ in range(20):  # it learns slowly that frames cost 4 ms
        chosen(pacing, [(recording, 20)], both)
        clock.now += 0.004
        pacing.stepped(1)
        clock.now = 100.019
    assert chosen(pacing, [(recording, 20)], both) == {1: 15}
    clock.now = 100.019 + 0.5  # at once that they cost half a second
    pacing.stepped(1)
    clock.now = 100.019
    assert chosen(pacing, [(recording, 20)], both) == {}
    assert pacing.again_at == pytest.approx(100.09)


def test_a_live_stream_that_is_silent_is_not_waited_for() -> None:
    clock = Clock()
    pacing = Pacing(FRAME_S, 16, clock)
    live, recording = binding(0, live=True), binding(1, live=False)
    both = [live, recording]
    chosen(pacing, [(live, 1)], both)
    clock.now = 100.08 + 0.005
    assert chosen(pacing, [(recording, 20)], both) == {}, "it may come at any moment"
    clock.now = pacing.again_at
    assert chosen(pacing, [(recording, 20)], both) == {1: 2}, "half of a frame's time, no more"


def test_it_clings_to_the_earliest_frame() -> None:
    """One that came late, or was taken late, tells little of when the next will come."""
    clock = Clock()
    pacing = Pacing(FRAME_S, 16, clock)
    live, other = binding(0, live=True), binding(1, live=False)
    for late in (0.0, 0.01, 0.005):
        clock.now += late
        chosen(pacing, [(live, 1)], [live, other])
        clock.now += FRAME_S - late
    assert live.due_at == pytest.approx(clock.now + 0.004)
    clock.now -= 0.001
    chosen(pacing, [(live, 1)], [live, other])
    assert live.due_at == pytest.approx(clock.now + FRAME_S)


def test_a_recording_comes_to_its_end_beside_one_who_speaks_and_falls_silent() -> None:
    engine = EchoEngine(2)
    rec = Recognizer(engine, tiny.model_config(), tiny.vocabulary(), name="echo")
    size = rec.config.frame_size
    stopped = threading.Event()
    with rec.stream(StreamOptions(recovery=None)) as live:

        def speak() -> None:
            while not stopped.is_set():
                live.push(np.zeros(size, np.float32))
                stopped.wait(0.005)

        speaker = threading.Thread(target=speak)
        speaker.start()
        samples = np.zeros(200 * size, np.float32)
        assert rec.transcribe(samples, rate=rec.config.sample_rate).duration == pytest.approx(16.0)
        stopped.set()
        speaker.join()
        assert rec.transcribe(samples, rate=rec.config.sample_rate).duration == pytest.approx(16.0)
    assert any(len(step) == 2 for step in engine.steps), "they share steps"
