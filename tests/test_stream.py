"""A stream by itself: silence around the sound, times, any chunks, the last word."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku import End, Stream, Word
from kiku.config import ModelConfig
from kiku.errors import AudioError, StreamClosed
from tests import tiny

CONFIG = tiny.model_config()
SIZE = CONFIG.frame_size
ONE, TWO, ED = (tiny.PIECES.index(p) for p in ("▁one", "▁two", "ed"))


def stream(**changes: float) -> Stream:
    config = ModelConfig.from_dict({**CONFIG.to_dict(), **changes})
    return Stream(config, tiny.vocabulary())


def drained(s: Stream) -> np.ndarray:
    return s.take(s.num_ready)


def test_frames_are_the_silence_the_sound_and_the_silence() -> None:
    s = stream(silence_prefix_s=0.2)
    sound = np.random.default_rng(0).uniform(-1, 1, 100).astype(np.float32)
    s.push(sound)
    s.close()
    frames = drained(s).ravel()
    prefix = int(0.2 * CONFIG.sample_rate)
    assert not frames[:prefix].any()
    np.testing.assert_array_equal(frames[prefix : prefix + 100], sound)
    assert not frames[prefix + 100 :].any()
    tail_s = (frames.size - prefix - 100) / CONFIG.sample_rate
    assert CONFIG.text_delay_s + 1.0 <= tail_s < CONFIG.text_delay_s + 1.0 + 2 * 0.08


def test_an_unpadded_stream_hears_exactly_what_is_pushed() -> None:
    s = Stream(CONFIG, tiny.vocabulary(), padded=False)
    s.push(np.ones(3 * SIZE + 5, np.float32))
    s.close()
    assert drained(s).shape == (3, SIZE)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 200), max_size=12), st.sampled_from([None, 1600, 1000, 8000]))
def test_any_chunks_give_the_same_frames(lengths: list[int], rate: int | None) -> None:
    sound = np.random.default_rng(1).uniform(-1, 1, sum(lengths)).astype(np.float32)
    whole, cut = stream(), stream()
    whole.push(sound, rate=rate)
    at = 0
    for length in lengths:
        cut.push(sound[at : at + length], rate=rate)
        at += length
    whole.close()
    cut.close()
    np.testing.assert_allclose(drained(cut), drained(whole), atol=1e-6)
    assert cut.duration == whole.duration


def test_words_come_as_decided_with_the_delay_removed() -> None:
    s = stream()
    s.accept([3] * 20, [0.0] * 20)
    s.accept([0, ONE], [0.0, -0.5])
    assert s.events() == []
    s.accept([ED], [-0.25])
    s.accept([3], [0.0])
    (word,) = s.events()
    assert isinstance(word, Word)
    assert word.text == "oneed"
    assert word.start == pytest.approx(21 * 0.08 - 0.5)
    assert word.end == pytest.approx(23 * 0.08 - 0.5)
    assert word.probability == pytest.approx(np.exp(-0.75))


def test_the_last_word_is_never_lost() -> None:
    s = stream()
    s.push(np.zeros(2 * SIZE, np.float32))
    s.close()
    n = s.num_ready
    drained(s)
    s.accept([3] * (n - 1) + [TWO], [0.0] * n)
    s.settle()
    word, end = s.events()
    assert isinstance(word, Word)
    assert word.text == "two"
    assert word.end <= s.duration
    assert end == End(2 * 0.08)
    assert s.done
    s.settle()
    assert s.events() == []


def test_nothing_is_pushed_after_the_end() -> None:
    s = stream()
    s.close()
    s.close()
    with pytest.raises(StreamClosed, match="open another stream"):
        s.push(np.zeros(10, np.float32))


def test_the_rate_stays() -> None:
    s = stream()
    s.push(np.zeros(10, np.float32), rate=16000)
    with pytest.raises(AudioError, match="16000 Hz, now 8000 Hz"):
        s.push(np.zeros(10, np.float32), rate=8000)


def test_a_rate_that_cannot_be_leaves_no_trace() -> None:
    s = stream()
    with pytest.raises(AudioError, match="0 Hz"):
        s.push(np.zeros(10, np.float32), rate=0)
    assert s.duration == 0.0
    s.push(np.zeros(SIZE, np.float32))
    assert s.num_ready == 1


def test_bad_samples_are_refused_and_the_stream_lives() -> None:
    s = stream()
    with pytest.raises(AudioError):
        s.push(np.array([0.0, np.nan], np.float32))
    s.push(np.zeros(SIZE, np.float32))
    assert s.num_ready == 1
    assert s.duration == pytest.approx(0.08)
