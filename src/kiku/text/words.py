"""From the model's text tokens, one a frame, to words with times and probabilities.

A word ends where the first PAD or word-start marker follows its pieces, and also where a piece that
begins with "▁" arrives while it is open: the model often leaves out the marker between quick words
("roast beef").
Knows tokens and frames; does not know audio, slots or sockets. Pure: no clock, no input, no output.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from kiku.config import PAD_ID, WORD_START_ID
from kiku.errors import ConfigError, StreamError


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word. Never revised once it has been given out."""

    text: str
    """Without spaces around it, with the punctuation that belongs to it; never empty."""
    start: float
    """Seconds in this stream, from its first sample."""
    end: float
    """Seconds in this stream; never before `start`."""
    probability: float
    """That the whole word is right, as the model sees it: the product over its pieces, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Partial:
    """The word that is being written, as far as its pieces are known. It may still become longer,
    and only the `Word` that follows counts."""

    text: str
    """From the beginning of the word; never empty."""
    start: float
    """Seconds in this stream."""


@dataclass(frozen=True, slots=True)
class Timing:
    """From the index of a text token to the place in the sound that it speaks of."""

    frame_rate: float
    """Frames per second."""
    delay_s: float
    """Seconds by which text lags sound."""
    prefix_s: float
    """Seconds of silence that were put before the sound."""

    def __post_init__(self) -> None:
        finite = all(map(math.isfinite, (self.frame_rate, self.delay_s, self.prefix_s)))
        if not finite or self.frame_rate <= 0 or self.delay_s < 0 or self.prefix_s < 0:
            raise ConfigError(
                f"times cannot be told from {self}: "
                "frame_rate must be above 0, delay_s and prefix_s at least 0"
            )

    def seconds(self, index: int) -> float:
        """The second of the sound that token `index` (from 0) speaks of; never below 0."""
        return max(0.0, index / self.frame_rate - self.prefix_s - self.delay_s)


class Pieces(Protocol):
    """What is asked of a vocabulary here; `Vocabulary` has it."""

    def is_text(self, token: int) -> bool:
        """Whether `token` stands for text."""
        ...

    def starts_word(self, token: int) -> bool:
        """Whether the text of `token` begins with a space."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`."""
        ...


class WordBuilder:
    """Words from tokens, given out as soon as they are decided.

    A piece without "▁" that follows a PAD or a marker begins a word of its own, since the word
    before has already been given out; a lone "▁" opens a word that the next pieces spell. What
    decodes to nothing is no word.
    """

    def __init__(
        self,
        vocabulary: Pieces,
        timing: Timing,
        *,
        pad_id: int = PAD_ID,
        word_start_id: int = WORD_START_ID,
    ) -> None:
        """Stand before the first token of a stream.

        Args:
            vocabulary: what the tokens mean.
            timing: where the tokens lie in the sound.
            pad_id: the token of a frame without text.
            word_start_id: the token that stands before most words.
        """
        self._vocabulary = vocabulary
        self._timing = timing
        self._boundaries = (pad_id, word_start_id)
        self._num_tokens = 0
        self._expects_word = False
        self._pieces: list[int] = []
        self._first = 0
        self._logprob = 0.0

    @property
    def num_tokens(self) -> int:
        """How many tokens have been pushed, which is the index of the next one."""
        return self._num_tokens

    def push(self, token: int, logprob: float) -> list[Word]:
        """Take the token of the next frame.

        Args:
            token: text id. One that is neither boundary nor text (`<s>`, `</s>`, an id outside the
                vocabulary) changes nothing.
            logprob: natural logarithm of the probability that the model gave it.

        Returns:
            The word that this token ends; most often none.
        """
        index = self._num_tokens
        self._num_tokens += 1
        self._expects_word = token == self._boundaries[1]
        if token in self._boundaries:
            return self._close(index)
        if not self._vocabulary.is_text(token):
            return []
        ended = self._close(index) if self._vocabulary.starts_word(token) else []
        if not self._pieces:
            self._first = index
        self._pieces.append(token)
        self._logprob += logprob
        return ended

    @property
    def partial(self) -> Partial | None:
        """The word that is open, if there is one whose pieces say anything yet."""
        text = self._vocabulary.decode(self._pieces).strip()
        return Partial(text, self._timing.seconds(self._first)) if text else None

    @property
    def undecided(self) -> bool:
        """Whether a word is open or announced: the next token belongs to it."""
        return bool(self._pieces) or self._expects_word

    def at(self, index: int) -> Self:
        """Another one, which stands before token `index` and has no word open."""
        other = copy.copy(self)
        other._num_tokens, other._expects_word = index, False
        other._pieces, other._logprob = [], 0.0
        return other

    def fork(self) -> Self:
        """Another one that stands in the same place; neither changes the other."""
        other = copy.copy(self)
        other._pieces = list(self._pieces)
        return other

    def save(self) -> dict[str, Any]:
        """Where it stands, in values for JSON."""
        return {
            "num_tokens": self._num_tokens,
            "expects_word": self._expects_word,
            "pieces": self._pieces,
            "first": self._first,
            "logprob": self._logprob,
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on where `save` was called.

        Raises:
            StreamError: it is not what `save` gave.
        """
        try:
            num_tokens, first = int(saved["num_tokens"]), int(saved["first"])
            pieces = [int(piece) for piece in saved["pieces"]]
            logprob = float(saved["logprob"])
            if not all(map(self._vocabulary.is_text, pieces)) or not 0 <= first <= num_tokens:
                raise ValueError("pieces that this vocabulary does not have")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise StreamError(
                f"the saved words are damaged ({error!r}); open a fresh stream"
            ) from error
        self._num_tokens, self._first, self._pieces = num_tokens, first, pieces
        self._logprob = logprob
        self._expects_word = bool(saved.get("expects_word"))

    def finish(self) -> list[Word]:
        """The word that is still open, if there is one; it ends with the last token pushed."""
        return self._close(self._num_tokens)

    def _close(self, end: int) -> list[Word]:
        pieces, logprob = self._pieces, self._logprob
        self._pieces, self._logprob = [], 0.0
        text = self._vocabulary.decode(pieces).strip()
        if not text:
            return []
        start_s, end_s = self._timing.seconds(self._first), self._timing.seconds(end)
        return [Word(text, start_s, end_s, _probability(logprob))]


def _probability(logprob: float) -> float:
    """`exp(logprob)` in [0, 1]: rounding may lift a sum above 0, and NaN deserves no trust."""
    return 0.0 if math.isnan(logprob) else math.exp(min(logprob, 0.0))
