import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.audio import FrameQueue
from kiku.errors import FrameError


@given(
    frame_size=st.integers(1, 50),
    lengths=st.lists(st.integers(0, 120), max_size=20),
    takes=st.lists(st.integers(0, 6), min_size=20, max_size=20),
)
@settings(deadline=None, max_examples=100)
def test_any_cut_in_and_any_take_out_keeps_every_sample_in_order(
    frame_size: int, lengths: list[int], takes: list[int]
) -> None:
    queue = FrameQueue(frame_size)
    total = sum(lengths)
    samples = np.arange(1, total + 1, dtype=np.float32)
    taken = []
    pushed = 0
    for length, take in zip(lengths, takes, strict=False):
        queue.push(samples[pushed : pushed + length])
        pushed += length
        waiting = pushed - sum(len(frames) for frames in taken) * frame_size
        assert queue.num_ready == waiting // frame_size
        assert queue.num_samples % frame_size == waiting % frame_size
        taken.append(queue.take(min(take, queue.num_ready)))
    num_zeros = queue.pad()
    assert 0 <= num_zeros < frame_size
    taken.append(queue.take(queue.num_ready))
    got = np.concatenate(taken)
    assert got.shape == (-(-total // frame_size), frame_size)
    assert np.array_equal(got.ravel()[:total], samples)
    assert not got.ravel()[total:].any()
    assert queue.num_ready == queue.num_samples == queue.pad() == 0


def test_what_is_taken_is_the_callers_own() -> None:
    queue = FrameQueue(2)
    pushed = np.array([1, 2, 3, 4], np.float32)
    queue.push(pushed)
    first = queue.take(1)
    first[:] = 9
    assert queue.take(1).tolist() == [[3.0, 4.0]]
    assert pushed.tolist() == [1, 2, 3, 4]


def test_frames_are_taken_as_the_pieces_that_were_pushed() -> None:
    queue = FrameQueue(2)
    first, second = np.array([1, 2], np.float32), np.array([3, 4, 5, 6, 7], np.float32)
    queue.push(first)
    queue.push(second)
    (whole,) = queue.take_pieces(1)
    assert whole is first
    pieces = queue.take_pieces(2)
    assert [piece.tolist() for piece in pieces] == [[3, 4, 5, 6]]
    assert np.shares_memory(pieces[0], second)
    assert queue.rest().tolist() == queue.peek().tolist() == [7]
    queue.clear()
    assert queue.num_samples == 0
    assert queue.peek().size == 0


def test_taking_more_than_is_ready_is_refused_and_loses_nothing() -> None:
    queue = FrameQueue(4)
    queue.push(np.ones(7, np.float32))
    for num_frames in (2, -1):
        with pytest.raises(FrameError, match="1 are ready"):
            queue.take(num_frames)
    assert queue.take(1).tolist() == [[1.0] * 4]
    assert queue.rest().tolist() == [1.0] * 3


def test_a_backlog_is_taken_frame_by_frame_in_linear_time() -> None:
    queue = FrameQueue(10)
    queue.push(np.zeros(2_000_000, np.float32))
    held = queue._pieces[0]
    for _ in range(1_000):
        queue.take(1)
        # Copying the rest of the backlog at each take would make this quadratic.
        assert np.shares_memory(queue._pieces[0], held)


def test_a_frame_holds_at_least_one_sample() -> None:
    with pytest.raises(FrameError, match="frame_size is 0"):
        FrameQueue(0)
