"""Who drives, whose turn it is, and what a failure ends."""

import gc
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kiku import Recognizer, Recovery, StreamOptions, StreamWarning, Word, WordEnd
from kiku.engine import StepOutput
from kiku.errors import NoFreeSlot, StreamError
from kiku.scheduler import Binding, Member, Opening, Scheduler, SlotOptions, levels_of
from kiku.stream import Redecode, StreamStats, Truncate, WordSession
from kiku.stream.work import SlotAccess
from tests import tiny
from tests.fakes import Driven, EchoEngine, spoken

CONFIG = tiny.model_config()
SIZE = CONFIG.frame_size
ONE, TWO = (tiny.PIECES.index(p) for p in ("▁one", "▁two"))
PLAIN = StreamOptions(recovery=None)
LONG_S = 60.0
"""Nothing here takes so long, unless it never comes."""


class Frames:
    """A session of so many frames, which notes what it is told."""

    on_input: Callable[[], None] | None = None

    def __setattr__(self, name: str, value: object) -> None:
        """Whatever may make something pending is told to the scheduler."""
        object.__setattr__(self, name, value)
        if name in ("frames", "works", "is_closing", "asleep") and self.on_input is not None:
            self.on_input()

    def __init__(self, frames: int = 0, *, work: int = 0, closing: bool = False) -> None:
        self.frames, self.works, self.is_closing = frames, work, closing
        self.heard: list[int] = []
        self.told: list[str] = []
        self.done = False
        self.failure: BaseException | None = None
        self.wrong: dict[str, BaseException] = {}
        self.asleep = False
        self.on_work: Callable[[], None] = lambda: None

    def _note(self, what: str) -> None:
        self.told.append(what)
        if what in self.wrong:
            raise self.wrong[what]

    @property
    def work(self) -> "Frames | None":
        return self if self.works else None

    def pending(self, most: int = 0) -> "int | Frames | None":
        if "pending" in self.wrong:
            raise self.wrong["pending"]
        if self.asleep:
            return 0
        if self.works:
            return self
        return None if self.is_closing and not self.frames else self.frames

    def run(self, slot: SlotAccess, client: object, most: int | None) -> bool:
        self._note(f"work {most}")
        self.on_work()
        self.works -= 1
        return self.works > 0

    def take(self, num_frames: int) -> list[NDArray[np.float32]]:
        self._note(f"take {num_frames}")
        self.frames -= num_frames
        return [spoken([ONE] * num_frames, SIZE)]

    @property
    def may_go_on(self) -> bool:
        return True

    def begin(self, token: int, logprob: float) -> None:
        self._note("begin")

    def accept(
        self,
        tokens: Sequence[int],
        logprobs: Sequence[float],
        levels: Sequence[float],
        pauses: object,
    ) -> None:
        assert len(tokens) == len(logprobs) == len(levels)
        self.heard += tokens
        self._note("accept")

    def finish(self) -> None:
        self._note("finish")

    def cut(self) -> None:
        self._note("cut")

    def fail(self, error: BaseException) -> None:
        self.failure = error
        self._note("fail")

    def released(self) -> None:
        self.done = True
        self._note("released")


def until(ready: Callable[[], bool]) -> None:
    ends = time.monotonic() + LONG_S
    while not ready():
        assert time.monotonic() < ends
        time.sleep(0.001)


def opened(scheduler: Scheduler, *sessions: Frames, live: bool = False) -> list[Binding]:
    """They sleep until all have their slots: then nothing of them is in the round of opening."""
    for one in sessions:
        one.asleep = True
    found = scheduler.open(Opening([Member(one) for one in sessions], live=live))  # pyright: ignore
    for one in sessions:
        one.asleep = False
    return found


def idle(*sessions: Frames) -> Callable[[], bool]:
    return lambda: not any(one.frames or one.works for one in sessions)


def test_all_that_wait_go_in_one_step() -> None:
    engine = EchoEngine(3)
    scheduler = Scheduler(engine)
    sessions = [Frames(20), Frames(20), Frames(20)]
    opened(scheduler, *sessions)
    assert scheduler.drive(idle(*sessions))
    assert engine.steps == [{0: 8, 1: 8, 2: 8}] * 2 + [{0: 4, 1: 4, 2: 4}]
    assert all(one.heard == [ONE] * 20 for one in sessions)


def test_whoever_is_woken_by_two_threads_at_once_is_stepped_once() -> None:
    engine = EchoEngine(2)
    scheduler = Scheduler(engine)
    sessions = [Frames(3), Frames(3)]
    for binding in opened(scheduler, *sessions):
        scheduler._sessions._awake.append(binding)  # as if both had found it asleep
    scheduler.drive(idle(*sessions))
    assert engine.steps == [{0: 3, 1: 3}]
    assert all(one.heard == [ONE] * 3 for one in sessions)


def test_a_step_is_no_longer_than_one_wants() -> None:
    engine = EchoEngine()
    rec = Recognizer(engine, CONFIG, tiny.vocabulary(), name="echo", max_block=3)
    rec.tokens(np.zeros(9 * SIZE, np.float32))
    assert engine.steps == [{0: 3}, {0: 3}, {0: 2}]
    assert Scheduler(engine, 100).max_block == engine.max_block


def test_who_is_held_back_waits_for_the_time_and_who_was_not_chosen_for_the_next_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = EchoEngine(2)
    scheduler = Scheduler(engine)
    sessions = [Frames(2), Frames(2)]
    opened(scheduler, *sessions)
    choose = scheduler.steps.pacing.choose
    monkeypatch.setattr(scheduler.steps.pacing, "choose", lambda *_: [])
    scheduler.steps.pacing.again_at = 7.0
    assert scheduler._rounds.make() == 0
    assert not scheduler._sessions.has_more, "nothing has changed until then"
    assert scheduler._rounds.again_at == 7.0
    monkeypatch.setattr(scheduler.steps.pacing, "choose", lambda *how: choose(*how)[:1])
    assert scheduler._rounds.make() == 2
    assert scheduler._sessions.has_more
    assert engine.steps == [{0: 2}]
    monkeypatch.undo()
    scheduler.drive(idle(*sessions))
    assert engine.steps[-1] == {1: 2}


def test_work_of_who_speaks_comes_before_recordings() -> None:
    engine = EchoEngine(2)
    scheduler = Scheduler(engine)
    recording, live = Frames(6, work=2), Frames(0, work=3)
    order: list[str] = []
    live.on_work = lambda: order.append("live")
    recording.on_work = lambda: order.append("recording")
    for binding in opened(scheduler, recording, live):
        binding.live = binding.session is live
    scheduler.drive(idle(recording, live))
    assert order == ["live"] * 3 + ["recording"] * 2


def test_recordings_are_not_stepped_between_the_work_of_who_speaks() -> None:
    engine = EchoEngine(2)
    scheduler = Scheduler(engine)
    recording, live = Frames(6), Frames(0, work=3)
    steps: list[int] = []
    live.on_work = lambda: steps.append(len(engine.steps))
    for binding in opened(scheduler, recording, live):
        binding.live = binding.session is live
    scheduler.drive(idle(recording, live))
    assert steps == [0, 0, 0]
    assert recording.heard == [ONE] * 6


def test_work_is_done_for_one_at_a_time_and_in_turn() -> None:
    engine = EchoEngine(3)
    scheduler = Scheduler(engine)
    sessions = [Frames(0, work=3), Frames(0, work=2), Frames(6)]
    order: list[int] = []
    steps: list[int] = []
    for i, one in enumerate(sessions):
        one.on_work = lambda i=i: (order.append(i), steps.append(len(engine.steps)))[0]
    opened(scheduler, *sessions)
    scheduler.steps.pacing.max_block = 1
    scheduler.drive(idle(*sessions))
    assert order == [0, 1, 0, 1, 0]
    assert steps == [0, 1, 2, 3, 4], "a step of the others lies between"
    assert [told for told in sessions[0].told if "work" in told] == ["work 8"] * 3
    assert len(engine.steps) == 6, "a step goes with each piece of work"


def test_work_of_one_that_is_alone_is_done_whole() -> None:
    scheduler = Scheduler(EchoEngine(2))
    session = Frames(0, work=2)
    opened(scheduler, session)
    scheduler.drive(idle(session))
    assert session.told == ["begin", "work None", "work None"]


def test_rounds_by_hand_say_how_much_they_did() -> None:
    scheduler = Scheduler(EchoEngine(4))
    working, short, left = Frames(10), Frames(3), Frames()
    bindings = opened(scheduler, working, short, left)
    assert scheduler.step() == 8 + 3
    working.works = 1

    def leave() -> None:
        for one in bindings[1:]:
            scheduler.release(one)

    working.on_work = leave
    assert scheduler.step() == 1, "a piece of work, and nobody has frames"
    assert not left.done, "no slot is freed in the middle of a round"
    assert scheduler.step() == 2 + 2, "two slots, two frames"
    assert left.done
    assert scheduler.step() == 0
    scheduler.submit(lambda: None)
    scheduler.submit(lambda: None)
    scheduler.request(Opening([Member(Frames())]))  # pyright: ignore
    assert scheduler.step() == 1 + 1, "a call, an opening"
    assert scheduler.step() == 1, "the other call"
    working.is_closing = True
    assert scheduler.step() == 1, "an end"
    assert scheduler.free_slots == 3


def test_a_session_that_leaves_is_called_in_the_next_round_and_its_slot_counts_as_free() -> None:
    """The garbage collector may be the one that drops it, in a thread that holds any lock."""
    scheduler = Scheduler(EchoEngine(1))
    (binding,) = opened(scheduler, session := Frames())
    with scheduler._driver._changed:  # just now somebody is about to wait
        other = threading.Thread(target=scheduler.release, args=(binding,), kwargs={"cut": True})
        other.start()
        other.join(LONG_S)
        assert not other.is_alive()
    scheduler.release(binding)
    assert scheduler.free_slots == 1
    assert session.told == ["begin"]
    assert not session.done
    opening = Opening([Member(Frames())], timeout=None)  # pyright: ignore
    assert not scheduler.is_stuck(opening), "this thread held the slot"
    (second,) = scheduler.open(opening)
    assert session.told == ["begin", "cut", "released"]
    assert scheduler.free_slots == 0
    scheduler.release(second)
    scheduler.release(binding)
    assert scheduler.step() == 1
    assert scheduler.free_slots == 1


class Counting:
    """A picker that says how often it was asked."""

    calls = 0

    def __call__(self, logits: NDArray[np.float32]) -> int:
        self.calls += 1
        return int(logits.argmax())


def test_a_saved_slot_goes_on_with_the_picker_that_is_given() -> None:
    engine = EchoEngine(2)
    scheduler = Scheduler(engine)
    (old,) = opened(scheduler, Frames())
    session, picker = Frames(), Counting()
    member = Member(session, SlotOptions(picker, 2), saved=engine.check(engine.save(old.slot)))  # pyright: ignore
    (binding,) = scheduler.open(Opening([member]))
    assert session.told == [], "it has begun long ago"
    assert engine.decoding[binding.slot] == (picker, 2)
    assert picker.calls == 0, "what it would have drawn for the first token, it has drawn"
    session.frames = 3
    scheduler.drive(idle(session))
    assert picker.calls == 3


class AtFrame32:
    """Decides one thing once."""

    def __init__(self, action: Truncate | Redecode) -> None:
        self.action = action

    def decide(self, stats: StreamStats) -> Truncate | Redecode | None:
        return self.action if stats.num_frames == 32 else None


@pytest.mark.parametrize("action", [Truncate(20), Redecode(20, "loop", "it looped")])
def test_what_a_policy_decides_is_done_in_pieces_beside_others(action: Truncate | Redecode) -> None:
    engine = EchoEngine(2)
    rec = Recognizer(engine, CONFIG, tiny.vocabulary(), name="echo")
    one = Driven(rec, StreamOptions(recovery=Recovery([AtFrame32(action)])), padded=False)
    Driven(rec, PLAIN)
    sound = spoken([*[3] * 29, 0, ONE, *[3] * 5, 0, TWO, 3, 3], SIZE)
    one.push(sound)
    told = one.run()
    assert [event.text for event in told if isinstance(event, Word)] == ["one", "two"]
    warnings = [event.kind for event in told if isinstance(event, StreamWarning)]
    if isinstance(action, Truncate):
        assert engine.truncations == [(0, 20)] * 3, "8, 8 and 4 frames"
        assert warnings == []
    else:
        assert warnings == ["loop"]


def test_recordings_go_on_in_a_service_where_some_stream_always_has_work() -> None:
    scheduler = Scheduler(EchoEngine(3))
    ends, talk, recording = Frames(work=10**9), Frames(), Frames(1_000)
    members = [Member(ends), Member(talk)]  # pyright: ignore
    scheduler.open(Opening(members, live=True, driven=False))
    opened(scheduler, recording)
    for _ in range(20):
        talk.frames += 1
        scheduler._rounds.make()
    assert len(recording.heard) == 20, "a frame in each step of live frames"


def test_slots_are_given_in_the_order_of_asking() -> None:
    scheduler = Scheduler(EchoEngine(3))
    (first,) = opened(scheduler, Frames())
    two, one = (
        Opening([Member(Frames()) for _ in range(n)], timeout=None)  # pyright: ignore
        for n in (3, 1)
    )
    scheduler.request(two)
    scheduler.request(one)
    assert not scheduler.drive(lambda: one.done, 0.01), "it would go before those that came first"
    scheduler.release(first)
    assert scheduler.drive(lambda: two.done, LONG_S)
    assert len(two.result()) == 3
    assert not one.done
    scheduler.release(two.result()[1])
    assert scheduler.drive(lambda: one.done, LONG_S)
    assert one.result()[0].slot == 1


@pytest.mark.parametrize(("timeout", "at_once"), [(0.0, True), (-1.0, True), (0.01, False)])
def test_only_who_has_time_stands_in_line(timeout: float, at_once: bool) -> None:
    scheduler = Scheduler(EchoEngine(1))
    opened(scheduler, Frames())
    opening = Opening([Member(Frames())], timeout=timeout)  # pyright: ignore
    with pytest.raises(NoFreeSlot):
        scheduler.open(opening)
    assert opening.at_once is at_once


def test_more_slots_than_there_are_are_refused() -> None:
    scheduler = Scheduler(EchoEngine(2))
    with pytest.raises(NoFreeSlot):
        scheduler.open(Opening([Member(Frames()) for _ in range(3)], timeout=None))  # pyright: ignore
    assert scheduler.free_slots == 2


def test_who_may_not_have_its_slots_now_holds_up_nobody() -> None:
    scheduler = Scheduler(EchoEngine(2))
    opened(scheduler, Frames())
    two = Opening([Member(Frames()), Member(Frames())])  # pyright: ignore
    with pytest.raises(NoFreeSlot):
        scheduler.open(two)
    assert two.at_once, "unless one says how long to wait"
    assert len(opened(scheduler, Frames())) == 1


def test_who_is_being_given_his_slots_is_not_stuck_for_them() -> None:
    scheduler, stuck = Scheduler(EchoEngine(1)), list[bool]()

    class Watched(Opening):
        def settle(self, value: Any = None, error: Any = None) -> None:
            stuck.append(scheduler.is_stuck(self))
            super().settle(value, error)

    scheduler.open(Watched([Member(Frames())], timeout=None))  # pyright: ignore
    assert stuck == [False]
    assert scheduler.is_stuck(Opening([Member(Frames())])), "held here"  # pyright: ignore


def test_an_opening_that_is_given_up_while_it_gets_its_slots_keeps_none() -> None:
    scheduler = Scheduler(EchoEngine(1))

    class GivenUp(Opening):
        def settle(self, value: Any = None, error: Any = None) -> None:
            scheduler.give_up(self)
            super().settle(value, error)

    scheduler.request(GivenUp([Member(Frames())]))  # pyright: ignore
    scheduler.drive(lambda: scheduler.engine.free_slots == 0, LONG_S)
    assert scheduler.drive(lambda: scheduler.engine.free_slots == 1, LONG_S)


def test_an_opening_that_is_not_wanted_any_more_gets_nothing() -> None:
    scheduler = Scheduler(EchoEngine(1))
    (held,) = opened(scheduler, Frames())
    opening = Opening([Member(Frames())], timeout=None)  # pyright: ignore
    scheduler.request(opening)
    with pytest.raises(NoFreeSlot):
        scheduler.take_slots(opening)
    scheduler.release(held)
    assert scheduler.free_slots == 1
    assert not scheduler.drive(lambda: opening.done, 0.01)
    assert scheduler.free_slots == 1
    assert not scheduler._openings.waiting


def test_an_opening_that_is_given_up_gives_back_what_it_got() -> None:
    """Its task's event loop may be gone, and with it everybody who would drive."""
    scheduler = Scheduler(EchoEngine(1))
    opening = Opening([Member(Frames())])  # pyright: ignore
    scheduler.open(opening)
    scheduler.give_up(opening)
    assert scheduler.free_slots == 1
    assert len(opened(scheduler, Frames())) == 1


def test_an_opening_that_ctrl_c_interrupts_leaves_no_slot_behind() -> None:
    """It may have got its slot in the very round that was interrupted."""
    engine = EchoEngine(2)
    scheduler = Scheduler(engine)
    (binding,) = opened(scheduler, session := Frames(2))
    session.wrong["accept"] = KeyboardInterrupt()
    for call in (
        lambda: opened(scheduler, Frames()),
        lambda: scheduler.run([Member(Frames())]),  # pyright: ignore
    ):
        with pytest.raises(KeyboardInterrupt):
            call()
        assert scheduler.free_slots == 2
        (binding,) = opened(scheduler, session := Frames(2))
        session.wrong["accept"] = KeyboardInterrupt()
    scheduler.release(binding)
    assert scheduler.free_slots == 2


def test_an_opening_stands_in_line_until_it_has_its_slot() -> None:
    """A moment without it, and the thread that drives for it would go."""
    scheduler = Scheduler(EchoEngine(2))
    seen: list[bool] = []
    session = Frames()
    session.begin = lambda token, logprob: seen.append(opening in scheduler._openings.waiting)
    opening = Opening([Member(session)])  # pyright: ignore
    scheduler.open(opening)
    assert seen == [True]


def test_whoever_begins_wrongly_leaves_no_slot_behind() -> None:
    engine = EchoEngine(2)
    scheduler = Scheduler(engine)
    good, bad = Frames(), Frames()
    bad.wrong["begin"] = RuntimeError("no")
    with pytest.raises(RuntimeError, match="no"):
        opened(scheduler, good, bad)
    assert not engine.held
    assert good.done


@pytest.mark.parametrize("what", ["pending", "take 2", "accept", "work 8", "finish", "cut"])
@pytest.mark.parametrize("error", [RuntimeError("wrong"), SystemExit(3)])
def test_a_session_that_fails_ends_alone(what: str, error: BaseException) -> None:
    engine = EchoEngine(2)
    scheduler = Scheduler(engine)
    bad = Frames(2, work=what == "work 8", closing=what == "finish")
    bad.wrong[what] = error
    good = Frames(2, closing=True)
    bindings = opened(scheduler, bad, good)
    if what == "cut":
        scheduler.release(bindings[0], cut=True)
    scheduler.drive(lambda: bad.done and good.done)
    assert bad.failure is not None
    assert error in (bad.failure, bad.failure.__cause__)  # SystemExit is told as a StreamError
    assert good.heard == [ONE] * 2
    assert good.failure is None
    assert good.told[-2:] == ["finish", "released"]
    assert not engine.held


def test_a_session_that_cannot_even_be_told_leaves_its_slot(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = EchoEngine(1)
    scheduler = Scheduler(engine)
    bad = Frames(2)
    bad.wrong = {name: RuntimeError(name) for name in ("accept", "fail", "released")}
    opened(scheduler, bad)
    scheduler.drive(lambda: bad.done)
    assert not engine.held
    assert "could not be reported" in caplog.text
    assert "at the end of a stream" in caplog.text


class Broken(EchoEngine):
    """Cannot step at all while there is an error."""

    error: BaseException | None = RuntimeError("out of memory")

    def step(
        self,
        slots: Sequence[int],
        frames: NDArray[np.float32],
        counts: Sequence[int] | None = None,
    ) -> StepOutput:
        if self.error is not None:
            raise self.error
        return super().step(slots, frames, counts)


def test_a_step_that_fails_ends_all_that_were_in_it_and_nobody_else() -> None:
    engine = Broken(3)
    scheduler = Scheduler(engine)
    first, second, waiting = Frames(2), Frames(3), Frames()
    opened(scheduler, first, second, waiting)
    scheduler.drive(lambda: first.done and second.done)
    assert first.failure is second.failure is engine.error
    assert not waiting.done
    assert engine.held == {2}


def test_steps_that_fail_in_a_row_are_counted_until_one_does_not() -> None:
    engine = Broken(1)
    scheduler = Scheduler(engine)
    for failed in (1, 2, 3):
        opened(scheduler, Frames(2))
        assert scheduler.step() == 1, "it ended a session"
        assert scheduler.steps.num_failed == failed
    engine.error = None
    session = Frames(2)
    opened(scheduler, session)
    scheduler.drive(idle(session))
    assert scheduler.steps.num_failed == 0


def test_ctrl_c_in_a_step_ends_what_was_in_it_and_is_raised() -> None:
    engine = Broken(2)
    engine.error = KeyboardInterrupt()
    scheduler = Scheduler(engine)
    session, waiting = Frames(2), Frames()
    opened(scheduler, session, waiting)
    with pytest.raises(KeyboardInterrupt):
        scheduler.drive(lambda: session.done)
    assert isinstance(session.failure, StreamError)
    assert not waiting.done
    assert scheduler.drive(lambda: True), "another may lead"
    assert scheduler.free_slots == 1


@pytest.mark.parametrize("what", ["accept", "work None", "finish", "take 2"])
def test_ctrl_c_in_a_session_ends_it_and_is_raised(what: str) -> None:
    engine = EchoEngine(1)
    scheduler = Scheduler(engine)
    session = Frames(2, work=what == "work None", closing=True)
    session.wrong[what] = KeyboardInterrupt()
    opened(scheduler, session)
    with pytest.raises(KeyboardInterrupt):
        scheduler.drive(lambda: session.done)
    assert isinstance(session.failure, StreamError)
    assert not engine.held


def test_what_others_heard_is_not_lost_to_ctrl_c() -> None:
    scheduler = Scheduler(EchoEngine(2))
    first, second = Frames(2), Frames(2)
    first.wrong["accept"] = KeyboardInterrupt()
    opened(scheduler, first, second)
    with pytest.raises(KeyboardInterrupt):
        scheduler.drive(lambda: second.done)
    assert second.heard == [ONE, ONE]
    assert not second.done


@pytest.mark.parametrize("what", ["pending", "take 2", "accept"])
def test_ctrl_c_forgets_nobody_whose_turn_it_was(what: str) -> None:
    scheduler = Scheduler(EchoEngine(3))
    before, hit, after = Frames(2), Frames(2), Frames(2)
    opened(scheduler, before, hit, after)
    hit.wrong[what] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        scheduler.drive(lambda: False, LONG_S)
    assert isinstance(hit.failure, StreamError)
    others = before, after
    assert scheduler.drive(lambda: all(one.failure or not one.frames for one in others), LONG_S)
    for one in others:
        assert one.failure is None or "interrupted" in str(one.failure)
        assert one.failure is not None or one.heard == [ONE, ONE], "lost frames are told"


def test_ctrl_c_between_sessions_forgets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes between any two lines of the round."""
    scheduler = Scheduler(EchoEngine(2))
    first, second = Frames(2), Frames(2)
    opened(scheduler, first, second)

    def interrupted(*_: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(scheduler.steps, "make", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scheduler.drive(lambda: False, LONG_S)
    assert scheduler.drive(lambda: not first.frames and not second.frames, LONG_S)
    assert first.heard == second.heard == [ONE, ONE]


def test_ctrl_c_while_others_are_given_slots_is_raised_and_they_are_told() -> None:
    engine = EchoEngine(2)
    scheduler = Scheduler(engine)
    session = Frames()
    session.wrong["begin"] = KeyboardInterrupt()
    opening = Opening([Member(Frames()), Member(session)])  # pyright: ignore
    scheduler.request(opening)
    with pytest.raises(KeyboardInterrupt):
        scheduler.drive(lambda: False, LONG_S)
    with pytest.raises(StreamError, match="interrupted"):
        opening.result()
    assert scheduler.drive(lambda: not scheduler._openings.waiting, LONG_S)
    assert not engine.held


def test_ctrl_c_in_what_another_asked_for_is_raised_and_he_is_told() -> None:
    def hit() -> None:
        raise KeyboardInterrupt

    scheduler = Scheduler(EchoEngine(1))
    job, next_job = scheduler.submit(hit), scheduler.submit(lambda: 7)
    with pytest.raises(KeyboardInterrupt):
        scheduler.drive(lambda: False, LONG_S)
    with pytest.raises(StreamError, match="interrupted"):
        job.result()
    assert scheduler.drive(lambda: next_job.done, LONG_S)
    assert next_job.result() == 7


def test_a_listener_to_steps_that_fails_costs_nobody_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scheduler = Scheduler(EchoEngine(1))

    def listener(frames: int, seconds: float) -> None:
        raise ValueError("mine")

    scheduler.steps.on_step = listener
    session = Frames(2)
    opened(scheduler, session)
    assert scheduler.drive(idle(session), LONG_S)
    assert session.heard == [ONE, ONE]
    assert "mine" in caplog.text


@pytest.mark.parametrize(
    "wait",
    [
        lambda scheduler: scheduler.drive(lambda: False),
        lambda scheduler: scheduler.step(),
        lambda scheduler: scheduler.call(lambda: 7),
    ],
    ids=["drive", "step", "call"],
)
def test_a_callback_cannot_wait_for_the_driver_that_calls_it(
    wait: Callable[[Scheduler], object],
) -> None:
    rec = Recognizer(EchoEngine(2), CONFIG, tiny.vocabulary(), name="echo")
    calls: list[StepOutput] = []

    def told(out: StepOutput) -> None:
        calls.append(out)
        if len(calls) > 1:  # the first is told while the slot is given
            wait(rec.scheduler)

    stream = Driven(rec, on_output=told)
    stream.push(np.zeros(SIZE, np.float32))
    with pytest.raises(StreamError, match="callback"):
        stream.run()


def test_who_is_told_that_a_slot_is_free_cannot_wait_either(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rec = Recognizer(EchoEngine(2), CONFIG, tiny.vocabulary(), name="echo")
    session, other = Frames(), Frames()
    (binding,) = opened(rec.scheduler, session)
    opened(rec.scheduler, other)
    session.released = lambda: rec.scheduler.drive(lambda: False, 0.0)  # pyright: ignore
    rec.scheduler.release(binding)
    assert rec.scheduler.step() == 1
    assert "a callback at the end of a stream failed" in caplog.text
    assert "cannot wait for the driver that calls it" in caplog.text
    assert rec.free_slots == 1
    assert rec.scheduler.call(lambda: 7) == 7


def test_calls_are_made_between_two_steps_and_their_errors_are_the_callers() -> None:
    scheduler = Scheduler(EchoEngine(1))
    assert scheduler.call(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        scheduler.call(lambda: 1 // 0)
    called: list[str] = []
    job = scheduler.submit(lambda: called.append("call"), lambda: called.append("done"))
    assert not job.done
    scheduler.drive(lambda: job.done)
    assert called == ["call", "done"]


@pytest.mark.parametrize(("streams", "at_once"), [(1, 1), (16, 2), (40, 3)])
def test_many_calls_do_not_hold_up_the_steps(streams: int, at_once: int) -> None:
    """A service that is shut down saves all of its streams."""
    scheduler = Scheduler(EchoEngine(streams))
    sessions = [Frames(9 * 64) for _ in range(streams)]
    opened(scheduler, *sessions)
    called: list[int] = []
    for number in range(7):
        scheduler.submit(partial(called.append, number))
    while len(called) < 7:
        before = len(called), len(sessions[0].heard)
        scheduler.step()
        assert len(called) == min(7, before[0] + at_once)
        assert len(sessions[0].heard) > before[1]
    assert called == list(range(7))


def test_whatever_belongs_to_a_slot_is_refused_when_it_is_given_back() -> None:
    scheduler = Scheduler(EchoEngine(1))
    (old,) = opened(scheduler, Frames(0, work=1))
    scheduler.check(old)
    scheduler.release(old)
    (new,) = opened(scheduler, Frames(0, work=1))
    scheduler.release(old)
    assert scheduler.free_slots == 0, "the slot is another's by now"
    with pytest.raises(StreamError, match="free for others"):
        scheduler.settle(old)
    scheduler.settle(new)
    assert new.session.work is None


def test_driving_gives_up_in_time() -> None:
    scheduler = Scheduler(EchoEngine(1))
    assert not scheduler.drive(lambda: False, 0.0)
    assert not scheduler.drive(lambda: False, 0.01)
    assert scheduler.drive(lambda: True, 0.0)


def test_whoever_has_nothing_to_do_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = Scheduler(EchoEngine(1))
    opened(scheduler, Frames())
    rounds: list[int] = []
    one_round = scheduler._rounds.make
    monkeypatch.setattr(scheduler._rounds, "make", lambda: rounds.append(one_round()) or rounds[-1])
    assert not scheduler.drive(lambda: False, 0.1)
    assert rounds == [0]


def test_whoever_rests_is_woken_and_need_not_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kiku.scheduler.driver._LOOK_S", 3600.0)
    rec = Recognizer(EchoEngine(1), CONFIG, tiny.vocabulary(), name="echo")
    resting = rec.scheduler._driver._changed._waiters  # pyright: ignore
    with rec.stream(PLAIN) as stream:
        for _ in range(3):
            until(lambda: len(resting) > 0)
            stream.push(spoken([3, 0, ONE, 3, 3], SIZE))
            for kind in (Word, WordEnd):
                assert isinstance(stream.next_event(20.0), kind)


def test_one_thread_leads_and_the_others_wait() -> None:
    class Alone(EchoEngine):
        inside = 0

        def step(
            self,
            slots: Sequence[int],
            frames: NDArray[np.float32],
            counts: Sequence[int] | None = None,
        ) -> StepOutput:
            self.inside += 1
            assert self.inside == 1
            time.sleep(0.0005)
            self.inside -= 1
            return super().step(slots, frames, counts)

    engine = Alone(3)
    rec = Recognizer(engine, CONFIG, tiny.vocabulary(), name="echo")
    found: list[list[int]] = []
    sound = spoken([ONE] * 100, SIZE)
    threads = [
        threading.Thread(target=lambda: found.append(rec.tokens(sound).tolist())) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for _ in range(20):
        rec.scheduler.step()  # who drives by hand waits for his turn, too
    for thread in threads:
        thread.join(LONG_S)
    assert found == [[3] + [ONE] * 99] * 6
    assert rec.free_slots == 3
    assert any(len(step) > 1 for step in engine.steps)


def test_while_streams_live_a_thread_of_its_own_leads() -> None:
    leaders: set[str] = set()

    class Noting(EchoEngine):
        def step(
            self,
            slots: Sequence[int],
            frames: NDArray[np.float32],
            counts: Sequence[int] | None = None,
        ) -> StepOutput:
            leaders.add(threading.current_thread().name)
            return super().step(slots, frames, counts)

    rec = Recognizer(Noting(2), CONFIG, tiny.vocabulary(), name="echo")
    with rec.stream() as stream:
        assert (
            rec.transcribe(spoken([3, 0, ONE, 3, 3], SIZE), rate=CONFIG.sample_rate).text == "one"
        )
        assert leaders == {"kiku-driver"}
        stream.stop()
    until(lambda: rec.scheduler._driver._worker is None)
    leaders.clear()
    rec.transcribe(spoken([3, 0, ONE, 3, 3], SIZE), rate=CONFIG.sample_rate)
    assert leaders == {threading.current_thread().name}


@pytest.mark.parametrize("times", [1, 8])
def test_a_recording_beside_a_stream_that_says_nothing(times: int) -> None:
    """Whoever drives hears of the sound of those who only wait for him."""
    rec = Recognizer(EchoEngine(2), CONFIG, tiny.vocabulary(), name="echo")
    with rec.stream():
        sound = spoken([3, 0, ONE, 3, 3] * 100 * times, SIZE)
        assert len(rec.transcribe(sound, PLAIN, rate=CONFIG.sample_rate)) == 100 * times


def test_a_mistake_of_the_driver_is_told_to_all_that_wait(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rec = Recognizer(EchoEngine(1), CONFIG, tiny.vocabulary(), name="echo")
    with rec.stream() as stream:
        rec.scheduler.steps.make = None  # pyright: ignore
        stream.push(np.zeros(SIZE, np.float32))
        with pytest.raises(TypeError):
            stream.next_event(LONG_S)
        del rec.scheduler.steps.make
    assert "the driver failed" in caplog.text
    with rec.stream() as stream:
        stream.push(spoken([3, 0, ONE, 3, 3], SIZE))
        assert isinstance(stream.next_event(LONG_S), Word)


def test_a_thread_that_waits_for_its_own_slot_is_told() -> None:
    rec = Recognizer(EchoEngine(1), CONFIG, tiny.vocabulary(), name="echo")
    stream = Driven(rec)
    with pytest.raises(NoFreeSlot):
        rec.transcribe(np.zeros(SIZE, np.float32), rate=CONFIG.sample_rate)
    stream.close()  # it comes to its end by itself
    assert rec.transcribe(spoken([3, 0, ONE, 3, 3], SIZE), rate=CONFIG.sample_rate).text == "one"


def test_a_session_that_has_ended_waits_for_no_collector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Between a session and who looks at it is no circle: what it heard goes when it goes.
    sessions: list[weakref.ref[WordSession]] = []

    class Noted(WordSession):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            sessions.append(weakref.ref(self))

    monkeypatch.setattr("kiku.recognizer.WordSession", Noted)
    rec = Recognizer(EchoEngine(2), CONFIG, tiny.vocabulary(), name="echo")
    sound = spoken([3, 0, ONE, 3, 3], SIZE)
    gc.disable()
    try:
        assert rec.transcribe(sound, rate=CONFIG.sample_rate).text == "one"
        with rec.stream(PLAIN) as stream:
            stream.push(sound)
        del stream
        rec.transcribe(sound, rate=CONFIG.sample_rate)  # after which nobody looks at those before
        assert [one() is None for one in sessions[:2]] == [True, True]
    finally:
        gc.enable()


def test_loudness_is_of_each_frame() -> None:
    frames = np.stack([np.zeros(10), np.ones(10), np.full(10, 0.1)]).astype(np.float32)
    assert levels_of(frames) == pytest.approx([-100.0, 0.0, -20.0], abs=1e-4)


def test_when_the_program_ends_nobody_drives_any_more() -> None:
    """How programs end with streams open, `tests/guarantees/test_clean_end.py` tries."""
    rec = Recognizer(EchoEngine(2), CONFIG, tiny.vocabulary(), name="echo")
    stream = rec.stream()
    stream.push(np.zeros(SIZE * 300, np.float32))
    rec.scheduler._driver.end()
    for call in (
        lambda: rec.transcribe(np.zeros(800, np.float32), rate=1_000),
        lambda: rec.scheduler.drive(lambda: False, 0.0),
    ):
        with pytest.raises(StreamError, match="the program is shutting down"):
            call()


def test_work_of_a_session_is_undone_where_the_session_is_alone_or_not() -> None:
    """What is looked ahead for is taken back, in pieces or at once."""
    for slots in (1, 2):
        engine = EchoEngine(slots)
        rec = Recognizer(engine, CONFIG, tiny.vocabulary(), name="echo")
        picker = Counting()
        options = StreamOptions(recovery=Recovery([]))
        streams = [Driven(rec, options, picker=picker) for _ in range(slots)]
        streams[0].push(spoken([3, 3, 3, 3, 0, ONE], SIZE))
        streams[0].run()
        streams[0].finalize(cut=True)
        assert [event.text for event in streams[0].run() if isinstance(event, Word)] == ["one"]
        assert engine.heard[0] == 6
        assert engine.num_marks == 1
        assert engine.decoding[0][0] is picker
        assert picker.calls == slots + 6, "what was looked ahead for drew from a copy"
