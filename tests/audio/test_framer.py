import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.audio import Framer
from kiku.errors import AudioError, FrameError


@given(
    frame_size=st.integers(1, 50),
    lengths=st.lists(st.integers(0, 120), max_size=20),
    takes=st.lists(st.integers(0, 6), min_size=20, max_size=20),
)
@settings(deadline=None, max_examples=100)
def test_any_cut_in_and_any_take_out_keeps_every_sample_in_order(
    frame_size: int, lengths: list[int], takes: list[int]
) -> None:
    framer = Framer(frame_size)
    total = sum(lengths)
    samples = np.arange(1, total + 1, dtype=np.float32)
    taken = []
    pushed = 0
    for length, take in zip(lengths, takes, strict=False):
        framer.push(samples[pushed : pushed + length])
        pushed += length
        waiting = pushed - sum(len(frames) for frames in taken) * frame_size
        assert framer.num_ready == waiting // frame_size
        assert framer.num_left == waiting % frame_size
        taken.append(framer.take(min(take, framer.num_ready)))
    num_zeros = framer.pad()
    assert 0 <= num_zeros < frame_size
    taken.append(framer.take(framer.num_ready))
    got = np.concatenate(taken)
    assert got.shape == (-(-total // frame_size), frame_size)
    assert np.array_equal(got.ravel()[:total], samples)
    assert not got.ravel()[total:].any()
    assert framer.num_ready == framer.num_left == framer.pad() == 0


def test_the_caller_may_reuse_what_was_pushed_and_change_what_was_taken() -> None:
    framer = Framer(2)
    buffer = np.array([1, 2, 3, 4], np.float32)
    framer.push(buffer)
    buffer[:] = 9
    first = framer.take(1)
    first[:] = 9
    assert framer.take(1).tolist() == [[3.0, 4.0]]


def test_taking_more_than_is_ready_is_refused_and_loses_nothing() -> None:
    framer = Framer(4)
    framer.push(np.ones(7, np.float32))
    for num_frames in (2, -1):
        with pytest.raises(FrameError, match="1 are ready"):
            framer.take(num_frames)
    assert framer.take(1).tolist() == [[1.0] * 4]
    assert framer.num_left == 3


def test_a_backlog_is_taken_frame_by_frame_in_linear_time() -> None:
    framer = Framer(10)
    framer.push(np.zeros(2_000_000, np.float32))
    held = framer._chunks[0]
    for _ in range(1_000):
        framer.take(1)
        # Copying the rest of the backlog at each take would make this quadratic.
        assert np.shares_memory(framer._chunks[0], held)


def test_bad_sizes_and_bad_samples_are_refused() -> None:
    with pytest.raises(FrameError, match="frame_size is 0"):
        Framer(0)
    for samples in (np.zeros((1, 8), np.float32), np.zeros(8), np.zeros(8, np.int16)):
        with pytest.raises(AudioError, match="as_mono"):
            Framer(4).push(samples)  # type: ignore[arg-type]
