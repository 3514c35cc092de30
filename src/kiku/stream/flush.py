"""A look ahead: which words there are already, before the text of the last sound has come.

Silence stands for the sound that has not come yet. What it made of the slot is taken back
afterwards; only the words remain.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiku.config import REWIND_FRAMES, ModelConfig
from kiku.text import Partial, Word, WordBuilder

_FRESH_S = 2.0
"""A word that began longer ago is over, however loud it is."""

_DROP_DB = 12.0
"""A word is over when it has become so much quieter than it was."""

_QUIET_DB = -55.0
"""What is quieter than this (dBFS) is no speech."""

_LATE_S = 0.25
"""Words may be placed so much behind the end of the sound; later ones were never said."""


class Flush:
    """One request to finalize, on its way through the slot."""

    def __init__(
        self,
        at: int,
        rest: NDArray[np.float32],
        time: float,
        *,
        cut: bool,
        config: ModelConfig,
    ) -> None:
        """Note the request.

        Args:
            at: the frame of the stream before which it takes place.
            rest: [S] sound behind it that makes no whole frame.
            time: where in the sound it was made.
            cut: whether a word that is still being spoken is wanted too.
            config: of the model.
        """
        self.at, self.rest, self.time, self.cut = at, rest, time, cut
        self._size, self._rate = config.frame_size, config.frame_rate
        self._num_steps = 0
        # Frame t brings token t + 1: so that is the text of all the sound, and mostly the token
        # after it, which ends a word. `accept` asks for more if it does not.
        silent = math.ceil(config.text_delay_s * config.frame_rate)
        frames = np.zeros((-(-rest.size // self._size) + silent, self._size), np.float32)
        frames.ravel()[: rest.size] = rest
        self._next = frames[: REWIND_FRAMES - 4]
        self._builder: WordBuilder | None = None
        self._words: list[Word] = []

    def begin(self, builder: WordBuilder) -> None:
        """Start with a copy of the stream's open word."""
        self._builder = builder

    def take(self, most: int) -> NDArray[np.float32]:
        """The frames [T, frame_size] that are to be stepped next, at most so many; none when it is
        at its end."""
        frames, self._next = self._next[:most], self._next[most:]
        return frames

    def accept(self, tokens: Sequence[int], logprobs: Sequence[float]) -> None:
        """What the engine said to them."""
        assert self._builder is not None
        for token, logprob in zip(tokens, logprobs, strict=True):
            self._words += self._builder.push(int(token), float(logprob))
        self._num_steps += len(tokens)
        if self._builder.undecided and not len(self._next):
            more = min(4, REWIND_FRAMES - self._num_steps)
            self._next = np.zeros((max(0, more), self._size), np.float32)

    def result(self, levels: Sequence[float]) -> tuple[list[Word], Partial | None]:
        """The words that are over, and the one that is still being spoken.

        Args:
            levels: loudness of the last frames before this, dBFS.
        """
        assert self._builder is not None
        found = [*self._words, *self._builder.finish()]
        words = [word for word in found if word.start <= self.time + _LATE_S]
        if words and not self.cut and self._is_being_spoken(words[-1], levels):
            last = words.pop()
            return words, Partial(last.text, last.start)
        return words, None

    def _is_being_spoken(self, word: Word, levels: Sequence[float]) -> bool:
        heard = list(levels)
        if self.rest.size >= self._size // 4:
            power = float(np.dot(self.rest, self.rest)) / self.rest.size
            heard.append(10 * math.log10(max(power, 1e-10)))
        since = self.time - word.start
        if not heard or since > _FRESH_S:
            return False
        of_word = heard[-max(2, math.ceil(since * self._rate) + 1) :]
        now = max(heard[-2:])
        return now > max(of_word) - _DROP_DB and now > _QUIET_DB

    def save(self) -> dict[str, Any]:
        """The request, with its samples; one that has begun cannot be saved."""
        return {"at": self.at, "rest": self.rest, "time": self.time, "cut": self.cut}

    @classmethod
    def restored(cls, saved: Mapping[str, Any], config: ModelConfig) -> "Flush":
        """Undo `save`."""
        return cls(
            int(saved["at"]), np.asarray(saved["rest"], np.float32), float(saved["time"]),
            cut=bool(saved["cut"]), config=config,
        )  # fmt: skip
