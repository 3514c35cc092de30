"""What a step takes of each session: live frames at once, recordings where there is room."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from kiku import Recognizer, StreamOptions
from kiku.scheduler import Binding
from kiku.scheduler import pacing as room
from kiku.scheduler.binding import Member, Opening
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
    return Binding(None, slot, Member(None), Opening([], live=live))  # pyright: ignore


def chosen(
    pacing: Pacing, waiting: Sequence[tuple[Binding, int]], bindings: Sequence[Binding] = ()
) -> dict[int, int]:
    """Frames by slot."""
    everybody = bindings or [one for one, _ in waiting]
    num_live = sum(one.live for one in everybody)
    return {one.slot: n for one, n in pacing.choose(waiting, everybody, num_live)}


def test_without_live_sessions_all_take_whole_blocks() -> None:
    pacing = Pacing(FRAME_S, 8)
    waiting = [(binding(i, live=False), n) for i, n in enumerate((20, 3, 8))]
    assert chosen(pacing, waiting) == {0: 8, 1: 3, 2: 8}


def test_alone_a_live_session_takes_whole_blocks() -> None:
    assert chosen(Pacing(FRAME_S, 8), [(binding(0, live=True), 20)]) == {0: 8}


def test_many_streams_have_room_in_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    pacing = Pacing(FRAME_S, 8)
    waiting = [(binding(i, live=False), 8) for i in range(3)]
    monkeypatch.setattr(room, "STEP_FRAMES", 9)
    assert chosen(pacing, waiting) == {0: 3, 1: 3, 2: 3}
    monkeypatch.setattr(room, "STEP_FRAMES", 2)
    assert chosen(pacing, waiting) == {0: 1, 1: 1, 2: 1}


def test_beside_live_frames_recordings_move_by_little_and_in_turn() -> None:
    pacing = Pacing(FRAME_S, 8, Clock())
    live = [(binding(i, live=True), room.LIVE_FRAMES) for i in range(16)]
    recordings = [(binding(i, live=False), 20) for i in (16, 17, 18)]
    of_live = dict.fromkeys(range(16), room.LIVE_FRAMES)
    assert chosen(pacing, [*recordings, *live]) == {**of_live, 16: 1, 17: 1}
    assert chosen(pacing, [*recordings, *live]) == {**of_live, 16: 1, 18: 1}
    assert chosen(pacing, [*recordings, *live]) == {**of_live, 17: 1, 18: 1}
    assert chosen(pacing, [*recordings, *live[:3]]) == {**dict.fromkeys(range(3), 2), 16: 1}
    assert chosen(pacing, [recordings[0], *live]) == {**of_live, 16: 2}


def test_after_a_long_step_recordings_take_one_frame() -> None:
    clock = Clock()
    pacing = Pacing(FRAME_S, 8, clock)
    live = [(binding(i, live=True), 1) for i in range(16)]
    waiting = [(binding(16, live=False), 20), *live]

    def frames_of_recording(step_s: float) -> int:
        """How many it takes in a step after one of so many seconds."""
        pacing.choose(waiting, [one for one, _ in waiting], 16)
        clock.now += step_s
        pacing.stepped(18)
        return chosen(pacing, waiting)[16]

    assert frames_of_recording(room.BUSY * FRAME_S - 0.001) == 2
    assert frames_of_recording(room.BUSY * FRAME_S + 0.001) == 1
    assert frames_of_recording(0.001) == 2


def test_who_has_fallen_behind_catches_up_by_a_few_frames() -> None:
    pacing = Pacing(FRAME_S, 8, Clock())
    waiting = [(binding(0, live=True), 1), (binding(1, live=True), 20), (binding(2, live=False), 9)]
    assert chosen(pacing, waiting) == {0: 1, 1: room.BEHIND_FRAMES, 2: 1}


def test_a_recording_fills_the_time_until_the_next_live_frame() -> None:
    clock = Clock()
    pacing = Pacing(FRAME_S, 16, clock)
    live, recording = binding(0, live=True), binding(1, live=False)
    both = [live, recording]

    def step(seconds: float, num_frames: int) -> dict[int, int]:
        """What is chosen so long before the live frame, and takes 2 ms and 1 ms a frame."""
        clock.now = 100.08 - seconds
        taken = chosen(pacing, [(recording, num_frames)], both)
        if taken:
            clock.now += 0.002 + 0.001 * taken[1]
            pacing.stepped(taken[1])
        return taken

    chosen(pacing, [(live, 1)], both)  # the next is expected at 100.08
    assert step(0.081, 20) == {1: 2}, "a quarter of a frame's time each, as long as none is known"
    assert step(0.081, 20) == {1: 16}, "those two took 4 ms"
    assert step(0.023, 20) == {1: 8}, "17 ms: no more than eight times a frame's 2 ms"
    assert step(0.025, 20) == {1: 16}, "18 ms"
    assert step(0.006, 20) == {1: 2}
    assert step(0.004, 20) == {}, "a lone frame may cost as much as two, 4 ms"
    assert pacing.again_at == pytest.approx(100.09)
    assert step(0.006, 1) == {1: 1}
    assert step(0.0041, 20) == {1: 1}, "3 ms"
    assert step(0.0035, 20) == {}


def test_one_standstill_holds_up_recordings_for_a_while_only() -> None:
    clock = Clock()
    pacing = Pacing(FRAME_S, 16, clock)
    live, recording = binding(0, live=True), binding(1, live=False)
    both = [live, recording]
    chosen(pacing, [(live, 1)], both)
    clock.now = 100.01
    assert chosen(pacing, [(recording, 1)], both) == {1: 1}
    clock.now += 0.5
    pacing.stepped(1)
    refused = 0
    for _ in range(100):
        clock.now = 100.01
        if taken := chosen(pacing, [(recording, 1)], both):
            break
        refused += 1
    assert taken == {1: 1}
    assert 10 < refused < 60, "not at once"
    clock.now += 0.03
    pacing.stepped(1)
    clock.now = 100.01
    assert chosen(pacing, [(recording, 1)], both) == {1: 1}, (
        "what is cheap again is forgotten slowly"
    )


def test_what_steps_cost_is_told_apart_by_their_size() -> None:
    costs = room.StepCosts(1.0)
    assert costs.room(3.9, 16) == 2
    assert costs.room(0.9, 16) == 0
    costs.learn(5, 4.0)  # as eight
    assert costs.room(4.0, 100) == 8
    assert costs.room(3.9, 100) == 0, "fewer may cost as much"
    assert costs.room(8.0, 100) == 16, "twice as many cost at most twice as much"
    assert costs.room(8.0, 15) == 8
    costs.learn(1, 1.0)
    assert costs.room(3.9, 100) == 2
    assert costs.room(2.0, 100) == 2
    costs.learn(8, 1.0)
    assert costs.room(3.79, 100) == 2, "a cheaper step is believed by and by"
    assert costs.room(3.81, 100) == 8
    costs.fade()
    assert costs.room(3.62, 100) == 8


def test_a_live_stream_that_is_late_may_still_come_and_one_that_is_silent_may_not() -> None:
    clock = Clock()
    pacing = Pacing(FRAME_S, 16, clock)
    live, recording = binding(0, live=True), binding(1, live=False)
    both = [live, recording]
    chosen(pacing, [(live, 1)], both)
    clock.now = 100.08 + 0.005
    assert chosen(pacing, [(recording, 20)], both) == {}, "it is waited for"
    clock.now = pacing.again_at + 0.001
    assert chosen(pacing, [(recording, 20)], both) == {1: 1}, "it may come at any moment"
    clock.now = 100.08 + 0.26
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
        for _ in range(100):  # until a frame of the speaker comes while the recording has some
            heard = rec.transcribe(samples, rate=rec.config.sample_rate)
            assert heard.duration == pytest.approx(16.0)
            if shares := any(len(step) == 2 for step in list(engine.steps)):
                break
        stopped.set()
        speaker.join()
        assert rec.transcribe(samples, rate=rec.config.sample_rate).duration == pytest.approx(16.0)
    assert shares, "they share steps"
