"""Raw tokens: what is pending, and when it ends."""

import numpy as np
import pytest

from kiku.stream import TokenSession


@pytest.mark.parametrize("stays", [False, True])
def test_a_session_that_is_cut_or_stopped_takes_no_more_frames(stays: bool) -> None:
    for end in (TokenSession.cut,):
        session = TokenSession(np.zeros((3, 4), np.float32), stays=stays)
        assert session.pending() == 3
        assert session.take(1)[0].size == 4
        assert session.pending() == 2
        end(session)
        assert session.pending() is None


@pytest.mark.parametrize("stays", [False, True])
def test_one_that_stays_keeps_its_slot_when_all_are_heard(stays: bool) -> None:
    session = TokenSession(np.zeros((2, 4), np.float32), stays=stays)
    session.begin(3, 0.0)
    assert session.is_closing is not stays
    session.take(2)
    assert not session.has_heard_all
    session.accept([1, 2], [0.0, 0.0], [-50.0, -50.0], None)
    assert session.has_heard_all
    assert session.tokens == [3, 1, 2]
    assert session.pending() == (0 if stays else None)


def test_frames_are_taken_in_order_and_changes_are_told() -> None:
    session = TokenSession(np.arange(12, dtype=np.float32).reshape(3, 4))
    session.begin(3, 0.0)
    assert [piece.tolist() for piece in session.take(1)] == [[0, 1, 2, 3]]
    assert [piece.tolist() for piece in session.take(2)] == [[4, 5, 6, 7, 8, 9, 10, 11]]
    session.accept([1], [0.0], [-50.0], None)
    session.accept([2, 5], [0.0] * 2, [-50.0] * 2, None)
    assert session.may_go_on
    assert session.work is None
    session.finish()
    assert not session.done
    session.released()
    assert session.done


def test_of_several_failures_the_first_is_told() -> None:
    session = TokenSession(np.zeros((3, 4), np.float32), stays=True)
    assert session.failure is None
    first = ValueError("first")
    session.fail(first)
    session.fail(ValueError("second"))
    assert session.failure is first
    assert session.pending() is None
