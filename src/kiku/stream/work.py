"""Work is what must be done in a stream's slot between two frames: finalize, truncate, re-decode,
and change how tokens are picked.

Work is done in pieces: `run` does one bounded piece and returns whether more is left, so that other
streams are stepped in between.
"""

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from kiku.audio import energy
from kiku.config import REWIND_FRAMES, ModelConfig
from kiku.decoding import TokenPicker, token_picker
from kiku.errors import InputError
from kiku.options import DecodingOptions
from kiku.serial import plain_numbers, shown
from kiku.stream.recovery import Redecode, Truncate
from kiku.text import Partial, Vocabulary, Word, WordBuilder

if TYPE_CHECKING:
    from kiku.stream.session import WordSession

_FRESH_S = 2.0
"""A word that started this many seconds ago counts as over, however loud the sound is."""

_DROP_DB = 12.0
"""Decibels by which the sound must have become quieter for a word to count as over."""

_QUIET_DB = -55.0
"""dBFS; quieter sound is no speech."""

_LATE_S = 0.25
"""Seconds after the end of the sound at which a word may start at the latest; the model made later
words from the added silence alone, and nobody spoke them."""

_MORE = 4
"""Frames of silence that are added at a time while a word is still undecided."""

MAX_REQUESTS = 32
"""Finalizes that may wait at once, and as many changes of decoding."""

Tokens = tuple[list[int], list[float]]
"""Text tokens and the natural logarithms of their probabilities, one for each frame."""


class SlotAccess(Protocol):
    """The operations that work may do in the slot of its stream."""

    def look_ahead(self, frames: NDArray[np.float32]) -> Tokens:
        """The tokens for frames [T, S], which `end_look_ahead` takes back later."""
        ...

    def end_look_ahead(self) -> None:
        """Put the slot back to where it stood before the first `look_ahead`."""
        ...

    def truncate(self, frames: int, most: int | None) -> int:
        """See `SlotEngine.truncate`."""
        ...

    def redecode(self, frames: int, most: int | None) -> tuple[Tokens, int]:
        """See `SlotEngine.redecode`."""
        ...

    def change_decoding(self, picker: TokenPicker | None, num_codebooks: int | None) -> None:
        """From the next frame on, pick tokens with `picker` and read `num_codebooks` codes.
        `picker` goes on from the picker before it (see `TokenPicker.go_on`)."""
        ...


class Work(Protocol):
    """Something that must be done in a slot before its next frame."""

    def run(self, slot: SlotAccess, session: "WordSession", most: int | None) -> bool:
        """Do a piece of at most `most` frames (None: all of it); return whether more is left."""
        ...


class TruncateWork:
    """Makes the decoder forget all but the last frames."""

    def __init__(self, action: Truncate) -> None:
        """Work that a recovery policy decided on."""
        self._action = action

    def run(self, slot: SlotAccess, session: "WordSession", most: int | None) -> bool:
        """See `Work.run`."""
        if slot.truncate(self._action.frames, most):
            return True
        session.truncated(self._action)
        return False


class RedecodeWork:
    """Makes the decoder forget everything and decode the last frames again."""

    def __init__(self, action: Redecode) -> None:
        """Work that a recovery policy decided on."""
        self._action = action
        self._tokens: list[int] = []
        self._logprobs: list[float] = []

    def run(self, slot: SlotAccess, session: "WordSession", most: int | None) -> bool:
        """See `Work.run`."""
        (tokens, logprobs), left = slot.redecode(self._action.frames, most)
        self._tokens += tokens
        self._logprobs += logprobs
        if left:
            return True
        session.redecoded(self._action, (self._tokens, self._logprobs))
        return False


@dataclass(frozen=True, slots=True)
class DecodingChange:
    """A request to pick tokens otherwise, from the end of the sound that was pushed before it."""

    decoding: DecodingOptions
    picker: TokenPicker | None
    """Picks tokens as `decoding` says; None picks the most probable. The client's call makes it, so
    that the client gets the error if something is wrong, and the streams that are stepped when the
    change comes to its frame need not wait for it. Each session makes a copy."""

    @classmethod
    def of(
        cls, decoding: DecodingOptions, vocabulary: Vocabulary, config: ModelConfig
    ) -> "DecodingChange":
        """Make the request for a model. Raises ConfigError as `token_picker`."""
        return cls(decoding, token_picker(decoding, vocabulary, config))


@dataclass(slots=True)
class ChangeState:
    """A change of decoding whose frame has not come, in plain values."""

    at: int
    """The frame of the stream before which it is done."""
    decoding: DecodingOptions


class ChangeWork:
    """Changes how the slot picks tokens."""

    def __init__(self, at: int, change: DecodingChange) -> None:
        """A change that is to be done before frame `at` of the stream."""
        self.state = ChangeState(at, change.decoding)
        self._picker = deepcopy(change.picker)

    def run(self, slot: SlotAccess, session: "WordSession", most: int | None) -> bool:
        """See `Work.run`."""
        slot.change_decoding(self._picker, self.state.decoding.num_codebooks)
        session.decoding_changed(self)
        return False


@dataclass(frozen=True, slots=True)
class FinalizeRequest:
    """A request for all words that were begun until now."""

    tag: str | None = None
    """Comes back in the `Finalized` that answers the request."""
    cut: bool = False
    """Whether a word that is still being spoken is wanted too."""

    def __post_init__(self) -> None:
        """Raise InputError for a tag or a cut that a saved state could not hold."""
        plain_numbers(self)
        if not (self.tag is None or isinstance(self.tag, str)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(
                f"the tag of a finalize must be text or None, not {shown(self.tag)}: write "
                "finalize(str(tag)), or keep your object elsewhere under a name"
            )
        if not isinstance(self.cut, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"cut must be True or False, not {shown(self.cut)}: write cut=True")


@dataclass(slots=True)
class FinalizeState:
    """A finalize that has not begun, in plain values."""

    at: int
    """The frame of the stream before which it is done."""
    rest: NDArray[np.float32]
    """[S] sound before the finalize that does not fill a frame."""
    time: float
    """The second of the sound at which it was asked for."""
    requests: list[FinalizeRequest]
    """The requests that it answers."""


class FinalizeWork:
    """Finds the words that were begun until now, although the text of the last sound has not come.

    The model hears silence in the place of the sound that has not come yet. Afterwards the slot is
    put back to where it stood; only the words remain.
    """

    def __init__(self, state: FinalizeState, config: ModelConfig) -> None:
        """A finalize that has not begun.

        Args:
            state: the place of the finalize, and the requests for it.
            config: of the model.
        """
        self.state = state
        self._size, self._rate = config.frame_size, config.frame_rate
        self._num_steps = 0
        rest = state.rest
        # Frame t yields token t + 1. So these frames give the text of all the sound, and most often
        # one token more, which ends the last word; if it does not, `_accept` adds more silence.
        silent = math.ceil(config.text_delay_s * config.frame_rate)
        frames = np.zeros((-(-rest.size // self._size) + silent, self._size), np.float32)
        frames.ravel()[: rest.size] = rest
        self._next = frames[: REWIND_FRAMES - _MORE]
        short_s = (len(frames) - len(self._next)) / self._rate
        self.time = max(0.0, state.time - short_s)
        """The second up to which all words are known. If text lags by more than four seconds, it
        is earlier than the time that was asked for: a slot rewinds `REWIND_FRAMES` at most."""
        self._builder: WordBuilder | None = None
        self._words: list[Word] = []

    @property
    def cut(self) -> bool:
        """Whether a request asks for the word that is still being spoken, too."""
        return any(request.cut for request in self.state.requests)

    def merges(self, at: int, time: float, request: FinalizeRequest) -> bool:
        """Whether another request asks for the same at the same place; it is then answered, too."""
        same = (at, time) == (self.state.at, self.state.time) and request.cut == self.cut
        requests = self.state.requests
        if not same or self._builder is not None:
            return False
        if request in requests:
            return True
        if len(requests) >= MAX_REQUESTS:  # the next ones are a work of their own
            return False
        requests.append(request)
        return True

    def run(self, slot: SlotAccess, session: "WordSession", most: int | None) -> bool:
        """See `Work.run`."""
        if self._builder is None:
            self._builder = session.fork()
        frames, self._next = self._next[:most], self._next[most:] if most else self._next[:0]
        if len(frames):
            self._accept(slot.look_ahead(frames))
        if len(self._next):
            return True
        slot.end_look_ahead()
        session.finalized(self)
        return False

    def _accept(self, tokens: Tokens) -> None:
        assert self._builder is not None
        for token, logprob in zip(*tokens, strict=True):
            self._words += self._builder.push(token, logprob)
        self._num_steps += len(tokens[0])
        if self._builder.undecided and not len(self._next):
            more = min(_MORE, REWIND_FRAMES - self._num_steps)
            self._next = np.zeros((max(0, more), self._size), np.float32)

    def result(self, levels: Sequence[float]) -> tuple[list[Word], Partial | None]:
        """The words that are over, and the word that is still being spoken.

        Args:
            levels: loudness of the last frames before the finalize, dBFS.
        """
        assert self._builder is not None
        found = [*self._words, *self._builder.finish()]
        words = [word for word in found if word.start <= self.state.time + _LATE_S]
        if words and not self.cut and self._is_being_spoken(words[-1], levels):
            last = words.pop()
            return words, Partial(last.text, last.start, last.channel)
        return words, None

    def _is_being_spoken(self, word: Word, levels: Sequence[float]) -> bool:
        heard, rest = list(levels), self.state.rest
        if rest.size >= self._size // 4:
            power = energy(rest) / rest.size
            heard.append(10 * math.log10(max(power, 1e-10)))
        since = self.state.time - word.start
        if not heard or since > _FRESH_S:
            return False
        of_word = heard[-max(2, math.ceil(since * self._rate) + 1) :]
        now = max(heard[-2:])
        return now > max(of_word) - _DROP_DB and now > _QUIET_DB
