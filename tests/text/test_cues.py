"""Captions that can be read: short lines, breaks at the joints of a sentence, time enough."""

import random
from itertools import pairwise

import pytest

from kiku.text.captions import DEFAULTS, CaptionOptions
from kiku.text.cues import Cue, cues, line_width
from kiku.text.segments import segments
from kiku.text.words import Word

TEXT = """
Mr. Quilter is the apostle of the middle classes, and we are glad to welcome his gospel. Nor is Mr.
Quilter's manner less interesting than his matter. He tells us that at this festive season of the
year, with Christmas and roast beef looming before us, similes drawn from eating and its results
occur most readily to the mind. Yes. I think so. He has grave doubts whether Sir Frederick
Leighton's work is really Greek after all, and can discover in it but little of rocky Ithaca. Well,
no. On a demandé à la reine si elle voulait que les enfants de la ville aillent avec elle dans la
maison qu'elle avait achetée pour sa mère. Non. Si. Linnell's pictures are a sort of "Up, Guards,
and at 'em" paintings, and Mason's exquisite idylls are as national as a jingo poem. Mr. Birket
Foster's landscapes smile at one much in the same way that Mr. Carker used to flash his teeth.
"""


def spoken(text: str, *, rate: float = 15.0, seed: int = 0) -> list[Word]:
    """The words as if somebody said them, at so many characters a second but for the pauses."""
    chance = random.Random(seed)
    at_s, words = 0.5, list[Word]()
    for word in text.split():
        length_s = len(word) / rate * chance.uniform(0.7, 1.3)
        words.append(Word(word, at_s, at_s + 0.9 * length_s, 0.9))
        at_s += length_s + 1 / rate
        if word.endswith((",", ".")):
            at_s += chance.choice([0.0, 0.2, 0.5, 2.0]) if word.endswith(".") else 0.15
    return words


def shown(words: list[Word], **options: object) -> list[str]:
    """The texts of the cues, a stroke between their lines."""
    found = cues(words, CaptionOptions(**options))  # pyright: ignore[reportArgumentType]
    return [" | ".join(" ".join(word.text for word in line) for line in cue.lines) for cue in found]


def text_of(cue: Cue) -> str:
    return " ".join(word.text for line in cue.lines for word in line)


@pytest.mark.parametrize("rate", [9.0, 15.0, 22.0])
@pytest.mark.parametrize("seed", range(8))
def test_every_cue_keeps_the_rules(rate: float, seed: int) -> None:
    words = spoken(TEXT, rate=rate, seed=seed)
    found = cues(words, DEFAULTS)
    assert [word for cue in found for line in cue.lines for word in line] == words
    for cue in found:
        assert len(cue.lines) <= 2
        assert all(line_width(line) <= 42 for line in cue.lines)
        assert 833 < cue.end_ms - cue.start_ms <= 7000
        # Not before its words, and late only for the sake of a short one before it.
        assert -1 < cue.start_ms - 1000 * cue.lines[0][0].start < 501
    for cue, following in pairwise(found):
        gap_ms = following.start_ms - cue.end_ms
        assert gap_ms == 0 or gap_ms >= 250 or cue.end_ms - cue.start_ms == 7000
        if gap_ms:  # the words let it stay as long as it takes to read it
            chars = sum(map(line_width, cue.lines))
            assert chars / (cue.end_ms - cue.start_ms) * 1000 <= 17


@pytest.mark.parametrize("seed", range(8))
def test_no_word_stands_alone_that_is_no_sentence(seed: int) -> None:
    found = cues(spoken(TEXT, seed=seed), DEFAULTS)
    for before, cue in zip([None, *found], found, strict=False):
        if len(text_of(cue).split()) == 1:
            assert text_of(cue).endswith(".")
            assert before is None or text_of(before).endswith(".")
        if len(text_of(cue).split()) > 2:
            assert all(len(line) > 1 for line in cue.lines)


@pytest.mark.parametrize("seed", range(4))
def test_two_lines_are_about_as_long_as_each_other(seed: int) -> None:
    found = cues(spoken(TEXT, seed=seed), DEFAULTS)
    two = [cue for cue in found if len(cue.lines) == 2]
    shares = [line_width(cue.lines[0]) / sum(map(line_width, cue.lines)) for cue in two]
    assert len(two) > 5
    assert 0.4 < sum(shares) / len(shares) < 0.6
    assert all(0.25 < share < 0.75 for share in shares)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        # After punctuation rather than in the middle,
        (
            "When the rain has stopped falling, everybody goes to the market.",
            ["When the rain has stopped falling, | everybody goes to the market."],
        ),
        # before a conjunction or a preposition,
        (
            "She closed the door of the old house and walked away very slowly",
            ["She closed the door of the old house | and walked away very slowly"],
        ),
        # never between an article and its noun, a pronoun and its verb, or two names.
        (
            "We were told yesterday that Frederick Leighton paints pictures",
            ["We were told yesterday | that Frederick Leighton paints pictures"],
        ),
        (
            "Nobody has seen how quickly they can finish such large pictures",
            ["Nobody has seen how quickly | they can finish such large pictures"],
        ),
        (
            "Everybody suddenly saw Frederick Leighton dancing happily there",
            ["Everybody suddenly saw | Frederick Leighton dancing happily there"],
        ),
        # No word is left alone on the screen,
        ("Unfortunately, twenty enormous yellow umbrellas disappeared mysteriously yesterday "
         "evening",
         ["Unfortunately, twenty enormous",
          "yellow umbrellas disappeared | mysteriously yesterday evening"]),
        # and what fits into one line stands in one.
        ("It fits into one line.", ["It fits into one line."]),
        # A sentence begins a cue of its own,
        ("That is all I know of it. Now it is your turn.",
         ["That is all I know of it.", "Now it is your turn."]),
        # unless it would flash by.
        ("Yes. Let us go home.", ["Yes. Let us go home."]),
        ("Donaudampfschifffahrtselektrizitätenhauptbetriebswerk is long.",
         ["Donaudampfschifffahrtselektrizitätenhauptbetriebswerk | is long."]),
    ],
)  # fmt: skip
def test_breaks_are_at_the_joints(text: str, right: list[str]) -> None:
    assert shown(spoken(text, seed=3)) == right


def test_segments_are_kept_and_words_are_not() -> None:
    words = [Word("Yes.", 0.0, 0.3, 0.9), *spoken("Let us go home.", rate=15.0)]
    assert [text_of(cue) for cue in cues(words, DEFAULTS)] == ["Yes. Let us go home."]
    kept = cues(segments(words), DEFAULTS)
    assert [text_of(cue) for cue in kept] == ["Yes.", "Let us go home."]
    # What would flash by keeps the next one waiting a little.
    assert (kept[0].start_ms, kept[0].end_ms) == (0, 834)
    assert kept[1].start_ms == 834
    assert words[1].start == 0.5


def test_no_cue_waits_long_for_short_ones_before_it() -> None:
    hasty = [Word(f"{i}.", i * 0.1, i * 0.1 + 0.05, 0.9) for i in range(30)]
    found = cues(segments(hasty), DEFAULTS)
    assert all(cue.start_ms - 1000 * cue.lines[0][0].start < 502 for cue in found)


def test_no_cue_lasts_longer_than_it_may() -> None:
    endless = [Word("Ooooooh", 0.0, 20.0, 0.9), Word("well", 20.1, 20.3, 0.9)]
    found = cues(endless, DEFAULTS)
    assert [(cue.start_ms, cue.end_ms) for cue in found] == [(0, 7000), (20100, 20934)]
    slow = [Word(f"w{i}", i * 0.9, i * 0.9 + 0.5, 0.9) for i in range(30)]
    assert all(cue.end_ms - cue.start_ms <= 7000 for cue in cues(slow, DEFAULTS))


def hurried(seed: int) -> list[Word]:
    """Words such as nobody speaks: of no length, at one time, very long, many at once."""
    chance = random.Random(seed)
    pace_s, at_s, words = chance.choice([0.05, 0.2, 0.5, 1.5]), chance.uniform(0, 2), list[Word]()
    for _ in range(chance.randint(1, 40)):
        length_s = chance.random() * pace_s * chance.choice([0, 1, 1, 1, 1, 6])
        text = chance.choice(
            [
                "a",
                "the",
                "house",
                "and",
                "Ada",
                "yes.",
                "no,",
                "<i>",
                "x\ny",
                "word" * 12,
                "日本語" * 9,
            ]
        )
        words.append(Word(text, round(at_s, 3), round(at_s + length_s, 3), 0.5))
        at_s += length_s + chance.choice([0.0, chance.random() * pace_s])
        at_s += 3 * chance.random() * (chance.random() < 0.05)
    return words


@pytest.mark.parametrize("first_seed", range(0, 600, 100))
def test_the_rules_hold_whatever_is_said(first_seed: int) -> None:
    for seed in range(first_seed, first_seed + 100):
        words = hurried(seed)
        found = cues(words, DEFAULTS)
        assert [word for cue in found for line in cue.lines for word in line] == words
        begins = [round(1000 * cue.lines[0][0].start) for cue in found]
        for cue in found:
            assert len(cue.lines) <= 2
            assert all(line_width(line) <= 42 or len(line) == 1 for line in cue.lines)
            assert cue.start_ms < cue.end_ms <= cue.start_ms + 7000
        # Half a second late at most, but for those before it whose words begin at the same time.
        for at, (cue, begin) in enumerate(zip(found, begins, strict=True)):
            assert 0 <= cue.start_ms - begin <= 500 + begins[:at].count(begin), seed
        for (cue, following), next_begin in zip(pairwise(found), begins[1:], strict=True):
            gap_ms = following.start_ms - cue.end_ms
            assert gap_ms == 0 or gap_ms >= 250, seed
            if cue.end_ms - cue.start_ms < 834:
                assert following.start_ms >= next_begin + 500, "it might have been shown longer"


def test_a_cue_that_must_end_makes_room_before_the_next() -> None:
    words = [Word("Well", 20.151 - 7, 20.2 - 7, 0.5), Word("then", 14.0, 20.1, 0.5)]
    words.append(Word("we" * 21, 20.328, 21.0, 0.5))
    first, second = cues(words, DEFAULTS)
    assert (first.end_ms, second.start_ms) == (20_078, 20_328)
    near, far = cues(words, CaptionOptions(min_gap_s=0.1))
    assert (near.end_ms, far.start_ms) == (20_100, 20_328), "the gap is long enough"
    near, far = cues(words, CaptionOptions(min_gap_s=30.0))
    assert near.end_ms - near.start_ms == 834, "no gap is so long"
