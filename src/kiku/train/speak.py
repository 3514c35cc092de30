"""The synthetic part of the bank: vocabulary words, strings of them, and other words that are to be
ignored.
"""

from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from kiku.train.bank import WORD_INDEX, Bank, BankWriter, Place, cut, find_word
from kiku.train.corpus import SAMPLE_RATE, VOCABULARY, normalise
from kiku.train.voices import ACCENTS, FLITE_VOICES, espeak, flite

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
"""Other words that sound like the vocabulary's: neither asked for nor used as examples of other
speech.
"""


def _trimmed(samples: np.ndarray) -> tuple[float, float]:
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max(initial=1e-6))
    return float(loud[0]) / SAMPLE_RATE, float(loud[-1] + 1) / SAMPLE_RATE


def _places(samples: np.ndarray, words: list[str], starts: list[float]) -> list[Place] | None:
    if len(starts) != len(words):
        return None
    first, last = _trimmed(samples)
    bounds = [max(first, starts[0]), *starts[1:], last]
    places: list[Place] = []
    for word, start, end in zip(words, bounds, bounds[1:], strict=False):
        piece = samples[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)]
        if len(piece) < 2400:
            return None
        inner = _trimmed(piece)
        places.append(Place(WORD_INDEX[word], start + inner[0], start + inner[1]))
    return places


def say_variant(variant: str, others: tuple[str, ...], *, rounds: int, seed: int) -> Bank:
    """Everything that one variant of espeak-ng says.

    Args:
        variant: its name, "" for the plain voice.
        others: words and phrases outside the vocabulary to draw from.
        rounds: how often each vocabulary word is said alone (and as many strings and other
            phrases).
        seed: the same seed says the same.
    """
    rng = np.random.default_rng([seed, *variant.encode()])
    writer = BankWriter()

    def say(text: str) -> tuple[np.ndarray, list[float], str]:
        voice = str(rng.choice(ACCENTS)) + (f"+{variant}" if variant else "")
        spoken = espeak().say(
            text,
            voice,
            words_per_minute=int(rng.integers(110, 215)),
            pitch=int(rng.integers(25, 80)),
            pitch_range=int(rng.integers(20, 80)),
            gap=int(rng.choice([0, 0, 2, 5, 12])),
        )
        return spoken.samples, spoken.starts_s, f"espeak-{voice}"

    for _ in range(rounds):
        for word in VOCABULARY:
            samples, _starts, speaker = say(word)
            piece, places = cut(samples, [Place(WORD_INDEX[word], *_trimmed(samples))])
            writer.add("voice", speaker, piece, places)
    for _ in range(rounds * 8):
        words = [str(w) for w in rng.choice(VOCABULARY, int(rng.integers(2, 7)))]
        samples, starts, speaker = say(str(rng.choice([" ", ", "])).join(words))
        places = _places(samples, words, starts)
        if places is not None:
            writer.add("said", speaker, *cut(samples, places))
    for text in rng.choice(others, rounds * 20):
        samples, _starts, speaker = say(str(text))
        writer.add("other", speaker, samples[: 3 * SAMPLE_RATE], [])
    return writer.finish()


def say_flite(voice: str, *, seed: int) -> Bank:
    """The vocabulary by one voice of flite, at several speeds."""
    rng = np.random.default_rng([seed, *voice.encode()])
    writer = BankWriter()
    for stretch in (0.8, 0.9, 1.0, 1.1, 1.25):
        for word in VOCABULARY:
            for mark in ("", "?", ","):
                spoken = flite(word + mark, voice, stretch=stretch * float(rng.uniform(0.95, 1.05)))
                found = find_word(np.pad(spoken.samples, 4800)) if len(spoken.samples) else None
                if found is not None:
                    start, end = found[0] - 0.2, found[1] - 0.2
                    piece, places = cut(
                        spoken.samples, [Place(WORD_INDEX[word], max(0.0, start), end)]
                    )
                    writer.add("voice", f"flite-{voice}", piece, places)
    return writer.finish()


def other_phrases(sentences: list[str], count: int, seed: int) -> tuple[str, ...]:
    """Single words and short phrases out of `sentences`, none with a word of the vocabulary or one
    that sounds like it.
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
    flite_voices: tuple[str, ...] = FLITE_VOICES,
) -> Bank:
    """The bank of all the synthetic voices."""
    others = other_phrases(sentences, 1500, seed)
    with ProcessPoolExecutor(jobs) as pool:
        banks = list(
            pool.map(partial(say_variant, others=others, rounds=rounds, seed=seed), variants)
        )
        banks += list(pool.map(partial(say_flite, seed=seed), flite_voices))
    whole = banks[0]
    for bank in banks[1:]:
        whole = whole.joined(bank)
    return whole
