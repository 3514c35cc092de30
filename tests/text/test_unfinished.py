"""Texts that must go on, and texts that may be all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiku.text.unfinished import unfinished


@pytest.mark.parametrize(
    "text",
    [
        "five five five",
        "my number is 555 12",
        "it is 555. 12. 34.",
        "call plus four four seven",
        "call plus four four seven double",
        "plus",
        "zero seven double",
        "N L N S one seventy",
        "my name is B O",
        "four thousand three hundred and twenty",
        "two four five then one",
        "zéro six douze trente-quatre",
        "quatre-vingt-dix-sept vingt-et-un",
        "le 06 12",
        "one two three dash",
    ],
)
def test_a_number_that_may_go_on(text: str) -> None:
    assert unfinished(text.split()) == "number"


@pytest.mark.parametrize(
    "text",
    [
        "I would like to",
        "I went there and",
        "And.",
        "because",
        "well, um",
        "it's the",
        "she said that,",
        "wait...",
        "je voudrais un",
        "il est parti parce que",
        "c'est l'",
        "je vais à la",
        "euh",
        "mais",
        "we saw him but",
        "je le vois mais on",
    ],
)
def test_a_word_left_open(text: str) -> None:
    assert unfinished(text.split()) == "word"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yes",
        "two",
        "twenty five",
        "go left",
        "turn it on",
        "the light is off.",
        "I like that",
        "it was in 1998.",
        "one two three!",
        "is it five five five?",
        "4111 1111 1111 1111",
        "this is my son",
        "je suis là pour un an",
        "il a atteint le but",
        "viens avec",
        "non plus",
        "what are you looking for?",
        "I have no idea",
        "!",
    ],
)
def test_what_may_be_all(text: str) -> None:
    assert unfinished(text.split()) is None


@given(st.lists(st.text(min_size=1, max_size=6), max_size=8))
def test_any_text_is_answered(texts: list[str]) -> None:
    assert unfinished(texts) in (None, "number", "word")
