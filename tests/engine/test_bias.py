"""Expected phrases: how they are spelled, what their pieces gain, when the boost goes and comes."""

import json
from copy import deepcopy
from typing import Any

import pytest

from kiku.engine.bias import Bias, Phrase, Spellings
from kiku.errors import ConfigError, StreamError
from kiku.text import Vocabulary

PIECES = [
    "<unk>", "<s>", "</s>", "<pad>", "▁st", "op", "ar", "t", "▁new", "▁York", "▁york", "▁New",
    "▁so", "s", ",", "▁", "▁now",
]  # fmt: skip
VOCABULARY = Vocabulary.from_pieces(PIECES)
RATE = 10.0
TOKEN = {piece: number for number, piece in enumerate(PIECES)}


def bias(*phrases: Phrase | str, recovery_s: float = 2.0) -> Bias:
    given = [Phrase(one) if isinstance(one, str) else one for one in phrases]
    return Bias(Spellings(given, VOCABULARY, len(PIECES)), RATE, recovery_s)


def gains(one: Bias, *, word_begins: bool = True) -> dict[str, float]:
    """By piece."""
    return {PIECES[t]: gain for t, gain in one.boosts(word_begins=word_begins).items()}


def write(one: Bias, *pieces: str, carried: float = 0.0) -> None:
    """Text pieces, and "." for a frame without text."""
    for piece in pieces:
        if piece == ".":
            one.no_text(ends_word=True)
        else:
            one.text(TOKEN[piece], carried)


def test_a_phrase_is_expected_piece_by_piece() -> None:
    one = bias(Phrase("stop", 3.0))
    assert gains(one) == {"▁st": 3.0}
    write(one, "▁st")
    assert gains(one) == {"▁st": 3.0, "op": 3.0}


def test_what_was_needed_for_a_piece_is_gone_for_the_next() -> None:
    one = bias(Phrase("stop", 3.0))
    write(one, "▁st", carried=1.25)
    assert gains(one) == {"▁st": 3.0, "op": 1.75}
    spent = bias(Phrase("start", 3.0))
    write(spent, "▁st", carried=2.0)
    write(spent, "ar", carried=0.75)
    assert gains(spent)["t"] == 0.25


def test_no_word_is_begun_in_the_middle_of_another() -> None:
    one = bias(Phrase("stop", 3.0), Phrase("new York", any_case=False))
    assert gains(one, word_begins=False) == {}
    write(one, "▁st")
    assert gains(one, word_begins=False) == {"op": 3.0}
    write(one, "▁new")
    assert gains(one, word_begins=False) == {}
    assert "▁York" in gains(one)


def test_every_word_of_a_phrase_has_its_own_strength() -> None:
    one = bias(Phrase("New York", 3.0, any_case=False))
    write(one, "▁New", carried=2.5)
    assert gains(one) == {"▁New": 3.0, "▁York": 3.0}


def test_no_text_between_words_keeps_a_phrase_and_inside_a_word_ends_it() -> None:
    one = bias(Phrase("New York", any_case=False))
    write(one, "▁New", ".", ".", ",", ".")
    assert "▁York" in gains(one)
    one.no_text(ends_word=False)
    write(one, "▁so")
    assert "▁York" not in gains(one)
    inside = bias("stop")
    write(inside, "▁st")
    inside.no_text(ends_word=False)
    assert "op" in gains(inside)
    write(inside, ".")
    assert gains(inside) == {"▁st": 2.0}


def test_after_a_pause_only_another_word_goes_on() -> None:
    # "new t" would be one word with "t", were it not for the pause.
    one = bias(Phrase("newt", any_case=False), Phrase("new York", any_case=False))
    write(one, "▁new")
    assert set(gains(one)) == {"▁new", "t", "▁York"}
    write(one, ".")
    assert set(gains(one)) == {"▁new", "▁York"}
    write(one, "t")
    assert set(gains(one)) == {"▁new"}


def test_a_lone_space_is_no_punctuation() -> None:
    one = bias(Phrase("New York", any_case=False))
    write(one, "▁New", "▁")
    assert set(gains(one)) == {"▁New"}


def test_the_strongest_of_those_that_begin_alike_counts() -> None:
    one = bias(Phrase("stop", 1.0), Phrase("start", 4.0))
    write(one, "▁st")
    assert gains(one) == {"▁st": 4.0, "op": 1.0, "ar": 4.0}


def test_letters_may_be_small_or_large() -> None:
    assert Phrase("NEW york").written() == [
        "NEW york", "new york", "New york", "New York",
    ]  # fmt: skip
    assert Phrase(" New\n York ", any_case=False).written() == ["New York"]
    one = bias("new york")
    assert set(gains(one)) == {"▁new", "▁New"}
    write(one, "▁New")
    assert {"▁York", "▁york"} <= set(gains(one))


def test_what_was_written_is_expected_again_bit_by_bit() -> None:
    one = bias(Phrase("stop", 4.0))
    write(one, "▁st", "op")
    assert gains(one) == {"▁st": pytest.approx(4.0 / 20)}
    write(one, *["."] * 9)
    assert gains(one) == {"▁st": pytest.approx(2.0)}
    write(one, *["."] * 10)
    assert gains(one) == {"▁st": 4.0}
    assert one.save()["tired"] == []


def test_others_that_begin_alike_stay_expected() -> None:
    one = bias(Phrase("stop", 4.0), Phrase("start", 3.0))
    write(one, "▁st", "op")
    assert gains(one)["▁st"] == 3.0
    write(one, "▁st")
    assert gains(one)["op"] < 1.0 < 3.0 == gains(one)["ar"]


@pytest.mark.parametrize("after", ["ar", ".", "▁so"])
def test_what_the_boost_began_and_was_not_said_is_taken_back(after: str) -> None:
    helped = bias(Phrase("stop", 4.0))
    write(helped, "▁st", carried=1.0)
    write(helped, after)
    assert gains(helped)["▁st"] < 0.5
    unhelped = bias(Phrase("stop", 4.0))
    write(unhelped, "▁st", after)
    assert gains(unhelped)["▁st"] == 4.0


def test_the_boost_can_stay() -> None:
    one = bias(Phrase("stop", 4.0), recovery_s=0)
    write(one, "▁st", "op")
    assert gains(one) == {"▁st": 4.0}


@pytest.mark.parametrize("wrong", ["", "  "])
def test_a_phrase_is_text(wrong: str) -> None:
    with pytest.raises(ConfigError, match="text with letters"):
        Phrase(wrong)


@pytest.mark.parametrize("strength", [0.0, -1.0, 21.0, float("nan"), float("inf"), "3", True])
def test_a_strength_is_within_reason(strength: Any) -> None:
    with pytest.raises(ConfigError, match=r"strength of 'stop' must be above 0 and at most 20"):
        Phrase("stop", strength)


@pytest.mark.parametrize("text", ["zebra", "op"])
def test_what_cannot_be_spelled_is_told(text: str) -> None:
    # "op" has a piece, but none that begins a word.
    small = Vocabulary.from_pieces([*PIECES[:4], "▁st", "op"])
    with pytest.raises(ConfigError, match=f"cannot spell '{text}'"):
        Spellings([Phrase(text)], small, 6)


def test_only_tokens_that_the_model_writes_are_expected() -> None:
    with pytest.raises(ConfigError, match="cannot spell 'now'"):
        Spellings([Phrase("now")], VOCABULARY, len(PIECES) - 1)


def test_a_saved_course_goes_on() -> None:
    here = bias("stop", "start", "new York")
    write(here, "▁st", "op", ".", "▁new", carried=0.5)
    there = bias("stop", "start", "new York")
    there.restore(json.loads(json.dumps(here.save())))
    for _ in range(30):
        assert gains(there) == gains(here)
        assert there.save() == here.save()
        write(here, ".")
        write(there, ".")


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_tokens": "x"}, {"paths": [[1]]}, {"paths": [[4, 0, False, False]]},
        {"paths": [[[4], "x", False, False]]}, {"tired": [["stop"]]}, {"tired": [["stop", 5]]},
        {"tired": None}, {"num_tokens": float("inf")},
    ],
)  # fmt: skip
def test_a_damaged_course_is_told(wrong: dict[str, Any]) -> None:
    one = bias("stop")
    write(one, "▁st")
    before = one.save()
    with pytest.raises(StreamError, match="expected phrases is damaged"):
        one.restore({**before, **wrong})
    with pytest.raises(StreamError, match="damaged"):
        one.restore({})
    assert one.save() == before


def test_a_saved_course_goes_on_with_the_phrases_that_are_left() -> None:
    here = bias("stop", "start", "new York")
    write(here, "▁st", "op", ".", "▁st")
    there = bias(Phrase("so", 1.0), Phrase("start", 3.0), Phrase("now", 1.0))
    there.restore(here.save())
    assert gains(there) == {"▁so": 1.0, "▁st": 3.0, "▁now": 1.0, "ar": 3.0}
    again = bias("stop")
    again.restore(here.save())
    assert gains(again)["▁st"] == pytest.approx(2.0 * 3 / 20)
    without = bias(Phrase("now", 1.0))
    without.restore(here.save())
    assert gains(without) == {"▁now": 1.0}
    assert bias(recovery_s=0).save()["paths"] == []


def test_a_copy_goes_on_by_itself() -> None:
    one = bias("stop", "start")
    write(one, "▁st", carried=0.5)
    before = one.save()
    other = deepcopy(one)
    write(one, "op", ".")
    assert other.save() == before
    write(other, "op", ".")
    assert other.save() == one.save()
