"""The reference engine: PyTorch, a fixed batch of slots, any device that PyTorch knows."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from kiku.codec import MimiEncoder, MimiState
from kiku.config import PAD_ID, REWIND_FRAMES, WORD_START_ID
from kiku.engine.contract import Choose, StepOutput
from kiku.engine.decoding import Block, Rereading, Said, decode_blocks
from kiku.engine.history import History
from kiku.engine.saved import KEY, check_saved, damage_is_told
from kiku.engine.slots import Slots
from kiku.errors import ConfigError
from kiku.lm import LM, LMState
from kiku.nn.state import Mark, all_active, copy_slot, mark, restore_slot, rewind, save_slot

_MPS_MAX_SAMPLES = 65_536

_WIDTH = 16
"""Columns that the decoder reads in one pass of a block."""


def pick_device(name: str | None) -> torch.device:
    """The device called `name`; without one CUDA, then MPS, then the CPU, whichever is there first.

    Raises:
        ConfigError: PyTorch knows no such device, or not on this machine.
    """
    if name is None or name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        # What PyTorch raises depends on the device and on how it was built; the first line says it.
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"there is no device {name!r} here ({reason}); use 'cpu', or leave it out"
        ) from error
    return device


class _State:
    """What the two networks remember of the engine's slots."""

    def __init__(self, codec: MimiEncoder, lm: LM, batch_size: int, device: torch.device) -> None:
        # On a CPU attention over float32 keys is the faster one (see `nn.attention`).
        dtype = torch.float32 if device.type == "cpu" else lm.out_norm.weight.dtype
        self.codec: MimiState = codec.init_state(batch_size, device, torch.float32)
        self.lm: LMState = lm.init_state(batch_size, device, dtype)

    def parts(self) -> list[MimiState | LMState]:
        return [self.codec, self.lm]


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where a slot stood."""

    state: Mark
    position: int
    token: int
    num_columns: int


class TorchEngine:
    """`engine.contract.Engine` with PyTorch. One thread uses it at a time."""

    def __init__(
        self,
        codec: MimiEncoder,
        lm: LM,
        *,
        slots: int = 1,
        device: str | None = None,
        keep_logits: bool = False,
        pad_id: int = PAD_ID,
        word_start_id: int = WORD_START_ID,
    ) -> None:
        """Make `slots` slots on `device` (see `pick_device`); the two networks are moved there.

        `keep_logits` gives the logits out; `pad_id` is the token that most frames have, and
        `word_start_id` the one that opens a word: guesses, which change no token.
        """
        self.device = pick_device(device)
        self.max_block = REWIND_FRAMES
        if self.device.type == "mps":
            # Before macOS 15.1 no axis of a convolution's output may be longer there than 65,536.
            self.max_block = min(REWIND_FRAMES, _MPS_MAX_SAMPLES // codec.config.frame_size)
        self.codec = codec.to(self.device).eval()
        self.lm = lm.to(self.device).eval()
        self.keep_logits = keep_logits
        self.pad_id, self._word_start_id = pad_id, word_start_id
        self._slots = Slots(slots, lm.config.num_codebooks)
        self._frame_size = codec.config.frame_size
        self._num_codebooks = lm.config.num_codebooks
        self._positions = np.zeros(slots, np.int64)  # of the decoder
        self._tokens = np.zeros(slots, np.int64)
        self._history = History(slots, lm.config.num_codebooks)
        self._rereading = Rereading(self, _WIDTH)
        with torch.inference_mode():
            self._state = _State(codec, lm, slots, self.device)
            self._prime()

    def _prime(self) -> None:
        """A one-slot state that has read the initial column: every fresh slot is a copy of it."""
        one = all_active(1, self.device)
        self._primed = _State(self.codec, self.lm, 1, self.device)
        out = self.lm(self.lm.initial_column(1, self.device), self._primed.lm, one)
        self._first = self._said(out.logits[0], None if out.pauses is None else out.pauses[0], True)

    @property
    def num_slots(self) -> int:
        """How many slots there are."""
        return self._slots.count

    @property
    def free_slots(self) -> int:
        """How many slots nobody holds."""
        return self._slots.free

    @torch.inference_mode()
    def open(
        self, choose: Choose | None = None, *, num_codebooks: int | None = None
    ) -> tuple[int, StepOutput]:
        """See `Engine.open`."""
        slot = self._slots.take(choose, num_codebooks)
        copy_slot(self._state.codec, slot, self._primed.codec)
        self._history.forget(slot)
        try:
            return slot, self._begin(slot)
        except BaseException:  # `choose` may raise anything, and nobody knows of the slot yet
            self.close(slot)
            raise

    def _begin(self, slot: int) -> StepOutput:
        """The decoder forgets the slot, and reads its initial column."""
        self._rereading.forget(slot)
        self._tokens[slot] = self.lm.config.initial_text_id
        codes = np.full((1, self._num_codebooks), self.lm.config.initial_code, np.int64)
        block = self._block(slot, codes)
        block.accept(self._primed_copy(slot, block.ask(1)))
        self._tokens[slot] = block.token
        return block.output()

    def _primed_copy(self, slot: int, column: NDArray[np.int64]) -> Said:
        """The slot's decoder has read `column` [1, 1 + K], the initial one, and nothing else."""
        copy_slot(self._state.lm, slot, self._primed.lm)
        self._positions[slot] = 1
        if (column[:, 1:] == self.lm.config.initial_code).all():
            return self._first
        self.rewind(slot, 1)  # the copy has read the codes of all codebooks
        return self.read([slot], [column], logits=True)[0]

    def steer(
        self, slot: int, choose: Choose | None = None, *, num_codebooks: int | None = None
    ) -> None:
        """See `Engine.steer`."""
        self._slots.steer(slot, choose, num_codebooks)

    def close(self, slot: int) -> None:
        """See `Engine.close`."""
        self._slots.release(slot)

    @torch.inference_mode()
    def step(self, slots: Sequence[int], frames: NDArray[np.float32]) -> StepOutput:
        """See `Engine.step`. The codec takes the block at once; the decoder reads it in few passes
        (see `decoding`)."""
        self._slots.check_step(slots, frames.shape, self._frame_size, self.max_block)
        rows = list(slots)
        n, T, size = frames.shape
        pcm = torch.zeros(self.num_slots, 1, T * size)
        samples = torch.from_numpy(np.ascontiguousarray(frames, dtype=np.float32))
        pcm[rows, 0] = samples.view(n, T * size)
        codes = self._encode(pcm.to(self.device), self._active(rows)).transpose(1, 2)[rows]
        blocks = [
            self._block(slot, part) for slot, part in zip(rows, codes.cpu().numpy(), strict=True)
        ]
        return self._decoded(blocks)

    def _decoded(self, blocks: list[Block]) -> StepOutput:
        out = decode_blocks(self, blocks, _WIDTH)
        for block, token in zip(blocks, out.tokens[:, -1], strict=True):
            self._tokens[block.slot] = token
            self._history.add(block.slot, block.columns)
        return out

    def _active(self, rows: Sequence[int]) -> Tensor:
        active = torch.zeros(self.num_slots, dtype=torch.bool)
        active[list(rows)] = True
        return active.to(self.device)

    def _block(self, slot: int, codes: NDArray[np.int64]) -> Block:
        return Block(
            slot, self._slots.as_read(slot, codes), int(self._tokens[slot]),
            self._slots.choices[slot], guess=self.pad_id, word_start=self._word_start_id,
            keep_logits=self.keep_logits,
        )  # fmt: skip

    def _encode(self, pcm: Tensor, active: Tensor) -> Tensor:
        """[B, 1, T * frame_size] -> [B, K, T], as many codebooks as the decoder reads."""
        # cuDNN would round to TF32, whose codes differ from those of every other device.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return self.codec(pcm, self._state.codec, active)[:, : self._num_codebooks]

    @torch.inference_mode()
    def read(
        self, slots: Sequence[int], columns: Sequence[NDArray[np.int64]], *, logits: bool
    ) -> list[Said]:
        """See `decoding.Reader.read`. All slots go through together; what a slot has fewer columns
        than the longest is filled up, and taken back."""
        counts = [len(part) for part in columns]
        most = max(counts)
        padded = np.zeros((self.num_slots, most, 1 + self._num_codebooks), np.int64)
        for slot, part in zip(slots, columns, strict=True):
            padded[slot, : len(part)] = part
        # Elsewhere than on a CPU shapes that change with every frame cost more than they save.
        on_cpu = self.device.type == "cpu"
        horizon = int(self._positions[list(slots)].max()) + most if on_cpu else None
        given = torch.from_numpy(padded).to(self.device)
        out = self.lm(given, self._state.lm, self._active(slots), horizon=horizon)
        said: list[Said] = []
        for slot, count in zip(slots, counts, strict=True):
            pauses = None if out.pauses is None else out.pauses[slot, :count]
            said.append(self._said(out.logits[slot, :count], pauses, logits))
            self._positions[slot] += most
            if count < most:
                self.rewind(slot, most - count)
        return said

    def rewind(self, slot: int, frames: int) -> None:
        """See `decoding.Reader.rewind`: what is written ahead in the ring is seen by nobody."""
        self._state.lm.position[slot] -= frames
        self._positions[slot] -= frames

    def _said(self, logits: Tensor, pauses: Tensor | None, keep: bool) -> Said:
        """Of columns [t, V], [t, E]."""
        wide = logits.float()
        tokens = wide.argmax(-1)
        logprobs = wide.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
        return Said(
            tokens.cpu().numpy(),
            logprobs.cpu().numpy(),
            None if pauses is None else pauses.float().cpu().numpy(),
            wide.cpu().numpy() if keep else None,
        )

    @torch.inference_mode()
    def mark(self, slot: int) -> object:
        """See `Engine.mark`."""
        self._slots.check_held([slot])
        return _Mark(
            mark(self._state.parts(), slot),
            int(self._positions[slot]),
            int(self._tokens[slot]),
            int(self._history.counts[slot]),
        )

    @torch.inference_mode()
    def go_back(self, slot: int, mark: object) -> None:
        """See `Engine.go_back`."""
        self._slots.check_held([slot])
        assert isinstance(mark, _Mark)
        rewind(self._state.parts(), slot, mark.state)
        self._positions[slot] = mark.position
        self._tokens[slot] = mark.token
        self._history.counts[slot] = mark.num_columns

    @torch.inference_mode()
    def refresh(self, slot: int, frames: int, *, most: int | None = None) -> int:
        """See `Engine.refresh`."""
        self._slots.check_held([slot])
        if not self._rereading.begun(slot):
            config = self.lm.config
            codes = np.full((1, config.num_codebooks), config.initial_code, np.int64)
            text = np.full((1, 1), config.initial_text_id, np.int64)
            self._primed_copy(slot, np.hstack([text, self._slots.as_read(slot, codes)]))
            self._rereading.begin(slot, self._history.last(slot, frames))
        return self._rereading.go_on(slot, most)

    @torch.inference_mode()
    def reread(self, slot: int, frames: int) -> StepOutput:
        """See `Engine.reread`."""
        self._slots.check_held([slot])
        codes = self._history.last(slot, frames)[:, 1:]
        self._history.counts[slot] -= len(codes)
        begun = self._begin(slot)
        return self._decoded([self._block(slot, codes)]) if len(codes) else begun.first(0)

    def save(self, slot: int) -> bytes:
        """See `Engine.save`."""
        self._slots.check_held([slot])
        leaves = save_slot(self._state.parts(), slot)
        leaves.append(torch.tensor(int(self._tokens[slot])))
        leaves.append(torch.from_numpy(self._history.save(slot)))
        tensors = {str(i): leaf for i, leaf in enumerate(leaves)}
        return save_tensors(tensors, metadata={KEY: self._signature()})

    def restore(self, slot: int, saved: bytes) -> None:
        """See `Engine.restore`."""
        self._slots.check_held([slot])
        check_saved(saved, self._signature())
        tensors = load_tensors(saved)
        with damage_is_told(), torch.inference_mode():
            leaves = [tensors[str(i)] for i in range(len(tensors))]
            restore_slot(self._state.parts(), slot, leaves[:-2])
            self._tokens[slot] = int(leaves[-2])
            self._history.restore(slot, leaves[-1].numpy())
            self._positions[slot] = int(self._state.lm.position[slot])

    def _signature(self) -> str:
        dtype = str(self.lm.out_norm.weight.dtype)
        sizes = self.lm.config.transformer
        shape = f"{sizes.num_layers}x{sizes.dim} window {sizes.window}"
        all_numbers = repr((self.codec.config, self.lm.config)).encode()
        digest = hashlib.sha256(all_numbers).hexdigest()[:8]
        return f"torch {dtype} {shape} K {self._num_codebooks} config {digest}"
