"""Truncating and decoding again in pieces: what is left, what is refused meanwhile."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.config import HISTORY_FRAMES
from kiku.decoding import SamplingParams
from kiku.engine import SlotEngine
from kiku.errors import FrameError, StreamError
from tests import tiny
from tests.engine.engines import KINDS, advance, make_engine, said, sound, step

PAD = tiny.model_config().pad_id
WORKS = ("truncate", "redecode")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def do(engine: SlotEngine, work: str, slot: int, frames: int, most: int | None = None) -> int:
    """A piece of work; how many are left."""
    if work == "truncate":
        return engine.truncate(slot, frames, most=most)
    return engine.redecode(slot, frames, most=most)[1]


@settings(max_examples=60)
@given(
    kind=st.sampled_from(KINDS),
    work=st.sampled_from(WORKS),
    heard=st.integers(0, 40),
    frames=st.integers(-2, 60),
    most=st.one_of(st.none(), st.integers(1, 45)),
)
def test_all_backends_leave_the_same(
    kind: str, work: str, heard: int, frames: int, most: int | None
) -> None:
    expected = min(max(frames, 0), heard)
    engine = emptied(kind)
    slot, _ = engine.open(lambda _: PAD)  # as guessed: few passes
    if heard:
        advance(engine, [slot], sound(heard)[None])
    lefts = [do(engine, work, slot, frames, most)]
    while lefts[-1]:
        lefts.append(do(engine, work, slot, frames, most))
    size = expected if most is None else most
    assert lefts == [max(0, expected - size * (i + 1)) for i in range(len(lefts))]


_engines: dict[str, SlotEngine] = {}


def emptied(kind: str) -> SlotEngine:
    """An engine for many examples, with free slots."""
    engine = _engines.setdefault(kind, make_engine(kind, slots=2))
    engine.close(0)
    engine.close(1)
    return engine


@pytest.mark.parametrize("work", WORKS)
def test_in_the_middle_everything_else_is_refused_and_neighbours_step(kind: str, work: str) -> None:
    engine = make_engine(kind, slots=2)
    slot, _ = engine.open()
    other, _ = engine.open()
    said(engine, slot, sound(30))
    saved, mark = engine.save(slot), engine.mark(slot)
    left = do(engine, work, slot, 20, 6)
    assert left == 14
    another = WORKS[work == "truncate"]
    codes = np.zeros((1, 4), np.int64)
    calls: list[Callable[[], object]] = [
        lambda: engine.step([slot], sound(1)),
        lambda: engine.step([other, slot], sound(2)),
        lambda: engine.encode([slot], sound(1)),
        lambda: engine.decode([slot], codes),
        lambda: engine.mark(slot),
        lambda: engine.go_back(slot, mark),
        lambda: engine.save(slot),
        lambda: engine.restore(slot, saved),
        lambda: do(engine, another, slot, 20, 6),
    ]
    for call in calls:
        with pytest.raises(StreamError, match=f"slot 0 is in the middle of a {work}: call that"):
            call()
    alone = make_engine(kind)
    alone.open()
    assert said(engine, other, sound(20, 3)) == said(alone, 0, sound(20, 3))
    assert do(engine, work, slot, 20, 6) == 8
    assert do(engine, work, slot, 999, None) == 0, "the frames of the first call count"
    for call in (*calls[:2], calls[4], calls[6], calls[8]):
        call()


Again = tuple[list[int], list[float], list[int], list[int]]
"""What was decoded again, with its log-probabilities; what the slot says then and to
that again."""


@cache
def decoded_again(kind: str, sampled: bool, pieces: int | None) -> Again:
    engine = make_engine(kind, slots=2)
    engine.open()
    slot, _ = engine.open()
    said(engine, slot, sound(60))
    if sampled:
        engine.set_decoding(slot, SamplingParams(temperature=0.9, seed=1), num_codebooks=3)
    tokens: list[int] = []
    logprobs: list[float] = []
    left = 1
    while left:
        out, left = engine.redecode(slot, 40, most=pieces)
        assert list(out.counts) == [len(out.tokens)]
        assert out.row(0).tokens.tolist() == out.tokens.tolist()
        tokens += out.tokens.tolist()
        logprobs += out.logprobs.tolist()
        if left % 5 == 0:
            engine.close(0)  # neighbours come and go
            engine.open()
            said(engine, 0, sound(2, 8))
    again = engine.redecode(slot, 12)[0].tokens.tolist()
    return tokens, logprobs, said(engine, slot, sound(20, 5)), again


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize(
    ("kind", "most"),
    # The pieces are cut for all kinds alike.
    [
        (kind, most)
        for kind in KINDS
        for most in ((1, 16, 17, 40, 100) if kind == "onnx" else (17,))
    ],
)
def test_decoding_again_in_pieces_equals_at_once(kind: str, sampled: bool, most: int) -> None:
    whole, pieces = decoded_again(kind, sampled, None), decoded_again(kind, sampled, most)
    assert whole[0] == pieces[0]
    assert len(whole[0]) == 40
    np.testing.assert_allclose(whole[1], pieces[1], atol=2e-4)
    assert whole[2:] == pieces[2:]


@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("most", [0, -1])
def test_a_piece_of_nothing_is_refused_and_nothing_begins(kind: str, work: str, most: int) -> None:
    engine = emptied(kind)
    slot, _ = engine.open()
    with pytest.raises(FrameError, match="at least one column"):
        do(engine, work, slot, 5, most)
    engine.mark(slot)  # which is refused in the middle of work


@pytest.mark.parametrize("work", WORKS)
def test_closing_in_the_middle_makes_the_slot_as_new(kind: str, work: str) -> None:
    engine, fresh = make_engine(kind), make_engine(kind)
    slot, _ = engine.open(num_codebooks=2)
    said(engine, slot, sound(40, 9))
    assert do(engine, work, slot, 30, 7) == 23
    engine.close(slot)
    assert engine.free_slots == 1
    slot, first = engine.open()
    _, same = fresh.open()
    assert first.tokens.tolist() == same.tokens.tolist()
    assert engine.save(slot) == fresh.save(0)
    assert said(engine, slot, sound(12)) == said(fresh, 0, sound(12))
    for one in WORKS:
        assert do(engine, one, slot, 50, 5) == do(fresh, one, 0, 50, 5) == 7
        while do(engine, one, slot, 50, 5) and do(fresh, one, 0, 50, 5):
            pass
        do(fresh, one, 0, 50, 5)
    assert said(engine, slot, sound(30, 4)) == said(fresh, 0, sound(30, 4))


def test_a_truncation_keeps_the_text_and_the_history(kind: str) -> None:
    """The next token follows as if nothing had happened; what was read can be read again."""
    engine, straight = make_engine(kind), make_engine(kind)
    for one in (engine, straight):
        one.open(SamplingParams(temperature=1.0, seed=2))
        said(one, 0, sound(30))
        one.set_decoding(0)
    assert engine.truncate(0, 20, most=3) == 17
    while engine.truncate(0, 20, most=3):
        pass
    again = [one.redecode(0, 30)[0].tokens.tolist() for one in (engine, straight)]
    assert again[0] == again[1]
    assert len(again[0]) == 30


def test_a_truncation_picks_nothing(kind: str) -> None:
    picked: list[int] = []

    def pick(logits: np.ndarray) -> int:
        picked.append(int(logits.argmax()))
        return picked[-1]

    engine = make_engine(kind)
    engine.open(pick)
    said(engine, 0, sound(20))
    assert len(picked) == 21
    engine.truncate(0, 15)
    assert len(picked) == 21
    said(engine, 0, sound(3))
    engine.redecode(0, 5)
    assert len(picked) == 24 + 6, "token 0 is picked, too"


def test_what_fewer_codebooks_read_is_read_again_so(kind: str) -> None:
    engine, fewer = make_engine(kind), make_engine(kind)
    for one in (engine, fewer):
        one.open(num_codebooks=2)
        said(one, 0, sound(8))
    first = said(fewer, 0, sound(6, 2))
    engine.truncate(0, 8)
    assert said(engine, 0, sound(6, 2)) == first, "its window still sees all that it had seen"
    engine.set_decoding(0)
    assert engine.redecode(0, 14)[0].tokens.tolist()[:1] != [], "codes that were left out stay so"


def test_a_picker_that_fails_while_decoding_again(kind: str) -> None:
    engine = make_engine(kind)
    engine.open()
    said(engine, 0, sound(30))
    error, calls = ValueError("x"), iter(range(100))

    def pick(logits: np.ndarray) -> int:
        if next(calls) == 5:
            raise error
        return int(logits.argmax())

    engine.set_decoding(0, pick)
    out, left = engine.redecode(0, 20, most=10)
    assert (dict(out.failures), left) == ({0: error}, 10)
    engine.close(0)
    engine.open()
    assert engine.truncate(0, 9) == 0


def test_all_that_a_slot_can_be_asked_for(kind: str) -> None:
    engine = make_engine(kind)
    engine.open()
    said(engine, 0, sound(HISTORY_FRAMES + 80), block=64)
    mark = engine.mark(0)
    said(engine, 0, sound(64, 1), block=64)
    engine.go_back(0, mark)
    straight = make_engine(kind)
    straight.open()
    said(straight, 0, sound(HISTORY_FRAMES + 80), block=64)
    a, b = (one.redecode(0, HISTORY_FRAMES)[0].tokens.tolist() for one in (engine, straight))
    assert a == b
    assert len(a) == HISTORY_FRAMES


@pytest.mark.parametrize("neighbour", [1, 64])
def test_a_detour_beside_a_longer_block_changes_nothing(kind: str, neighbour: int) -> None:
    """What a pass reads beyond a shorter row is never seen."""
    engine, straight = make_engine(kind, slots=2), make_engine(kind)
    engine.open()
    engine.open()
    straight.open()
    said(engine, 0, sound(50))
    said(straight, 0, sound(50))
    mark = engine.mark(0)
    for at in range(0, 64, 16):
        counts = [16, neighbour]
        frames = np.concatenate([sound(64, 4)[at : at + 16], sound(neighbour, 5)])
        engine.step([0, 1], frames, counts)
    engine.go_back(0, mark)
    assert said(engine, 0, sound(40, 6)) == said(straight, 0, sound(40, 6))
    assert (
        step(engine, [0], sound(9)[None]).tolist() == step(straight, [0], sound(9)[None]).tolist()
    )
