"""The model's text tokens, one a frame -> words with times and probabilities.

A word ends at the first PAD or word-start marker after its pieces. It also ends where a piece that
begins with "▁" follows: the model often leaves out the marker between quick words ("roast beef").
Knows tokens and frames; does not know audio, slots or sockets. Pure: no clock, no input, no output.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from kiku.config import MAX_STREAM_FRAMES, PAD_ID, WORD_START_ID
from kiku.errors import ConfigError, StreamError
from kiku.serial import from_plain, to_plain

_MAX_LOGPROB = 1e300
"""Nats. A larger log-probability, of either sign, is saved as this, since a saved stream holds only
finite numbers."""


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word. Never revised once it has been given out."""

    text: str
    """The word with its punctuation, without spaces around it; never empty."""
    start: float
    """Second of the source at which the word begins, from the beginning of the source."""
    end: float
    """Second of the source at which the word ends; never before `start`."""
    probability: float
    """Probability that the whole word is right, 0 to 1: the model's, which is the product over its
    pieces, or that which `StreamOptions.calibration` computes from it."""
    channel: int | None = None
    """Channel in which the word was spoken, from 0; None where all are mixed."""


@dataclass(frozen=True, slots=True)
class Partial:
    """The beginning of the word that is being written, as far as its pieces are known. It may still
    become longer; only the `Word` that follows is final."""

    text: str
    """The beginning of the word; never empty."""
    start: float
    """Second of the source at which the word begins."""
    channel: int | None = None
    """As in `Word`."""


def without_unfinished(text: str) -> str:
    """The text of an open word without its last letter, if only some bytes of that letter have
    come. They decode to U+FFFD until the next piece completes the letter."""
    return text.rstrip("\ufffd")


@dataclass(frozen=True, slots=True)
class Timing:
    """Converts the index of a text token to the second of the sound that the token belongs to."""

    frame_rate: float
    """Frames per second."""
    delay_s: float
    """Seconds by which text lags sound."""
    prefix_s: float
    """Seconds of silence that were put before the sound."""
    offset_s: float = field(default=0.0, kw_only=True)
    """Second of the source at which the stream's first sample lies."""

    def __post_init__(self) -> None:
        lengths = (self.delay_s, self.prefix_s, self.offset_s)
        if not (0 < self.frame_rate < math.inf and all(0 <= x < math.inf for x in lengths)):
            raise ConfigError(
                f"times cannot be computed from {self}: frame_rate must be above 0, and delay_s, "
                "prefix_s and offset_s at least 0"
            )

    def seconds(self, index: int) -> float:
        """The second of the source to which token `index` (from 0) belongs; never below
        `offset_s`."""
        spoken_s = index / self.frame_rate - self.prefix_s - self.delay_s
        return self.offset_s + max(0.0, spoken_s)


class Pieces(Protocol):
    """The methods of a vocabulary that a `WordBuilder` calls; `Vocabulary` has them."""

    def is_text(self, token: int) -> bool:
        """Whether `token` stands for text."""
        ...

    def starts_word(self, token: int) -> bool:
        """Whether the text of `token` begins with a space."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`."""
        ...


@dataclass(frozen=True, slots=True)
class _BuilderState:
    """The whole state of a `WordBuilder`."""

    num_tokens: int
    expects_word: bool
    pieces: tuple[int, ...]
    """Tokens of the open word."""
    first: int
    """Index of the first token of the open word."""
    logprob: float
    """Log-probabilities of the tokens of the open word, added up."""


class WordBuilder:
    """Makes words from tokens, and gives each word out as soon as it is decided.

    A piece without "▁" that follows a PAD or a marker begins a word of its own, since the word
    before has already been given out. A lone "▁" opens a word that the next pieces spell. Pieces
    that decode to nothing make no word.
    """

    __slots__ = (
        "_calibration",
        "_channel",
        "_expects_word",
        "_first",
        "_logprob",
        "_pad_id",
        "_pieces",
        "_timing",
        "_vocabulary",
        "_word_start_id",
        "num_tokens",
    )

    def __init__(
        self,
        vocabulary: Pieces,
        timing: Timing,
        *,
        pad_id: int = PAD_ID,
        word_start_id: int = WORD_START_ID,
        channel: int | None = None,
        calibration: Callable[[float], float] | None = None,
    ) -> None:
        """Prepare for the first token of a stream.

        Args:
            vocabulary: the texts of the tokens.
            timing: the places of the tokens in the sound.
            pad_id: the token of a frame without text.
            word_start_id: the token that stands before most words.
            channel: the channel of the sound that the words are from; None where all are mixed.
            calibration: converts the model's probability of a word to the one in its `Word`; None
                leaves it as it is.
        """
        self._vocabulary = vocabulary
        self._timing = timing
        self._pad_id = pad_id
        self._word_start_id = word_start_id
        self._channel = channel
        self._calibration = calibration
        self.num_tokens = 0
        """How many tokens have been pushed, which is the index of the next one. Callers only read
        it. It is not a property, since it is read after every frame."""
        self._expects_word = False
        self._pieces: list[int] = []
        self._first = 0
        self._logprob = 0.0

    def push(self, token: int, logprob: float) -> list[Word]:
        """Take the token of the next frame.

        Args:
            token: text id. One that is neither boundary nor text (`<s>`, `</s>`, an id outside the
                vocabulary) changes nothing.
            logprob: natural logarithm of the probability that the model gave it.

        Returns:
            The word that this token ends; most often none.
        """
        index = self.num_tokens
        self.num_tokens = index + 1
        # Nine frames in ten are PAD between words, so they come first and touch little.
        if token == self._pad_id or token == self._word_start_id:
            self._expects_word = token == self._word_start_id
            return self._close(index) if self._pieces else []
        self._expects_word = False
        if not self._vocabulary.is_text(token):
            return []
        ended = self._close(index) if self._vocabulary.starts_word(token) else []
        if not self._pieces:
            self._first = index
        self._pieces.append(token)
        self._logprob += logprob
        return ended

    def pass_pad(self) -> bool:
        """Take a PAD and return True if no word is open or announced; `push` would then change only
        the count, too. Otherwise take nothing and return False."""
        if self._pieces or self._expects_word:
            return False
        self.num_tokens += 1
        return True

    @property
    def partial(self) -> Partial | None:
        """The open word; None if none is open, or if its pieces make no text yet."""
        if not self._pieces:
            return None
        text = without_unfinished(self._vocabulary.decode(self._pieces).strip())
        return Partial(text, self._timing.seconds(self._first), self._channel) if text else None

    @property
    def undecided(self) -> bool:
        """Whether a word is open or announced, so that the next token may belong to it."""
        return bool(self._pieces) or self._expects_word

    def at(self, index: int) -> Self:
        """A copy that stands before token `index` and has no word open."""
        other = copy.copy(self)
        other.num_tokens = other._first = index
        other._expects_word = False
        other._pieces, other._logprob = [], 0.0
        return other

    def fork(self) -> Self:
        """A copy that stands in the same place; neither changes the other."""
        other = copy.copy(self)
        other._pieces = list(self._pieces)
        return other

    def save(self) -> dict[str, Any]:
        """The whole state, in values for JSON."""
        return to_plain(
            _BuilderState(
                self.num_tokens,
                self._expects_word,
                tuple(self._pieces),
                self._first,
                _finite(self._logprob),
            )
        )

    def restore(self, values: Mapping[str, Any]) -> None:
        """Go on where `save` was called.

        Raises:
            StreamError: `values` are not from `save`, or from another vocabulary.
        """
        state = from_plain(_BuilderState, values, what="the saved stream", error=StreamError)
        if not 0 <= state.first <= state.num_tokens <= MAX_STREAM_FRAMES:
            raise StreamError(
                f"the saved stream cannot be read: its open word begins at token {state.first}, "
                f"but it has {state.num_tokens} tokens, and at most {MAX_STREAM_FRAMES} are "
                "possible; open a fresh stream"
            )
        for piece in state.pieces:
            if not self._vocabulary.is_text(piece):
                raise StreamError(
                    f"the saved stream cannot be read: token {piece} of its open word is not text "
                    "in this vocabulary; restore it with the model with which it was saved"
                )
        if len(state.pieces) > state.num_tokens - state.first:
            raise StreamError(
                f"the saved stream cannot be read: its open word has {len(state.pieces)} pieces "
                f"from {state.num_tokens - state.first} tokens; open a fresh stream"
            )
        self.num_tokens, self._first = state.num_tokens, state.first
        self._pieces, self._logprob = list(state.pieces), state.logprob
        self._expects_word = state.expects_word

    def finish(self) -> list[Word]:
        """The word that is still open, if there is one; it ends with the last token pushed."""
        return self._close(self.num_tokens)

    def _close(self, end: int) -> list[Word]:
        pieces, logprob = self._pieces, self._logprob
        self._pieces, self._logprob = [], 0.0
        text = self._vocabulary.decode(pieces).strip()
        if not text:
            return []
        start_s, end_s = self._timing.seconds(self._first), self._timing.seconds(end)
        probability = _probability(logprob)
        if self._calibration is not None:
            probability = self._calibration(probability)
        return [Word(text, start_s, end_s, probability, self._channel)]


def _probability(logprob: float) -> float:
    """`exp(logprob)` in [0, 1]: rounding may lift a sum above 0, and NaN counts as 0."""
    return 0.0 if math.isnan(logprob) else math.exp(min(logprob, 0.0))


def _finite(logprob: float) -> float:
    """`logprob` as a finite number with the same probability."""
    if math.isnan(logprob):
        return -_MAX_LOGPROB
    return min(max(logprob, -_MAX_LOGPROB), _MAX_LOGPROB)
