"""Which words are given out: each once, in order, within the sound."""

import json
import math

import pytest

from kiku.errors import StreamError
from kiku.stream.emitter import EmittedWords, WordEmitter
from kiku.text import Partial, Timing, Word, WordBuilder
from tests import tiny
from tests.fakes import PAD

ONE, TWO, THREE, ED = (tiny.PIECES.index(p) for p in ("▁one", "▁two", "▁three", "ed"))


def emitter() -> WordEmitter:
    """A token speaks of the tenth of a second before it."""
    return WordEmitter(WordBuilder(tiny.vocabulary(), Timing(10.0, 0.0, 0.0)))


def read(one: WordEmitter, *tokens: int, latest: float = math.inf) -> list[tuple[str, float]]:
    found = [word for token in tokens for word in one.push(token, 0.0, latest=latest)]
    return [(word.text, round(word.start, 6)) for word in found]


def word(text: str, start: float, end: float | None = None) -> Word:
    return Word(text, start, start + 0.2 if end is None else end, 0.9)


@pytest.mark.parametrize(
    ("text", "start", "known"),
    [("one", 1.39, True), ("one", 0.61, True), ("one", 1.41, False), ("one", 0.59, False),
     ("two", 1.11, True), ("two", 0.89, True), ("two", 1.13, False), ("two", 0.87, False)],
)  # fmt: skip
def test_a_word_is_known_by_its_text_and_its_place(text: str, start: float, known: bool) -> None:
    assert EmittedWords([word("one", 1.0)]).take(word(text, start)) is known


@pytest.mark.parametrize(("text", "start"), [("two", 0.12), ("one", 0.4)])
def test_the_bounds_of_a_place_belong_to_it(text: str, start: float) -> None:
    assert EmittedWords([word("one", 0.0)]).take(word(text, start))


def test_the_same_text_goes_before_the_same_place() -> None:
    ahead = EmittedWords([word("two", 1.0), word("one", 1.3)])
    assert ahead.take(word("one", 1.0))
    assert not ahead, "what lay before it has been passed"


def test_what_the_stream_has_passed_is_forgotten() -> None:
    ahead = EmittedWords([word("one", 1.0), word("two", 2.0), word("three", 3.0)])
    assert not ahead.take(word("one", 2.0 + 0.13))
    assert [known.text for known in ahead.words] == ["three"]


@pytest.mark.parametrize(("text", "shown"), [("tw\ufffd\ufffd", "tw"), ("\ufffd", None)])
def test_the_open_word_of_a_finalize_ends_with_a_whole_letter(text: str, shown: str | None) -> None:
    _, open_word = emitter().finalized([], Partial(text, 0.8), latest=1.0)
    assert open_word == (None if shown is None else Partial(shown, 0.8))


def test_a_copy_is_another_one() -> None:
    ahead = EmittedWords([word("one", 1.0)])
    copy = ahead.copy()
    assert copy.take(word("one", 1.0))
    assert len(ahead.words) == 1
    ahead.add([word("two", 2.0)])
    assert not copy


@pytest.mark.parametrize("start", [0.61, 1.39])
def test_an_open_word_that_was_given_out_is_covered(start: float) -> None:
    ahead = EmittedWords([word("one", 1.0)])
    assert ahead.covers(Partial("o", start))
    assert not ahead.covers(Partial("one", 1.41))
    assert not ahead.covers(Partial("one", 0.59))


def test_only_a_word_before_the_last_one_is_past() -> None:
    ahead = EmittedWords([word("one", 1.0), word("two", 2.0)])
    assert ahead.is_past(word("x", 1.99))
    assert not ahead.is_past(word("x", 2.0))
    assert not EmittedWords().is_past(word("x", 0.0))


def test_words_do_not_go_beyond_the_end_of_the_sound() -> None:
    one = emitter()
    read(one, PAD, PAD, PAD, PAD, PAD, ONE)
    (found,) = one.push(PAD, 0.0, latest=0.55)
    assert (found.start, found.end) == (0.5, 0.55)
    read(one, TWO)
    (found,) = one.finish(latest=0.55)
    assert (found.start, found.end) == (0.55, 0.55), "it begins behind it"


def test_words_of_a_finalize_do_not_go_beyond_its_place() -> None:
    one = emitter()
    (found,), _ = one.finalized([word("one", 0.5, 0.9)], None, latest=0.6)
    assert (found.start, found.end) == (0.5, 0.6)


def test_a_word_that_the_finalize_did_not_hear_comes_late_and_begins_no_earlier() -> None:
    one = emitter()
    one.finalized([word("three", 0.8)], None, latest=1.0)
    assert read(one, PAD, PAD, TWO, PAD) == [("two", 0.8)], "times of words never decrease"
    assert read(one, PAD, PAD, PAD, PAD, THREE, PAD) == []


def test_a_word_that_came_late_is_known_where_it_was_put() -> None:
    """Its place in the text was behind the other, and there it stays when it is decoded again."""
    one = emitter()
    one.finalized([word("one", 0.5)], None, latest=1.0)
    assert read(one, PAD, PAD, TWO, PAD, PAD, ONE, PAD) == [("two", 0.5)]
    assert [known.start for known in one._recent] == [0.5, 0.5]


def test_an_end_never_lies_before_another() -> None:
    one = emitter()
    one.finalized([word("one", 0.5, 2.0)], None, latest=3.0)
    read(one, *[PAD] * 10, TWO)
    (found,) = one.push(PAD, 0.0, latest=math.inf)
    assert (found.start, found.end) == (1.0, 2.0)


def test_a_second_finalize_gives_only_what_the_first_did_not() -> None:
    one = emitter()
    words, open_word = one.finalized([word("one", 0.5)], Partial("tw", 0.8), latest=1.0)
    assert ([w.text for w in words], open_word) == (["one"], Partial("tw", 0.8))
    words, open_word = one.finalized(
        [word("one", 0.55), word("two", 1.0)], Partial("x", 0.5), latest=2.0
    )
    assert [w.text for w in words] == ["two"]
    assert open_word == Partial("x", 1.0), "not one of those that were come to"
    words, open_word = one.finalized([], Partial("two", 1.05), latest=2.0)
    assert (words, open_word) == ([], None)


def test_what_two_finalizes_found_is_still_given_out_once() -> None:
    one = emitter()
    for count in (1, 0, 0):
        words, _ = one.finalized([word("one", 0.5)], None, latest=1.0)
        assert len(words) == count
    assert read(one, PAD, PAD, PAD, PAD, PAD, ONE, PAD) == []


def test_what_was_given_out_is_no_partial() -> None:
    one = emitter()
    one.finalized([word("one", 0.2)], None, latest=1.0)
    read(one, PAD, PAD, ONE)
    assert one.partial(latest=math.inf) is None
    read(one, PAD, PAD, PAD, PAD, PAD, PAD, TWO)
    assert one.partial(latest=math.inf) == Partial("two", 0.9)


def test_an_open_word_begins_where_its_word_will() -> None:
    one = emitter()
    read(one, *[PAD] * 6, ONE, ED, PAD)  # a word at 0.6
    read(one, *[PAD] * 2, TWO)
    for latest, start in ((math.inf, 1.1), (0.9, 0.9), (0.5, 0.6)):
        partial = one.partial(latest=latest)
        assert partial == Partial("two", pytest.approx(start))
        _, open_word = one.finalized([], Partial("two", 1.1), latest=latest)
        assert open_word == partial
    assert read(one, PAD, latest=0.5) == [("two", 0.6)]


def test_what_is_decoded_again_is_not_given_out_again() -> None:
    one = emitter()
    assert read(one, PAD, ONE, PAD, PAD, PAD, PAD, PAD, PAD) == [("one", 0.1)]
    assert one.builder.num_tokens == 8
    found = one.redecoded([ONE, PAD, PAD, PAD, TWO, PAD, THREE], [0.0] * 7)
    assert [(w.text, round(w.start, 6)) for w in found] == [("two", 0.5)]
    assert one.builder.num_tokens == 8
    assert not one.is_idle, "the last one is open"
    assert read(one, PAD) == [("three", 0.7)]


def test_of_very_many_words_the_last_are_known_again() -> None:
    one = emitter()
    count = 40
    assert len(read(one, PAD, *[ONE, PAD] * count)) == count
    found = one.redecoded([ONE, PAD] * 32, [0.0] * 64)
    assert found == []
    assert len(one._recent) == 32


def test_it_goes_on_where_it_was_saved() -> None:
    one = emitter()
    read(one, PAD, ONE, PAD, PAD, TWO)
    one.finalized([word("three", 2.0, 2.1)], None, latest=3.0)
    other = emitter()
    other.restore(json.loads(json.dumps(one.save())))
    again = (*[PAD] * 3, ED, PAD, *[PAD] * 10, THREE, PAD)
    assert read(one, *again) == read(other, *again)
    assert other.save() == one.save()
    for wrong in ({**one.save(), "ahead": 3}, {}, {**one.save(), "more": 1}):
        with pytest.raises(StreamError):
            emitter().restore(wrong)
