"""Marks, truncations and decodings again, on all engines: what a slot says afterwards."""

from functools import cache

import numpy as np
import pytest

from kiku.config import HISTORY_FRAMES
from kiku.engine.history import ColumnHistory
from kiku.errors import StreamError
from tests import tiny
from tests.engine.engines import WITH_KV8, advance, make_engine, said, sound, step

PAD = tiny.model_config().pad_id


@pytest.fixture(params=WITH_KV8)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@cache
def straight_on(kind: str, num_frames: int) -> list[int]:
    """What a slot says that nothing was asked of."""
    engine = make_engine(kind)
    slot, _ = engine.open()
    return said(engine, slot, sound(num_frames))


@pytest.mark.parametrize(
    ("kind", "before", "detour"),
    [
        *(("onnx", before, detour) for before in (0, 3, 45) for detour in (1, 9, 64)),
        *(
            (kind, *both)
            for kind in WITH_KV8
            if kind != "onnx"
            for both in ((0, 64), (3, 9), (45, 1))
        ),
    ],
)
def test_a_detour_changes_nothing(kind: str, before: int, detour: int) -> None:
    frames = sound(80)
    engine = make_engine(kind, slots=2)
    engine.open()
    slot, _ = engine.open()
    first = said(engine, slot, frames[:before])
    mark = engine.mark(slot)
    said(engine, slot, sound(detour, seed=9))
    engine.go_back(slot, mark)
    assert first + said(engine, slot, frames[before:]) == straight_on(kind, 80)


def test_a_detour_is_forgotten_by_what_is_read_again_later(kind: str) -> None:
    frames = sound(40)
    engine, straight = make_engine(kind), make_engine(kind)
    slot, _ = engine.open()
    said(engine, slot, frames[:20])
    mark = engine.mark(slot)
    said(engine, slot, sound(30, seed=3))
    engine.go_back(slot, mark)
    said(engine, slot, frames[20:30])
    alone, _ = straight.open()
    said(straight, alone, frames[:30])
    again, expected = engine.redecode(slot, 25)[0], straight.redecode(alone, 25)[0]
    assert again.tokens.tolist() == expected.tokens.tolist()
    assert said(engine, slot, frames[30:]) == said(straight, alone, frames[30:])


def test_a_truncated_slot_that_forgot_nothing_goes_on_alike(kind: str) -> None:
    """The tiny decoder's window holds 10 columns: the initial one and 8 frames stay inside."""
    frames = sound(9)
    engine, straight = make_engine(kind), make_engine(kind)
    slot, _ = engine.open()
    said(engine, slot, frames[:5])
    engine.truncate(slot, 5)
    alone, _ = straight.open()
    said(straight, alone, frames[:5])
    assert said(engine, slot, frames[5:]) == said(straight, alone, frames[5:])


def _logits_after(kind: str, past: int, *, truncated: bool) -> np.ndarray:
    """What follows a text of `past` and then seven times PAD, over always the same sound."""
    tokens = [past] * 4 + [PAD] * 7
    written = iter(tokens)
    engine = make_engine(kind, keep_logits=True)
    slot, _ = engine.open(lambda _: next(written))
    step(engine, [slot], sound(10)[None])
    if truncated:
        engine.truncate(slot, 5)
    engine.set_decoding(slot)
    out = advance(engine, [slot], sound(1, seed=7)[None])
    assert out.logits is not None
    return out.logits[0]


def test_a_truncated_slot_has_forgotten_what_was_written_before(kind: str) -> None:
    """The window of the tiny decoder's two layers reaches back to where the texts differ."""
    differ = [_logits_after(kind, past, truncated=False) for past in (4, 11)]
    same = [_logits_after(kind, past, truncated=True) for past in (4, 11)]
    assert np.abs(differ[0] - differ[1]).max() > 1e-3
    np.testing.assert_allclose(same[0], same[1], atol=1e-5)
    assert np.abs(same[0] - differ[0]).max() > 1e-3


def test_a_truncation_in_parts_lets_others_step_between(kind: str) -> None:
    """Whatever the parts, and whoever is stepped meanwhile."""
    frames, others = sound(60), sound(20, seed=5)
    whole = make_engine(kind)
    slot, _ = whole.open()
    said(whole, slot, frames[:40])
    assert whole.truncate(slot, 30) == 0
    expected = said(whole, slot, frames[40:])
    alone = make_engine(kind)
    beside, _ = alone.open()
    told = said(alone, beside, others)

    engine = make_engine(kind, slots=2)
    slot, _ = engine.open()
    other, _ = engine.open()
    said(engine, slot, frames[:40])
    heard, parts = [], 0
    while engine.truncate(slot, 30, most=7):
        heard += said(engine, other, others[parts * 4 : parts * 4 + 4])
        parts += 1
    assert parts == 4
    heard += said(engine, other, others[parts * 4 :])
    assert said(engine, slot, frames[40:]) == expected
    assert heard == told


def test_a_slot_that_is_closed_within_a_truncation_begins_anew(kind: str) -> None:
    frames = sound(20)
    engine, fresh = make_engine(kind), make_engine(kind)
    slot, _ = engine.open()
    said(engine, slot, frames)
    assert engine.truncate(slot, 15, most=3) > 0
    engine.close(slot)
    slot, _ = engine.open()
    same, _ = fresh.open()
    assert said(engine, slot, frames) == said(fresh, same, frames)
    assert engine.truncate(slot, 5) == fresh.truncate(same, 5) == 0
    assert said(engine, slot, sound(30, seed=6)) == said(fresh, same, sound(30, seed=6))


def test_what_is_read_again_is_said_as_if_the_stream_had_begun_there(kind: str) -> None:
    """Rereading everything from the beginning is what the slot said in the first place."""
    frames = sound(50)
    engine = make_engine(kind)
    slot, _ = engine.open()
    first = said(engine, slot, frames)
    again, left = engine.redecode(slot, 50)
    assert left == 0
    assert again.tokens.tolist() == first
    assert again.logprobs.shape == (50,)
    assert said(engine, slot, sound(9, seed=1)) == _after(kind, frames, sound(9, seed=1))


def _after(kind: str, frames: np.ndarray, more: np.ndarray) -> list[int]:
    straight = make_engine(kind)
    alone, _ = straight.open()
    said(straight, alone, frames)
    return said(straight, alone, more)


def test_no_more_is_read_again_than_is_kept(kind: str) -> None:
    engine = make_engine(kind)
    slot, _ = engine.open()
    assert len(engine.redecode(slot, 10)[0].tokens) == 0
    said(engine, slot, sound(3))
    assert len(engine.redecode(slot, 10)[0].tokens) == 3
    said(engine, slot, sound(HISTORY_FRAMES + 10), block=64)
    assert len(engine.redecode(slot, 10**6)[0].tokens) == HISTORY_FRAMES


def test_neighbours_do_not_notice(kind: str) -> None:
    frames = sound(60)
    engine = make_engine(kind, slots=3)
    left, middle, right = (engine.open()[0] for _ in range(3))
    got: dict[int, list[int]] = {left: [], right: []}
    for at in range(0, 60, 4):
        tokens = step(engine, [left, middle, right], np.stack([frames[at : at + 4]] * 3))
        got[left] += tokens[0].tolist()
        got[right] += tokens[2].tolist()
        if at % 12 == 0:
            mark = engine.mark(middle)
            said(engine, middle, sound(7))
            engine.go_back(middle, mark)
        elif at % 12 == 4:
            engine.truncate(middle, 5)
        else:
            engine.redecode(middle, 9)
    straight = make_engine(kind)
    alone, _ = straight.open()
    expected = said(straight, alone, frames)
    assert got == {left: expected, right: expected}


def test_a_slot_restored_elsewhere_reads_again_alike(kind: str) -> None:
    engine, other = make_engine(kind), make_engine(kind, slots=2)
    slot, _ = engine.open()
    said(engine, slot, sound(200), block=64)
    other.open()
    twin, _ = other.open()
    other.restore(twin, engine.save(slot))
    a, b = engine.redecode(slot, 100)[0], other.redecode(twin, 100)[0]
    assert a.tokens.tolist() == b.tokens.tolist()


def test_only_held_slots(kind: str) -> None:
    engine = make_engine(kind)
    slot, _ = engine.open()
    mark = engine.mark(slot)
    engine.close(slot)
    for call in (
        lambda: engine.mark(slot),
        lambda: engine.go_back(slot, mark),
        lambda: engine.truncate(slot, 1),
        lambda: engine.redecode(slot, 1),
    ):
        with pytest.raises(StreamError, match="not open"):
            call()


def test_history_keeps_the_last_columns() -> None:
    history = ColumnHistory(2, 1)
    columns = np.arange(1000).reshape(-1, 2)
    for at in range(0, 500, 7):
        history.add(1, columns[at : at + 7])
    np.testing.assert_array_equal(history.last(1, 10), columns[490:])
    np.testing.assert_array_equal(history.last(1, 10**9), columns[500 - HISTORY_FRAMES :])
    history.counts[1] -= 64
    np.testing.assert_array_equal(
        history.last(1, HISTORY_FRAMES), columns[436 - HISTORY_FRAMES : 436]
    )
    assert len(history.last(0, 5)) == 0
    assert len(history.last(1, 0)) == 0
