"""Results against references, utterance by utterance: errors, times, latencies, trust."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from kiku.evaluate.aligning import PairKind, WordPair, align_words, character_errors, sources
from kiku.evaluate.hearing import HeardUtterance, HeardWord
from kiku.evaluate.manifest import Span, SpokenWord, Utterance
from kiku.evaluate.normalising import Normalise


@dataclass(frozen=True, slots=True)
class Token:
    """A normalised word and its times, as far as they are known."""

    text: str
    start: float | None = None
    """Seconds of the file."""
    end: float | None = None
    given: float | None = None
    """Seconds of the file that had been processed when all of the word had been emitted."""


@dataclass(frozen=True, slots=True)
class Trust:
    """A word's probability, and whether the word was right."""

    probability: float
    right: bool


@dataclass(frozen=True, slots=True)
class TurnErrors:
    """Ends of turns that were emitted, compared with those that the manifest marks."""

    turns: int
    false_ends: int
    """Ends emitted while the speaker went on."""
    false_eager_ends: int
    misses: int
    """Turns whose end was not emitted before the next turn, or the end of the sound."""
    end_delays: tuple[float, ...]
    """Seconds from the end of a turn until its end was emitted."""
    eager_delays: tuple[float, ...]
    """Seconds from the end of a turn until an end or an eager end was emitted."""


@dataclass(frozen=True)
class Scored:
    """One utterance, evaluated."""

    utterance: Utterance
    heard: HeardUtterance
    reference: tuple[Token, ...]
    found: tuple[Token, ...]
    pairs: tuple[WordPair, ...]
    characters: int
    """Characters of the reference, spaces included."""
    character_errors: int
    trusts: tuple[Trust, ...] = ()
    turns: TurnErrors | None = None
    normalised: tuple[str, str] = field(default=("", ""))
    """The reference and the recognized text, as they were compared."""

    def count(self, kind: PairKind) -> int:
        """How many pairs are of a kind."""
        return sum(pair.kind == kind for pair in self.pairs)

    @cached_property
    def errors(self) -> int:
        """How many substitutions, deletions and insertions there are."""
        return len(self.pairs) - self.count("equal")

    @property
    def has_speech(self) -> bool:
        """Whether anything is said in it, even if that is not compared, such as "Hmm."."""
        return bool(self.utterance.text.strip())

    @cached_property
    def start_errors(self) -> tuple[float, ...]:
        """For words that are right: seconds by which their recognized starts are too late."""
        return tuple(
            round(got.start - said.start, 4)
            for said, got in self._right
            if said.start is not None and got.start is not None
        )

    @cached_property
    def end_errors(self) -> tuple[float, ...]:
        """For words that are right: seconds by which their recognized ends are too late."""
        return tuple(
            round(got.end - said.end, 4)
            for said, got in self._right
            if said.end is not None and got.end is not None
        )

    @cached_property
    def latencies(self) -> tuple[float, ...]:
        """For words that are right: seconds of sound from the end of the word, by the reference,
        until it was emitted."""
        return tuple(
            round(got.given - said.end, 4)
            for said, got in self._right
            if said.end is not None and got.given is not None
        )

    @cached_property
    def own_latencies(self) -> tuple[float, ...]:
        """For all words: seconds of sound from the end of the word, as the model places it, until
        it was emitted."""
        words = self.heard.words
        return tuple(round(word.given - word.end, 4) for word in words if word.given is not None)

    @property
    def _right(self) -> list[tuple[Token, Token]]:
        return [
            (self.reference[pair.reference], self.found[pair.heard])
            for pair in self.pairs
            if pair.kind == "equal" and pair.reference is not None and pair.heard is not None
        ]


def score(utterance: Utterance, heard: HeardUtterance, normalise: Normalise) -> Scored:
    """Compare the words recognized in an utterance with its text."""
    said = normalise(utterance.text)
    got = normalise(" ".join(word.text for word in heard.words))
    reference, found = said.split(), got.split()
    pairs = align_words(reference, found)
    of_words = sources(found, [normalise(word.text).split() for word in heard.words])
    return Scored(
        utterance,
        heard,
        _reference_tokens(reference, utterance.words, normalise),
        tuple(map(_found_token, found, [[heard.words[i] for i in of] for of in of_words])),
        pairs,
        len(said),
        character_errors(said, got),
        _trusts(heard.words, of_words, pairs),
        turn_errors(utterance.turns, heard.ends, heard.eager_ends),
        (said, got),
    )


def _reference_tokens(
    tokens: Sequence[str], words: Sequence[SpokenWord], normalise: Normalise
) -> tuple[Token, ...]:
    if not words:
        return tuple(map(Token, tokens))
    of_words = sources(tokens, [normalise(word.text).split() for word in words])
    return tuple(
        Token(text, words[of[0]].start, words[of[-1]].end) if of else Token(text)
        for text, of in zip(tokens, of_words, strict=True)
    )


def _found_token(text: str, words: Sequence[HeardWord]) -> Token:
    if not words:
        return Token(text)
    # The last word is emitted last.
    return Token(text, words[0].start, words[-1].end, words[-1].given)


def _trusts(
    words: Sequence[HeardWord], of_words: Sequence[range], pairs: Sequence[WordPair]
) -> tuple[Trust, ...]:
    """The trust of each word that is part of the normalised text. A word is right if all tokens
    that came from it are."""
    right: dict[int, bool] = {}
    for pair in pairs:
        if pair.heard is not None:
            for index in of_words[pair.heard]:
                right[index] = right.get(index, True) and pair.kind == "equal"
    return tuple(Trust(words[index].probability, right[index]) for index in sorted(right))


def turn_errors(
    turns: Sequence[Span], ends: Sequence[float], eager_ends: Sequence[float]
) -> TurnErrors | None:
    """Compare the times of ends that were emitted with turns; None if no turns are known."""
    if not turns:
        return None
    false_ends = false_eager_ends = misses = 0
    end_delays: list[float] = []
    eager_delays: list[float] = []
    nexts = [turn.start for turn in turns[1:]] + [float("inf")]
    for turn, following in zip(turns, nexts, strict=True):
        false_ends += sum(turn.start <= time < turn.end for time in ends)
        false_eager_ends += sum(turn.start <= time < turn.end for time in eager_ends)
        told = [time for time in ends if turn.end <= time < following]
        thought = [time for time in (*eager_ends, *told) if turn.end <= time < following]
        misses += not told
        end_delays += [round(min(told) - turn.end, 4)] if told else []
        eager_delays += [round(min(thought) - turn.end, 4)] if thought else []
    return TurnErrors(
        len(turns), false_ends, false_eager_ends, misses, tuple(end_delays), tuple(eager_delays)
    )
