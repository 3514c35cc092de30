"""Hotwords: how they are spelled, what their pieces gain, when the boost goes and comes."""

import itertools
import json
import time
import unicodedata
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from kiku.decoding import HotwordBoosts, PhraseTrie
from kiku.decoding.hotwords import MAX_TRIE_PIECES, BoostsState, written_ways
from kiku.errors import ConfigError, StreamError
from kiku.options import Hotword
from kiku.serial import from_plain, to_plain
from kiku.text import Vocabulary

PIECES = [
    "<unk>", "<s>", "</s>", "<pad>", "▁st", "op", "ar", "t", "▁new", "▁York", "▁york", "▁New",
    "▁so", "s", ",", "▁", "▁now",
]  # fmt: skip
VOCABULARY = Vocabulary.from_pieces(PIECES)
RATE = 10.0
TOKEN = {piece: number for number, piece in enumerate(PIECES)}


def saved(one: HotwordBoosts) -> dict[str, Any]:
    return to_plain(one.state())


def restore(one: HotwordBoosts, values: Any) -> None:
    """As a `TokenPicker` does with its part of a saved picker."""
    one.go_on(from_plain(BoostsState, values, what="it", error=StreamError))


def boosts(*phrases: Hotword | str, cooldown_s: float = 2.0) -> HotwordBoosts:
    given = [Hotword(one) if isinstance(one, str) else one for one in phrases]
    return HotwordBoosts(PhraseTrie(given, VOCABULARY, len(PIECES)), RATE, cooldown_s)


def gains(one: HotwordBoosts, *, word_begins: bool = True) -> dict[str, float]:
    """By piece."""
    found = one.boosts(word_begins=word_begins)
    return {} if found is None else {PIECES[t]: float(found[t]) for t in np.flatnonzero(found)}


def write(one: HotwordBoosts, *pieces: str, carried: float = 0.0) -> None:
    """Text pieces, and "." for a frame without text."""
    for piece in pieces:
        if piece == ".":
            one.no_text(ends_word=True)
        else:
            one.text(TOKEN[piece], carried)


def test_a_phrase_is_expected_piece_by_piece() -> None:
    one = boosts(Hotword("stop", 3.0))
    assert gains(one) == {"▁st": 3.0}
    write(one, "▁st")
    assert gains(one) == {"▁st": 3.0, "op": 3.0}


def test_what_was_needed_for_a_piece_is_gone_for_the_next() -> None:
    one = boosts(Hotword("stop", 3.0))
    write(one, "▁st", carried=1.25)
    assert gains(one) == {"▁st": 3.0, "op": 1.75}
    spent = boosts(Hotword("start", 3.0))
    write(spent, "▁st", carried=2.0)
    write(spent, "ar", carried=0.75)
    assert gains(spent)["t"] == 0.25


def test_no_word_is_begun_in_the_middle_of_another() -> None:
    one = boosts(Hotword("stop", 3.0), Hotword("new York", any_case=False))
    assert gains(one, word_begins=False) == {}
    write(one, "▁st")
    assert gains(one, word_begins=False) == {"op": 3.0}
    write(one, "▁new")
    assert gains(one, word_begins=False) == {}
    assert "▁York" in gains(one)


def test_every_word_of_a_phrase_has_its_own_strength() -> None:
    one = boosts(Hotword("New York", 3.0, any_case=False))
    write(one, "▁New", carried=2.5)
    assert gains(one) == {"▁New": 3.0, "▁York": 3.0}


def test_no_text_between_words_keeps_a_phrase_and_inside_a_word_ends_it() -> None:
    one = boosts(Hotword("New York", any_case=False))
    write(one, "▁New", ".", ".", ",", ".")
    assert "▁York" in gains(one)
    one.no_text(ends_word=False)
    write(one, "▁so")
    assert "▁York" not in gains(one)
    inside = boosts("stop")
    write(inside, "▁st")
    inside.no_text(ends_word=False)
    assert "op" in gains(inside)
    write(inside, ".")
    assert gains(inside) == {"▁st": 2.0}


def test_after_a_pause_only_another_word_goes_on() -> None:
    # "new t" would be one word with "t", were it not for the pause.
    one = boosts(Hotword("newt", any_case=False), Hotword("new York", any_case=False))
    write(one, "▁new")
    assert set(gains(one)) == {"▁new", "t", "▁York"}
    write(one, ".")
    assert set(gains(one)) == {"▁new", "▁York"}
    write(one, "t")
    assert set(gains(one)) == {"▁new"}


def test_a_lone_space_is_no_punctuation() -> None:
    one = boosts(Hotword("New York", any_case=False))
    write(one, "▁New", "▁")
    assert set(gains(one)) == {"▁New"}


def test_the_strongest_of_those_that_begin_alike_counts() -> None:
    one = boosts(Hotword("stop", 1.0), Hotword("start", 4.0))
    write(one, "▁st")
    assert gains(one) == {"▁st": 4.0, "op": 1.0, "ar": 4.0}


def test_letters_may_be_small_or_large() -> None:
    assert written_ways(Hotword("NEW york")) == [
        "NEW york", "new york", "New york", "New York",
    ]  # fmt: skip
    assert written_ways(Hotword(" New\n York ", any_case=False)) == ["New York"]
    one = boosts("new york")
    assert set(gains(one)) == {"▁new", "▁New"}
    write(one, "▁New")
    assert {"▁York", "▁york"} <= set(gains(one))


@pytest.mark.parametrize("word", ["crème brûlée", "Élodie", "한국어", "Ångström", "Đặng"])
def test_letters_may_be_composed_or_not(word: str) -> None:
    """As a keyboard or a file system wrote it: pieces are composed."""
    letters = dict.fromkeys(f"{word}{word.lower()}{word.upper()}".replace(" ", ""))
    vocabulary = Vocabulary.from_pieces([*PIECES[:4], "▁", *letters])
    composed, apart = (unicodedata.normalize(form, word) for form in ("NFC", "NFD"))
    assert composed != apart
    for any_case in (True, False):
        ways = written_ways(Hotword(apart, any_case=any_case))
        assert ways == written_ways(Hotword(composed, any_case=any_case))
        trie = PhraseTrie([Hotword(apart, any_case=any_case)], vocabulary, len(vocabulary))
        assert trie.find(vocabulary.encode(composed)) != 0


def test_what_was_written_is_expected_again_bit_by_bit() -> None:
    one = boosts(Hotword("stop", 4.0))
    write(one, "▁st", "op")
    assert gains(one) == {"▁st": pytest.approx(4.0 / 20)}
    write(one, *["."] * 9)
    assert gains(one) == {"▁st": pytest.approx(2.0)}
    write(one, *["."] * 10)
    assert gains(one) == {"▁st": 4.0}
    assert saved(one)["written"] == {}


def test_others_that_begin_alike_stay_expected() -> None:
    one = boosts(Hotword("stop", 4.0), Hotword("start", 3.0))
    write(one, "▁st", "op")
    assert gains(one)["▁st"] == 3.0
    write(one, "▁st")
    assert gains(one)["op"] < 1.0 < 3.0 == gains(one)["ar"]


@pytest.mark.parametrize("after", ["ar", ".", "▁so"])
def test_what_the_boost_began_and_was_not_said_is_taken_back(after: str) -> None:
    helped = boosts(Hotword("stop", 4.0))
    write(helped, "▁st", carried=1.0)
    write(helped, after)
    assert gains(helped)["▁st"] < 0.5
    unhelped = boosts(Hotword("stop", 4.0))
    write(unhelped, "▁st", after)
    assert gains(unhelped)["▁st"] == 4.0


def test_the_boost_can_stay() -> None:
    one = boosts(Hotword("stop", 4.0), cooldown_s=0)
    write(one, "▁st", "op")
    assert gains(one) == {"▁st": 4.0}


@pytest.mark.parametrize("text", ["zebra", "op"])
def test_what_cannot_be_spelled_is_told(text: str) -> None:
    # "op" has a piece, but none that begins a word.
    small = Vocabulary.from_pieces([*PIECES[:4], "▁st", "op"])
    with pytest.raises(ConfigError, match=f"cannot spell '{text}'"):
        PhraseTrie([Hotword(text)], small, 6)


def test_only_tokens_that_the_model_writes_are_expected() -> None:
    with pytest.raises(ConfigError, match="cannot spell 'now'"):
        PhraseTrie([Hotword("now")], VOCABULARY, len(PIECES) - 1)


def test_a_saved_course_goes_on() -> None:
    here = boosts("stop", "start", "new York")
    write(here, "▁st", "op", ".", "▁new", carried=0.5)
    there = boosts("stop", "start", "new York")
    restore(there, json.loads(json.dumps(saved(here))))
    for _ in range(30):
        assert gains(there) == gains(here)
        assert saved(there) == saved(here)
        write(here, ".")
        write(there, ".")


PATH = {"tokens": [4], "spent": 0.0, "helped": False, "word_over": False}


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_tokens": "x"}, {"num_tokens": -1}, {"num_tokens": 10**4000}, {"num_tokens": 1.0},
        {"paths": [[1]]}, {"paths": None}, {"paths": [{**PATH, "tokens": 4}]},
        {"paths": [{**PATH, "tokens": [10**4000]}]}, {"paths": [{**PATH, "spent": "x"}]},
        {"paths": [{**PATH, "spent": -1.0}]}, {"paths": [{**PATH, "spent": float("inf")}]},
        {"paths": [{**PATH, "helped": 1}]}, {"paths": [{"tokens": [4]}]},
        {"written": [["stop"]]}, {"written": {"stop": 5}}, {"written": {"stop": -1}},
        {"written": None}, {"more": 1},
    ],
)  # fmt: skip
def test_a_damaged_course_is_told(wrong: dict[str, Any]) -> None:
    one = boosts("stop")
    write(one, "▁st")
    before = saved(one)
    with pytest.raises(StreamError, match="cannot be read"):
        restore(one, {**before, **wrong})
    with pytest.raises(StreamError, match="cannot be read"):
        restore(one, {})
    assert saved(one) == before


def test_a_course_with_beginnings_that_no_phrase_has_goes_on_without_them() -> None:
    one = boosts("stop")
    paths = [{**PATH, "tokens": tokens} for tokens in ([], [4, 5], [99], [-1], [4] * 50, [4])]
    restore(one, {"num_tokens": 3, "paths": paths, "written": {}})
    assert [path["tokens"] for path in saved(one)["paths"]] == [[4]]
    assert set(gains(one)) == {"▁st", "op"}


def test_a_saved_course_goes_on_with_the_phrases_that_are_left() -> None:
    here = boosts("stop", "start", "new York")
    write(here, "▁st", "op", ".", "▁st")
    there = boosts(Hotword("so", 1.0), Hotword("start", 3.0), Hotword("now", 1.0))
    restore(there, saved(here))
    assert gains(there) == {"▁so": 1.0, "▁st": 3.0, "▁now": 1.0, "ar": 3.0}
    again = boosts("stop")
    restore(again, saved(here))
    assert gains(again)["▁st"] == pytest.approx(2.0 * 3 / 20)
    without = boosts(Hotword("now", 1.0))
    restore(without, saved(here))
    assert gains(without) == {"▁now": 1.0}


def test_a_copy_goes_on_by_itself() -> None:
    one = boosts("stop", "start")
    write(one, "▁st", carried=0.5)
    before = saved(one)
    other = deepcopy(one)
    write(one, "op", ".")
    assert saved(other) == before
    write(other, "op", ".")
    assert saved(other) == saved(one)


def test_a_repeated_word_is_followed_a_few_times_only() -> None:
    one = boosts(Hotword(" ".join(["so"] * 60), any_case=False))
    write(one, *["▁so"] * 59)
    assert len(saved(one)["paths"]) == 16
    assert gains(one) == {"▁so": 2.0}


def test_the_trie_is_what_all_spellings_say() -> None:
    texts = ["stop", "start", "star", "st", "new York", "new", "so", "sos", "now start", "new t"]
    trie = PhraseTrie([Hotword(text, any_case=False) for text in texts], VOCABULARY, len(PIECES))
    spelled = {text: VOCABULARY.encode(text) for text in texts}
    strengths = dict(zip(texts, np.random.default_rng(0).uniform(1, 5, len(texts)), strict=True))
    waiting, seen = [0], 0
    while waiting:
        node = waiting.pop()
        children = range(trie.first_child[node], trie.end_child[node])
        tokens, seen = trie.tokens_to(node), seen + 1
        assert trie.find(tokens) == node
        assert {texts[p] for p in trie.phrases_at(node)} == {
            text for text in texts if spelled[text] == tokens
        }
        through = {text for text in texts if spelled[text][: len(tokens)] == tokens}
        assert {texts[p] for p in trie.phrases_through(node)} == through
        strongest: dict[int, float] = {}
        for text in sorted(through, key=strengths.__getitem__):
            for token in spelled[text][len(tokens) : len(tokens) + 1]:
                strongest[token] = strengths[text]
        assert {int(trie.token[child]) for child in children} == set(strongest)
        if children:
            below = trie.strongest_below(node, np.array([strengths[text] for text in texts]))
            assert dict(zip(trie.token[children].tolist(), below, strict=True)) == strongest
        waiting += children
    assert seen == len(trie.token)


def test_too_many_pieces_are_refused_before_they_are_built() -> None:
    long = [Hotword("so" + "s" * 190, any_case=False)] * 600
    with pytest.raises(ConfigError, match=rf"{MAX_TRIE_PIECES} are possible: give fewer"):
        PhraseTrie(long, VOCABULARY, len(PIECES))


def test_a_thousand_hotwords_cost_little_even_where_all_begin_alike() -> None:
    """Bounds ten times what was measured: a square of the phrases would take seconds."""
    ends = ["".join(c) for c in itertools.product(["op", "ar", "t", "s"], repeat=5)][:1000]
    began = time.perf_counter()
    one = boosts(*(Hotword("st" + end, 20.0) for end in ends))
    assert time.perf_counter() - began < 3
    began = time.perf_counter()
    for _ in range(50):
        write(one, "▁st", carried=1.0)  # each gives up the one before, and cools all down
        assert one.boosts(word_begins=True) is not None
    assert time.perf_counter() - began < 0.5
