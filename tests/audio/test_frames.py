import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.audio import FrameQueue
from kiku.errors import FrameError


def frames(queue: FrameQueue, count: int) -> np.ndarray:
    """The oldest frames, side by side."""
    pieces = [np.zeros(0, np.float32), *queue.take(count)]
    return np.concatenate(pieces).reshape(count, queue.frame_size)


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
        taken.append(frames(queue, min(take, queue.num_ready)))
    num_zeros = queue.pad()
    assert 0 <= num_zeros < frame_size
    taken.append(frames(queue, queue.num_ready))
    got = np.concatenate(taken)
    assert got.shape == (-(-total // frame_size), frame_size)
    assert np.array_equal(got.ravel()[:total], samples)
    assert not got.ravel()[total:].any()
    assert queue.num_ready == queue.num_samples == queue.pad() == 0


def test_frames_are_taken_as_the_pieces_that_were_pushed() -> None:
    queue = FrameQueue(2)
    first, second = np.array([1, 2], np.float32), np.array([3, 4, 5, 6, 7], np.float32)
    queue.push(first)
    queue.push(second)
    (whole,) = queue.take(1)
    assert whole is first
    pieces = queue.take(2)
    assert [piece.tolist() for piece in pieces] == [[3, 4, 5, 6]]
    assert np.shares_memory(pieces[0], second)
    assert queue.rest().tolist() == queue.peek().tolist() == [7]
    queue.clear()
    assert queue.num_samples == 0
    assert queue.peek().size == 0


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
