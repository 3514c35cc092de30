"""Words that were given out before their sound had been read in the ordinary way."""

from collections.abc import Iterable, Sequence
from typing import Any

from kiku.text import Partial, Word

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

    def save(self) -> list[list[Any]]:
        """In values for JSON."""
        return [[w.text, w.start, w.end, w.probability] for w in self._told]
