"""Finalize: the words are there at once, and the talk goes on as if nothing had been asked."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku import End, Event, Finalized, Partial, Recognizer, Stream, Word, WordEnd
from kiku.config import REWIND_FRAMES
from kiku.engine.steering import Steering
from kiku.errors import StreamClosed
from kiku.stream import NO_CARE, Wishes
from kiku.stream.flush import Flush
from kiku.stream.telling import Ahead
from kiku.text import Timing, WordBuilder
from tests import tiny
from tests.engine.engines import KINDS, make_engine
from tests.fakes import PAD, EchoEngine, spoken

CONFIG = tiny.model_config()
SIZE = CONFIG.frame_size
ONE, TWO, THREE, ED = (tiny.PIECES.index(p) for p in ("▁one", "▁two", "▁three", "ed"))
QUIET = [PAD] * 4


def echo() -> tuple[Recognizer, EchoEngine]:
    engine = EchoEngine()
    return Recognizer(engine, CONFIG, tiny.vocabulary(), name="echo"), engine


def run(rec: Recognizer, stream: Stream) -> list[Event]:
    while rec.step():
        pass
    return stream.events()


def texts(events: Sequence[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Word)]


def test_the_words_come_before_their_delay_has_passed() -> None:
    rec, engine = echo()
    stream = rec.open()
    stream.push(spoken([*QUIET, 0, ONE, 0, TWO, PAD, PAD], SIZE))
    assert texts(run(rec, stream)) == ["one", "two"]
    stream.finalize()
    assert run(rec, stream) == [Finalized(pytest.approx(10 * 0.08), None)]
    assert engine.detours == 1
    assert engine.steps[-1] == (1, 7), "the delay"


def test_a_word_that_is_still_being_spoken_waits() -> None:
    rec, _ = echo()
    stream = rec.open(wishes=Wishes(care=NO_CARE))
    stream.push(spoken([*QUIET, 0, ONE], SIZE))
    assert texts(run(rec, stream)) == []
    stream.finalize()
    (final,) = run(rec, stream)
    assert final == Finalized(pytest.approx(0.48), Partial("one", 0.0))
    stream.push(spoken([ED, PAD], SIZE))
    assert texts(run(rec, stream)) == ["oneed"]


def test_it_can_be_cut_and_does_not_come_again() -> None:
    rec, _ = echo()
    stream = rec.open(wishes=Wishes(care=NO_CARE))
    stream.push(spoken([*QUIET, 0, ONE], SIZE))
    stream.finalize(cut=True)
    word, end, final = run(rec, stream)
    assert isinstance(word, Word)
    assert word.text == "one"
    assert isinstance(end, WordEnd)
    assert final == Finalized(pytest.approx(0.48), None)
    stream.push(spoken([ED, PAD, PAD, 0, TWO, PAD], SIZE))
    stream.close()
    assert texts(run(rec, stream)) == ["two"]


def test_a_word_that_was_cut_is_not_open_any_more() -> None:
    rec, _ = echo()
    stream = rec.open(wishes=Wishes(care=NO_CARE))
    stream.push(spoken([*QUIET, 0, ONE], SIZE))
    stream.finalize(cut=True)
    stream.finalize()
    assert run(rec, stream)[-1] == Finalized(pytest.approx(0.48), None)


def test_words_of_a_flush_do_not_go_beyond_its_sound() -> None:
    for closes in (False, True):
        rec, _ = echo()
        stream = rec.open(wishes=Wishes(care=NO_CARE))
        stream.push(spoken([*[PAD] * 10, 0, ONE], SIZE))
        stream.finalize(cut=True)
        if closes:
            stream.close()
        word = next(event for event in run(rec, stream) if isinstance(event, Word))
        assert word.end <= 12 * 0.08 + 1e-9


def test_a_word_that_has_faded_is_over() -> None:
    rec, _ = echo()
    stream = rec.open(wishes=Wishes(care=NO_CARE))
    stream.push(spoken([*QUIET, 0, ONE], SIZE))
    run(rec, stream)
    stream.push(np.zeros(SIZE + SIZE // 2, np.float32))  # its PAD has been heard, but no more
    assert texts(run(rec, stream)) == ["one"]


def test_sound_that_is_no_whole_frame_is_heard_too() -> None:
    rec, engine = echo()
    stream = rec.open()
    stream.push(np.zeros(3 * SIZE + 10, np.float32))
    run(rec, stream)
    stream.finalize()
    (final,) = run(rec, stream)
    assert isinstance(final, Finalized)
    assert final.time == pytest.approx((3 * SIZE + 10) / CONFIG.sample_rate)
    assert engine.steps[-1] == (1, 8)
    stream.push(np.zeros(SIZE - 10, np.float32))
    assert rec.step() == 1


def test_a_finalize_waits_for_the_sound_before_it_and_not_for_the_sound_behind() -> None:
    rec, _ = echo()
    stream = rec.open(wishes=Wishes(care=NO_CARE))
    stream.push(spoken([*QUIET, 0, ONE, *QUIET], SIZE))
    stream.finalize()
    stream.push(spoken([0, TWO, *QUIET], SIZE))
    stream.finalize()
    kinds = [
        event.text if isinstance(event, Word) else event.time
        for event in run(rec, stream)
        if isinstance(event, Word | Finalized)
    ]
    assert kinds == ["one", pytest.approx(10 * 0.08), "two", pytest.approx(16 * 0.08)]


def test_it_cannot_be_asked_of_a_closed_stream() -> None:
    rec, _ = echo()
    stream = rec.open()
    stream.close()
    with pytest.raises(StreamClosed):
        stream.finalize()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_talk_goes_on_unharmed(kind: str, temperature: float) -> None:
    """On a network, with words in everything: the tokens are the same, whatever was asked."""
    sound = (np.random.default_rng(4).standard_normal(60 * SIZE) * 0.3).astype(np.float32)

    def tokens(points: Sequence[int]) -> tuple[list[int], list[Event]]:
        rec = Recognizer(make_engine(kind), CONFIG, tiny.vocabulary(), name="tiny")
        seen: list[int] = []
        stream = rec.open(
            choose=Steering(temperature=temperature).chooser(tiny.vocabulary(), CONFIG),
            wishes=Wishes(care=NO_CARE),
            tap=lambda out: seen.extend(out.tokens[0].tolist()),
        )
        events: list[Event] = []
        for begin, end in zip([0, *points], [*points, len(sound)], strict=True):
            stream.push(sound[begin:end])
            events += run(rec, stream)
            if end < len(sound):
                stream.finalize()
                events += run(rec, stream)
        stream.close()
        return seen, events + run(rec, stream)

    plain, _ = tokens([])
    asked, events = tokens([100, 1000, 1010, 2500, 4777])
    assert asked == plain
    assert sum(isinstance(event, Finalized) for event in events) == 5
    starts = [event.start for event in events if isinstance(event, Word)]
    assert starts == sorted(starts)
    assert isinstance(events[-1], End)


def word(text: str, start: float) -> Word:
    return Word(text, start, start + 0.2, 0.9)


def test_what_was_told_is_left_out_once() -> None:
    ahead = Ahead([word("one", 1.0), word("two", 1.5)])
    assert ahead.has(word("one", 1.08))
    assert ahead.has(word("too", 1.52)), "heard otherwise, but in the same place"
    assert not ahead.has(word("two", 1.52))
    assert not ahead


def test_a_word_behind_what_was_told_is_new() -> None:
    ahead = Ahead([word("one", 1.0)])
    assert not ahead.has(word("one", 2.0))
    assert not ahead, "the stream has passed it"


def test_a_word_that_the_flush_did_not_hear_is_given_out_late() -> None:
    ahead = Ahead([word("one", 1.0), word("three", 3.0)])
    assert ahead.has(word("one", 1.0))
    missed = word("two", 2.0)
    assert not ahead.has(missed)
    assert ahead.missed(missed)
    assert ahead.has(word("three", 3.0))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from([PAD, PAD, 0, ONE, TWO, THREE, ED]), max_size=40),
    st.lists(st.integers(0, 40 * SIZE), max_size=6),
)
def test_whatever_is_asked_no_word_is_lost_or_doubled(tokens: list[int], points: list[int]) -> None:
    sound = spoken(tokens, SIZE)
    rec, _ = echo()
    expected = rec.transcribe(np.concatenate([sound, np.zeros(SIZE, np.float32)])).text.split()
    rec, _ = echo()
    stream = rec.open()
    events: list[Event] = []
    at = 0
    for point in sorted(min(p, len(sound)) for p in points):
        point = point // SIZE * SIZE  # a part of a frame says another token to this engine
        stream.push(sound[at:point])
        at = point
        stream.finalize()
        events += run(rec, stream)
    stream.push(sound[at:])
    stream.push(np.zeros(SIZE, np.float32))
    stream.close()
    events += run(rec, stream)
    assert texts(events) == expected
    times = [event.start for event in events if isinstance(event, Word)]
    assert times == sorted(times)


def test_a_word_that_is_not_at_its_end_gets_more_silence() -> None:
    timing = Timing(CONFIG.frame_rate, CONFIG.text_delay_s, 0.0)
    flush = Flush(20, np.zeros(0, np.float32), 20 * 0.08, cut=True, config=CONFIG)
    flush.begin(WordBuilder(tiny.vocabulary(), timing).at(21))
    assert len(flush.take(64)) == 7
    flush.accept([PAD] * 5 + [0, ONE], [0.0] * 7)
    assert flush.take(64).shape == (4, SIZE)
    flush.accept([ED, PAD, PAD, PAD], [0.0] * 4)
    assert len(flush.take(64)) == 0
    words, open_word = flush.result([-100.0] * 20)
    assert [word.text for word in words] == ["oneed"]
    assert open_word is None


def test_a_word_that_never_ends_does_not_go_beyond_what_can_be_taken_back() -> None:
    timing = Timing(CONFIG.frame_rate, CONFIG.text_delay_s, 0.0)
    flush = Flush(20, np.zeros(0, np.float32), 20 * 0.08, cut=True, config=CONFIG)
    flush.begin(WordBuilder(tiny.vocabulary(), timing).at(21))
    stepped = 0
    while len(frames := flush.take(8)):
        stepped += len(frames)
        flush.accept([ED] * len(frames), [0.0] * len(frames))
    assert stepped == REWIND_FRAMES
