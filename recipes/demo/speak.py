"""The synthetic part of the bank: vocabulary words, strings of them, and other words, which the
model learns to ignore.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from recipes.demo.bank import WORD_INDEX, Bank, BankWriter, WordSpan, cut, joined
from recipes.demo.corpus import SAMPLE_RATE, VOCABULARY, normalise
from recipes.demo.voices import ACCENTS, FLITE_VOICES, espeak, flite

HOMOPHONES = frozenset(
    [
        "won",
        "to",
        "too",
        "for",
        "ate",
        "know",
        "write",
        "wright",
        "rite",
        "nigh",
        "nein",
        "oh",
        "o",
        "whole",
        "fore",
        "sicks",
        "ahn",
        "wan",
        "tree",
        "free",
        "sex",
        "write",
    ]
)
"""Other words that sound like the vocabulary's: they are neither targets nor examples of other
speech.
"""


def _trimmed(samples: np.ndarray) -> tuple[float, float]:
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max(initial=1e-6))
    return float(loud[0]) / SAMPLE_RATE, float(loud[-1] + 1) / SAMPLE_RATE


def _word_spans(
    samples: np.ndarray, words: list[str], starts: list[float]
) -> list[WordSpan] | None:
    if len(starts) != len(words):
        return None
    first, last = _trimmed(samples)
    bounds = [max(first, starts[0]), *starts[1:], last]
    spans: list[WordSpan] = []
    for word, start, end in zip(words, bounds, bounds[1:], strict=False):
        piece = samples[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)]
        if len(piece) < 2400:
            return None
        inner = _trimmed(piece)
        spans.append(WordSpan(WORD_INDEX[word], start + inner[0], start + inner[1]))
    return spans


@dataclass(frozen=True, slots=True)
class SpeechStyle:
    """How much the speech of a variant of espeak-ng varies; ranges exclude the second number.

    Attributes:
        as_is: share of utterances at the default speed and the voice's own pitch.
        kind: kind of the snippets of single words.
        marks: separators to choose from between the words of a string.
    """

    words_per_minute: tuple[int, int] = (110, 215)
    pitch: tuple[int, int] = (25, 80)
    gaps: tuple[int, ...] = (0, 0, 2, 5, 12)
    marks: tuple[str, ...] = (" ", ", ")
    as_is: float = 0.0
    accents: tuple[str, ...] = ACCENTS
    kind: str = "voice"


NARROW = SpeechStyle()
WIDE = SpeechStyle(
    words_per_minute=(90, 240),
    pitch=(8, 96),
    gaps=(0, 0, 2, 5, 12, 30, 50),
    marks=(" ", ", ", ". "),
    as_is=0.35,
)
USUAL = SpeechStyle(
    words_per_minute=(100, 220),
    pitch=(20, 85),
    gaps=(0, 0, 2, 5, 12, 30, 50),
    marks=(" ", ", ", ". "),
    as_is=0.6,
    accents=("en", "en", "en-us"),
    kind="usual",
)
"""The style of espeak-ng's default voices."""


def say_variant(
    variant: str, others: tuple[str, ...], *, rounds: int, seed: int, style: SpeechStyle = NARROW
) -> Bank:
    """The snippets of one variant of espeak-ng.

    Args:
        variant: its name, "" for the plain voice.
        others: words and phrases outside the vocabulary to draw from.
        rounds: how often each vocabulary word is spoken alone; per round 8 strings and 20 other
            phrases are spoken as well.
        seed: the same seed gives the same speech.
        style: how much the speech varies.
    """
    rng = np.random.default_rng([seed, *variant.encode()])
    writer = BankWriter()

    def say(text: str) -> tuple[np.ndarray, list[float], str]:
        voice = str(rng.choice(style.accents)) + (f"+{variant}" if variant else "")
        chosen = {
            "words_per_minute": int(rng.integers(*style.words_per_minute)),
            "pitch": int(rng.integers(*style.pitch)),
            "pitch_range": int(rng.integers(20, 80)),
            "gap": int(rng.choice(style.gaps)),
        }
        if style.as_is and rng.random() < style.as_is:
            chosen = {"words_per_minute": 175, "gap": chosen["gap"]}
        spoken = espeak().say(text, voice, **chosen)
        return spoken.samples, spoken.starts_s, f"espeak-{voice}"

    for _ in range(rounds):
        for word in VOCABULARY:
            samples, _starts, speaker = say(word)
            piece, spans = cut(samples, [WordSpan(WORD_INDEX[word], *_trimmed(samples))])
            writer.add(style.kind, speaker, piece, spans)
    for _ in range(rounds * 8):
        words = [str(w) for w in rng.choice(VOCABULARY, int(rng.integers(2, 7)))]
        samples, starts, speaker = say(str(rng.choice(style.marks)).join(words))
        spans = _word_spans(samples, words, starts)
        if spans is not None:
            writer.add("said", speaker, *cut(samples, spans))
    for text in rng.choice(others, rounds * 20):
        samples, _starts, speaker = say(str(text))
        writer.add("other", speaker, samples[: 3 * SAMPLE_RATE], [])
    return writer.finish()


@cache
def _phones_in_flite(word: str) -> int:
    return len(flite(word, "kal").phones_s)


def _spans_by_phones(
    words: list[str], phones_s: list[tuple[float, float]]
) -> list[WordSpan] | None:
    """The span of each word, found by counting phones; None if their number does not fit."""
    counts = [_phones_in_flite(word) for word in words]
    if sum(counts) != len(phones_s):
        return None
    ends = np.cumsum(counts)
    return [
        WordSpan(WORD_INDEX[word], phones_s[end - count][0], phones_s[end - 1][1])
        for word, count, end in zip(words, counts, ends, strict=True)
    ]


def say_flite(
    voice: str,
    others: tuple[str, ...],
    *,
    seed: int,
    stretches: tuple[float, ...] = (0.8, 0.9, 1.0, 1.0, 1.1, 1.25, 1.45),
    strings: int = 120,
) -> Bank:
    """The snippets of one voice of flite.

    Args:
        voice: its name.
        others: words and phrases outside the vocabulary to draw from.
        seed: the same seed gives the same speech.
        stretches: factors of duration; every vocabulary word is spoken three times with each.
        strings: how many strings of words, and how many other phrases.
    """
    rng = np.random.default_rng([seed, *voice.encode()])
    writer = BankWriter()
    speaker = f"flite-{voice}"

    def say(text: str, stretch: float) -> tuple[np.ndarray, list[tuple[float, float]]]:
        spoken = flite(text, voice, stretch=stretch * float(rng.uniform(0.95, 1.05)))
        return spoken.samples, spoken.phones_s

    for stretch in stretches:
        for word in VOCABULARY:
            for mark in ("", "?", ","):
                samples, phones_s = say(word + mark, stretch)
                spans = _spans_by_phones([word], phones_s)
                if spans is not None:
                    writer.add("usual", speaker, *cut(samples, spans))
    for _ in range(strings):
        words = [str(w) for w in rng.choice(VOCABULARY, int(rng.integers(2, 7)))]
        samples, phones_s = say(
            str(rng.choice([" ", ", ", ". "])).join(words), float(rng.choice(stretches))
        )
        spans = _spans_by_phones(words, phones_s)
        if spans is not None:
            writer.add("said", speaker, *cut(samples, spans))
    for text in rng.choice(others, strings):
        samples, _phones = say(str(text), float(rng.choice(stretches)))
        writer.add("other", speaker, samples[: 3 * SAMPLE_RATE], [])
    return writer.finish()


def other_phrases(sentences: list[str], count: int, seed: int) -> tuple[str, ...]:
    """Single words and short phrases from `sentences`, without words that are in the vocabulary or
    sound like it.
    """
    rng = np.random.default_rng(seed)
    found: set[str] = set()
    while len(found) < count:
        words = normalise(sentences[rng.integers(len(sentences))])
        size = int(rng.choice([1, 1, 1, 2, 4]))
        if len(words) < size:
            continue
        at = int(rng.integers(0, len(words) - size + 1))
        phrase = words[at : at + size]
        if not any(w in WORD_INDEX or w in HOMOPHONES or "'" in w for w in phrase):
            found.add(" ".join(phrase))
    return tuple(sorted(found))


def synthetic(
    variants: tuple[str, ...],
    sentences: list[str],
    *,
    rounds: int = 2,
    seed: int = 0,
    jobs: int = 2,
    style: SpeechStyle = NARROW,
) -> Bank:
    """The bank of many variants of espeak-ng."""
    others = other_phrases(sentences, 1500, seed)
    say = partial(say_variant, others=others, rounds=rounds, seed=seed, style=style)
    with ProcessPoolExecutor(jobs) as pool:
        return joined(list(pool.map(say, variants)))


def usual(sentences: list[str], *, rounds: int = 24, seed: int = 0, jobs: int = 2) -> Bank:
    """The bank of default voices: plain espeak-ng, and all of flite's."""
    others = other_phrases(sentences, 3000, seed)
    with ProcessPoolExecutor(jobs) as pool:
        plain = pool.submit(say_variant, "", others, rounds=rounds, seed=seed + 1, style=USUAL)
        spoken = list(pool.map(partial(say_flite, others=others, seed=seed), FLITE_VOICES))
        return joined([plain.result(), *spoken])
