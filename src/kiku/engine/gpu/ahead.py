"""Reading ahead: what the decoder has read before the engine asked for it.

A step should give the device frames and get text in one call, with one wait. But the engine asks
twice: `encode` for codes, then `read` for the decoder's output for columns with these codes. So
while it encodes, the device also lets the decoder read the columns that `read` will most likely
bring: the slot's last token with the first codes, and guessed tokens with the later ones; and it
draws tokens as the slot did last, with the numbers that come next. If `read` brings just those, the
answer is already there. If it brings others, nothing is lost: only the host
knows how far a slot has come, so the slot has not moved, and what was written ahead in its ring is
never seen.
"""

import numpy as np
from numpy.typing import NDArray

from kiku.config import LMConfig
from kiku.decoding import DRAW
from kiku.engine.backend import Said
from kiku.engine.gpu.draws import draw_numbers

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Draws = NDArray[np.void]
"""[n] of `kiku.decoding.DRAW`."""


class Ahead:
    """The decoder's output for columns read ahead, by slot, and what is needed to guess columns."""

    def __init__(self, num_slots: int, width: int, lm: LMConfig) -> None:
        """Nothing is read ahead, and no slot has a token."""
        num_codebooks, num_pauses = lm.num_codebooks, lm.num_pause_heads
        self._vocab = lm.text_vocab_size
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
        self._draws, self._next_draws = np.zeros((2, num_slots), DRAW)
        self._with_logits = np.zeros(num_slots, np.bool_)

    def put(self, slots: Ints, columns: Ints, draws: Draws, said: Said, run: int) -> None:
        """Keep what the decoder gave for `columns` [n, T, 1 + K] of n slots, which were the first n
        rows of launch `run`; its tokens were drawn as `draws` says."""
        T = columns.shape[1]
        self._draws[slots] = draws
        self._counts[slots] = T
        self._columns[slots, :T] = columns
        self._tokens[slots, :T] = said.tokens
        self._logprobs[slots, :T] = said.logprobs
        if said.pauses is not None:
            self._pauses[slots, :T] = said.pauses
        self._rows[slots] = np.arange(len(slots))
        self._run[slots] = run

    def answers(
        self, slots: Ints, columns: Ints, counts: Ints, draws: Draws, run: int | None
    ) -> Ints:
        """Indices of the slots whose columns were all read ahead, with tokens drawn as `draws`
        says. If logits are wanted, `run` is the last launch, and only its slots count: no other
        launch's logits are left."""
        T = int(columns.shape[1])
        beyond = np.arange(T) >= counts[:, None]
        other: Bools = np.not_equal(self._columns[slots, :T], columns)
        wrong = other.any(-1) & ~beyond
        good = ~wrong.any(-1) & (self._counts[slots] >= counts)
        good &= (draw_numbers(self._draws[slots]) == draw_numbers(draws)).all(-1)
        if run is not None:
            good &= self._run[slots] == run
        return np.flatnonzero(good)

    def take(self, slots: Ints, T: int) -> tuple[Ints, NDArray[np.float32], NDArray[np.float32]]:
        """Tokens, log-probabilities and pauses [n, T, ...] that were read ahead for these slots."""
        return self._tokens[slots, :T], self._logprobs[slots, :T], self._pauses[slots, :T]

    def rows(self, slots: Ints) -> Ints:
        """In which rows of their launch these slots were."""
        return self._rows[slots]

    def forget(self, slots: Ints | int) -> None:
        """Drop what was read ahead, because the slots have moved."""
        self._counts[slots] = 0

    # To guess the next columns.

    def note(self, slots: Ints, columns: Ints, draws: Draws, said: Said, counts: Ints) -> None:
        """Note which columns [n, T, 1 + K] the decoder has read, how it drew, and its output."""
        self._next_draws[slots] = draws
        self._move(slots, counts)
        self._said[slots, : said.tokens.shape[1]] = said.tokens
        self._num_said[slots] = counts
        self._with_logits[slots] = said.logits is not None
        self._limits[slots] = (columns[:, 0, 1:] >= 0).sum(-1)

    def note_back(self, slots: Ints, columns: Ints) -> None:
        """Note how many of those columns were taken back."""
        self._num_said[slots] -= columns
        self._move(slots, -columns)

    def _move(self, slots: Ints, columns: Ints) -> None:
        """Count the noise of `columns` [n] more columns as used. Slots that take the likeliest
        token use none."""
        draws = self._next_draws[slots]
        draws["drawn"] += np.where(draws["temperature"] > 0, self._vocab * columns, 0)
        self._next_draws[slots] = draws

    def next_draws(self, slots: Ints) -> Draws:
        """[n] how each slot's next token is drawn if it is drawn as the last one was."""
        return self._next_draws[slots]

    def next_tokens(self, slots: Ints) -> Ints:
        """[n] the last token of each slot."""
        last = np.maximum(self._num_said[slots] - 1, 0)
        return self._said[slots, last]

    def wants_logits(self, slots: Ints) -> bool:
        """Whether one of these slots was last read with logits, and so most likely will be."""
        return bool(self._with_logits[slots].any())

    def limits(self, slots: Ints) -> Ints:
        """[n] how many codebooks each slot reads the codes of."""
        return self._limits[slots]

    def token_state(self, slot: int) -> tuple[int, Draws]:
        """The part of a mark: the slot's last token, and how the next one is drawn."""
        one = np.array([slot])
        return int(self.next_tokens(one)[0]), self.next_draws(one)

    def put_token(self, slot: int, token: int, draws: Draws | None = None) -> None:
        """Set the slot's last token, and how the next one is drawn; None takes the likeliest."""
        self._said[slot, 0] = token
        self._num_said[slot] = 1
        self._next_draws[slot] = np.zeros((), DRAW) if draws is None else draws[0]
