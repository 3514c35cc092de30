"""Finalize: the words are there at once, and the talk goes on as if nothing had been asked."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku import (
    DecodingOptions,
    End,
    Event,
    Finalized,
    Partial,
    Recognizer,
    StreamOptions,
    Word,
    WordEnd,
)
from kiku.config import REWIND_FRAMES, ModelConfig
from kiku.decoding import token_picker
from kiku.errors import QueueFull, StreamClosed
from kiku.stream import FinalizeRequest
from kiku.stream.emitter import EmittedWords
from kiku.stream.work import FinalizeState, FinalizeWork
from kiku.text import Timing, WordBuilder
from tests import tiny
from tests.engine.engines import KINDS, make_engine
from tests.fakes import PAD, Driven, EchoEngine, spoken

CONFIG = tiny.model_config()
SIZE = CONFIG.frame_size
ONE, TWO, THREE, ED = (tiny.PIECES.index(p) for p in ("▁one", "▁two", "▁three", "ed"))
QUIET = [PAD] * 4
PLAIN = StreamOptions(recovery=None)


def echo(options: StreamOptions | None = None) -> tuple[Driven, EchoEngine]:
    engine = EchoEngine()
    rec = Recognizer(engine, CONFIG, tiny.vocabulary(), name="echo")
    return Driven(rec, options), engine


def texts(events: Sequence[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Word)]


def test_the_words_come_before_their_delay_has_passed() -> None:
    stream, engine = echo()
    stream.push(spoken([*QUIET, 0, ONE, 0, TWO, PAD, PAD], SIZE))
    assert texts(stream.run()) == ["one", "two"]
    stream.finalize()
    assert stream.run() == [Finalized(pytest.approx(10 * 0.08), None)]
    assert engine.num_marks == 1
    assert engine.steps[-1] == {0: 7}, "the delay"
    assert engine.heard[0] == 10


def test_a_word_that_is_still_being_spoken_waits() -> None:
    stream, _ = echo(PLAIN)
    stream.push(spoken([*QUIET, 0, ONE], SIZE))
    assert texts(stream.run()) == []
    stream.finalize("here")
    (final,) = stream.run()
    assert final == Finalized(pytest.approx(0.48), Partial("one", 0.0), "here")
    stream.push(spoken([ED, PAD], SIZE))
    assert texts(stream.run()) == ["oneed"]


def test_it_can_be_cut_and_does_not_come_again() -> None:
    stream, _ = echo(PLAIN)
    stream.push(spoken([*QUIET, 0, ONE], SIZE))
    stream.finalize(cut=True)
    word, end, final = stream.run()
    assert isinstance(word, Word)
    assert word.text == "one"
    assert isinstance(end, WordEnd)
    assert final == Finalized(pytest.approx(0.48), None)
    stream.push(spoken([ED, PAD, PAD, 0, TWO, PAD], SIZE))
    stream.close()
    assert texts(stream.run()) == ["two"]


def test_a_word_that_was_cut_is_not_open_any_more() -> None:
    stream, _ = echo(PLAIN)
    stream.push(spoken([*QUIET, 0, ONE], SIZE))
    stream.finalize(cut=True)
    stream.finalize()
    assert stream.run()[-1] == Finalized(pytest.approx(0.48), None)


def test_words_of_a_finalize_do_not_go_beyond_its_sound() -> None:
    for closes in (False, True):
        stream, _ = echo(PLAIN)
        stream.push(spoken([*[PAD] * 10, 0, ONE], SIZE))
        stream.finalize(cut=True)
        if closes:
            stream.close()
        word = next(event for event in stream.run() if isinstance(event, Word))
        assert word.end <= 12 * 0.08 + 1e-9


def test_a_word_that_has_faded_is_over() -> None:
    stream, _ = echo(PLAIN)
    stream.push(spoken([*QUIET, 0, ONE], SIZE))
    stream.run()
    stream.push(np.zeros(SIZE + SIZE // 2, np.float32))  # its PAD has been heard, but no more
    assert texts(stream.run()) == ["one"]


def test_sound_that_is_no_whole_frame_is_heard_too() -> None:
    stream, engine = echo()
    stream.push(np.zeros(3 * SIZE + 10, np.float32))
    stream.run()
    stream.finalize()
    (final,) = stream.run()
    assert isinstance(final, Finalized)
    assert final.time == pytest.approx((3 * SIZE + 10) / CONFIG.sample_rate)
    assert engine.steps[-1] == {0: 8}
    stream.push(np.zeros(SIZE - 10, np.float32))
    stream.run()
    assert engine.steps[-1] == {0: 1}


def test_a_finalize_waits_for_the_sound_before_it_and_not_for_the_sound_behind() -> None:
    stream, _ = echo(PLAIN)
    stream.push(spoken([*QUIET, 0, ONE, *QUIET], SIZE))
    stream.finalize()
    stream.push(spoken([0, TWO, *QUIET], SIZE))
    stream.finalize()
    kinds = [
        event.text if isinstance(event, Word) else event.time
        for event in stream.run()
        if isinstance(event, Word | Finalized)
    ]
    assert kinds == ["one", pytest.approx(10 * 0.08), "two", pytest.approx(16 * 0.08)]


def test_it_cannot_be_asked_of_a_closed_stream() -> None:
    stream, _ = echo()
    stream.close()
    with pytest.raises(StreamClosed):
        stream.finalize()


def test_equal_requests_at_one_place_are_one() -> None:
    stream, engine = echo(PLAIN)
    stream.push(spoken([*QUIET, 0, ONE], SIZE))
    for tag, cut in (("a", False), ("a", False), ("b", False), (None, True), (None, True)):
        stream.finalize(tag, cut=cut)
    events = stream.run()
    assert [event.tag for event in events if isinstance(event, Finalized)] == ["a", "b", None]
    assert texts(events) == ["one"], "the one that cuts"
    assert engine.num_marks == 2
    stream.push(np.zeros(10, np.float32))
    stream.finalize("a")
    assert [event.tag for event in stream.run() if isinstance(event, Finalized)] == ["a"]


def test_so_many_finalizes_may_wait_and_no_more() -> None:
    stream, _ = echo(PLAIN)
    session = stream.session
    for _ in range(2):  # those that were answered, or became one with others, count no more
        for tags in ("aba",) * 10 + ("ab",):
            stream.push(np.zeros(SIZE, np.float32))
            for tag in tags:
                stream.finalize(tag)
        session.check_finalize(FinalizeRequest("b"))  # as the last that waits
        with pytest.raises(QueueFull, match="32 finalizes are waiting"):
            session.check_finalize(FinalizeRequest("a"))
        found = stream.run()
        assert sum(isinstance(event, Finalized) for event in found) == 22


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_talk_goes_on_unharmed(kind: str, temperature: float) -> None:
    """On a network, with words in everything: the tokens are the same, whatever was asked."""
    sound = (np.random.default_rng(4).standard_normal(40 * SIZE) * 0.3).astype(np.float32)

    def tokens(points: Sequence[int]) -> tuple[list[int], list[Event]]:
        rec = Recognizer(make_engine(kind), CONFIG, tiny.vocabulary(), name="tiny")
        seen: list[int] = []
        decoding = DecodingOptions(temperature=temperature)
        stream = Driven(
            rec,
            PLAIN,
            picker=token_picker(decoding, tiny.vocabulary(), CONFIG),
            on_output=lambda out: seen.extend(out.tokens.tolist()),
        )
        events: list[Event] = []
        for begin, end in zip([0, *points], [*points, len(sound)], strict=True):
            stream.push(sound[begin:end])
            events += stream.run()
            if end < len(sound):
                stream.finalize()
                events += stream.run()
        stream.close()
        return seen, events + stream.run()

    plain, _ = tokens([])
    asked, events = tokens([100, 1000, 1010, 1800, 3077])
    assert asked == plain
    assert sum(isinstance(event, Finalized) for event in events) == 5
    starts = [event.start for event in events if isinstance(event, Word)]
    assert starts == sorted(starts)
    assert isinstance(events[-1], End)


def word(text: str, start: float) -> Word:
    return Word(text, start, start + 0.2, 0.9)


def test_what_was_given_out_is_left_out_once() -> None:
    ahead = EmittedWords([word("one", 1.0), word("two", 1.5)])
    assert ahead.take(word("one", 1.08))
    assert ahead.take(word("too", 1.52)), "heard otherwise, but in the same place"
    assert not ahead.take(word("two", 1.52))
    assert not ahead


def test_a_word_behind_what_was_given_out_is_new() -> None:
    ahead = EmittedWords([word("one", 1.0)])
    assert not ahead.take(word("one", 2.0))
    assert not ahead, "the stream has passed it"


def test_a_word_that_the_finalize_did_not_hear_is_given_out_late() -> None:
    ahead = EmittedWords([word("one", 1.0), word("three", 3.0)])
    assert ahead.take(word("one", 1.0))
    missed = word("two", 2.0)
    assert not ahead.take(missed)
    assert ahead.is_past(missed)
    assert ahead.take(word("three", 3.0))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from([PAD, PAD, 0, ONE, TWO, THREE, ED]), max_size=40),
    st.lists(st.integers(0, 40 * SIZE), max_size=6),
)
def test_whatever_is_asked_no_word_is_lost_or_doubled(tokens: list[int], points: list[int]) -> None:
    sound = spoken(tokens, SIZE)
    rec = Recognizer(EchoEngine(), CONFIG, tiny.vocabulary(), name="echo")
    expected = rec.transcribe(
        np.concatenate([sound, np.zeros(SIZE, np.float32)]), rate=CONFIG.sample_rate
    ).text.split()
    stream, _ = echo()
    events: list[Event] = []
    at = 0
    for point in sorted(min(p, len(sound)) for p in points):
        point = point // SIZE * SIZE  # a part of a frame says another token to this engine
        stream.push(sound[at:point])
        at = point
        stream.finalize()
        events += stream.run()
    stream.push(sound[at:])
    stream.push(np.zeros(SIZE, np.float32))
    stream.close()
    events += stream.run()
    assert texts(events) == expected
    times = [event.start for event in events if isinstance(event, Word)]
    assert times == sorted(times)


class Slot:
    """Says what it was given, and counts the frames that it was asked about."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = list(tokens)
        self.asked: list[int] = []
        self.is_back = False

    def look_ahead(self, frames: np.ndarray) -> tuple[list[int], list[float]]:
        assert not frames.any()
        assert frames.shape[1] == SIZE
        before = sum(self.asked)
        self.asked.append(len(frames))
        return self.tokens[before : before + len(frames)], [0.0] * len(frames)

    def end_look_ahead(self) -> None:
        self.is_back = True


class Asker:
    """Has a builder at token 21, and waits for the answer."""

    answer: FinalizeWork | None = None

    def fork(self) -> WordBuilder:
        return WordBuilder(
            tiny.vocabulary(), Timing(CONFIG.frame_rate, CONFIG.text_delay_s, 0.0)
        ).at(21)

    def finalized(self, work: FinalizeWork) -> None:
        self.answer = work


def finalized(
    tokens: Sequence[int], most: int | None = None, config: ModelConfig = CONFIG
) -> tuple[FinalizeWork, Slot]:
    """A finalize at frame 20, done in pieces of `most` frames."""
    state = FinalizeState(20, np.zeros(0, np.float32), 20 * 0.08, [FinalizeRequest(cut=True)])
    work, slot, asker = FinalizeWork(state, config), Slot(tokens), Asker()
    while work.run(slot, asker, most):  # pyright: ignore[reportArgumentType]
        assert asker.answer is None
        assert not slot.is_back
    assert asker.answer is work
    assert slot.is_back
    return work, slot


@pytest.mark.parametrize(("most", "asked"), [(None, [7, 4]), (4, [4, 3, 4])])
def test_a_word_that_is_not_at_its_end_gets_more_silence(most: int, asked: list[int]) -> None:
    work, slot = finalized([PAD] * 5 + [0, ONE, ED, PAD, PAD, PAD], most)
    assert slot.asked == asked
    words, open_word = work.result([-100.0] * 20)
    assert [word.text for word in words] == ["oneed"]
    assert open_word is None


@pytest.mark.parametrize("most", [None, 1, 8])
def test_a_word_that_never_ends_does_not_go_beyond_what_can_be_taken_back(most: int | None) -> None:
    _, slot = finalized([ED] * 1000, most)
    assert sum(slot.asked) == REWIND_FRAMES
    assert all(0 < count <= (most or REWIND_FRAMES) for count in slot.asked)


def test_a_word_of_the_silence_was_never_said() -> None:
    work, _ = finalized([PAD] * 6 + [0, PAD, PAD, PAD, 0, ONE, PAD, PAD, PAD])
    assert work.result([]) == ([], None)
    work, _ = finalized([PAD] * 6 + [0, ONE, PAD, PAD, PAD])
    assert [word.text for word in work.result([])[0]] == ["one"]


def test_a_long_delay_is_heard_as_far_as_it_can_be_taken_back() -> None:
    late = replace(CONFIG, text_delay_s=10.0)
    _, slot = finalized([PAD] * 1000, config=late)
    assert sum(slot.asked) <= REWIND_FRAMES
    _, slot = finalized([ED] * 1000, config=late)
    assert slot.asked == [REWIND_FRAMES - 4, 4]


def test_what_has_begun_takes_no_more_requests() -> None:
    request = FinalizeRequest("more", cut=True)
    state = FinalizeState(20, np.zeros(0, np.float32), 1.6, [FinalizeRequest(cut=True)])
    work = FinalizeWork(state, CONFIG)
    assert not work.merges(21, 1.6, request)
    assert not work.merges(20, 1.7, request)
    assert not work.merges(20, 1.6, FinalizeRequest("more"))
    assert work.merges(20, 1.6, request)
    assert len(state.requests) == 2
    work.run(Slot([PAD] * 9), Asker(), 2)  # pyright: ignore[reportArgumentType]
    assert not work.merges(20, 1.6, request)


@pytest.mark.parametrize(
    ("levels", "rest", "spoken_on"),
    [
        ([-20.0] * 20, None, True),
        ([-20.0] * 18 + [-33.0] * 2, None, False),
        ([-20.0] * 18 + [-31.0] * 2, None, True),
        ([-56.0] * 20, None, False),
        ([-20.0] * 18 + [-90.0, -90.0], np.full(SIZE // 4, 0.1, np.float32), True),
        ([-20.0] * 18 + [-90.0, -90.0], np.full(SIZE // 4 - 1, 0.1, np.float32), False),
        ([], None, False),
    ],
)
def test_a_word_is_spoken_on_while_it_is_loud(
    levels: list[float], rest: np.ndarray | None, spoken_on: bool
) -> None:
    state = FinalizeState(
        20, np.zeros(0, np.float32) if rest is None else rest, 1.6, [FinalizeRequest()]
    )
    work, asker = FinalizeWork(state, CONFIG), Asker()
    slot = Slot([PAD, 0, ONE, *[PAD] * 20])
    slot.look_ahead = lambda frames: (  # pyright: ignore
        slot.tokens[: len(frames)], [0.0] * len(frames)
    )  # fmt: skip
    while work.run(slot, asker, None):  # pyright: ignore[reportArgumentType]
        pass
    words, open_word = work.result(levels)
    assert (len(words), open_word is not None) == ((0, True) if spoken_on else (1, False))


class Late:
    """Has the backend of an engine say each token so many columns late, as real ones do."""

    def __init__(self, engine: EchoEngine, lag: int) -> None:
        self.lag, self.read_first = lag, engine.backend.read
        self.past: list[int] = []
        backend = engine.backend
        backend.read, backend.rewind = self.read, self.rewind  # pyright: ignore
        backend.mark = lambda slot: list(self.past)
        backend.go_back = lambda slot, mark: self.past.__setitem__(slice(None), mark)

    def read(self, slots, columns, counts, *, logits, draws=None):
        columns = columns.copy()
        for t in range(int(counts[0])):
            self.past.append(int(columns[0, t, 1]))
            columns[0, t, 1] = self.past[-1 - self.lag] if len(self.past) > self.lag else PAD
        return self.read_first(slots, columns, counts, logits=logits)

    def rewind(self, slots, columns):
        del self.past[len(self.past) - int(columns[0]) :]


@pytest.mark.parametrize("delay_s", [0.48, 4.0, 5.04, 6.0, 10.0])
def test_where_the_delay_is_long_it_says_how_far_it_knows(delay_s: float) -> None:
    """No word comes behind a `Finalized` that says that all until then are known."""
    config = replace(CONFIG, text_delay_s=delay_s)
    engine = EchoEngine()
    Late(engine, round(delay_s * 12.5))
    stream = Driven(Recognizer(engine, config, tiny.vocabulary(), name="echo"), PLAIN)
    said = [*QUIET, 0, ONE, *[PAD] * 18, 0, TWO, *[PAD] * 6, 0, THREE, *[PAD] * 6]
    stream.push(spoken(said, SIZE))
    events = stream.run()
    stream.finalize()
    events += stream.run()
    stream.close()
    events += stream.run()
    assert texts(events) == ["one", "two", "three"]
    (final,) = [one for one in events if isinstance(one, Finalized)]
    late = events[events.index(final) :]
    assert all(one.start >= final.time - 0.09 for one in late if isinstance(one, Word))
    assert final.time <= len(said) * 0.08 + 1e-6
    if delay_s <= 4.0:
        assert final.time == pytest.approx(len(said) * 0.08)
        assert texts(late) == []
