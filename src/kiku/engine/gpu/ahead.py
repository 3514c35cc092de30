"""What the decoder has read before anybody asked.

A step gives the device frames and gets text: one call and one wait. But an engine asks twice, for
codes and then for what the decoder says to columns with them. So with the first question the
decoder reads the columns that will most likely come with the second: the token that it last said,
the codes, and guesses behind them. If just those come, the answer is already there. If others come,
the slot has not moved, for how far it has come is known on the host; what was written ahead in its
ring is seen by nobody.
"""

import numpy as np
from numpy.typing import NDArray

from kiku.engine.backend import Said

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Ahead:
    """Answers, by slot, and what is needed to guess the next question."""

    def __init__(self, num_slots: int, width: int, num_codebooks: int, num_pauses: int) -> None:
        """Nothing read ahead, nothing said."""
        self._counts = np.zeros(num_slots, np.int64)
        self._columns = np.zeros((num_slots, width, 1 + num_codebooks), np.int64)
        self._tokens = np.zeros((num_slots, width), np.int64)
        self._logprobs = np.zeros((num_slots, width), np.float32)
        self._pauses = np.zeros((num_slots, width, num_pauses), np.float32)
        self._rows = np.zeros(num_slots, np.int64)
        self._run = np.full(num_slots, -1, np.int64)
        self._said = np.zeros((num_slots, width), np.int64)
        self._num_said = np.zeros(num_slots, np.int64)
        self._limits = np.full(num_slots, num_codebooks, np.int64)

    def put(self, slots: Ints, columns: Ints, said: Said, run: int) -> None:
        """The decoder has read `columns` [n, T, 1 + K] of n slots, the rows of launch `run`."""
        T = columns.shape[1]
        self._counts[slots] = T
        self._columns[slots, :T] = columns
        self._tokens[slots, :T] = said.tokens
        self._logprobs[slots, :T] = said.logprobs
        if said.pauses is not None:
            self._pauses[slots, :T] = said.pauses
        self._rows[slots] = np.arange(len(slots))
        self._run[slots] = run

    def answers(self, slots: Ints, columns: Ints, counts: Ints, run: int | None) -> Ints:
        """The rows among these questions that are answered; where logits are wanted, only while
        `run` is the last launch, whose logits are still there."""
        T = int(columns.shape[1])
        beyond = np.arange(T) >= counts[:, None]
        other: Bools = np.not_equal(self._columns[slots, :T], columns)
        wrong = other.any(-1) & ~beyond
        good = ~wrong.any(-1) & (self._counts[slots] >= counts)
        if run is not None:
            good &= self._run[slots] == run
        return np.flatnonzero(good)

    def take(self, slots: Ints, T: int) -> tuple[Ints, NDArray[np.float32], NDArray[np.float32]]:
        """Tokens, log-probabilities and pauses [n, T, ...] of answered slots."""
        return self._tokens[slots, :T], self._logprobs[slots, :T], self._pauses[slots, :T]

    def rows(self, slots: Ints) -> Ints:
        """In which rows of their launch these slots were."""
        return self._rows[slots]

    def forget(self, slots: Ints | int) -> None:
        """The slots have moved: what was read ahead of them is worth nothing."""
        self._counts[slots] = 0

    # The next question.

    def note(self, slots: Ints, columns: Ints, tokens: Ints, counts: Ints) -> None:
        """This was read and said, of columns [n, T, 1 + K]."""
        self._said[slots, : tokens.shape[1]] = tokens
        self._num_said[slots] = counts
        self._limits[slots] = (columns[:, 0, 1:] >= 0).sum(-1)

    def note_back(self, slots: Ints, columns: Ints) -> None:
        """Of that, so many columns were taken back."""
        self._num_said[slots] -= columns

    def next_tokens(self, slots: Ints) -> Ints:
        """[n] what each slot said last."""
        last = np.maximum(self._num_said[slots] - 1, 0)
        return self._said[slots, last]

    def limits(self, slots: Ints) -> Ints:
        """[n] of how many codebooks each slot reads the codes."""
        return self._limits[slots]

    def token_state(self, slot: int) -> int:
        """What a mark keeps: the token that the slot said last."""
        return int(self.next_tokens(np.array([slot]))[0])

    def put_token(self, slot: int, token: int) -> None:
        """The slot said this last."""
        self._said[slot, 0] = token
        self._num_said[slot] = 1
