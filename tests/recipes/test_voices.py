"""Synthetic voices; skipped where the synthesisers are not installed."""

import ctypes
import shutil

import numpy as np
import pytest

from kiku.errors import ConfigError
from recipes.demo.bank import WORD_INDEX
from recipes.demo.corpus import VOCABULARY
from recipes.demo.speak import HOMOPHONES, USUAL, other_phrases, say_flite, say_variant
from recipes.demo.voices import HELD_OUT_VARIANTS, VARIANTS, espeak, flite


def has_espeak() -> bool:
    try:
        ctypes.CDLL("libespeak-ng.so.1")
    except OSError:
        return False
    return True


needs_espeak = pytest.mark.skipif(not has_espeak(), reason="espeak-ng is not installed")
needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")


def test_no_voice_is_both_trained_on_and_held_out() -> None:
    assert not set(VARIANTS) & set(HELD_OUT_VARIANTS)


@needs_espeak
def test_espeak_tells_where_its_words_begin() -> None:
    spoken = espeak().say("one two three", "en-us")
    assert len(spoken.starts_s) == 3
    assert spoken.starts_s == sorted(spoken.starts_s)
    assert 0.5 < len(spoken.samples) / 24_000 < 4
    assert np.abs(spoken.samples).max() > 0.05


@needs_espeak
def test_an_unknown_voice_is_refused() -> None:
    with pytest.raises(ConfigError, match="no voice 'xx-nobody'"):
        espeak().say("one", "xx-nobody")


@needs_espeak
def test_words_that_rhyme_share_their_phones() -> None:
    nine, five, one = (espeak().phones(word) for word in ("nine", "five", "one"))
    assert nine[1] == five[1]
    assert nine[-1] == one[-1]
    assert not any("'" in phone for phone in nine)


@needs_espeak
def test_what_a_variant_says_is_the_same_again_and_in_place() -> None:
    first, again = (say_variant("f2", ("house", "green tea"), rounds=1, seed=1) for _ in range(2))
    assert len(first.snippets) == len(again.snippets)
    for one, other in zip(first.snippets, again.snippets, strict=True):
        # Not to the sample: the synthesiser carries a little state from one text to the next.
        assert (one.kind, one.speaker) == (other.kind, other.speaker)
        assert one.seconds == pytest.approx(other.seconds, abs=0.15)
        assert [p.word for p in one.spans] == [p.word for p in other.spans]
    alone = [s for s in first.snippets if s.kind == "voice"]
    assert [s.spans[0].word for s in alone] == list(range(len(VOCABULARY)))
    for snippet in first.snippets:
        for span in snippet.spans:
            assert 0 <= span.start_s < span.end_s <= snippet.seconds + 0.01
    assert any(len(s.spans) > 1 for s in first.snippets if s.kind == "said")
    assert all(not s.spans for s in first.snippets if s.kind == "other")


@needs_flite
def test_flite_speaks_slower_when_asked() -> None:
    normal, slow = (flite("seven", "slt", stretch=s) for s in (1.0, 1.5))
    assert len(slow.samples) > 1.2 * len(normal.samples)


@needs_flite
def test_flite_tells_where_its_phones_are() -> None:
    spoken = flite("nine", "slt")
    assert len(spoken.phones_s) == 3
    (start, _), (_, end) = spoken.phones_s[0], spoken.phones_s[-1]
    loud = np.flatnonzero(np.abs(spoken.samples) > 0.02) / 24_000
    assert start == pytest.approx(loud[0], abs=0.06)
    assert end == pytest.approx(loud[-1], abs=0.06)


@needs_flite
def test_what_flite_says_is_in_place() -> None:
    bank = say_flite("kal", ("house", "green tea"), seed=1, stretches=(1.0,), strings=4)
    alone = [s for s in bank.snippets if s.kind == "usual"]
    assert {s.spans[0].word for s in alone} == set(range(len(VOCABULARY)))
    strings = [s for s in bank.snippets if s.kind == "said"]
    assert strings
    for snippet in [*alone, *strings]:
        sound = np.abs(bank.audio(snippet))
        for span in snippet.spans:
            assert 0 <= span.start_s < span.end_s <= snippet.seconds + 0.01
            assert sound[int(span.start_s * 24_000) : int(span.end_s * 24_000)].max() > 0.05
    assert sum(s.kind == "other" for s in bank.snippets) == 4


@needs_espeak
def test_a_wide_manner_says_the_same_words_in_more_ways() -> None:
    bank = say_variant("", ("house",), rounds=2, seed=1, style=USUAL)
    assert {s.speaker for s in bank.snippets} <= {"espeak-en", "espeak-en-us"}
    assert {s.kind for s in bank.snippets} == {"usual", "said", "other"}


def test_other_phrases_hold_no_word_of_the_vocabulary() -> None:
    sentences = ["Go up the hill, one by one.", "A green house stood there.", "They won too much."]
    phrases = other_phrases(sentences, 6, seed=0)
    assert len(phrases) == 6
    for phrase in phrases:
        assert not set(phrase.split()) & (WORD_INDEX.keys() | HOMOPHONES)
