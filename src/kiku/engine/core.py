"""A fixed number of slots over a backend: the one place that opens, steps, marks and saves slots.

A newly opened slot has read the initial column and yielded text token 0. Frame t then yields
token t + 1, so the token that follows a frame comes in the same step as the frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiku.config import PAD_ID, WORD_START_ID
from kiku.decoding import Picker, Sampler, SamplingParams, plain_sampler
from kiku.engine.backend import Backend, StepOutput
from kiku.engine.blocks import BackendDraws
from kiku.engine.forked import check_process, process
from kiku.engine.saved_slot import SavedSlot, SlotCopy, read_saved_slot
from kiku.engine.slot_decoder import OpenSlot, SlotDecoder
from kiku.errors import ConfigError, FrameError, NoFreeSlot, StreamError


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
        self.frame_size = backend.codec_config.frame_size
        self.frame_s = self.frame_size / backend.codec_config.sample_rate
        self.max_block = backend.max_block
        """Frames of a slot that one step takes at most."""
        self._lm = backend.lm_config
        self._held: dict[int, OpenSlot] = {}
        self._decoder = SlotDecoder(
            backend, pad_id=pad_id, word_start_id=word_start_id, keep_logits=keep_logits
        )
        self.widths = self._decoder.widths
        """Chooses how many columns of a slot a pass reads when blocks are decoded."""
        self._pid = process()

    @property
    def description(self) -> str:
        """What runs the model, for people: "onnx int8"."""
        return self.backend.description

    @property
    def num_passes(self) -> int:
        """How often the decoder was run since the engine was made."""
        return self._decoder.num_passes

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
        held = self._held[slot] = self._new(slot, picker, num_codebooks)
        try:
            self.backend.forget(slot)
            self._decoder.history.forget(slot)
            return slot, self._begin(held)
        except BaseException:  # a picker may raise anything, and no caller has the slot yet
            self.close(slot)
            raise

    def _new(
        self, slot: int, picker: Picker | SamplingParams | None, num_codebooks: int | None
    ) -> OpenSlot:
        most = self._lm.num_codebooks
        limit = most if num_codebooks is None else num_codebooks
        if not 1 <= limit <= most:
            raise ConfigError(f"num_codebooks must be in 1..{most} for this model, not {limit}")
        if isinstance(picker, SamplingParams):
            picker = Sampler.of(picker)
        sampler = plain_sampler(picker) if self.backend.can_draw else None
        draws = None if sampler is None else BackendDraws(sampler, self._lm.text_vocab_size)
        return OpenSlot(slot, picker, limit, draws)

    def _begin(self, held: OpenSlot) -> StepOutput:
        """Let a slot's decoder read the initial column, and pick token 0."""
        out = self._decoder.begin(held, held.picker).raise_failure()
        held.token = int(out.tokens[0])
        return out

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
        held, new = self._of(slot), self._new(slot, picker, num_codebooks)
        held.picker, held.num_codebooks, held.draws = new.picker, new.num_codebooks, new.draws

    def close(self, slot: int) -> None:
        """Free a slot; a free one stays free."""
        self._held.pop(slot, None)

    def _of(self, slot: int, *, idle: bool = False) -> OpenSlot:
        """An open slot; with `idle`, it must not be in the middle of work either."""
        check_process(self._pid)
        held = self._held.get(slot)
        if held is None:
            raise StreamError(f"slot {slot} is not open: open it first")
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
            raise StreamError(f"slots {list(slots)} cannot be stepped: each may occur only once")
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
        return self._decoder.decode([self._held[slot] for slot in slots], codes, counts)

    # Going back.

    def mark(self, slot: int) -> object:
        """Mark where the slot stands, for `go_back`. Costs a copy of the convolutions' state.

        How the slot's tokens are picked is not part of the mark.

        Raises:
            StreamError: the slot is not open, or in the middle of work.
        """
        held = self._of(slot, idle=True)
        return _SlotMark(
            self.backend.mark(slot), held.token, int(self._decoder.history.counts[slot])
        )

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
        self._decoder.history.counts[slot] = mark.num_columns

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
            held.left, held.work = self._decoder.history.last(slot, frames), "truncate"
            self._decoder.begin(held, None)
        self._decoder.reread(held, held.take(most))
        return len(held.left)

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
            held.left, held.work = self._decoder.history.last(slot, frames), "redecode"
            self._decoder.history.counts[slot] -= len(held.left)
            self._begin(held)
        columns = held.take(most)
        if not len(columns):
            nothing = np.zeros(0, np.int64)
            return StepOutput(nothing, nothing.astype(np.float32), None, None, (0,)), 0
        out = self._decoder.decode([held], columns[:, 1:], [len(columns)])
        return out, len(held.left)

    def _at_work(self, slot: int, work: str, most: int | None) -> OpenSlot:
        if most is not None and most < 1:
            raise FrameError(f"most is {most}, but a piece of work reads at least one column")
        held = self._of(slot)
        return held if held.work == work else self._of(slot, idle=True)

    # Saving.

    def copy(self, slot: int) -> SlotCopy:
        """Copy the whole state of a slot, which then goes on. To make bytes of the copy takes
        longer, and may be done in another thread.

        How the slot's tokens are picked is not part of it.

        Raises:
            StreamError: the slot is not open, or in the middle of work.
        """
        held = self._of(slot, idle=True)
        history = self._decoder.history.save(slot)
        return SlotCopy(self.backend.signature, held.token, history, self.backend.copy(slot))

    def check(self, saved: bytes | NDArray[np.uint8]) -> SavedSlot:
        """Check bytes that came from a `copy`, for `put`. May be called in any thread, while slots
        are stepped.

        Raises:
            StreamError: they come from another model or kind of backend, or are damaged.
        """
        check_process(self._pid)
        return read_saved_slot(saved, self.backend.signature, self._lm, self.backend.check)

    def put(self, slot: int, saved: SavedSlot) -> None:
        """Put what `check` returned into an open slot.

        Raises:
            StreamError: the slot is not open, or in the middle of work.
        """
        held = self._of(slot, idle=True)
        self.backend.put(slot, saved.checked)
        held.token = saved.token
        self._decoder.history.restore(slot, saved.history)

    def save(self, slot: int) -> bytes:
        """The whole state of a slot, to be restored with the same model on a backend of the same
        kind: some megabytes for a small model, 200 megabytes for the 1B. See `copy`."""
        return self.copy(slot).to_bytes()

    def restore(self, slot: int, saved: bytes) -> None:
        """Put what `save` gave into an open slot; see `check` and `put`. Nothing is changed if it
        is refused."""
        self._of(slot, idle=True)
        self.put(slot, self.check(saved))
