"""The decoder's half of a step: columns of open slots are read, and their next tokens picked."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiku.decoding import Picker
from kiku.engine.backend import Backend, Said, StepOutput
from kiku.engine.blocks import BackendDraws, Block, decode_blocks, draw_rows
from kiku.engine.history import ColumnHistory
from kiku.engine.widths import Widths

LEFT_OUT = -1
"""The code of a codebook that the decoder is not to read."""


@dataclass(slots=True)
class OpenSlot:
    """An open slot: how its tokens are picked, its last token, and the work that it is in."""

    number: int
    """Its place among the slots of the engine."""
    picker: Picker | None
    num_codebooks: int
    """How many codebooks, from the first on, the decoder reads the codes of."""
    draws: BackendDraws | None = None
    """Has the backend draw what `picker` would pick, if it can."""
    token: int = 0
    """The last token that was picked."""
    work: str = ""
    """The work that the slot is in the middle of: "truncate" or "redecode"; "" for none."""
    left: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    """Columns [T, 1 + K] that this work has still to read again."""

    def take(self, most: int | None) -> NDArray[np.int64]:
        """Take the next `most` columns that are left (None takes all); the last one ends the
        work."""
        columns = self.left[:most]
        self.left = self.left[len(columns) :]
        if not len(self.left):
            self.work = ""
        return columns


class SlotDecoder:
    """Lets a backend's decoder read columns of open slots, picks the tokens, and keeps the last
    columns of each slot."""

    def __init__(
        self, backend: Backend, *, pad_id: int, word_start_id: int, keep_logits: bool
    ) -> None:
        """See `SlotEngine`."""
        self.num_passes = 0
        """How often the decoder was run."""
        self.widths = Widths(backend.width, is_held=not backend.reads_alike)
        self.history = ColumnHistory(backend.num_slots, backend.lm_config.num_codebooks)
        self._backend, self._lm = backend, backend.lm_config
        self._pad_id, self._word_start_id = pad_id, word_start_id
        self._keep_logits = keep_logits

    def begin(self, slot: OpenSlot, picker: Picker | None) -> StepOutput:
        """Let the decoder forget a slot and read its initial column; `slot.token` stays."""
        lm = self._lm
        self._backend.begin(slot.number)
        codes = np.full((1, lm.num_codebooks), lm.initial_code, np.int64)
        block = self._block(slot, codes, lm.initial_text_id, picker)
        said = self._backend.first
        if slot.num_codebooks < lm.num_codebooks:  # `first` is for all codebooks
            one, numbers = np.ones(1, np.int64), np.array([slot.number])
            self._backend.rewind(numbers, one)
            said = self._read(numbers, block.ask(1)[None], one, logits=True)
        block.accept(said.of(0, 1))
        return block.output()

    def decode(
        self, slots: Sequence[OpenSlot], codes: NDArray[np.int64], counts: Sequence[int]
    ) -> StepOutput:
        """Decode codes [N, K] of n slots, `counts[i]` frames of the i-th."""
        plain = not self._keep_logits and all(
            (one.picker is None or one.draws is not None)
            and one.num_codebooks == self._lm.num_codebooks
            for one in slots
        )
        if plain and len(codes) == len(slots):
            return self._decode_frame(slots, codes)
        blocks: list[Block] = []
        at = 0
        for slot, count in zip(slots, counts, strict=True):
            part = codes[at : at + count]
            blocks.append(self._block(slot, part, slot.token, slot.draws or slot.picker))
            at += count
        out = decode_blocks(self._read, self._backend.rewind, blocks, self.widths)
        for slot, block in zip(slots, blocks, strict=True):
            slot.token = block.token
            self.history.add(slot.number, block.columns)
        return out

    def _decode_frame(self, slots: Sequence[OpenSlot], codes: NDArray[np.int64]) -> StepOutput:
        """Decode one frame of each slot in one pass; every slot takes what the backend gives."""
        numbers = np.array([one.number for one in slots])
        columns = np.empty((len(slots), 1 + codes.shape[1]), np.int64)
        columns[:, 0] = [one.token for one in slots]
        columns[:, 1:] = codes
        ones = np.ones(len(slots), np.int64)
        draws = draw_rows([one.draws for one in slots])
        said = self._read(numbers, columns[:, None], ones, logits=False, draws=draws)
        self.history.add_each(numbers, columns)
        for one, token in zip(slots, said.tokens[:, 0].tolist(), strict=True):
            one.token = token
            if one.draws is not None:
                one.draws.spend()
        return StepOutput(
            said.tokens[:, 0],
            said.logprobs[:, 0],
            None if said.pauses is None else said.pauses[:, 0],
            None,
            (1,) * len(slots),
        )

    def reread(self, slot: OpenSlot, columns: NDArray[np.int64]) -> None:
        """Let the decoder read columns [T, 1 + K] whose tokens were picked before."""
        for first in range(0, len(columns), self._backend.width):
            part = columns[first : first + self._backend.width]
            self._read(np.array([slot.number]), part[None], np.array([len(part)]), logits=False)

    def _block(
        self,
        slot: OpenSlot,
        codes: NDArray[np.int64],
        token: int,
        picker: Picker | BackendDraws | None,
    ) -> Block:
        if slot.num_codebooks < codes.shape[1]:
            codes = codes.copy()
            codes[:, slot.num_codebooks :] = LEFT_OUT
        return Block(
            slot.number, codes, token, picker,
            guess=self._pad_id, word_start=self._word_start_id, keep_logits=self._keep_logits,
        )  # fmt: skip

    def _read(
        self,
        slots: NDArray[np.int64],
        columns: NDArray[np.int64],
        counts: NDArray[np.int64],
        *,
        logits: bool,
        draws: NDArray[Any] | None = None,
    ) -> Said:
        """A pass of the decoder, counted; see `Backend.read`."""
        self.num_passes += 1
        return self._backend.read(slots, columns, counts, logits=logits, draws=draws)
