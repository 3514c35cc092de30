"""Decode the scores of a CTC model by what they say and by what a model of words expects.

This is a prefix beam search: prefixes are rows of pieces, and all ways to write a prefix count
together. A word is weighed when the piece after it begins another word, or at the end. Until then
it counts as the likeliest word that begins so, or as unknown if none does.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import NamedTuple

import torch
from torch import Tensor

from kiku.text import Vocabulary
from kiku.text.vocabulary import NUM_SPECIAL, SPACE
from recipes.english.ngrams import END, START, UNKNOWN, Gram, WordModel

LETTER = 2.6
"""What each letter of an unknown word costs, besides that it is unknown: the negative logarithm of
its probability after the two letters before it, in words that the texts have once."""


class State(NamedTuple):
    """What the model says of one state: the probabilities of the blank and of likely pieces.

    The likeliest piece is the first.
    """

    blank: float
    pieces: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Setting:
    """How much the model of words counts.

    Attributes:
        weight: of its logarithms, beside those of the CTC model.
        bonus: added to the logarithm of each word: without it few words would always be best.
    """

    weight: float
    bonus: float


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is looked at.

    Attributes:
        width: prefixes that are kept from each state to the next.
        margin: a prefix is not made longer by a piece that leaves it so far behind the best one, in
            logarithms.
        least: pieces less likely than this in a state are not written there.
        most: nor are those after so many likelier ones.
    """

    width: int = 32
    margin: float = 6.0
    least: float = 0.003
    most: int = 16


class Found(NamedTuple):
    """The best pieces, and the logarithm of their probability with all that was added to it."""

    pieces: list[int]
    score: float


def states_of(scores: Tensor, limits: Limits) -> list[State]:
    """Scores [L, vocabulary] -> L states; ids of the vocabulary that are not text have no share."""
    text = scores[:, NUM_SPECIAL:]
    shares = torch.cat([scores[:, :1], text], 1).double().softmax(-1)
    best = shares[:, 1:].topk(min(limits.most, text.shape[1]))
    states: list[State] = []
    for blank, *some in zip(
        shares[:, 0].tolist(), (best.indices + NUM_SPECIAL).tolist(), best.values.tolist(),
        strict=True,
    ):  # fmt: skip
        kept = (one for one in zip(*some, strict=True) if one[1] >= limits.least)
        states.append(State(blank, dict(kept)))
    return states


class _Prefix:
    """A row of pieces.

    Attributes:
        before: the row without its last piece.
        piece: the last one.
        history: the last two words that are complete; START is one.
        begun: the letters of the word after them, which more may follow.
        complete: what was added for the complete words.
        added: the same, and for the begun word what the likeliest word that begins so adds.
        after: longer rows, by their last piece.
        blank, label: probabilities of this row if a blank came last, and if its last piece did.
        next_blank, next_label: the same after the state `at`.
    """

    __slots__ = (
        "added", "after", "at", "before", "begun", "blank", "complete", "history", "label",
        "next_blank", "next_label", "piece",
    )  # fmt: skip

    def __init__(self, before: "_Prefix | None", piece: int, history: Gram, begun: str) -> None:
        self.before, self.piece, self.history, self.begun = before, piece, history, begun
        self.complete = self.added = self.blank = self.label = 0.0
        self.next_blank = self.next_label = 0.0
        self.after: dict[int, _Prefix] = {}
        self.at = -1

    @property
    def said(self) -> Gram:
        """The last words, if the begun one is complete."""
        return (*self.history, self.begun)[-2:] if self.begun else self.history

    def score(self) -> float:
        """By which prefixes are compared."""
        return math.log(self.blank + self.label) + self.added

    def gains(self, blank: float, label: float, at: int) -> bool:
        """Add to what it will be after state `at`; whether this is the first for that state."""
        first = self.at != at
        if first:
            self.at, self.next_blank, self.next_label = at, 0.0, 0.0
        self.next_blank += blank
        self.next_label += label
        return first


class Decoder:
    """Finds the best pieces for scores, with one model of words and one setting."""

    def __init__(
        self, vocabulary: Vocabulary, words: WordModel, setting: Setting, limits: Limits
    ) -> None:
        """Look at the scores of `states_of` with these limits."""
        self.words, self.setting, self.limits = words, setting, limits
        pieces = [vocabulary.piece(piece) for piece in range(len(vocabulary))]
        self._spelled = [piece.removeprefix(SPACE) for piece in pieces]
        self._begins = [piece.startswith(SPACE) for piece in pieces]

    def __call__(self, states: Sequence[State]) -> Found:
        """The best pieces for the states of a recording."""
        root = _Prefix(None, 0, (START,), "")
        root.blank = 1.0
        beam, scale = [root], 0.0
        for at, state in enumerate(states):
            beam = self._next(beam, state, at)
            largest = max(one.blank + one.label for one in beam)
            scale += math.log(largest)
            for one in beam:
                one.blank /= largest
                one.label /= largest
        for one in beam:
            end = self.words.log_probability(one.said, END)
            one.added = one.complete + self._word(one) + self.setting.weight * end
        best = max(beam, key=_Prefix.score)
        score, pieces = best.score() + scale, list[int]()
        while best.before is not None:
            pieces.append(best.piece)
            best = best.before
        return Found(pieces[::-1], score)

    def _next(self, beam: list[_Prefix], state: State, at: int) -> list[_Prefix]:
        """The best prefixes after one more state, the best first."""
        blank, pieces = state
        likeliest = max(blank, next(iter(pieces.values()), 0.0))
        lowest = beam[0].score() - self.limits.margin
        reached: list[_Prefix] = []
        for one in beam:
            both = one.blank + one.label
            if one.gains(both * blank, one.label * pieces.get(one.piece, 0.0), at):
                reached.append(one)
            floor = likeliest * math.exp(lowest - one.score())
            for piece, share in pieces.items():
                if share < floor:
                    break
                longer = one.after.get(piece)
                if longer is None:
                    longer = one.after[piece] = self._longer(one, piece)
                # A piece can only come twice in a row with a blank between.
                if longer.gains(0.0, share * (one.blank if piece == one.piece else both), at):
                    reached.append(longer)
        for one in reached:
            one.blank, one.label = one.next_blank, one.next_label
        possible = (one for one in reached if one.blank + one.label > 0.0)
        return nlargest(self.limits.width, possible, key=_Prefix.score)

    def _longer(self, one: _Prefix, piece: int) -> _Prefix:
        """A prefix with one more piece."""
        if self._begins[piece]:
            longer = _Prefix(one, piece, one.said, self._spelled[piece])
            longer.complete = one.complete + self._word(one)
        else:
            longer = _Prefix(one, piece, one.history, one.begun + self._spelled[piece])
            longer.complete = one.complete
        ahead = self.words.starts.get(longer.begun)
        if ahead is None:
            longer.added = longer.complete + self._word(longer)
        else:
            longer.added = longer.complete + self._weighed(ahead)
        return longer

    def _word(self, one: _Prefix) -> float:
        """What is added for the last word of a prefix, if it is complete."""
        word = one.begun
        if not word:
            return 0.0
        if word in self.words:
            found = self.words.log_probability(one.history, word)
        else:
            found = self.words.log_probability(one.history, UNKNOWN) - LETTER * len(word)
        return self._weighed(found)

    def _weighed(self, logarithm: float) -> float:
        return self.setting.weight * (logarithm + self.setting.bonus)
