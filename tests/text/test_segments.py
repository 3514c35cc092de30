"""Where running words are cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.errors import ConfigError
from kiku.text.segments import segments
from kiku.text.words import Word


def spoken(text: str, *, gap_s: float = 0.1) -> list[Word]:
    """Words of 0.4 s with `gap_s` between them."""
    step = 0.4 + gap_s
    return [Word(w, i * step, i * step + 0.4, 1.0) for i, w in enumerate(text.split())]


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("He came. She left.", ["He came.", "She left."]),
        ("Who? Me! So… Yes", ["Who?", "Me!", "So…", "Yes"]),
        ('He said "stop." Then he did.', ['He said "stop."', "Then he did."]),
        ("Mr. Quilter is here.", ["Mr. Quilter is here."]),
        ("Here (Dr. Who) stays. J. S. Bach", ["Here (Dr. Who) stays.", "J. S. Bach"]),
        ("fruit, e.g. Apples and so. on it goes", ["fruit, e.g. Apples and so. on it goes"]),
        ("Well... Maybe 3.5 of them", ["Well...", "Maybe 3.5 of them"]),
        ("聞く。 はい", ["聞く。", "はい"]),
        ("", []),
    ],
)
def test_sentences(text: str, cut: list[str]) -> None:
    assert [segment.text for segment in segments(spoken(text))] == cut


def test_long_pauses_part_words() -> None:
    words = spoken("one two three", gap_s=0.9)
    assert [s.text for s in segments(words)] == ["one two three"]
    assert [s.text for s in segments(words, max_gap_s=0.8)] == ["one", "two", "three"]


def test_no_segment_is_too_long_unless_a_word_is() -> None:
    cut = segments(spoken("a b c d e"), max_duration_s=1.0)
    assert [s.text for s in cut] == ["a b", "c d", "e"]
    assert (cut[1].start, cut[1].end) == (cut[1].words[0].start, cut[1].words[1].end)
    assert len(segments([Word("long", 0.0, 20.0, 1.0)], max_duration_s=1.0)) == 1


def test_refuses_limits_that_are_none() -> None:
    for limits in ({"max_gap_s": 0.0}, {"max_duration_s": -1.0}):
        with pytest.raises(ConfigError, match="must be above 0"):
            segments([], **limits)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b.", "Mr.", "C?"]), st.floats(0, 3))),
    st.floats(0.1, 3),
)
def test_every_word_once_and_in_order(parts: list[tuple[str, float]], limit: float) -> None:
    words: list[Word] = []
    for text, gap_s in parts:
        start = (words[-1].end if words else 0.0) + gap_s
        words.append(Word(text, start, start + 0.5, 0.5))
    cut = segments(words, max_gap_s=limit, max_duration_s=limit)
    assert [word for segment in cut for word in segment.words] == words
    assert all(len(s.words) == 1 or s.end - s.start <= limit for s in cut)


def test_channels_are_cut_each_by_itself() -> None:
    one = [Word("How", 0.0, 0.4, 1, 0), Word("are", 0.5, 0.9, 1, 0), Word("you?", 1.0, 1.4, 1, 0)]
    two = [Word("Fine.", 0.6, 1.0, 1, 1), Word("You?", 1.1, 1.2, 1, 1)]
    together = sorted([*one, *two], key=lambda word: word.start)
    found = segments(together)
    assert [(s.channel, s.text) for s in found] == [(0, "How are you?"), (1, "Fine."), (1, "You?")]
    assert segments(one)[0].channel == 0
    assert segments(spoken("go"))[0].channel is None
    mixed = [Word("go", 0.0, 0.4, 1), Word("on", 0.5, 0.9, 1, 0)]
    assert [segment.text for segment in segments(mixed)] == ["go", "on"]
