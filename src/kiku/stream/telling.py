"""Which words are given out: each once, in order, whatever was looked ahead for or heard again."""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kiku.text import Partial, Word, WordBuilder

_SAME_S = 0.4
"""The same text so near in time is the same word."""

_PLACE_S = 0.12
"""Whatever the text, what is so near in time is the same word: it was heard with silence after it
at first."""


class Ahead:
    """The words that a flush gave out; each is left out once when the stream comes to it.

    A flush hears silence where the talk may go on, so the ordinary reading may write a word a
    little earlier, later or otherwise. What was given out stands.
    """

    def __init__(self, told: Iterable[Word] = ()) -> None:
        """With words that were given out, in order."""
        self._told = list(told)

    def __bool__(self) -> bool:
        return bool(self._told)

    def copy(self) -> "Ahead":
        """Another one with the same words."""
        return Ahead(self._told)

    def add(self, words: Sequence[Word]) -> None:
        """Words that have now been given out."""
        self._told.extend(words)

    def has(self, word: Word) -> bool:
        """Whether the stream's next word was given out already; it counts as come to."""
        same = (
            i
            for i, told in enumerate(self._told)
            if told.text == word.text and abs(told.start - word.start) <= _SAME_S
        )
        near = (i for i, told in enumerate(self._told) if abs(told.start - word.start) <= _PLACE_S)
        index = next(same, next(near, None))
        if index is not None:
            del self._told[: index + 1]
            return True
        while self._told and self._told[0].start < word.start:
            del self._told[0]
        return False

    def covers(self, partial: Partial) -> bool:
        """Whether the stream's open word may be one that was given out already."""
        return any(abs(told.start - partial.start) <= _SAME_S for told in self._told)

    def missed(self, word: Word) -> bool:
        """Whether a flush told a word that lies behind this one: then it is out of place."""
        return bool(self._told) and word.start < self._told[-1].start

    @property
    def words(self) -> list[Word]:
        """What was told and not come to yet."""
        return list(self._told)


class Teller:
    """From tokens to the words that a stream gives out."""

    def __init__(self, builder: WordBuilder) -> None:
        """Before the first token."""
        self._builder = builder
        self._ahead = Ahead()
        self._recent: deque[Word] = deque(maxlen=32)  # given out last, as they were heard
        self._last_start = self._last_end = 0.0

    @property
    def num_tokens(self) -> int:
        """How many tokens have been read, the one before the first frame among them."""
        return self._builder.num_tokens

    @property
    def undecided(self) -> bool:
        """See `WordBuilder.undecided`."""
        return self._builder.undecided

    @property
    def partial(self) -> Partial | None:
        """What has been written of a word that is open, and was not given out already."""
        partial = self._builder.partial
        return None if partial is None or self._ahead.covers(partial) else partial

    def fork(self) -> WordBuilder:
        """A builder that stands where this one does, to look ahead with."""
        return self._builder.fork()

    def read(self, token: int, logprob: float, *, latest: float) -> list[Word]:
        """Take the next token; what is to be given out now. No time goes beyond `latest`."""
        return self._told(self._builder.push(token, logprob), latest)

    def finish(self, *, latest: float) -> list[Word]:
        """The word that is open, if it is to be given out."""
        return self._told(self._builder.finish(), latest)

    def _told(self, words: Sequence[Word], latest: float) -> list[Word]:
        told: list[Word] = []
        for word in words:
            if self._ahead:
                if self._ahead.has(word):
                    continue
                if self._ahead.missed(word):  # its place in the text is taken
                    word = replace(word, start=self._last_start)
            told.append(self._give(word, latest))
        return told

    def _give(self, word: Word, latest: float) -> Word:
        self._recent.append(word)
        start = max(min(word.start, latest), self._last_start)
        end = max(min(word.end, latest), start, self._last_end)
        self._last_start, self._last_end = start, end
        return replace(word, start=start, end=end)

    def looked_ahead(
        self, words: Sequence[Word], open_word: Partial | None, *, latest: float
    ) -> tuple[list[Word], Partial | None]:
        """What a flush found: which of its words are to be given out, and which one is open."""
        known = self._ahead.copy()  # by an earlier flush
        fresh = [word for word in words if not known.has(word)]
        told = [self._give(word, latest) for word in fresh]
        if open_word is not None and known.covers(open_word):
            open_word = None
        self._ahead.add(fresh)
        return told, open_word

    def read_again(self, tokens: Sequence[int], logprobs: Sequence[float]) -> list[Word]:
        """The last tokens have been said anew: what is to be given out of them. What had been
        given out stands, and is not given out again."""
        self._builder = self._builder.at(self._builder.num_tokens - len(tokens))
        self._ahead = Ahead(self._recent)
        told: list[Word] = []
        for token, logprob in zip(tokens, logprobs, strict=True):
            told += self.read(int(token), float(logprob), latest=math.inf)
        return told

    def save(self) -> dict[str, Any]:
        """In values for JSON."""
        return {
            "builder": self._builder.save(),
            "ahead": words_to_lists(self._ahead.words),
            "recent": words_to_lists(self._recent),
            "last": [self._last_start, self._last_end],
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on where `save` was called; KeyError, TypeError, ValueError or StreamError if it is
        damaged."""
        self._builder.restore(saved["builder"])
        self._ahead = Ahead(Word(*word) for word in saved["ahead"])
        self._recent.clear()
        self._recent.extend(Word(*word) for word in saved["recent"])
        self._last_start, self._last_end = map(float, saved["last"])


def words_to_lists(words: Iterable[Word]) -> list[list[Any]]:
    """Their fields, for JSON."""
    return [[word.text, word.start, word.end, word.probability] for word in words]
