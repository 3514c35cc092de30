"""Care: each policy sees its fault and no other, and a fault that is forced is mended."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from kiku import Recognizer, TurnEnd, TurnPolicy, TurnStart, Warning, Word
from kiku.config import ModelConfig
from kiku.engine import StepOutput
from kiku.errors import ConfigError
from kiku.stream import (
    NO_CARE,
    Care,
    Event,
    FrozenPolicy,
    Look,
    LoopPolicy,
    Refresh,
    RefreshPolicy,
    Reread,
    Wishes,
)
from kiku.stream.care import CHECK_FRAMES, Carer
from tests import tiny
from tests.fakes import PAD, EchoEngine, spoken

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
WELL = Look(
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
    num_rereads=0,
    last_reread=None,
)


def test_it_forgets_at_a_pause_from_the_soft_limit_on() -> None:
    policy = RefreshPolicy(keep_s=2.0)
    pause = replace(
        WELL, age=120, window=200, texts=[True, *[False] * 6], speech=[True, *[False] * 6]
    )
    assert policy.decide(pause) == Refresh(25)
    assert policy.decide(replace(pause, age=119)) is None
    assert policy.decide(replace(pause, word_open=True)) is None
    assert policy.decide(replace(pause, texts=[*[False] * 6, True])) is None
    assert policy.decide(replace(pause, speech=[*[False] * 6, True])) is None


def test_it_forgets_in_mid_speech_before_the_window_is_full() -> None:
    policy = RefreshPolicy(spare_s=2.0, keep_s=4.0)
    assert policy.decide(replace(WELL, age=158, window=200)) is None
    assert policy.decide(replace(WELL, age=159, window=200)) == Refresh(50)
    assert policy.decide(replace(WELL, age=60)) == Refresh(40)  # two fifths, less than 4 s


def test_a_window_that_is_shorter_than_what_is_spared_is_refreshed_all_the_same() -> None:
    assert RefreshPolicy().decide(replace(WELL, window=10, age=6)) == Refresh(4)


def test_speech_without_text_is_a_freeze() -> None:
    policy = FrozenPolicy(after_s=4.0)
    frozen = replace(WELL, texts=[True] * 190 + [False] * 60)
    action = policy.decide(frozen)
    assert isinstance(action, Reread)
    assert action.kind == "frozen"
    assert action.frames == 66  # what gave no text, and the delay
    assert "4.8 s of speech gave no words" in action.message
    assert policy.decide(WELL) is None
    assert policy.decide(replace(frozen, speech=[False] * 256)) is None
    assert policy.decide(replace(frozen, word_open=True)) is None
    assert policy.decide(replace(frozen, texts=[True] * 210 + [False] * 40)) is None


def test_what_is_not_understood_is_listened_to_again_ever_more_rarely() -> None:
    policy = FrozenPolicy(after_s=4.0)
    frozen = replace(WELL, texts=[False] * 256, num_frames=5000)
    waits = []
    for times in range(1, 5):
        again = replace(frozen, num_rereads=times, last_reread=0)
        waits.append(next(n for n in range(5000) if policy.decide(replace(again, num_frames=n))))
    assert waits == [100, 200, 400, 800]


def test_a_phrase_over_and_over_is_a_loop() -> None:
    policy = LoopPolicy(repeats=6)

    def words(texts: Sequence[str], gap: float = 0.3) -> Look:
        starts = 79.5 - gap * np.arange(len(texts))[::-1]
        return replace(WELL, words=list(zip(texts, starts.tolist(), strict=True)))

    for texts in (["no"] * 6, ["the", "cat"] * 3, ["a", "b", "c", "d"] * 3):
        action = policy.decide(words(["x", *texts]))
        assert isinstance(action, Reread)
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
        lambda: RefreshPolicy(soft=1.5),
        lambda: RefreshPolicy(keep_s=0),
        lambda: FrozenPolicy(after_s=-1),
        lambda: LoopPolicy(repeats=1),
    ],
)
def test_numbers_that_cannot_be(make) -> None:
    with pytest.raises(ConfigError):
        make()


def test_noise_that_goes_on_is_no_speech() -> None:
    carer = Carer(Care(), frame_rate=12.5, delay_s=0.5, window=750)
    for _ in range(25):
        carer.hear(text=False, level_db=-70.0, pause=None)
    decided = []
    for i in range(1000):
        carer.hear(text=False, level_db=-30.0 + i % 3, pause=None)
        if (action := carer.decide(word_open=False, seconds=0.0)) is not None:
            carer.done(action, 50)
            decided.append((i, type(action)))
    assert not [at for at, kind in decided if kind is Reread and at > 500]


class Faulty(EchoEngine):
    """Goes wrong at a frame, until it is made to read again."""

    def __init__(self, at: int, fault: Sequence[int]) -> None:
        super().__init__()
        self.at, self.fault, self.rereads = at, fault, 0

    def step(self, slots: Sequence[int], frames: NDArray[np.float32]) -> StepOutput:
        before = len(self.said[slots[0]])
        out = super().step(slots, frames)
        tokens = out.tokens.copy()
        for i in range(tokens.shape[1]):
            if before + i >= self.at and not self.rereads:
                tokens[0, i] = self.fault[(before + i) % len(self.fault)]
        return StepOutput(tokens, out.logprobs, None)

    def reread(self, slot: int, frames: int) -> StepOutput:
        self.rereads += 1
        return super().reread(slot, frames)


TALK = spoken([token for word in [ONE, TWO, THREE, TWO] * 12 for token in (0, word, word)], SIZE)


def heard(engine: EchoEngine, care: Care | None, chunk: int = 10**6) -> list[Event]:
    rec = Recognizer(engine, CONFIG, tiny.vocabulary(), name="faulty")
    stream = rec.open(wishes=Wishes(care=care or Care()))
    events: list[Event] = []
    for at in range(0, len(TALK), chunk):
        stream.push(TALK[at : at + chunk])
        while rec.step():
            pass
        events += stream.events()
    stream.close()
    while rec.step():
        pass
    return events + stream.events()


def words(events: Sequence[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Word)]


def test_a_decoder_that_freezes_is_woken_and_no_word_is_lost() -> None:
    good = words(heard(EchoEngine(), NO_CARE))
    assert len(good) == 96
    events = heard(Faulty(40, [PAD]), None)
    assert words(events) == good
    (warning,) = [event for event in events if isinstance(event, Warning)]
    assert warning.kind == "frozen"
    assert len(words(heard(Faulty(40, [PAD]), NO_CARE))) < 40


def test_a_decoder_that_loops_is_brought_back() -> None:
    good = words(heard(EchoEngine(), NO_CARE))
    events = heard(Faulty(40, [0, ONE]), None)
    (warning,) = [event for event in events if isinstance(event, Warning)]
    assert warning.kind == "loop"
    found = words(events)
    assert found[:20] == good[:20]
    assert found[-40:] == good[-40:]
    starts = [event.start for event in events if isinstance(event, Word)]
    assert starts == sorted(starts)
    assert len(words(heard(Faulty(40, [0, ONE]), NO_CARE)[-60:])) > 20


@pytest.mark.parametrize("chunk", [SIZE, 777, 40 * SIZE])
def test_what_is_decided_does_not_depend_on_how_the_sound_was_cut(chunk: int) -> None:
    whole = heard(Faulty(40, [PAD]), None)
    assert heard(Faulty(40, [PAD]), None, chunk) == whole


def test_the_window_never_fills() -> None:
    engine = EchoEngine()
    rec = Recognizer(engine, CONFIG, tiny.vocabulary(), name="echo")
    stream = rec.open()
    sound = np.concatenate([TALK, np.zeros(20 * SIZE, np.float32)])
    for _ in range(20):
        stream.push(sound)
        while rec.step():
            pass
    frames = 20 * len(sound) / SIZE
    assert len(engine.refreshes) >= frames // (750 - 25 - 25)
    assert len(engine.refreshes) <= frames // (450 - 25)
    assert not [event for event in stream.events() if isinstance(event, Warning)]


class Slow(EchoEngine):
    """Notes the columns of each call of `refresh`, and the steps between."""

    def __init__(self, slots: int) -> None:
        super().__init__(slots)
        self.left: dict[int, int] = {}
        self.calls: list[str] = []

    def step(self, slots: Sequence[int], frames: NDArray[np.float32]) -> StepOutput:
        assert not set(slots) & set(self.left), "a slot was stepped within its refresh"
        self.calls += ["step"] * (self.left != {})
        return super().step(slots, frames)

    def refresh(self, slot: int, frames: int, *, most: int | None = None) -> int:
        left = self.left.pop(slot, 1 + frames)
        now = left if most is None else min(most, left)
        self.calls.append(f"read {now}")
        if left > now:
            self.left[slot] = left - now
        return left - now


@pytest.mark.parametrize("beside", [False, True])
def test_others_go_on_while_a_stream_is_refreshed(beside: bool) -> None:
    engine = Slow(2)
    rec = Recognizer(engine, CONFIG, tiny.vocabulary(), name="echo")
    streams = [rec.open() for _ in range(1 + beside)]
    for frames, talking in ((440, streams[:1]), (80, streams)):
        for stream in talking:
            stream.push(np.zeros(frames * SIZE, np.float32))
        while rec.step():
            pass
    assert not engine.left
    if beside:
        assert [call for call in engine.calls if call != "step"] == ["read 8"] * 3 + ["read 2"]
        assert engine.calls[1] == "step"
    else:
        assert engine.calls == ["read 26"]


def test_without_care_nothing_is_done() -> None:
    engine = EchoEngine()
    rec = Recognizer(engine, CONFIG, tiny.vocabulary(), name="echo")
    stream = rec.open(wishes=Wishes(care=NO_CARE))
    stream.push(np.zeros(2000 * SIZE, np.float32))
    while rec.step():
        pass
    assert engine.refreshes == []
    assert stream.num_ready == 0


def test_a_carer_goes_on_where_it_was_saved() -> None:
    random = np.random.default_rng(0)
    care = Care((LoopPolicy(), FrozenPolicy(after_s=1.0), RefreshPolicy()))
    numbers = dict(frame_rate=12.5, delay_s=0.5, window=60)
    one, other = Carer(care, **numbers), Carer(care, **numbers)
    for i in range(600):
        frame = dict(
            text=bool(random.random() < 0.05),
            level_db=float(random.uniform(-70, -10)),
            pause=float(random.random()),
        )
        one.hear(**frame)
        if i == 300:
            other.restore(one.save())
        elif i > 300:
            other.hear(**frame)
        if random.random() < 0.1:
            one.told("w", i / 12.5)
            if i > 300:
                other.told("w", i / 12.5)
        action = one.decide(word_open=False, seconds=i / 12.5)
        if i > 300:
            assert other.decide(word_open=False, seconds=i / 12.5) == action
        if action is not None:
            assert (i + 1) % CHECK_FRAMES == 0
            one.done(action, 20)
            if i > 300:
                other.done(action, 20)


class Late(Faulty):
    """Says everything a frame later when it reads again."""

    def reread(self, slot: int, frames: int) -> StepOutput:
        out = super().reread(slot, frames)
        return StepOutput(np.roll(out.tokens, 1, axis=1), out.logprobs, None)


def test_a_word_that_is_heard_again_a_little_later_is_not_doubled() -> None:
    good = words(heard(EchoEngine(), NO_CARE))
    found = words(heard(Late(40, [PAD]), None))
    assert abs(len(found) - len(good)) <= 1
    assert found[:20] == good[:20]


def test_a_turn_learns_of_the_words_that_came_late() -> None:
    rec = Recognizer(Faulty(0, [PAD]), CONFIG, tiny.vocabulary(), name="faulty")
    stream = rec.open(wishes=Wishes(turns=TurnPolicy.of("high")))
    stream.push(TALK)
    stream.close()
    while rec.step():
        pass
    events = stream.events()
    kinds = [type(event) for event in events if isinstance(event, TurnStart | Word | TurnEnd)]
    assert kinds.count(TurnStart) == kinds.count(TurnEnd) == 1
    assert kinds[-1] is TurnEnd
