"""Exact block decoding: many frames of a slot in few passes of the decoder, token for token what
single frames give.

All codes of a block are known; only the text feeds back. So the block's text is guessed, all its
columns are read in one pass, and the tokens up to and including the first wrong guess are right:
each was computed from right tokens only. The slot is rewound behind them and the rest is read
again, with what the last pass said there as the next guess. A token is picked once, in order, from
logits that no later pass changes; so a sampler draws the same numbers as frame by frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kiku.engine.contract import Choose, StepOutput


@dataclass(frozen=True, slots=True)
class Said:
    """What the decoder said to the t columns of one slot."""

    tokens: NDArray[np.int64]
    """[t] the likeliest"""
    logprobs: NDArray[np.float32]
    """[t] theirs"""
    pauses: NDArray[np.float32] | None
    """[t, E]"""
    logits: NDArray[np.float32] | None
    """[t, V] where they were wanted"""


class Reader(Protocol):
    """The decoder of an engine, as decoding sees it."""

    def read(
        self, slots: Sequence[int], columns: Sequence[NDArray[np.int64]], *, logits: bool
    ) -> list[Said]:
        """Read columns [t, 1 + K] of each slot, t of its own; every slot advances by its t."""
        ...

    def rewind(self, slot: int, frames: int) -> None:
        """Put a slot back by so many of the columns that it read last."""
        ...


class Block:
    """The frames of one slot on their way through the decoder."""

    def __init__(
        self,
        slot: int,
        codes: NDArray[np.int64],
        token: int,
        choose: Choose | None,
        *,
        guess: int,
        word_start: int | None = None,
        keep_logits: bool,
    ) -> None:
        """Before the first pass.

        Args:
            slot: whose block it is.
            codes: [T, K] of its frames.
            token: the text token before them.
            choose: see `engine.contract.Choose`.
            guess: the token that is guessed where nothing better is known.
            word_start: the token that opens a word, and never follows itself.
            keep_logits: whether they are handed on.
        """
        self.slot, self.choose, self.keep_logits = slot, choose, keep_logits
        self._word_start = word_start
        self.num_frames = len(codes)
        self.done = 0
        self.num_passes = 0
        self._columns = np.empty((len(codes), 1 + codes.shape[1]), np.int64)
        self._columns[:, 1:] = codes
        self._columns[:, 0] = guess
        self._columns[0, 0] = token
        self._tokens: list[int] = []
        self._logprobs: list[float] = []
        self._pauses: list[NDArray[np.float32]] = []
        self._logits: list[NDArray[np.float32]] = []

    @property
    def columns(self) -> NDArray[np.int64]:
        """[T, 1 + K] as they were read, once all is done: no guess is left among the tokens."""
        return self._columns

    @property
    def wants_logits(self) -> bool:
        """Whether the likeliest token and its probability are not enough."""
        mends = self._word_start is not None and self.num_frames > 1
        return self.keep_logits or self.choose is not None or mends

    @property
    def token(self) -> int:
        """The last token picked."""
        return self._tokens[-1]

    def ask(self, width: int) -> NDArray[np.int64]:
        """The columns of the next pass, at most `width`: [t, 1 + K]."""
        self.num_passes += 1
        return self._columns[self.done : self.done + width]

    def accept(self, said: Said) -> int:
        """Take what is right of a pass; gives how many of its columns were read in vain."""
        asked = len(said.tokens)
        for i in range(asked):
            token = self._pick(said, i)
            self.done += 1
            if i + 1 == asked:
                break
            if self._columns[self.done, 0] != token:
                # All that comes was computed from a wrong token: as a guess it is still good.
                self._columns[self.done, 0] = token
                later = slice(self.done + 1, self.done + asked - i - 1)
                self._columns[later, 0] = said.tokens[i + 1 : asked - 1]
                self._mend(said, i)
                return asked - i - 1
        if self.done < self.num_frames:
            self._columns[self.done, 0] = self.token
        return 0

    def _mend(self, said: Said, i: int) -> None:
        """Guess what a word begins with that nobody had guessed to begin.

        Having read no word start, the decoder asks for one again a frame later; what it would say
        next best is then more often right than not.
        """
        after = self.done + 1
        if after >= self.num_frames or i + 1 >= len(said.tokens) or said.logits is None:
            return
        if self.token == self._word_start == said.tokens[i + 1]:
            rest = said.logits[i + 1].copy()
            rest[self._word_start] = -np.inf
            self._columns[after, 0] = rest.argmax()

    def _pick(self, said: Said, i: int) -> int:
        token, logprob = int(said.tokens[i]), float(said.logprobs[i])
        if self.choose is not None:
            assert said.logits is not None
            token = int(self.choose(said.logits[i].copy()))
            logprob = logprob_of(said.logits[i], token)
        self._tokens.append(token)
        self._logprobs.append(logprob)
        if said.pauses is not None:
            self._pauses.append(said.pauses[i])
        if self.keep_logits:
            assert said.logits is not None
            self._logits.append(said.logits[i])
        return token

    def output(self) -> StepOutput:
        """Of the whole block: n = 1."""
        return StepOutput(
            np.array([self._tokens], np.int64),
            np.array([self._logprobs], np.float32),
            np.stack(self._pauses)[None] if self._pauses else None,
            np.stack(self._logits)[None] if self._logits else None,
        )


def logprob_of(logits: NDArray[np.float32], token: int) -> float:
    """Natural logarithm of a token's probability under logits [V]."""
    top = float(logits.max())
    return float(logits[token]) - top - float(np.log(np.exp(logits - top).sum()))


def decode_blocks(reader: Reader, blocks: Sequence[Block], width: int) -> StepOutput:
    """Bring blocks of the same length through the decoder side by side.

    Args:
        reader: the decoder.
        blocks: n of them, each T frames.
        width: columns that one pass reads of a slot at most; 1 is frame by frame.

    Returns:
        n rows of T frames.
    """
    waiting = list(blocks)
    while waiting:
        slots = [block.slot for block in waiting]
        columns = [block.ask(width) for block in waiting]
        logits = any(block.wants_logits for block in waiting)
        for block, said in zip(waiting, reader.read(slots, columns, logits=logits), strict=True):
            if in_vain := block.accept(said):
                reader.rewind(block.slot, in_vain)
        waiting = [block for block in waiting if block.done < block.num_frames]
    return joined([block.output() for block in blocks])


class Rereading:
    """Columns of slots whose text is known and which are read again, by and by."""

    def __init__(self, reader: Reader, width: int) -> None:
        """Nothing to read; a pass of `reader` takes at most `width` columns."""
        self._reader, self._width = reader, width
        self._left: dict[int, NDArray[np.int64]] = {}

    def begun(self, slot: int) -> bool:
        """Whether some are left."""
        return slot in self._left

    def begin(self, slot: int, columns: NDArray[np.int64]) -> None:
        """`columns` [T, 1 + K] are to be read."""
        self._left[slot] = columns

    def go_on(self, slot: int, most: int | None) -> int:
        """Read at most so many, None all, and give how many are left; what the decoder says to them
        is not asked."""
        columns = self._left.pop(slot)
        now = len(columns) if most is None else most
        for at in range(0, min(now, len(columns)), self._width):
            part = columns[at : min(at + self._width, now)]
            self._reader.read([slot], [part], logits=False)
        if now < len(columns):
            self._left[slot] = columns[now:]
        return max(0, len(columns) - now)

    def forget(self, slot: int) -> None:
        """Nobody wants them any more."""
        self._left.pop(slot, None)


def joined(rows: Sequence[StepOutput]) -> StepOutput:
    """Rows of the same length below one another."""
    pauses = [row.pauses for row in rows if row.pauses is not None]
    logits = [row.logits for row in rows if row.logits is not None]
    return StepOutput(
        np.concatenate([row.tokens for row in rows]),
        np.concatenate([row.logprobs for row in rows]),
        np.concatenate(pauses) if pauses else None,
        np.concatenate(logits) if logits else None,
    )
