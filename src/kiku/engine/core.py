"""A fixed number of slots over a backend: the one place that opens, steps, marks and saves slots.

A newly opened slot has read the initial column and yielded text token 0. Frame t then yields
token t + 1, so the token that follows a frame comes in the same step as the frame.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import (
    SafetensorError,
    deserialize,  # pyright: ignore[reportUnknownVariableType]
)
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from kiku.config import HISTORY_FRAMES, PAD_ID, WORD_START_ID
from kiku.decoding import Picker, Sampler, SamplingParams, plain_sampler
from kiku.engine.backend import Backend, Said, StepOutput
from kiku.engine.blocks import BackendDraws, Block, decode_blocks, draw_rows
from kiku.engine.forked import check_process, process
from kiku.engine.history import ColumnHistory
from kiku.engine.widths import Widths
from kiku.errors import ConfigError, FrameError, NoFreeSlot, StreamError

_LEFT_OUT = -1
"""The code of a codebook that the decoder is not to read."""

_KEY = "kiku"
"""Key under which the metadata of a saved slot holds the backend's signature."""


@dataclass(slots=True)
class _Slot:
    """What the engine knows of an open slot."""

    picker: Picker | None
    num_codebooks: int
    draws: BackendDraws | None = None
    """The same as `picker`, where the backend can do it."""
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


@dataclass(frozen=True, slots=True)
class _SlotMark:
    """Where a slot stood."""

    backend: Any
    token: int
    num_columns: int


class SlotEngine:
    """Slots, their tokens and their history over a `Backend`. One thread uses it at a time."""

    def __init__(
        self,
        backend: Backend,
        *,
        pad_id: int = PAD_ID,
        word_start_id: int = WORD_START_ID,
        keep_logits: bool = False,
    ) -> None:
        """All slots are free.

        Args:
            backend: runs the networks.
            pad_id: the token that most frames have. Used as a guess, which changes no token.
            word_start_id: the token that opens a word. Used for guesses too.
            keep_logits: whether outputs have logits.
        """
        self.backend = backend
        self.pad_id, self.word_start_id, self.keep_logits = pad_id, word_start_id, keep_logits
        self.frame_size = backend.codec_config.frame_size
        self.frame_s = self.frame_size / backend.codec_config.sample_rate
        self.max_block = backend.max_block
        """Frames of a slot that one step takes at most."""
        self.num_passes = 0
        """How often the decoder was run since the engine was made."""
        self.widths = Widths(backend.width, is_held=not backend.reads_alike)
        """Chooses how many columns of a slot a pass reads when blocks are decoded."""
        self._lm = backend.lm_config
        self._held: dict[int, _Slot] = {}
        self._history = ColumnHistory(backend.num_slots, self._lm.num_codebooks)
        self._pid = process()

    @property
    def description(self) -> str:
        """What runs the model, for people: "onnx int8"."""
        return self.backend.description

    @property
    def num_slots(self) -> int:
        """How many slots there are."""
        return self.backend.num_slots

    @property
    def free_slots(self) -> int:
        """How many slots are not open."""
        return self.num_slots - len(self._held)

    # Slots.

    def open(
        self,
        picker: Picker | SamplingParams | None = None,
        *,
        num_codebooks: int | None = None,
    ) -> tuple[int, StepOutput]:
        """Open the lowest free slot; give its number, and the output with token 0.

        The lowest, so that open slots are near one another: such a batch costs less.

        Args:
            picker: picks each token; None takes the likeliest.
            num_codebooks: how many codebooks, from the first on, the decoder reads the codes of;
                None reads all. The slot then gives what a model without the others would.

        Raises:
            NoFreeSlot: all are held.
            ConfigError: the model has no such number of codebooks.
        """
        check_process(self._pid)
        slot = next((i for i in range(self.num_slots) if i not in self._held), None)
        if slot is None:
            raise NoFreeSlot(
                f"all {self.num_slots} slots are held; close a stream or load the model with more"
            )
        self._held[slot] = self._new(picker, num_codebooks)
        try:
            self.backend.forget(slot)
            self._history.forget(slot)
            return slot, self._begin(slot).raise_failure()
        except BaseException:  # a picker may raise anything, and no caller has the slot yet
            self.close(slot)
            raise

    def _new(self, picker: Picker | SamplingParams | None, num_codebooks: int | None) -> _Slot:
        most = self._lm.num_codebooks
        limit = most if num_codebooks is None else num_codebooks
        if not 1 <= limit <= most:
            raise ConfigError(f"num_codebooks must be in 1..{most} for this model, not {limit}")
        if isinstance(picker, SamplingParams):
            picker = Sampler.of(picker)
        sampler = plain_sampler(picker) if self.backend.can_draw else None
        draws = None if sampler is None else BackendDraws(sampler, self._lm.text_vocab_size)
        return _Slot(picker, limit, draws)

    def _begin(self, slot: int) -> StepOutput:
        """Let the decoder forget the slot and read its initial column."""
        lm, held = self._lm, self._held[slot]
        self.backend.begin(slot)
        codes = np.full((1, lm.num_codebooks), lm.initial_code, np.int64)
        block = self._block(slot, codes, lm.initial_text_id, held.picker)
        said = self.backend.first
        if held.num_codebooks < lm.num_codebooks:  # `first` is for all codebooks
            one, slots = np.ones(1, np.int64), np.array([slot])
            self.backend.rewind(slots, one)
            said = self._read(slots, block.ask(1)[None], one, logits=True)
        block.accept(said.of(0, 1))
        held.token = block.token
        return block.output()

    def set_decoding(
        self,
        slot: int,
        picker: Picker | SamplingParams | None = None,
        *,
        num_codebooks: int | None = None,
    ) -> None:
        """Set how tokens are picked and codes are read from the next frame on (see `open`).

        Raises:
            StreamError: the slot is not open.
            ConfigError: the model has no such number of codebooks.
        """
        held, new = self._of(slot), self._new(picker, num_codebooks)
        held.picker, held.num_codebooks, held.draws = new.picker, new.num_codebooks, new.draws

    def close(self, slot: int) -> None:
        """Free a slot; a free one stays free."""
        self._held.pop(slot, None)

    def _of(self, slot: int, *, idle: bool = False) -> _Slot:
        """An open slot; with `idle`, it must not be in the middle of work either."""
        check_process(self._pid)
        held = self._held.get(slot)
        if held is None:
            raise StreamError(f"slot {slot} is not held: open it first")
        if idle and held.work:
            raise StreamError(
                f"slot {slot} is in the middle of a {held.work}: call that again until nothing is "
                "left"
            )
        return held

    # Steps.

    def step(
        self,
        slots: Sequence[int],
        frames: NDArray[np.float32],
        counts: Sequence[int] | None = None,
    ) -> StepOutput:
        """Advance `slots`, each by frames of its own.

        The codec takes all frames of a slot at once. The decoder reads those of all slots in a few
        passes that they share (see `blocks`).

        Args:
            slots: n different open slots.
            frames: [N, frame_size] samples in [-1, 1], packed one slot after the other.
            counts: [n] how many frames each slot has, 1 to `max_block`; None is one each.

        Raises:
            FrameError: frames of another size or number, none, or too many.
            StreamError: a slot that is not open, is in the middle of work, or is named twice.
        """
        return self.decode(slots, self.encode(slots, frames, counts), counts)

    def encode(
        self,
        slots: Sequence[int],
        frames: NDArray[np.float32],
        counts: Sequence[int] | None = None,
    ) -> NDArray[np.int64]:
        """The first half of a step: frames -> codes [N, K] of the codebooks that the decoder reads.
        Only the codec advances. Raises as `step`."""
        K = self._lm.num_codebooks
        if counts is None:
            counts = [1] * len(slots)
        self._check_step(slots, counts, frames.shape, (self.frame_size, "samples"))
        numbers = np.array(slots)
        frames = np.asarray(frames, np.float32)
        if len(set(counts)) == 1:
            each = counts[0]
            codes = self.backend.encode(numbers, frames.reshape(len(slots), each, -1))
            return codes[:, :, :K].reshape(-1, K)
        packed = np.empty((len(frames), K), np.int64)
        sizes = np.array(counts)
        firsts = np.cumsum(sizes) - sizes
        for T in sorted(set(counts)):
            rows = np.flatnonzero(sizes == T)
            places = firsts[rows][:, None] + np.arange(T)
            packed[places] = self.backend.encode(numbers[rows], frames[places])[:, :, :K]
        return packed

    def _check_step(
        self,
        slots: Sequence[int],
        counts: Sequence[int],
        shape: tuple[int, ...],
        wanted: tuple[int, str],
    ) -> None:
        """Raise unless `shape` is that of `counts` frames for each of `slots`, and all can step."""
        for slot in slots:
            self._of(slot, idle=True)
        if not slots or len(set(slots)) != len(slots):
            raise StreamError(f"slots {list(slots)} cannot be stepped: each may stand there once")
        good = len(counts) == len(slots) and shape == (sum(counts), wanted[0])
        if not good or not all(1 <= count <= self.max_block for count in counts):
            size, what = wanted
            raise FrameError(
                f"a step takes 1 to {self.max_block} frames of {size} {what} for each of its "
                f"{len(slots)} slots, not {list(counts)[:8]} in {list(shape)}"
            )

    def decode(
        self,
        slots: Sequence[int],
        codes: NDArray[np.int64],
        counts: Sequence[int] | None = None,
    ) -> StepOutput:
        """The second half of a step: codes [N, K] -> the decoder's output. Only the decoder
        advances. Raises as `step`."""
        if counts is None:
            counts = [1] * len(slots)
        self._check_step(slots, counts, codes.shape, (self._lm.num_codebooks, "codes"))
        held = [self._held[slot] for slot in slots]
        plain = not self.keep_logits and all(
            (one.picker is None or one.draws is not None)
            and one.num_codebooks == self._lm.num_codebooks
            for one in held
        )
        if plain and len(codes) == len(slots):
            return self._decode_frame(slots, held, codes)
        blocks: list[Block] = []
        at = 0
        for slot, one, count in zip(slots, held, counts, strict=True):
            part = codes[at : at + count]
            blocks.append(self._block(slot, part, one.token, one.draws or one.picker))
            at += count
        return self._decode_blocks(blocks)

    def _decode_frame(
        self, slots: Sequence[int], held: Sequence[_Slot], codes: NDArray[np.int64]
    ) -> StepOutput:
        """Decode one frame of each slot in one pass; every slot takes what the backend gives."""
        numbers = np.array(slots)
        columns = np.empty((len(slots), 1 + codes.shape[1]), np.int64)
        columns[:, 0] = [one.token for one in held]
        columns[:, 1:] = codes
        ones = np.ones(len(slots), np.int64)
        draws = draw_rows([one.draws for one in held])
        said = self._read(numbers, columns[:, None], ones, logits=False, draws=draws)
        self._history.add_each(numbers, columns)
        for one, token in zip(held, said.tokens[:, 0].tolist(), strict=True):
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

    def _block(
        self,
        slot: int,
        codes: NDArray[np.int64],
        token: int,
        picker: Picker | BackendDraws | None,
    ) -> Block:
        held = self._held[slot]
        if held.num_codebooks < codes.shape[1]:
            codes = codes.copy()
            codes[:, held.num_codebooks :] = _LEFT_OUT
        return Block(
            slot, codes, token, picker,
            guess=self.pad_id, word_start=self.word_start_id, keep_logits=self.keep_logits,
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
        return self.backend.read(slots, columns, counts, logits=logits, draws=draws)

    def _decode_blocks(self, blocks: Sequence[Block]) -> StepOutput:
        out = decode_blocks(self._read, self.backend.rewind, blocks, self.widths)
        for block in blocks:
            self._held[block.slot].token = block.token
            self._history.add(block.slot, block.columns)
        return out

    # Going back.

    def mark(self, slot: int) -> object:
        """Mark where the slot stands, for `go_back`. Costs a copy of the convolutions' state.

        How the slot's tokens are picked is not part of the mark.

        Raises:
            StreamError: the slot is not open, or in the middle of work.
        """
        held = self._of(slot, idle=True)
        return _SlotMark(self.backend.mark(slot), held.token, int(self._history.counts[slot]))

    def go_back(self, slot: int, mark: object) -> None:
        """Put the slot back to where `mark` was taken, exactly.

        The mark is valid while the slot has advanced by at most `REWIND_FRAMES` since, and was not
        opened again, restored, truncated or re-decoded.

        Raises:
            StreamError: the slot is not open, or in the middle of work.
        """
        held = self._of(slot, idle=True)
        assert isinstance(mark, _SlotMark)
        self.backend.go_back(slot, mark.backend)
        held.token = mark.token
        self._history.counts[slot] = mark.num_columns

    # Forgetting.

    def truncate(self, slot: int, frames: int, *, most: int | None = None) -> int:
        """Let the decoder forget all but the last `frames` frames and their text.

        The decoder reads the initial column, and then those columns again with the text that was
        picked. The next token follows the last one as if nothing had happened. The codec's state
        stays as it is.

        Args:
            slot: an open one.
            frames: at most `HISTORY_FRAMES`; a younger slot has fewer.
            most: columns that this call reads at most, at least 1; None reads all.

        Returns:
            How many columns are left. While there are any, the slot can do nothing else: call this
            again until none is left. Other slots may be stepped in between.

        Raises:
            StreamError: the slot is not open, or is being re-decoded.
            FrameError: `most` is below 1.
        """
        held = self._at_work(slot, "truncate", most)
        if not held.work:
            held.left, held.work = self._history.last(slot, frames), "truncate"
            self._reread_initial(slot, held)
        columns = held.take(most)
        for first in range(0, len(columns), self.backend.width):
            part = columns[first : first + self.backend.width]
            self._read(np.array([slot]), part[None], np.array([len(part)]), logits=False)
        return len(held.left)

    def _reread_initial(self, slot: int, held: _Slot) -> None:
        """Let the decoder forget the slot and read its initial column, without picking a token."""
        picker, token = held.picker, held.token
        held.picker = None
        try:
            self._begin(slot)
        finally:
            held.picker, held.token = picker, token

    def redecode(
        self, slot: int, frames: int, *, most: int | None = None
    ) -> tuple[StepOutput, int]:
        """As `truncate`, but the text of those frames is decoded again.

        Returns:
            The output for the frames of this call, and how many are left.

        Raises:
            StreamError: the slot is not open, or is being truncated.
            FrameError: `most` is below 1.
            Exception: what the slot's picker raised; the slot can then only be closed.
        """
        held = self._at_work(slot, "redecode", most)
        if not held.work:
            held.left, held.work = self._history.last(slot, frames), "redecode"
            self._history.counts[slot] -= len(held.left)
            self._begin(slot).raise_failure()
        columns = held.take(most)
        if not len(columns):
            nothing = np.zeros(0, np.int64)
            return StepOutput(nothing, nothing.astype(np.float32), None, None, (0,)), 0
        picker = held.draws or held.picker
        blocks = [self._block(slot, columns[:, 1:], held.token, picker)]
        return self._decode_blocks(blocks), len(held.left)

    def _at_work(self, slot: int, work: str, most: int | None) -> _Slot:
        if most is not None and most < 1:
            raise FrameError(f"most is {most}: a piece of work reads at least one column")
        held = self._of(slot)
        return held if held.work == work else self._of(slot, idle=True)

    # Saving.

    def save(self, slot: int) -> bytes:
        """The whole state of a slot, to be restored with the same model on a backend of the same
        kind: some megabytes for a small model, 200 megabytes for the 1B.

        How the slot's tokens are picked is not part of it.

        Raises:
            StreamError: the slot is not open, or in the middle of work.
        """
        held = self._of(slot, idle=True)
        arrays = {f"backend.{name}": array for name, array in self.backend.save(slot).items()}
        arrays["token"] = np.array([held.token])
        arrays["history"] = self._history.save(slot)
        return save_arrays(
            {name: np.asarray(array, order="C") for name, array in arrays.items()},
            metadata={_KEY: self.backend.signature},
        )

    def restore(self, slot: int, saved: bytes) -> None:
        """Put what `save` gave into an open slot. The bytes come from outside, so they are checked.

        Raises:
            StreamError: the bytes come from another model or kind of backend, or are damaged, and
                nothing was changed; or the slot is not open, or in the middle of work.
        """
        held = self._of(slot, idle=True)
        try:
            self._check_signature(saved)
            arrays = dict(load_arrays(saved))
            token = arrays.pop("token")
            history = arrays.pop("history")
            self._check_columns(token, history)
            prefix = "backend."
            if not all(name.startswith(prefix) for name in arrays):
                raise ValueError("it holds parts that are not known")
            self.backend.restore(
                slot, {name.removeprefix(prefix): array for name, array in arrays.items()}
            )
        except (SafetensorError, LookupError, ValueError, TypeError, OverflowError) as error:
            raise StreamError(
                f"the saved state is damaged ({error}); open a fresh stream"
            ) from error
        held.token = int(token[0])
        self._history.restore(slot, history)

    def _check_signature(self, saved: bytes) -> None:
        deserialize(saved)
        header: Any = json.loads(saved[8 : 8 + int.from_bytes(saved[:8], "little")])
        about: Any = header.get("__metadata__") or {}
        theirs: Any = about.get(_KEY)
        ours = self.backend.signature
        if theirs != ours:
            raise StreamError(
                f"the saved state belongs to another model or engine ({str(theirs)[:80]}, this is "
                f"{ours}); load the same model with the same dtype"
            )

    def _check_columns(self, token: NDArray[Any], history: NDArray[Any]) -> None:
        lm = self._lm
        shapes = token.shape == (1,) and history.ndim == 2
        if not shapes or token.dtype != np.int64 or history.dtype != np.int64:
            raise ValueError("its text and codes are of another shape")
        if history.shape[1] != 1 + lm.num_codebooks or len(history) > HISTORY_FRAMES:
            raise ValueError("its columns are of another shape")
        texts, codes = np.append(history[:, 0], token), history[:, 1:]
        known = (texts >= 0) & ((texts < lm.text_vocab_size) | (texts == lm.initial_text_id))
        if not known.all():
            raise ValueError("it holds text that the model does not have")
        if not ((codes >= _LEFT_OUT) & (codes <= lm.initial_code)).all():
            raise ValueError("it holds codes that the model does not have")
