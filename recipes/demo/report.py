"""Figures of the model card: word errors on people and voices never heard, and invented words."""

import gzip
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from kiku.checkpoint import DEMO
from kiku.evaluate.aligning import word_errors
from kiku.loading import load
from recipes.demo.bank import WORD_INDEX, Bank, WordSpan, joined, single_words
from recipes.demo.corpus import SAMPLE_RATE, VOCABULARY, Corpus, Recording, build, normalise
from recipes.demo.score import Test, person_strings
from recipes.demo.sound import Surroundings, noise
from recipes.demo.speak import USUAL, other_phrases, say_flite, say_variant, synthetic
from recipes.demo.voices import FLITE_VOICES, HELD_OUT_VARIANTS, VARIANTS

_SLOTS = 8


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report.

    Attributes:
        words: number of words that were spoken.
        wrong: substitutions, deletions and insertions together.
        minutes: minutes of sound.
    """

    name: str
    words: int
    wrong: int
    minutes: float

    @property
    def rate(self) -> float:
        """Word error rate; if no words were spoken, invented words per minute."""
        return self.wrong / self.words if self.words else self.wrong / self.minutes

    def line(self) -> str:
        """The figure as a line of text."""
        value = f"{100 * self.rate:5.1f} %" if self.words else f"{self.rate:5.2f} words a minute"
        return f"{self.name:48} {value}   ({self.words} words, {self.minutes:.1f} minutes)"


def digit_strings(corpus: Corpus) -> list[Test]:
    """Connected strings as they were recorded: utterances that hold only vocabulary words."""
    return [
        (0.4 * corpus.audio(r), [WordSpan(WORD_INDEX[word], 0.0, 0.0) for word in r.words])
        for r in corpus.select("dev", "en-an4")
        if len(r.words) > 1 and all(word in WORD_INDEX for word in r.words)
    ]


def clip_strings(corpus: Corpus, *, count: int, seed: int) -> list[Test]:
    """Whole recordings of single words by one speaker, 3 to 6 of them, zeros between them.

    Nothing is trimmed, levelled or left out: cut-off and mislabelled recordings are included.
    """
    said: dict[str, list[Recording]] = defaultdict(list)
    for recording in corpus.select("dev"):
        if len(recording.words) == 1 and recording.words[0] in WORD_INDEX:
            said[recording.speaker].append(recording)
    rng = np.random.default_rng(seed)
    speakers = sorted(said)
    tests: list[Test] = []
    for number in range(count):
        words = said[speakers[number % len(speakers)]]
        picked = [words[i] for i in rng.integers(0, len(words), int(rng.integers(3, 7)))]
        parts: list[np.ndarray] = []
        for recording in picked:
            gap = np.zeros(int(rng.uniform(0.3, 0.7) * SAMPLE_RATE), np.float32)
            parts += [gap, corpus.audio(recording)]
        parts.append(np.zeros(SAMPLE_RATE, np.float32))
        spans = [WordSpan(WORD_INDEX[recording.words[0]], 0.0, 0.0) for recording in picked]
        tests.append((np.concatenate(parts), spans))
    return tests


def usual_voices(sentences: list[str]) -> Bank:
    """Words and strings by plain espeak-ng and by flite's voices.

    These voices are in the training data, but these utterances are not.
    """
    others = other_phrases(sentences, 20, 7)
    return joined(
        [
            say_variant("", others, rounds=5, seed=7, style=USUAL),
            *(
                say_flite(voice, others, seed=7, stretches=(1.0,), strings=8)
                for voice in FLITE_VOICES
            ),
        ]
    )


def in_one_go(bank: Bank) -> list[Test]:
    """The strings of synthetic voices in `bank`, half a second of zeros before, a second after."""
    before, after = np.zeros(SAMPLE_RATE // 2, np.float32), np.zeros(SAMPLE_RATE, np.float32)
    return [
        (np.concatenate([before, bank.audio(snippet), after]), list(snippet.spans))
        for snippet in bank.snippets
        if snippet.kind == "said"
    ]


def test_sets(data: Path, folder: Path) -> dict[str, list[Test]]:
    """The fixed test sets; the same data give the same sets.

    Args:
        data: folder of recordings.
        folder: folder for the cache of decoded recordings.
    """
    corpus = build(data, folder, splits=("dev",))
    people = single_words(corpus, corpus.select("dev"))
    with gzip.open(data / "text/sentences.en.txt.gz", "rt") as lines:
        sentences = lines.read().splitlines()
    say = partial(synthetic, sentences=sentences, rounds=1, seed=7, jobs=1)
    spoken, chosen, plain = say(HELD_OUT_VARIANTS), say(VARIANTS[1::4]), usual_voices(sentences)
    other = [
        (0.5 * corpus.audio(r), [])
        for r in corpus.select("dev", "en-read", "en-l2")
        if not WORD_INDEX.keys() & set(r.words)
    ]
    rng = np.random.default_rng(21)
    surroundings = Surroundings.load(data / "noise")
    noises: list[Test] = []
    for i in range(24):
        level = 10 ** rng.uniform(-3, -1)
        recorded = surroundings.noises if i % 2 else ()
        noises.append(
            ((level * noise(rng, 15 * SAMPLE_RATE, recorded)).clip(-1, 1).astype(np.float32), [])
        )
    return {
        "people never heard, whole clips with zeros between": clip_strings(
            corpus, count=100, seed=33
        ),
        "people never heard": person_strings(people, count=120, seed=31),
        "people never heard, digit strings as recorded": digit_strings(corpus),
        "synthetic voices never heard": person_strings(spoken, count=60, seed=32),
        "synthetic voices of the training": person_strings(chosen, count=60, seed=32),
        "plain espeak-ng and flite": person_strings(plain, count=60, seed=34),
        "plain espeak-ng and flite, strings said in one go": in_one_go(plain),
        "silence": [(np.zeros(120 * SAMPLE_RATE, np.float32), [])],
        "noise": noises,
        "other speech, no word of the vocabulary": other[:120],
    }


def count_errors(name: str, tests: Sequence[Test], heard: Sequence[str]) -> Figure:
    """The errors of transcripts, one text for each test."""
    wrong = sum(
        word_errors([VOCABULARY[span.word] for span in spans], normalise(text))
        for (_, spans), text in zip(tests, heard, strict=True)
    )
    seconds = sum(len(sound) for sound, _ in tests) / SAMPLE_RATE
    return Figure(name, sum(len(spans) for _, spans in tests), wrong, seconds / 60)


def measure(data: Path, folder: Path, model: str | Path = DEMO) -> list[Figure]:
    """Transcribe every set with `kiku.load(model)` and count the errors."""
    recognizer = load(model, slots=_SLOTS)
    figures: list[Figure] = []
    for name, tests in test_sets(data, folder).items():
        heard: list[str] = []
        for first in range(0, len(tests), _SLOTS):
            sounds = [sound for sound, _ in tests[first : first + _SLOTS]]
            results = recognizer.transcribe(sounds, rate=recognizer.config.sample_rate)
            heard.extend(result.text for result in results)
        figures.append(count_errors(name, tests, heard))
    return figures


def as_rows(figures: Sequence[Figure]) -> list[dict[str, float | str]]:
    """The figures as rows for JSON."""
    return [{**asdict(figure), "rate": round(figure.rate, 4)} for figure in figures]
