"""A stream by itself: silence around the sound, times, any chunks, the last word."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku import End, Stream, Warning, Word, WordEnd
from kiku.config import ModelConfig
from kiku.errors import AudioError, StreamClosed
from kiku.stream import NO_CARE, Wishes
from tests import tiny

CONFIG = tiny.model_config()
SIZE = CONFIG.frame_size
ONE, TWO, ED = (tiny.PIECES.index(p) for p in ("▁one", "▁two", "ed"))


def stream(**changes: float) -> Stream:
    config = ModelConfig.from_dict({**CONFIG.to_dict(), **changes})
    return Stream(config, tiny.vocabulary(), Wishes(care=NO_CARE))


def said(s: Stream, tokens: list[int], logprobs: list[float] | None = None) -> None:
    """What an engine does: token 0 before any frame, then one after each."""
    logprobs = logprobs or [0.0] * len(tokens)
    s.begin(tokens[0], logprobs[0])
    s.push(np.zeros((len(tokens) - 1) * SIZE, np.float32))
    for token, logprob in zip(tokens[1:], logprobs[1:], strict=True):
        s.take(1)
        s.accept([token], [logprob])


def hear(s: Stream) -> np.ndarray:
    """Step all that waits, with nothing to say to it."""
    s.begin(3, 0.0)
    frames = drained(s)
    s.accept([3] * len(frames), [0.0] * len(frames))
    return frames


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
    s = Stream(CONFIG, tiny.vocabulary(), Wishes(care=NO_CARE), padded=False)
    s.push(np.ones(3 * SIZE + 5, np.float32))
    s.close()
    assert drained(s).shape == (3, SIZE)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 200), max_size=12), st.sampled_from([None, 1000, 8000, 16000]))
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
    said(s, [3] * 20 + [0, ONE], [0.0] * 21 + [-0.5])
    assert s.events() == []
    s.push(np.zeros(2 * SIZE, np.float32))
    s.take(2)
    s.accept([ED, 3], [-0.25, 0.0])
    word, ended = s.events()
    assert ended == WordEnd(word.end)
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
    s.begin(3, 0.0)
    drained(s)
    s.accept([3] * (n - 1) + [TWO], [0.0] * n)
    s.settle()
    word, _, end = s.events()
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


def test_a_change_of_rate_is_forgiven_and_told() -> None:
    s = stream()
    s.push(np.zeros(1600, np.float32), rate=16000)
    s.push(np.zeros(16_000, np.float32), rate=8000)
    assert s.events() == [], "it is told when it has been heard"
    hear(s)
    (warning,) = s.events()
    assert isinstance(warning, Warning)
    assert warning.kind == "rate_changed"
    assert warning.time == pytest.approx(0.1)
    assert s.duration == pytest.approx(2.1)


def test_a_rate_that_cannot_be_leaves_no_trace() -> None:
    s = stream()
    with pytest.raises(AudioError, match="0 Hz"):
        s.push(np.zeros(10, np.float32), rate=0)
    assert s.duration == 0.0
    s.push(np.zeros(SIZE, np.float32))
    assert s.num_ready == 1


def test_samples_that_are_not_finite_become_silence_and_are_told() -> None:
    s = stream()
    s.push(np.full(2 * CONFIG.sample_rate, np.nan, np.float32))
    assert not hear(s).any()
    (warning,) = s.events()
    assert isinstance(warning, Warning)
    assert warning.kind == "not_finite"


def test_what_is_no_sound_is_refused_and_the_stream_lives() -> None:
    s = stream()
    with pytest.raises(AudioError):
        s.push(np.array(["a"]))
    s.push(np.zeros(SIZE, np.float32))
    assert s.num_ready == 1
    assert s.duration == pytest.approx(0.08)


def test_what_was_wrong_with_the_last_second_is_told_at_the_end() -> None:
    s = stream()
    s.begin(3, 0.0)
    s.push(np.full(CONFIG.sample_rate // 2, np.nan, np.float32))
    s.close()
    frames = drained(s)
    s.accept([3] * len(frames), [0.0] * len(frames))
    s.settle()
    warning, end = s.events()
    assert isinstance(warning, Warning)
    assert warning.kind == "not_finite"
    assert isinstance(end, End)
