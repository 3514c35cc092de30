"""How many word errors are left if the decoder knows English words.

The scores of a trunk are decoded twice: from the best piece of each state, and with a model of
words that was counted in texts. How much that model counts is found on other speakers than the
figure.
"""

import gzip
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from kiku.evaluate.aligning import word_errors
from kiku.text import Vocabulary
from recipes.demo.corpus import Corpus, normalise
from recipes.english.beam import Decoder, Limits, Setting, State, states_of
from recipes.english.gate import GROUPS, dev_groups, scored, text_of
from recipes.english.trunk import AttentionAids, Trunk

SETTINGS = tuple(Setting(*one) for one in product((0.3, 0.5, 0.7, 1.0), (3.0, 4.0, 5.0, 6.0)))
"""Weights and bonuses that are tried."""

Rates = Mapping[str, float]
"""Word error rates by group."""


class Texts(NamedTuple):
    """Texts that a model of words is counted in, each once, and how many were left out.

    Attributes:
        kept: the words of each.
        sentences: sentences of the data that are the transcript of a recording of dev.
        people: transcripts of recordings of train that are also one of dev.
    """

    kept: Sequence[Sequence[str]]
    sentences: int
    people: int


def texts_without_dev(data: Path, people: Corpus) -> Texts:
    """The sentences of the data and the transcripts of train, without those of dev."""
    hidden = {_bare(one.words) for one in people.select("dev")}
    sentences = dict.fromkeys(_sentences(data))
    told = dict.fromkeys(one.words for one in people.select("train", *GROUPS))
    some = [words for words in sentences if words not in hidden]
    others = [words for words in told if _bare(words) not in hidden]
    kept = [words for words in dict.fromkeys((*some, *others)) if words]
    return Texts(kept, len(sentences) - len(some), len(told) - len(others))


def _sentences(data: Path) -> Iterator[tuple[str, ...]]:
    with gzip.open(data / "text" / "sentences.en.txt.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            yield _bare(normalise(line.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")))


def _bare(words: Sequence[str]) -> tuple[str, ...]:
    """Words without the quotes around them, which are apostrophes in some sentences."""
    return tuple(bare for word in words if (bare := word.strip("'")))


@dataclass(frozen=True, slots=True)
class Heard:
    """A recording of dev.

    Attributes:
        words: what was said.
        greedy: word errors if the best piece of each state is taken.
        states: see `states_of`.
    """

    group: str
    speaker: str
    words: Sequence[str]
    greedy: int
    states: Sequence[State]


class Told(Protocol):
    """A recording whose words are known."""

    @property
    def words(self) -> tuple[str, ...]:
        """What was said."""
        ...

    @property
    def speaker(self) -> str:
        """Who said it."""
        ...


def heard_of(
    group: str, told: Told, scores: Tensor, vocabulary: Vocabulary, limits: Limits
) -> Heard:
    """What a model's scores [L, vocabulary] say of a recording."""
    greedy = word_errors(told.words, text_of(scores.argmax(-1), vocabulary).split())
    return Heard(group, told.speaker, told.words, greedy, states_of(scores, limits))


def hear(
    trunk: Trunk, people: Corpus, vocabulary: Vocabulary, aids: AttentionAids, limits: Limits
) -> list[Heard]:
    """The recordings of a check of the gate."""
    return [
        heard_of(group, one, scores, vocabulary, limits)
        for group, recordings in dev_groups(people).items()
        for one, scores in scored(trunk, people, recordings, aids)
    ]


def errors_of(heard: Sequence[Heard], vocabulary: Vocabulary, decoder: Decoder) -> list[int]:
    """Word errors of each recording with this decoder."""
    return [
        word_errors(one.words, vocabulary.decode(decoder(one.states).pieces).split())
        for one in heard
    ]


def halves(heard: Sequence[Heard]) -> tuple[list[int], list[int]]:
    """Numbers of the recordings of two halves.

    They share no speaker, and have about as many words of each group.
    """
    told = Counter[tuple[str, str]]()
    for one in heard:
        told[one.group, one.speaker] += len(one.words)
    sizes, half_of = Counter[tuple[str, int]](), dict[tuple[str, str], int]()
    for key, count in sorted(told.items(), key=lambda one: (-one[1], one[0])):
        half = min((0, 1), key=lambda half: sizes[key[0], half])
        sizes[key[0], half] += count
        half_of[key] = half
    first, second = (
        [number for number, one in enumerate(heard) if half_of[one.group, one.speaker] == half]
        for half in (0, 1)
    )
    return first, second


def rates(heard: Sequence[Heard], errors: Sequence[int], some: Sequence[int]) -> Rates:
    """Word error rates of some recordings, by group."""
    wrong, total = Counter[str](), Counter[str]()
    for number in some:
        group = heard[number].group
        wrong[group] += errors[number]
        total[group] += len(heard[number].words)
    return {group: wrong[group] / count for group, count in total.items()}


@dataclass(frozen=True, slots=True)
class Figure:
    """Word errors of recordings, decoded in both ways.

    Attributes:
        settings: for the model of words: the best for other speakers.
        greedy: from the best piece of each state.
        known: with the model of words.
    """

    settings: Sequence[Setting]
    greedy: Rates
    known: Rates


def figures(heard: Sequence[Heard], errors: Mapping[Setting, Sequence[int]]) -> list[Figure]:
    """Figures of the second half, of the first, and of both together.

    Each half has the setting that is best, in the mean over groups, on the other.

    Args:
        heard: all recordings.
        errors: word errors of each recording with each setting that was tried.
    """
    greedy = [one.greedy for one in heard]
    known = [0] * len(heard)
    first, second = halves(heard)
    found: list[Figure] = []
    for tuned, measured in ((first, second), (second, first)):
        means = {
            setting: np.mean(list(rates(heard, some, tuned).values()))
            for setting, some in errors.items()
        }
        setting = min(means, key=means.__getitem__)
        for number in measured:
            known[number] = errors[setting][number]
        found.append(
            Figure([setting], rates(heard, greedy, measured), rates(heard, known, measured))
        )
    every = range(len(heard))
    settings = [one for figure in found for one in figure.settings]
    return [*found, Figure(settings, rates(heard, greedy, every), rates(heard, known, every))]
