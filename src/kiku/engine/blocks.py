"""Exact block decoding: many frames of a slot in few passes of the decoder, with the same tokens as
frame by frame.

All codes of a block are known; only the text feeds back. So the text of the block is guessed, and
all its columns are read in one pass. The tokens up to and including the first wrong guess are
right, because each was computed from right tokens only. The slot is then rewound to just after
them, and the rest is read again with the tokens of the last pass as guesses. Each token is picked
once, in order, from logits that no later pass changes. So a sampler draws the same random numbers
as it would frame by frame. Where the backend draws, each column of a pass has the numbers of its
own place, and those of columns that were read in vain are used again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiku.decoding import DRAW, Picker, Sampler
from kiku.engine.backend import Said, StepOutput
from kiku.engine.widths import Widths


@dataclass(frozen=True, slots=True)
class BackendDraws:
    """In place of a picker: the backend draws each token, as `sampler` would."""

    sampler: Sampler
    num_tokens: int
    """V: how many numbers a token takes of the sampler's noise."""

    def spend(self) -> None:
        """Take note that a token which was drawn is kept: its random numbers are used up."""
        self.sampler.skip(self.num_tokens)


def draw_rows(draws: Sequence[BackendDraws | None]) -> NDArray[Any] | None:
    """How n slots draw their tokens, for `Backend.read`: [n] of `DRAW`, or None if none does."""
    if not any(draws):
        return None
    rows = np.zeros(len(draws), DRAW)
    places = [i for i, one in enumerate(draws) if one is not None]
    rows[places] = [one.sampler.row for one in draws if one is not None]
    return rows


class Block:
    """The frames of one slot on their way through the decoder."""

    def __init__(
        self,
        slot: int,
        codes: NDArray[np.int64],
        token: int,
        picker: Picker | BackendDraws | None,
        *,
        guess: int,
        word_start: int,
        keep_logits: bool,
    ) -> None:
        """A block before its first pass.

        Args:
            slot: whose frames these are.
            codes: [T, K] of its frames.
            token: the text token before them.
            picker: picks the tokens; None takes those that the backend gives.
            guess: the token that is guessed where nothing better is known.
            word_start: the token that opens a word, and never follows itself.
            keep_logits: whether `output` has the logits.
        """
        self.slot, self.keep_logits = slot, keep_logits
        self.draws = picker if isinstance(picker, BackendDraws) else None
        self._picker = None if isinstance(picker, BackendDraws) else picker
        self.failure: BaseException | None = None
        """The error that the picker raised; the tokens from there on are the likeliest."""
        self._word_start = word_start
        self.num_frames = len(codes)
        self.done = 0
        self.columns = np.empty((len(codes), 1 + codes.shape[1]), np.int64)
        """[T, 1 + K] as the decoder reads them. When all are done, every guess among the text
        tokens has been replaced by the token that was picked."""
        self.columns[:, 1:] = codes
        self.columns[:, 0] = guess
        self.columns[0, 0] = token
        self._tokens: list[int] = []
        self._logprobs: list[float] = []
        self._pauses: list[NDArray[np.float32]] = []
        self._logits: list[NDArray[np.float32]] = []

    @property
    def wants_logits(self) -> bool:
        """Whether passes must give logits, because the likeliest token alone is not enough."""
        return self.keep_logits or self._picker is not None or self.num_frames > 1

    @property
    def token(self) -> int:
        """The last token picked."""
        return self._tokens[-1]

    def ask(self, width: int) -> NDArray[np.int64]:
        """The columns of the next pass, at most `width`: [t, 1 + K]."""
        return self.columns[self.done : self.done + width]

    def accept(self, said: Said) -> int:
        """Take the right tokens of a pass; return how many of its columns were read in vain."""
        asked = len(said.tokens)
        for i in range(asked):
            token = self._pick(said, i)
            self.done += 1
            if i + 1 == asked:
                break
            if self.columns[self.done, 0] != token:
                # The later tokens were computed from a wrong one, but are still good guesses.
                self.columns[self.done, 0] = token
                later = slice(self.done + 1, self.done + asked - i - 1)
                self.columns[later, 0] = said.tokens[i + 1 : asked - 1]
                self._mend(said, i)
                return asked - i - 1
        if self.done < self.num_frames:
            self.columns[self.done, 0] = self.token
        return 0

    def _mend(self, said: Said, i: int) -> None:
        """Guess the token after a word start that had not been guessed.

        As the decoder did not read the word start, it gives one again a frame later. Its second
        choice there is more often right than not.
        """
        after = self.done + 1
        if after >= self.num_frames or i + 1 >= len(said.tokens) or said.logits is None:
            return
        if self.token == self._word_start == said.tokens[i + 1]:
            rest = said.logits[i + 1].copy()
            rest[self._word_start] = -np.inf
            self.columns[after, 0] = rest.argmax()

    def _pick(self, said: Said, i: int) -> int:
        token, logprob = int(said.tokens[i]), float(said.logprobs[i])
        if self._picker is not None and self.failure is None:
            assert said.logits is not None
            token, logprob = self._picked(self._picker, said.logits[i], token, logprob)
        if self.draws is not None:
            self.draws.spend()
        self._tokens.append(token)
        self._logprobs.append(logprob)
        if said.pauses is not None:
            self._pauses.append(said.pauses[i])
        if self.keep_logits:
            assert said.logits is not None
            self._logits.append(said.logits[i])
        return token

    def _picked(
        self, picker: Picker, logits: NDArray[np.float32], token: int, logprob: float
    ) -> tuple[int, float]:
        """The picker's token and its log-probability. If the picker raises, the error is kept in
        `failure`, and the likeliest token is taken."""
        try:
            picked = int(picker(logits.copy()))
            if not 0 <= picked < len(logits):
                raise ValueError(f"token {picked} was picked of {len(logits)}")
            return picked, logprob_of(logits, picked)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self.failure = error
            return token, logprob

    def output(self) -> StepOutput:
        """The output of the whole block, as that of one slot (n = 1)."""
        return StepOutput(
            np.array(self._tokens, np.int64),
            np.array(self._logprobs, np.float32),
            np.stack(self._pauses) if self._pauses else None,
            np.stack(self._logits) if self._logits else None,
            (self.num_frames,),
            {} if self.failure is None else {0: self.failure},
        )


def logprob_of(logits: NDArray[np.float32], token: int) -> float:
    """Natural logarithm of a token's probability under logits [V]."""
    top = float(logits.max())
    return float(logits[token]) - top - float(np.log(np.exp(logits - top).sum()))


def decode_blocks(
    read: Callable[..., Said],
    rewind: Callable[[NDArray[np.int64], NDArray[np.int64]], None],
    blocks: Sequence[Block],
    widths: Widths,
) -> StepOutput:
    """Decode blocks of any lengths, all in the same passes.

    Args:
        read: makes a pass of the decoder, as `Backend.read`.
        rewind: takes columns of it back, as `Backend.rewind`.
        blocks: n of them.
        widths: chooses how many columns of a slot a pass reads, and learns from each pass.

    Returns:
        The output of all blocks, packed.
    """
    waiting = list(blocks)
    while waiting:
        began = widths.clock()
        width = widths.choose([block.num_frames - block.done for block in waiting])
        parts = [block.ask(width) for block in waiting]
        counts = np.array([len(part) for part in parts])
        columns = np.zeros((len(parts), int(counts.max()), parts[0].shape[1]), np.int64)
        for row, part in zip(columns, parts, strict=True):
            row[: len(part)] = part
        slots = np.array([block.slot for block in waiting])
        logits = any(block.wants_logits for block in waiting)
        draws = draw_rows([block.draws for block in waiting])
        said = read(slots, columns, counts, logits=logits, draws=draws)
        in_vain = np.array(
            [block.accept(said.of(i, int(counts[i]))) for i, block in enumerate(waiting)]
        )
        if back := np.flatnonzero(in_vain).tolist():
            rewind(slots[back], in_vain[back])
        widths.note(counts.tolist(), in_vain.tolist(), widths.clock() - began)
        waiting = [block for block in waiting if block.done < block.num_frames]
    return joined_outputs([block.output() for block in blocks])


def joined_outputs(rows: Sequence[StepOutput]) -> StepOutput:
    """The outputs of several slots, packed into one."""
    pauses = [row.pauses for row in rows if row.pauses is not None]
    logits = [row.logits for row in rows if row.logits is not None]
    return StepOutput(
        np.concatenate([row.tokens for row in rows]),
        np.concatenate([row.logprobs for row in rows]),
        np.concatenate(pauses) if pauses else None,
        np.concatenate(logits) if logits else None,
        tuple(row.counts[0] for row in rows),
        {i: row.failures[0] for i, row in enumerate(rows) if row.failures},
    )
