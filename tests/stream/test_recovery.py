"""Recovery: each policy sees its fault and no other, and a fault that is forced is mended."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from kiku import (
    Event,
    Recognizer,
    Recovery,
    StreamOptions,
    StreamWarning,
    TurnEnd,
    TurnPolicy,
    TurnStart,
    Word,
)
from kiku.config import HISTORY_FRAMES, ModelConfig
from kiku.engine import StepOutput
from kiku.errors import ConfigError, StreamError
from kiku.stream import (
    ContextPolicy,
    LoopPolicy,
    Redecode,
    StallPolicy,
    StreamStats,
    Truncate,
)
from kiku.stream.recovery import CHECK_FRAMES, RecoveryTracker
from tests import tiny
from tests.fakes import PAD, Driven, EchoEngine, spoken

CONFIG = ModelConfig.from_dict(
    {
        **tiny.model_config().to_dict(),
        "lm": {
            **tiny.lm_config().to_dict(),
            "transformer": {**tiny.transformer().to_dict(), "window": 750},
        },
    }
)
SIZE = CONFIG.frame_size
ONE, TWO, THREE = (tiny.PIECES.index(p) for p in ("▁one", "▁two", "▁three"))
WELL = StreamStats(
    frame_rate=12.5,
    delay_s=0.5,
    window=100,
    age=50,
    num_frames=1000,
    speech=[True] * 256,
    texts=[True] * 256,
    word_open=False,
    words=[("a", 70.0), ("b", 79.5)],
    seconds=80.0,
    num_redecodes=0,
    last_redecode=None,
)


def test_it_forgets_at_a_pause_from_the_soft_limit_on() -> None:
    policy = ContextPolicy(keep_s=2.0)
    pause = replace(
        WELL, age=120, window=200, texts=[True, *[False] * 6], speech=[True, *[False] * 6]
    )
    assert policy.decide(pause) == Truncate(25)
    assert policy.decide(replace(pause, age=119)) is None
    assert policy.decide(replace(pause, word_open=True)) is None
    assert policy.decide(replace(pause, texts=[*[False] * 6, True])) is None
    assert policy.decide(replace(pause, speech=[*[False] * 6, True])) is None


def test_it_forgets_in_mid_speech_before_the_window_is_full() -> None:
    policy = ContextPolicy(spare_s=2.0, keep_s=4.0)
    assert policy.decide(replace(WELL, age=158, window=200)) is None
    assert policy.decide(replace(WELL, age=159, window=200)) == Truncate(50)
    assert policy.decide(replace(WELL, age=60)) == Truncate(40)  # two fifths, less than 4 s


def test_a_window_that_is_shorter_than_what_is_spared_is_refreshed_all_the_same() -> None:
    assert ContextPolicy().decide(replace(WELL, window=10, age=6)) == Truncate(4)


def test_speech_without_text_is_a_freeze() -> None:
    policy = StallPolicy(after_s=4.0)
    frozen = replace(WELL, texts=[True] * 190 + [False] * 60)
    action = policy.decide(frozen)
    assert isinstance(action, Redecode)
    assert action.kind == "frozen"
    assert action.frames == 66  # what gave no text, and the delay
    assert "4.8 s of speech gave no words" in action.message
    assert policy.decide(WELL) is None
    assert policy.decide(replace(frozen, speech=[False] * 256)) is None
    assert policy.decide(replace(frozen, word_open=True)) is None
    assert policy.decide(replace(frozen, texts=[True] * 210 + [False] * 40)) is None
    longer = policy.decide(replace(frozen, texts=[False] * 256))
    assert longer is not None
    assert longer.frames == 100, "8 s at most"


def test_what_is_not_understood_is_listened_to_again_ever_more_rarely() -> None:
    policy = StallPolicy(after_s=4.0)
    frozen = replace(WELL, texts=[False] * 256, num_frames=5000)
    waits = []
    for times in range(1, 5):
        again = replace(frozen, num_redecodes=times, last_redecode=0)
        waits.append(next(n for n in range(5000) if policy.decide(replace(again, num_frames=n))))
    assert waits == [100, 200, 400, 800]


def test_a_phrase_over_and_over_is_a_loop() -> None:
    policy = LoopPolicy(repeats=6)

    def words(texts: Sequence[str], gap: float = 0.3) -> StreamStats:
        starts = 79.5 - gap * np.arange(len(texts))[::-1]
        return replace(WELL, words=list(zip(texts, starts.tolist(), strict=True)))

    for texts in (["no"] * 6, ["the", "cat"] * 3, ["a", "b", "c", "d"] * 3):
        action = policy.decide(words(["x", *texts]))
        assert isinstance(action, Redecode)
        assert action.kind == "loop"
        assert action.frames == 19
    assert policy.decide(words(["no"] * 5)) is None
    assert policy.decide(words(["no"] * 5 + ["yes"])) is None
    assert policy.decide(words(["one", "two", "three", "four", "five", "six"])) is None
    assert policy.decide(words(["no"] * 6, gap=0.9)) is None
    assert policy.decide(replace(words(["no"] * 6), seconds=95.0)) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: ContextPolicy(soft=1.5),
        lambda: ContextPolicy(keep_s=0),
        lambda: StallPolicy(after_s=-1),
        lambda: LoopPolicy(repeats=1),
        lambda: LoopPolicy(longest=0),
        lambda: LoopPolicy(repeats="x"),
        lambda: LoopPolicy(gap_s=math.nan),
        lambda: StallPolicy(share=1.5),
        lambda: ContextPolicy(pause_s="x"),
        lambda: ContextPolicy(keep_s=None),
    ],
)
def test_numbers_that_cannot_be(make) -> None:
    with pytest.raises(ConfigError):
        make()


def tracker(recovery: Recovery | None = None, *, window: int = 750) -> RecoveryTracker:
    recovery = Recovery() if recovery is None else recovery
    return RecoveryTracker(recovery, frame_rate=12.5, delay_s=0.5, window=window)


class Seen:
    """A policy that wants what it was given, one after the other, and notes what it saw."""

    def __init__(self, *actions: object) -> None:
        self.actions, self.stats = list(actions), list[StreamStats]()

    def decide(self, stats: StreamStats) -> object:
        self.stats.append(stats)
        return self.actions.pop(0) if self.actions else None


def test_noise_that_goes_on_is_no_speech() -> None:
    one = tracker()
    for _ in range(25):
        one.add(False, -70.0, None)
    decided = []
    for i in range(1000):
        one.add(False, -30.0 + i % 3, None)
        if one.due_in == 0 and (action := one.decide(word_open=False, seconds=0.0)) is not None:
            one.done(action, 50)
            decided.append((i, type(action)))
    assert not [at for at, kind in decided if kind is Redecode and at > 500]


def test_speech_is_loud_and_the_pause_heads_do_not_deny_it() -> None:
    seen = Seen()
    one = tracker(Recovery([seen]))
    for level, pause in ((-70, None), (-60.5, None), (-30, None), (-30, 0.5), (-30, 0.49)):
        one.add(False, level, pause)
    one.decide(word_open=False, seconds=0.0)
    assert list(seen.stats[0].speech) == [False, False, True, False, True]


def test_policies_are_asked_in_their_order_and_at_fixed_places() -> None:
    first, second, third = Seen(), Seen(Truncate(3)), Seen()
    one = tracker(Recovery([first, second, third]))
    second.actions.insert(0, None)
    for i in range(2):
        for left in range(CHECK_FRAMES, 0, -1):
            assert one.due_in == left
            one.add(True, -30.0, None)
        assert one.due_in == 0
        assert one.decide(word_open=True, seconds=2.5) == (Truncate(3) if i else None)
    assert (len(first.stats), len(second.stats), len(third.stats)) == (2, 2, 1)
    stats = first.stats[1]
    assert (stats.age, stats.num_frames, stats.seconds) == (32, 32, 2.5)
    assert stats.word_open
    nobody = RecoveryTracker(None, frame_rate=12.5, delay_s=0.5, window=750)
    for _ in range(CHECK_FRAMES):
        nobody.add(True, -30.0, None)
    assert nobody.due_in > 2**60


def test_what_a_policy_gives_must_be_something_to_do() -> None:
    with pytest.raises(StreamError, match="Seen decided 'wait'"):
        tracker(Recovery([Seen("wait")])).decide(word_open=False, seconds=0.0)


@pytest.mark.parametrize("action", [Truncate(500), Redecode(500, "frozen", "")])
def test_the_decoder_is_as_old_as_what_it_kept(action: Truncate | Redecode) -> None:
    seen = Seen()
    one = tracker(Recovery([seen]))
    for heard, kept, age in ((40, 500, 40), (200, 500, HISTORY_FRAMES), (0, 7, 7)):
        for _ in range(heard):
            one.add(True, -30.0, None)
        one.done(action, kept)
        one.decide(word_open=False, seconds=0.0)
        assert seen.stats[-1].age == age
    one.add(True, -30.0, None)
    one.decide(word_open=False, seconds=0.0)
    assert seen.stats[-1].age == 8


def test_patience_ends_with_a_word_that_came_by_itself() -> None:
    seen = Seen()
    one = tracker(Recovery([seen]))

    def num_redecodes() -> int:
        one.decide(word_open=False, seconds=0.0)
        return seen.stats[-1].num_redecodes

    for _ in range(20):
        one.add(True, -30.0, None)
    one.done(Redecode(10, "frozen", ""), 10)
    one.done(Redecode(10, "frozen", ""), 10)
    assert seen.stats == []
    for _ in range(12):
        one.add(True, -30.0, None)
        one.word("a", 1.0)  # within a second it may be of what was decoded again
    assert num_redecodes() == 2
    assert seen.stats[-1].last_redecode == 20
    one.add(True, -30.0, None)
    one.word("a", 1.0)
    assert num_redecodes() == 0


def test_only_a_loop_is_forgotten_with_its_words() -> None:
    seen = Seen()
    one = tracker(Recovery([seen]))
    for kind, words in (("frozen", [("a", 1.0)]), ("loop", [])):
        one.word("a", 1.0) if kind == "frozen" else None
        one.done(Redecode(10, kind, ""), 0)
        one.decide(word_open=False, seconds=0.0)
        assert seen.stats[-1].words == words


def test_a_saved_tracker_that_cannot_be() -> None:
    one = tracker()
    for _ in range(20):
        one.add(True, -30.0, None)
    saved = one.save()
    for changes in ({"age": 21}, {"age": -1}, {"num_frames": 3}, {"last_redecode": 21},
                    {"last_redecode": -1}, {"num_redecodes": -1}):  # fmt: skip
        with pytest.raises(StreamError, match="damaged"):
            one.restore({**saved, **changes})
    one.restore({**saved, "age": 20, "last_redecode": 20})


class Faulty(EchoEngine):
    """Goes wrong at a frame, until it is made to decode again."""

    def __init__(self, at: int, fault: Sequence[int]) -> None:
        super().__init__()
        self.at, self.fault, self.redecodes = at, fault, 0

    def step(
        self,
        slots: Sequence[int],
        frames: NDArray[np.float32],
        counts: Sequence[int] | None = None,
    ) -> StepOutput:
        before = self.heard[slots[0]]
        out = super().step(slots, frames, counts)
        tokens = out.tokens.copy()
        for i in range(len(tokens)):
            if before + i >= self.at and not self.redecodes:
                tokens[i] = self.fault[(before + i) % len(self.fault)]
        return replace(out, tokens=tokens)

    def redecode(
        self, slot: int, frames: int, *, most: int | None = None
    ) -> tuple[StepOutput, int]:
        self.redecodes += 1
        return super().redecode(slot, frames, most=most)


TALK = spoken([token for word in [ONE, TWO, THREE, TWO] * 12 for token in (0, word, word)], SIZE)


def driven(engine: EchoEngine, options: StreamOptions | None = None) -> Driven:
    return Driven(Recognizer(engine, CONFIG, tiny.vocabulary(), name="echo"), options)


def heard(engine: EchoEngine, recovery: Recovery | None, chunk: int = 10**6) -> list[Event]:
    stream = driven(engine, StreamOptions(recovery=recovery))
    events: list[Event] = []
    for at in range(0, len(TALK), chunk):
        stream.push(TALK[at : at + chunk])
        events += stream.run()
    stream.close()
    return events + stream.run()


def words(events: Sequence[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Word)]


def test_a_decoder_that_freezes_is_woken_and_no_word_is_lost() -> None:
    good = words(heard(EchoEngine(), None))
    assert len(good) == 96
    events = heard(Faulty(40, [PAD]), Recovery())
    assert words(events) == good
    (warning,) = [event for event in events if isinstance(event, StreamWarning)]
    assert warning.kind == "frozen"
    assert len(words(heard(Faulty(40, [PAD]), None))) < 40


def test_a_decoder_that_loops_is_brought_back() -> None:
    good = words(heard(EchoEngine(), None))
    events = heard(Faulty(40, [0, ONE]), Recovery())
    (warning,) = [event for event in events if isinstance(event, StreamWarning)]
    assert warning.kind == "loop"
    found = words(events)
    assert found[:20] == good[:20]
    assert found[-40:] == good[-40:]
    starts = [event.start for event in events if isinstance(event, Word)]
    assert starts == sorted(starts)
    assert len(words(heard(Faulty(40, [0, ONE]), None)[-60:])) > 20


@pytest.mark.parametrize("chunk", [SIZE, 777, 40 * SIZE])
def test_what_is_decided_does_not_depend_on_how_the_sound_was_cut(chunk: int) -> None:
    whole = heard(Faulty(40, [PAD]), Recovery())
    assert heard(Faulty(40, [PAD]), Recovery(), chunk) == whole


def test_the_window_never_fills() -> None:
    engine = EchoEngine()
    stream = driven(engine)
    sound = np.concatenate([TALK, np.zeros(20 * SIZE, np.float32)])
    events: list[Event] = []
    for _ in range(20):
        stream.push(sound)
        events += stream.run()
    frames = 20 * len(sound) / SIZE
    assert len(engine.truncations) >= frames // (750 - 25 - 25)
    assert len(engine.truncations) <= frames // (450 - 25)
    assert not [event for event in events if isinstance(event, StreamWarning)]


class Pieces(EchoEngine):
    """Notes the columns of each call of `truncate` or `redecode`, and the steps between."""

    def __init__(self, slots: int) -> None:
        super().__init__(slots)
        self.calls: list[str] = []
        self.left: dict[int, int] = {}

    def step(
        self,
        slots: Sequence[int],
        frames: NDArray[np.float32],
        counts: Sequence[int] | None = None,
    ) -> StepOutput:
        self.calls += ["step"] * (self.left != {})
        return super().step(slots, frames, counts)

    def truncate(self, slot: int, frames: int, *, most: int | None = None) -> int:
        return self._note(slot, frames, super().truncate(slot, frames, most=most))

    def redecode(
        self, slot: int, frames: int, *, most: int | None = None
    ) -> tuple[StepOutput, int]:
        out, left = super().redecode(slot, frames, most=most)
        return out, self._note(slot, frames, left)

    def _note(self, slot: int, frames: int, left: int) -> int:
        self.calls.append(f"read {self.left.pop(slot, frames) - left}")
        if left:
            self.left[slot] = left
        return left


@pytest.mark.parametrize("action", [Truncate(25), Redecode(25, "frozen", "")])
@pytest.mark.parametrize("beside", [False, True])
def test_others_go_on_while_a_decoder_reads_again(
    beside: bool, action: Truncate | Redecode
) -> None:
    engine = Pieces(2)
    rec = Recognizer(engine, CONFIG, tiny.vocabulary(), name="echo")
    stream = Driven(rec, StreamOptions(recovery=Recovery([Seen(None, action)])))
    others = [Driven(rec) for _ in range(beside)]
    for one in (stream, *others):
        one.push(np.zeros(64 * SIZE, np.float32))
    for one in (stream, *others):
        one.run()
    assert not engine.left
    assert (engine.heard[0], engine.heard.get(1, 64)) == (64, 64)
    if beside:
        assert engine.calls == ["read 8", "step", "read 8", "step", "read 8", "step", "read 1"]
    else:
        assert engine.calls == ["read 25"]


def test_without_recovery_nothing_is_done() -> None:
    engine = EchoEngine()
    stream = driven(engine, StreamOptions(recovery=None))
    stream.push(np.zeros(2000 * SIZE, np.float32))
    stream.run()
    assert engine.truncations == []
    assert engine.heard[0] == 2000


def test_a_tracker_goes_on_where_it_was_saved() -> None:
    random = np.random.default_rng(0)
    recovery = Recovery((LoopPolicy(), StallPolicy(after_s=1.0), ContextPolicy()))
    one, other = tracker(recovery, window=60), tracker(recovery, window=60)
    kinds: set[type] = set()
    for i in range(600):
        frame = (
            bool(random.random() < 0.05),
            float(random.uniform(-70, -10)),
            float(random.random()),
        )
        one.add(*frame)
        if i == 300:
            other.restore(one.save())
        elif i > 300:
            other.add(*frame)
        if random.random() < 0.1:
            one.word("w", i / 12.5)
            if i > 300:
                other.word("w", i / 12.5)
        assert i < 300 or one.due_in == other.due_in
        if one.due_in:
            continue
        action = one.decide(word_open=False, seconds=i / 12.5)
        if i > 300:
            assert other.decide(word_open=False, seconds=i / 12.5) == action
        if action is not None:
            assert (i + 1) % CHECK_FRAMES == 0
            kinds.add(type(action))
            one.done(action, 20)
            if i > 300:
                other.done(action, 20)
    assert kinds == {Truncate, Redecode}


class Late(Faulty):
    """Says everything a frame later when it decodes again."""

    def redecode(
        self, slot: int, frames: int, *, most: int | None = None
    ) -> tuple[StepOutput, int]:
        out, left = super().redecode(slot, frames, most=most)
        return replace(out, tokens=np.roll(out.tokens, 1)), left


def test_a_word_that_is_heard_again_a_little_later_is_not_doubled() -> None:
    good = words(heard(EchoEngine(), None))
    found = words(heard(Late(40, [PAD]), Recovery()))
    assert abs(len(found) - len(good)) <= 1
    assert found[:20] == good[:20]


def test_a_turn_learns_of_the_words_that_came_late() -> None:
    stream = driven(Faulty(0, [PAD]), StreamOptions(turns=TurnPolicy.of("high")))
    stream.push(TALK)
    stream.close()
    events = stream.run()
    kinds = [type(event) for event in events if isinstance(event, TurnStart | Word | TurnEnd)]
    assert kinds.count(TurnStart) == kinds.count(TurnEnd) == 1
    assert kinds[-1] is TurnEnd


@pytest.mark.parametrize("delay_s", [0.0, 0.5, 2.5, 5.0, 6.0, 15.0, 30.0])
def test_silence_is_never_frozen_whatever_the_delay(delay_s: float) -> None:
    tracker = RecoveryTracker(Recovery(), frame_rate=12.5, delay_s=delay_s, window=375)
    assert not any(tracker.add(False, -100.0, None) for _ in range(400))


@pytest.mark.parametrize(("delay_s", "acts"), [(0.5, True), (6.0, True), (30.0, False)])
def test_speech_without_text_is_frozen_once_its_text_is_due(delay_s: float, acts: bool) -> None:
    delay = round(delay_s * 12.5)
    late = replace(WELL, delay_s=delay_s, texts=[False] * 256, speech=[True] * 256)
    assert (StallPolicy().decide(late) is not None) is acts
    young = [True] * (62 + delay - 30)
    early = replace(late, texts=[False] * len(young), speech=young)
    assert StallPolicy().decide(early) is None
