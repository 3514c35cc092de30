"""A change of decoding has its place in the sound, whatever waits and however the sound was cut."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.decoding import TokenPicker
from kiku.errors import ConfigError, QueueFull
from kiku.options import DecodingOptions, StreamOptions
from kiku.stream import FinalizeRequest, WordSession
from kiku.stream.work import ChangeWork, DecodingChange, FinalizeWork
from tests import tiny
from tests.fakes import PAD

CONFIG = tiny.model_config()
SIZE = CONFIG.frame_size


class Slot:
    """Notes how tokens are picked, and hears nothing in what is taken back."""

    def __init__(self) -> None:
        self.changes: list[tuple[TokenPicker | None, int | None]] = []

    def change_decoding(self, picker: TokenPicker | None, num_codebooks: int | None) -> None:
        self.changes.append((picker, num_codebooks))

    def look_ahead(self, frames: Any) -> tuple[list[int], list[float]]:
        return [PAD] * len(frames), [0.0] * len(frames)

    def end_look_ahead(self) -> None: ...


def session() -> WordSession:
    fresh = WordSession(CONFIG, tiny.vocabulary(), StreamOptions(recovery=None))
    fresh.begin(PAD, 0.0)
    return fresh


def push(s: WordSession, num_samples: int) -> None:
    s.push(s.input.check(np.zeros(num_samples, np.float32)))


def change(s: WordSession, num_codebooks: int, **how: Any) -> None:
    s.check_change()
    options = DecodingOptions(num_codebooks=num_codebooks, **how)
    s.change_decoding(s.new_change(options))


def heard(s: WordSession, slot: Slot) -> list[int | None]:
    """Hear all that waits; of each frame, how many codebooks were read."""
    found: list[int | None] = []
    while pending := s.pending():
        if isinstance(pending, int):
            s.take(pending)
            s.accept([PAD] * pending, [0.0] * pending, [-100.0] * pending, None)
            found += [slot.changes[-1][1] if slot.changes else None] * pending
        else:
            while pending.run(slot, s, None):  # pyright: ignore[reportArgumentType]
                pass
    return found


@pytest.mark.parametrize(("num_samples", "at"), [(0, 0), (1, 0), (SIZE - 1, 0), (SIZE, 1),
                                                 (5 * SIZE + 7, 5)])  # fmt: skip
def test_it_holds_from_the_frame_on_in_which_the_sound_before_it_ends(
    num_samples: int, at: int
) -> None:
    s, slot = session(), Slot()
    push(s, num_samples)
    change(s, 2)
    push(s, 10 * SIZE - num_samples)
    assert s.pending() == at or at == 0
    assert heard(s, slot) == [None] * at + [2] * (10 - at)
    assert s.decoding == DecodingOptions(num_codebooks=2)


Steps = Sequence[tuple[int, int]]
"""Samples that are pushed, and behind them how many codebooks are read; 0 is no change."""


def expected(steps: Steps) -> list[int | None]:
    """Of each frame, how many codebooks are read: written down another way."""
    found: list[int | None] = [None] * (sum(size for size, _ in steps) // SIZE)
    end = 0
    for size, number in steps:
        end += size
        if number:
            found[end // SIZE :] = [number] * len(found[end // SIZE :])
    return found


@settings(deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 90 * SIZE), st.integers(0, 3)), max_size=8),
    waits=st.lists(st.booleans(), min_size=8, max_size=8),
    saved_at=st.integers(0, 7),
    chunk=st.integers(SIZE // 3, 20 * SIZE),
)
def test_whether_sound_waits_or_was_heard_or_saved_makes_no_difference(
    steps: list[tuple[int, int]], waits: list[bool], saved_at: int, chunk: int
) -> None:
    s, slot = session(), Slot()
    found: list[int | None] = []
    for i, (size, number) in enumerate(steps):
        for first in range(0, size, chunk):
            push(s, min(chunk, size - first))
        if number:
            change(s, number)
        if not waits[i]:
            found += heard(s, slot)
        if i == saved_at:
            other = session()
            other.restore(s.save(s.num_given))
            s = other
    found += heard(s, slot)
    assert found == expected(steps)


def test_requests_of_one_place_are_done_in_their_order() -> None:
    s, slot = session(), Slot()
    push(s, 3 * SIZE)
    s.finalize(FinalizeRequest("a"))
    s.finalize(FinalizeRequest("b"))
    change(s, 2)
    s.finalize(FinalizeRequest("c"))
    change(s, 3)
    assert s.pending() == 3
    done: list[type] = []
    other = session()
    other.restore(s.save(s.num_given))
    for one in (s, other):
        one.take(3)
        one.accept([PAD] * 3, [0.0] * 3, [-100.0] * 3, None)
        done = []
        while pending := one.pending():
            assert isinstance(pending, FinalizeWork | ChangeWork)
            done.append(type(pending))
            while pending.run(slot, one, None):  # pyright: ignore[reportArgumentType]
                pass
        assert done == [FinalizeWork, ChangeWork, FinalizeWork, ChangeWork]
    assert [number for _, number in slot.changes] == [2, 3, 2, 3]


def test_so_many_changes_may_wait_and_those_that_were_made_count_no_more() -> None:
    s, slot = session(), Slot()
    push(s, SIZE)
    for i in range(32):
        change(s, 1 + i % 2)
    with pytest.raises(QueueFull, match="32 changes of decoding are waiting"):
        change(s, 3)
    s.finalize(FinalizeRequest())  # which are counted by themselves
    other = session()
    other.restore(s.save(s.num_given))
    with pytest.raises(QueueFull, match="32 changes"):
        change(other, 3)
    assert heard(s, slot) == [None]
    assert [number for _, number in slot.changes] == [1, 2] * 16
    change(s, 3)


def test_what_changes_nothing_is_not_waited_for() -> None:
    s, slot = session(), Slot()
    change(s, 2, hotwords=["one"])
    heard(s, slot)
    for _ in range(60):  # fewer than are converted ahead
        push(s, SIZE)
        change(s, 2, hotwords=["one"])
        s.pending()
    assert heard(s, slot) == [2] * 60
    assert len(slot.changes) == 1
    s.change_decoding(s.new_change(DecodingOptions()))
    other = session()
    other.restore(s.save(s.num_given))
    for one in (s, other):
        change(one, 2, hotwords=["one"])
        slot = Slot()
        heard(one, slot)
        assert [number for _, number in slot.changes] == [None, 2]


def test_who_asks_is_told_what_the_model_cannot_do() -> None:
    s = session()
    for wrong in (DecodingOptions(hotwords=["\u2603"]), DecodingOptions(num_codebooks=30)):
        with pytest.raises(ConfigError):
            s.new_change(wrong)


def test_sessions_pick_by_themselves_what_they_were_told_together() -> None:
    change = DecodingChange.of(DecodingOptions(temperature=0.5), tiny.vocabulary(), CONFIG)
    one, other = session(), session()
    slots = [Slot(), Slot()]
    for s, slot in zip((one, other), slots, strict=True):
        s.change_decoding(change)
        heard(s, slot)
    assert slots[0].changes[0][0] is not slots[1].changes[0][0]


def test_the_end_and_a_stop_leave_nothing_to_be_done() -> None:
    s, slot = session(), Slot()
    change(s, 2)
    s.close()
    heard(s, slot)
    assert s.pending() is None
    s = session()
    push(s, SIZE)
    change(s, 2)
    s.pending()
    s.cut()
    assert s.pending() is None
