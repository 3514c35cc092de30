"""Many evaluated utterances in a few figures: of all of them, and of groups."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kiku.errors import InputError
from kiku.evaluate.aligning import WordPair
from kiku.evaluate.chance import Interval, rate_interval
from kiku.evaluate.scoring import Scored
from kiku.evaluate.trust import Reliability, reliability

NUM_CONFUSIONS = 20
"""How many of the commonest errors of each kind are reported."""

LENGTH = "length"
"""Name of a field that every utterance has: the group of its length."""

_LENGTHS_S = (2, 5, 10, 20)
"""Seconds at which one group of lengths ends and the next begins."""

_TEN_MINUTES_S = 600.0


@dataclass(frozen=True, slots=True)
class Spread:
    """Many durations in a few numbers, in seconds."""

    count: int
    median: float
    p95: float
    mean: float

    @classmethod
    def of(cls, values: Sequence[float], *, absolute: bool = False) -> "Spread | None":
        """The spread of some values; None if there are none. With `absolute`, median and p95 are
        those of the absolute values; the mean keeps the sign, and so says to which side."""
        if not values:
            return None
        given = np.asarray(values, np.float64)
        far = np.abs(given) if absolute else given
        p95 = float(np.percentile(far, 95, method="higher"))
        numbers = (float(np.median(far)), p95, float(given.mean()))
        return cls(len(values), *(round(one, 4) for one in numbers))


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Word errors of utterances in which something is said."""

    utterances: int
    seconds: float
    words: int
    """Words of the references."""
    substitutions: int
    deletions: int
    insertions: int
    rate: float
    """Errors of all three kinds, divided by the words of the references."""
    interval: Interval
    """Where the rate lies in 95 of 100 drawings of utterances."""
    whole: int
    """Utterances without an error."""
    characters: int
    character_errors: int
    character_rate: float


@dataclass(frozen=True, slots=True)
class Invented:
    """Words that the model wrote in utterances in which nothing is said."""

    utterances: int
    seconds: float
    words: int
    """Counted after normalising, like those of the word errors."""
    per_ten_minutes: float


@dataclass(frozen=True, slots=True)
class Turns:
    """See `scoring.TurnErrors`."""

    turns: int
    false_ends: int
    false_eager_ends: int
    misses: int
    end_delay: Spread | None
    eager_delay: Spread | None


@dataclass(frozen=True, slots=True)
class Confusions:
    """The commonest errors of each kind, the commonest first, each with its count."""

    substitutions: tuple[tuple[str, str, int], ...]
    deletions: tuple[tuple[str, int], ...]
    insertions: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of some utterances; None for those of which nothing is known."""

    word_errors: WordErrors | None
    invented: Invented | None
    start_error: Spread | None
    end_error: Spread | None
    latency: Spread | None
    """From the end of a word, by the reference, until the word was emitted."""
    own_latency: Spread | None
    """From the end of a word, as the model places it, until the word was emitted."""
    turns: Turns | None
    reliability: Reliability | None


def figures_of(scored: Sequence[Scored], *, seed: int = 0) -> Figures:
    """All figures of some utterances; the same ones give the same figures."""
    return Figures(
        word_errors_of([one for one in scored if one.has_speech], seed=seed),
        _invented([one for one in scored if not one.has_speech]),
        Spread.of([x for one in scored for x in one.start_errors], absolute=True),
        Spread.of([x for one in scored for x in one.end_errors], absolute=True),
        Spread.of([x for one in scored for x in one.latencies]),
        Spread.of([x for one in scored for x in one.own_latencies]),
        _turns(scored),
        # Words that were written in silence count too: all of them are wrong.
        reliability([trust for one in scored for trust in one.trusts]),
    )


def word_errors_of(scored: Sequence[Scored], *, seed: int = 0) -> WordErrors | None:
    """Errors of utterances in which something is said; None if their references have no words."""
    wrong, words = [one.errors for one in scored], [len(one.reference) for one in scored]
    if not any(words):
        return None
    characters = sum(one.characters for one in scored)
    character_errors = sum(one.character_errors for one in scored)
    return WordErrors(
        utterances=len(scored),
        seconds=round(sum(one.heard.seconds for one in scored), 3),
        words=sum(words),
        substitutions=sum(one.count("substitute") for one in scored),
        deletions=sum(one.count("delete") for one in scored),
        insertions=sum(one.count("insert") for one in scored),
        rate=round(sum(wrong) / sum(words), 6),
        interval=rate_interval(wrong, words, seed=seed),
        whole=wrong.count(0),
        characters=characters,
        character_errors=character_errors,
        character_rate=round(character_errors / characters, 6),
    )


def _invented(scored: Sequence[Scored]) -> Invented | None:
    seconds = sum(one.heard.seconds for one in scored)
    if not seconds:
        return None
    words = sum(len(one.found) for one in scored)
    per_ten = round(words / seconds * _TEN_MINUTES_S, 4)
    return Invented(len(scored), round(seconds, 3), words, per_ten)


def _turns(scored: Sequence[Scored]) -> Turns | None:
    found = [one.turns for one in scored if one.turns is not None]
    if not found:
        return None
    return Turns(
        sum(one.turns for one in found),
        sum(one.false_ends for one in found),
        sum(one.false_eager_ends for one in found),
        sum(one.misses for one in found),
        Spread.of([x for one in found for x in one.end_delays]),
        Spread.of([x for one in found for x in one.eager_delays]),
    )


def confusions_of(scored: Sequence[Scored], most: int = NUM_CONFUSIONS) -> Confusions:
    """The commonest errors of each kind."""
    swapped: Counter[tuple[str, str]] = Counter()
    missing: Counter[str] = Counter()
    added: Counter[str] = Counter()
    for one in scored:
        for pair in one.pairs:
            said, got = words_in_pair(one, pair)
            if pair.kind == "substitute":
                swapped[said, got] += 1
            elif pair.kind == "delete":
                missing[said] += 1
            elif pair.kind == "insert":
                added[got] += 1

    def commonest(counts: Counter[Any]) -> list[tuple[Any, int]]:
        return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]

    return Confusions(
        tuple((said, got, count) for (said, got), count in commonest(swapped)),
        tuple(commonest(missing)),
        tuple(commonest(added)),
    )


def words_in_pair(scored: Scored, pair: WordPair) -> tuple[str, str]:
    """The reference word and the recognized word of a pair; "" for one that is missing."""
    said = "" if pair.reference is None else scored.reference[pair.reference].text
    got = "" if pair.heard is None else scored.found[pair.heard].text
    return said, got


def length_of(seconds: float) -> str:
    """The group of an utterance by its length."""
    before = 0
    for limit in _LENGTHS_S:
        if seconds < limit:
            return f"{before}-{limit} s"
        before = limit
    return f"{before} s and more"


def groups_by(scored: Sequence[Scored], name: str) -> dict[str, list[Scored]]:
    """Utterances by the value of a field, in the order of its values; those without the field are
    under "".

    Raises:
        InputError: no utterance has such a field.
    """
    if name == LENGTH:
        order = [length_of(limit - 0.01) for limit in (*_LENGTHS_S, 1e9)]
        found = {key: list[Scored]() for key in order}
        for one in scored:
            found[length_of(one.heard.seconds)].append(one)
        return {key: some for key, some in found.items() if some}
    values = {one.utterance.fields.get(name, "") for one in scored}
    if not values - {""}:
        known = sorted({field for one in scored for field in one.utterance.fields})
        raise InputError(f"no row has a field {name!r}; choose from {', '.join([*known, LENGTH])}")
    return {
        value: [one for one in scored if one.utterance.fields.get(name, "") == value]
        for value in sorted(values)
    }
