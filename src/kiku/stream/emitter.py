"""Decides which words a stream gives out: each word once and in order, although a finalize may have
found it before and a re-decode may write it again."""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kiku.errors import StreamError
from kiku.serial import from_plain, to_plain
from kiku.text import Partial, Word, WordBuilder
from kiku.text.words import without_unfinished

_SAME_S = 0.4
"""Two words of the same text whose starts are at most this many seconds apart count as one."""

_PLACE_S = 0.12
"""Two words of any text whose starts are at most this many seconds apart count as one: the first
was decoded with silence after it, and may be spelled otherwise."""

_RECENT = 32
"""The last emitted words, as many as this, are recognised when they are decoded again."""


class EmittedWords:
    """Words that were given out before the stream itself reached them.

    Each of them is left out once, when the stream reaches it. A finalize hears silence where the
    talk may go on, so the stream may later write the same word a little earlier, later or with
    another spelling. The word that was given out stays.
    """

    def __init__(self, words: Iterable[Word] = ()) -> None:
        """Start with `words`, which were given out, in order."""
        self._words = list(words)

    def __bool__(self) -> bool:
        return bool(self._words)

    def copy(self) -> "EmittedWords":
        """Another object with the same words."""
        return EmittedWords(self._words)

    def add(self, words: Sequence[Word]) -> None:
        """Add words that have now been given out."""
        self._words.extend(words)

    def take(self, word: Word) -> bool:
        """Whether the stream's next word was given out already; it is then removed, with all words
        before it."""
        same = (
            i
            for i, known in enumerate(self._words)
            if known.text == word.text and abs(known.start - word.start) <= _SAME_S
        )
        near = (
            i for i, known in enumerate(self._words) if abs(known.start - word.start) <= _PLACE_S
        )
        index = next(same, next(near, None))
        if index is not None:
            del self._words[: index + 1]
            return True
        while self._words and self._words[0].start < word.start:
            del self._words[0]
        return False

    def covers(self, partial: Partial) -> bool:
        """Whether the stream's open word may be a word that was given out already."""
        return any(abs(known.start - partial.start) <= _SAME_S for known in self._words)

    def is_past(self, word: Word) -> bool:
        """Whether a later word than `word` was given out; `word` then comes out of order."""
        return bool(self._words) and word.start < self._words[-1].start

    @property
    def words(self) -> list[Word]:
        """The words that were given out and that the stream has not reached yet."""
        return list(self._words)


@dataclass(slots=True)
class _EmitterState:
    builder: Any
    ahead: list[Word]
    recent: list[Word]
    last_start: float
    last_end: float


class WordEmitter:
    """Turns tokens into the words that a stream gives out."""

    def __init__(self, builder: WordBuilder) -> None:
        """Stand before the first token."""
        self.builder = builder
        """Makes words from tokens; `redecoded` replaces it."""
        self._ahead = EmittedWords()
        self._recent: deque[Word] = deque(
            maxlen=_RECENT
        )  # the last emitted words, with their times as decoded
        self._last_start = self._last_end = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether no word is open or announced: a PAD would change nothing."""
        return not self.builder.undecided

    @property
    def is_fresh(self) -> bool:
        """Whether no word has been given out yet."""
        return not self._recent

    def partial(self, *, latest: float) -> Partial | None:
        """The text so far of a word that is open and was not given out already; None if there is
        none. Its start is that of the `Word` to come, and not after `latest`."""
        partial = self.builder.partial
        if partial is None or self._ahead.covers(partial):
            return None
        return self._placed(partial, latest)

    def _placed(self, partial: Partial, latest: float) -> Partial:
        start = max(min(partial.start, latest), self._last_start)
        return partial if start == partial.start else replace(partial, start=start)

    def push(self, token: int, logprob: float, *, latest: float) -> list[Word]:
        """Take the next token and return the words to give out now; none of their times is after
        `latest`."""
        words = self.builder.push(token, logprob)
        return self._to_emit(words, latest) if words else words

    def finish(self, *, latest: float) -> list[Word]:
        """End the open word and return it if it is to be given out."""
        return self._to_emit(self.builder.finish(), latest)

    def _to_emit(self, words: Sequence[Word], latest: float) -> list[Word]:
        emitted: list[Word] = []
        for word in words:
            if self._ahead:
                if self._ahead.take(word):
                    continue
                if self._ahead.is_past(word):  # a later word was given out in its place
                    word = replace(word, start=self._last_start)
            emitted.append(self._emit(word, latest))
        return emitted

    def _emit(self, word: Word, latest: float) -> Word:
        self._recent.append(word)
        start = max(min(word.start, latest), self._last_start)
        end = max(min(word.end, latest), start, self._last_end)
        self._last_start, self._last_end = start, end
        if start == word.start and end == word.end:
            return word
        return replace(word, start=start, end=end)

    def finalized(
        self, words: Sequence[Word], open_word: Partial | None, *, latest: float
    ) -> tuple[list[Word], Partial | None]:
        """Take what a finalize found; return the words to give out now and the open word."""
        known = self._ahead.copy()  # from an earlier finalize
        fresh = [word for word in words if not known.take(word)]
        emitted = [self._emit(word, latest) for word in fresh]
        if open_word is not None:
            text = without_unfinished(open_word.text)
            open_word = replace(open_word, text=text) if text else None
        if open_word is not None and known.covers(open_word):
            open_word = None
        self._ahead.add(fresh)
        return emitted, None if open_word is None else self._placed(open_word, latest)

    def redecoded(self, tokens: Sequence[int], logprobs: Sequence[float]) -> list[Word]:
        """Take the last tokens, which were decoded again; return the words to give out now. Words
        that were given out before stay, and are not given out again."""
        self.builder = self.builder.at(self.builder.num_tokens - len(tokens))
        self._ahead = EmittedWords(self._recent)
        emitted: list[Word] = []
        for token, logprob in zip(tokens, logprobs, strict=True):
            emitted += self.push(token, logprob, latest=math.inf)
        return emitted

    def save(self) -> dict[str, Any]:
        """All that the emitter remembers, in plain values."""
        state = _EmitterState(
            self.builder.save(), self._ahead.words, list(self._recent),
            self._last_start, self._last_end,
        )  # fmt: skip
        return to_plain(state)

    def restore(self, saved: Any) -> None:
        """Go on where `save` was called.

        Raises:
            StreamError: `saved` is not what `save` returned.
        """
        state = from_plain(_EmitterState, saved, what="the saved stream", error=StreamError)
        self.builder.restore(state.builder)
        self._ahead = EmittedWords(state.ahead)
        self._recent = deque(state.recent, _RECENT)
        self._last_start, self._last_end = state.last_start, state.last_end
