"""Texts made comparable, and compared word by word."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiku.errors import InputError, MissingExtra
from kiku.evaluate import normalising
from kiku.evaluate.aligning import align_words, character_errors, check_extra, sources
from kiku.evaluate.normalising import basic, normaliser


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello,  World!", "hello world"),
        ("Don't -- \u2018quote\u2019 it\u2019s 'so'", "don't quote it's so"),
        ("\u00c9tienne \u00e0 l\u2019\u00e9te\u0301", "\u00e9tienne \u00e0 l'\u00e9t\u00e9"),
        ("STRASSE Straße", "strasse strasse"),
        ("\ufb01ve \uff15 $3.50", "five 5 3 50"),
        (" \n\t ", ""),
    ],
)
def test_the_basic_one(text: str, expected: str) -> None:
    assert basic(text) == expected


@given(st.text())
def test_the_basic_one_changes_nothing_twice(text: str) -> None:
    once = basic(text)
    assert basic(once) == once
    assert once.split(" ") == (once.split() or [""])


def test_which_one_is_taken() -> None:
    text = "Mr. Smith's colour, twenty five [noise]"
    english = "mister smith is color 25"
    assert normaliser("auto")(text) == normaliser("english", "fr")(text) == english
    assert normaliser("auto", "en-GB")(text) == english
    assert normaliser("auto", "fr")(text) == basic(text) != english
    assert normaliser("none")(" A  b ") == "A b"
    with pytest.raises(InputError, match="normalise must be one of auto, english"):
        normaliser("whisper")


def test_without_the_packages_one_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    normalising._english.cache_clear()  # pyright: ignore[reportPrivateUsage]
    for name in ("jiwer", "whisper_normalizer.english"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"'\.\[evaluate\]"):
        normaliser("english")
    with pytest.raises(MissingExtra, match=r"'\.\[evaluate\]"):
        check_extra()
    with pytest.raises(MissingExtra, match=r"'\.\[evaluate\]"):
        character_errors("a", "b")
    assert normaliser("auto", "fr")("Oui") == "oui"


def test_words_are_aligned() -> None:
    said, heard = ["the", "cat", "sat", "on", "the", "mat"], ["a", "cat", "on", "the", "big", "mat"]
    assert [(pair.kind, pair.reference, pair.heard) for pair in align_words(said, heard)] == [
        ("substitute", 0, 0),
        ("equal", 1, 1),
        ("delete", 2, None),
        ("equal", 3, 2),
        ("equal", 4, 3),
        ("insert", None, 4),
        ("equal", 5, 5),
    ]
    assert align_words([], []) == ()
    assert [pair.kind for pair in align_words([], ["a"])] == ["insert"]
    assert [pair.kind for pair in align_words(["a"], [])] == ["delete"]


def test_characters_are_counted_with_spaces() -> None:
    assert character_errors("one two", "onetwo") == 1
    assert character_errors("", "ab") == 2
    assert character_errors("ab", "") == 2


WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=12)


@given(WORDS, WORDS)
def test_an_alignment_holds_every_word_once_in_order(said: list[str], heard: list[str]) -> None:
    pairs = align_words(said, heard)
    assert [pair.reference for pair in pairs if pair.reference is not None] == [*range(len(said))]
    assert [pair.heard for pair in pairs if pair.heard is not None] == [*range(len(heard))]
    for pair in pairs:
        if pair.reference is not None and pair.heard is not None:
            same = said[pair.reference] == heard[pair.heard]
            assert (pair.kind == "equal") == same
    cost = sum(pair.kind != "equal" for pair in pairs)
    assert abs(len(said) - len(heard)) <= cost <= max(len(said), len(heard))


def test_tokens_know_the_words_that_they_come_from() -> None:
    words = ["Uh", "twenty", "five", "don't", "go"]
    english = normaliser("english")
    tokens = english(" ".join(words)).split()
    assert tokens == ["25", "do", "not", "go"]
    found = sources(tokens, [english(word).split() for word in words])
    assert found == [range(1, 3), range(3, 4), range(3, 4), range(4, 5)]
    assert sources(["x"], []) == [range(0)]
