"""What was heard beside what was said, utterance by utterance: errors, times, latencies, trust."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from kiku.evaluate.aligning import Pair, PairKind, align, character_errors, sources
from kiku.evaluate.hearing import Heard, HeardWord
from kiku.evaluate.manifest import SpokenWord, Utterance
from kiku.evaluate.normalising import Normalise


@dataclass(frozen=True, slots=True)
class Token:
    """A normalised word, and where it lies, as far as that is known."""

    text: str
    start: float | None = None
    """Seconds of the file."""
    end: float | None = None
    given: float | None = None
    """How much of the file had been heard when all of it had been given out."""


@dataclass(frozen=True, slots=True)
class Trust:
    """How sure a word was, and whether it was right."""

    probability: float
    right: bool


@dataclass(frozen=True, slots=True)
class TurnErrors:
    """Ends of turns that were told, beside those that were marked."""

    turns: int
    false_ends: int
    """Told while somebody spoke on."""
    false_eager_ends: int
    misses: int
    """Turns whose end was not told before the next one, or the end of the sound."""
    end_delays: tuple[float, ...]
    """Seconds from the end of a turn until its end was told."""
    eager_delays: tuple[float, ...]
    """Until it was told, or thought probable."""


@dataclass(frozen=True)
class Scored:
    """One utterance, evaluated."""

    utterance: Utterance
    heard: Heard
    reference: tuple[Token, ...]
    found: tuple[Token, ...]
    pairs: tuple[Pair, ...]
    characters: int
    """Of the reference, spaces included."""
    character_errors: int
    trusts: tuple[Trust, ...] = ()
    turns: TurnErrors | None = None
    normalised: tuple[str, str] = field(default=("", ""))
    """Reference and what was heard, as they were compared."""

    def count(self, kind: PairKind) -> int:
        """Pairs of a kind."""
        return sum(pair.kind == kind for pair in self.pairs)

    @cached_property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return len(self.pairs) - self.count("equal")

    @property
    def has_speech(self) -> bool:
        """Whether anything is said in it, be it of a kind that is not compared, such as "Hmm."."""
        return bool(self.utterance.text.strip())

    @cached_property
    def start_errors(self) -> tuple[float, ...]:
        """Of words that are right: seconds by which they were said to begin too late."""
        return tuple(
            round(got.start - said.start, 4)
            for said, got in self._right
            if said.start is not None and got.start is not None
        )

    @cached_property
    def end_errors(self) -> tuple[float, ...]:
        """Of words that are right: seconds by which they were said to end too late."""
        return tuple(
            round(got.end - said.end, 4)
            for said, got in self._right
            if said.end is not None and got.end is not None
        )

    @cached_property
    def latencies(self) -> tuple[float, ...]:
        """Of words that are right: seconds heard from the end of the word, by the reference, until
        it was given out."""
        return tuple(
            round(got.given - said.end, 4)
            for said, got in self._right
            if said.end is not None and got.given is not None
        )

    @cached_property
    def own_latencies(self) -> tuple[float, ...]:
        """Of all words: seconds heard from the end of the word, as the model places it, until it
        was given out."""
        words = self.heard.words
        return tuple(round(word.given - word.end, 4) for word in words if word.given is not None)

    @property
    def _right(self) -> list[tuple[Token, Token]]:
        return [
            (self.reference[pair.reference], self.found[pair.heard])
            for pair in self.pairs
            if pair.kind == "equal" and pair.reference is not None and pair.heard is not None
        ]


def score(utterance: Utterance, heard: Heard, normalise: Normalise) -> Scored:
    """Compare what was heard of an utterance with its text."""
    said = normalise(utterance.text)
    got = normalise(" ".join(word.text for word in heard.words))
    reference, found = said.split(), got.split()
    pairs = align(reference, found)
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
        _turn_errors(utterance, heard),
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
    # The last is given out last.
    return Token(text, words[0].start, words[-1].end, words[-1].given)


def _trusts(
    words: Sequence[HeardWord], of_words: Sequence[range], pairs: Sequence[Pair]
) -> tuple[Trust, ...]:
    """Of each word that is part of the normalised text: it is right if all that came of it is."""
    right: dict[int, bool] = {}
    for pair in pairs:
        if pair.heard is not None:
            for index in of_words[pair.heard]:
                right[index] = right.get(index, True) and pair.kind == "equal"
    return tuple(Trust(words[index].probability, right[index]) for index in sorted(right))


def _turn_errors(utterance: Utterance, heard: Heard) -> TurnErrors | None:
    turns = utterance.turns
    if not turns:
        return None
    false_ends = false_eager_ends = misses = 0
    end_delays: list[float] = []
    eager_delays: list[float] = []
    nexts = [turn.start for turn in turns[1:]] + [float("inf")]
    for turn, following in zip(turns, nexts, strict=True):
        false_ends += sum(turn.start <= time < turn.end for time in heard.ends)
        false_eager_ends += sum(turn.start <= time < turn.end for time in heard.eager_ends)
        told = [time for time in heard.ends if turn.end <= time < following]
        thought = [time for time in (*heard.eager_ends, *told) if turn.end <= time < following]
        misses += not told
        end_delays += [round(min(told) - turn.end, 4)] if told else []
        eager_delays += [round(min(thought) - turn.end, 4)] if thought else []
    return TurnErrors(
        len(turns), false_ends, false_eager_ends, misses, tuple(end_delays), tuple(eager_delays)
    )
