"""What was heard beside what was said: errors, times, latencies, trust, turns."""

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiku.evaluate.aligning import word_errors
from kiku.evaluate.hearing import HeardUtterance, HeardWord
from kiku.evaluate.manifest import Span, SpokenWord, Utterance
from kiku.evaluate.normalising import basic, normaliser
from kiku.evaluate.scoring import Trust, TurnErrors, score
from tests.evaluate.conftest import PART, scored


@pytest.mark.parametrize(
    ("said", "got", "count"),
    [
        ("a b c", "a b c", 0),
        ("a b c", "a c", 1),
        ("a b c", "a x c", 1),
        ("a b", "a b b", 1),
        ("", "a b", 2),
        ("a b", "", 2),
        ("a b c d", "b c d e", 2),
    ],
)
def test_word_errors(said: str, got: str, count: int) -> None:
    assert word_errors(said.split(), got.split()) == count


@given(*[st.lists(st.sampled_from(["one", "two", "three", "four"]), max_size=8)] * 2)
def test_word_errors_are_the_fewest_changes(said: list[str], got: list[str]) -> None:
    @cache
    def fewest(i: int, j: int) -> int:
        if not (i and j):
            return i + j
        same = fewest(i - 1, j - 1) + (said[i - 1] != got[j - 1])
        return min(same, fewest(i - 1, j) + 1, fewest(i, j - 1) + 1)

    assert word_errors(said, got) == fewest(len(said), len(got))
    assert scored(" ".join(said), " ".join(got)).errors == fewest(len(said), len(got))


def test_errors_are_counted_after_normalising() -> None:
    one = scored("The cat, sat ON it", "a cat on on it")
    assert [one.count(kind) for kind in ("equal", "substitute", "delete", "insert")] == [3, 2, 0, 0]
    assert one.errors == 2
    assert one.normalised == ("the cat sat on it", "a cat on on it")
    assert (one.characters, one.character_errors) == (17, 6)
    assert one.has_speech
    assert not scored("", "uh").has_speech
    assert scored("...", "uh").has_speech


def test_times_and_latency_are_those_of_words_that_are_right() -> None:
    said = (SpokenWord("one", 1.0, 1.4), SpokenWord("two", 2.0, 2.5), SpokenWord("go", 3.0, 3.2))
    heard = [
        HeardWord("One", 1.1, 1.3, 0.9, 2.0),
        HeardWord("too", 2.0, 2.4, 0.5, 3.0),
        HeardWord("go", 2.96, 3.3, 0.8, 4.0),
    ]
    one = scored("one two go", heard, words=said)
    assert one.start_errors == (0.1, -0.04)
    assert one.end_errors == (-0.1, 0.1)
    assert one.latencies == (0.6, 0.8)
    assert one.own_latencies == (0.7, 0.6, 0.7)
    assert one.trusts == (Trust(0.9, True), Trust(0.5, False), Trust(0.8, True))


def test_without_times_nothing_is_said_of_them() -> None:
    one = scored("one two", "one two")
    assert one.start_errors == one.end_errors == one.latencies == one.own_latencies == ()


def test_words_that_normalising_joins_have_the_time_of_all_of_them() -> None:
    said = (SpokenWord("twenty", 1.0, 1.4), SpokenWord("five", 1.4, 2.0))
    heard = [HeardWord("twenty", 1.0, 1.5, 0.9, 2.0), HeardWord("five", 1.5, 2.1, 0.6, 2.6)]
    one = scored("twenty five", heard, words=said, normalise=normaliser("english"))
    assert [token.text for token in one.found] == ["25"]
    assert (one.start_errors, one.end_errors, one.latencies) == ((0.0,), (0.1,), (0.6,))
    assert one.trusts == (Trust(0.9, True), Trust(0.6, True))


def test_a_word_is_right_only_if_all_that_came_of_it_is() -> None:
    heard = [HeardWord("don't", 0.0, 1.0, 0.7, None), HeardWord("uh", 1.0, 2.0, 0.4, None)]
    one = scored("do nut", heard, normalise=normaliser("english"))
    assert one.trusts == (Trust(0.7, False),)  # "uh" is left out of what is compared
    assert scored("du not", heard[:1], normalise=normaliser("english")).trusts == one.trusts


def test_ends_of_turns() -> None:
    utterance = Utterance("a", Path("a"), "x", turns=(Span(1, 2), Span(4, 6), Span(7, 8)))
    heard = HeardUtterance(
        "a", PART, 10.0, (), ends=(2.5, 3.0, 5.0, 9.0), eager_ends=(2.2, 5.5), took_s=0
    )
    assert score(utterance, heard, basic).turns == TurnErrors(
        turns=3, false_ends=1, false_eager_ends=1, misses=1, end_delays=(0.5, 1.0),
        eager_delays=(0.2, 1.0),
    )  # fmt: skip
    assert scored("one", "one").turns is None
