"""The reference engine: PyTorch, a fixed batch of slots, any device that PyTorch knows."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from kiku.codec import MimiEncoder, MimiState
from kiku.config import REWIND_FRAMES
from kiku.engine.contract import Choose, StepOutput
from kiku.errors import ConfigError, FrameError, NoFreeSlot, StreamError
from kiku.lm import LM, LMState
from kiku.nn.state import all_active, copy_slot, restore_slot, save_slot

_MPS_MAX_SAMPLES = 65_536


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
    """What the engine remembers of its slots; `codes` and `token` are what the next column is made
    of."""

    def __init__(self, codec: MimiEncoder, lm: LM, batch_size: int, device: torch.device) -> None:
        # On a CPU attention over float32 keys is the faster one (see `nn.attention`).
        dtype = torch.float32 if device.type == "cpu" else lm.out_norm.weight.dtype
        self.codec: MimiState = codec.init_state(batch_size, device, torch.float32)
        self.lm: LMState = lm.init_state(batch_size, device, dtype)
        self.token = torch.zeros(batch_size, dtype=torch.int64, device=device)

    def parts(self) -> list[MimiState | LMState | Tensor]:
        return [self.codec, self.lm, self.token]


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
    ) -> None:
        """Make `slots` slots on `device` (see `pick_device`); the two networks are moved there."""
        self.device = pick_device(device)
        self.max_block = REWIND_FRAMES
        if self.device.type == "mps":
            # Before macOS 15.1 no axis of a convolution's output may be longer there than 65,536.
            self.max_block = min(REWIND_FRAMES, _MPS_MAX_SAMPLES // codec.config.frame_size)
        self.codec = codec.to(self.device).eval()
        self.lm = lm.to(self.device).eval()
        self.num_slots = slots
        self.keep_logits = keep_logits
        self._frame_size = codec.config.frame_size
        self._num_codebooks = lm.config.num_codebooks
        self._choices: dict[int, Choose | None] = {}
        self._positions: dict[int, int] = {}  # of the decoder, by slot
        with torch.inference_mode():
            self._state = _State(codec, lm, slots, self.device)
            self._prime()

    def _prime(self) -> None:
        """A one-slot state that has read the initial column: every fresh slot is a copy of it."""
        one = all_active(1, self.device)
        self._primed = _State(self.codec, self.lm, 1, self.device)
        out = self.lm(self.lm.initial_column(1, self.device), self._primed.lm, one)
        self._first_logits = out.logits[:, -1].float()
        self._first_pauses = out.pauses

    @property
    def free_slots(self) -> int:
        """How many slots nobody holds."""
        return self.num_slots - len(self._choices)

    @torch.inference_mode()
    def open(self, choose: Choose | None = None) -> tuple[int, StepOutput]:
        """See `Engine.open`."""
        free = [slot for slot in range(self.num_slots) if slot not in self._choices]
        if not free:
            raise NoFreeSlot(
                f"all {self.num_slots} slots are held; close a stream or load the model with more"
            )
        slot = free[0]
        self._choices[slot] = choose
        copy_slot(self._state.parts(), slot, self._primed.parts())
        self._positions[slot] = 1
        try:
            tokens, logprobs = self._pick(self._first_logits, [slot])
        except BaseException:  # `choose` may raise anything, and nobody knows of the slot yet
            self.close(slot)
            raise
        self._state.token[slot] = tokens[0]
        pauses = None if self._first_pauses is None else self._first_pauses.float().cpu().numpy()
        logits = self._first_logits[:, None].cpu().numpy() if self.keep_logits else None
        return slot, StepOutput(
            tokens[:, None].cpu().numpy(), logprobs[:, None].cpu().numpy(), pauses, logits
        )

    def close(self, slot: int) -> None:
        """See `Engine.close`."""
        self._choices.pop(slot, None)

    @torch.inference_mode()
    def step(self, slots: Sequence[int], frames: NDArray[np.float32]) -> StepOutput:
        """See `Engine.step`. The codec takes the block at once; the decoder goes frame by frame."""
        n, T, size = frames.shape
        if size != self._frame_size or not 1 <= T <= self.max_block:
            raise FrameError(
                f"a step takes 1 to {self.max_block} frames of {self._frame_size} samples, "
                f"not {T} of {size}"
            )
        rows = list(slots)
        self._check_held(rows)
        if len(set(rows)) != n:
            raise StreamError(f"slots {rows} cannot be stepped: each may stand there once")
        active = torch.zeros(self.num_slots, dtype=torch.bool)
        active[rows] = True
        pcm = torch.zeros(self.num_slots, 1, T * size)
        samples = torch.from_numpy(np.ascontiguousarray(frames, dtype=np.float32))
        pcm[rows, 0] = samples.view(n, T * size)
        active = active.to(self.device)
        codes = self._encode(pcm.to(self.device), active)
        shape = (self.num_slots, T, 1 + self._num_codebooks)
        columns = torch.empty(shape, dtype=torch.int64, device=self.device)
        columns[:, :, 1:] = codes.transpose(1, 2)
        return self._decode(rows, columns, active)

    def _encode(self, pcm: Tensor, active: Tensor) -> Tensor:
        """[B, 1, T * frame_size] -> [B, K, T], as many codebooks as the decoder reads."""
        # cuDNN would round to TF32, whose codes differ from those of every other device.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return self.codec(pcm, self._state.codec, active)[:, : self._num_codebooks]

    def _decode(self, rows: list[int], columns: Tensor, active: Tensor) -> StepOutput:
        """Run the decoder over columns [B, T, 1 + K], filling in the tokens as they are chosen."""
        tokens: list[Tensor] = []
        logprobs: list[Tensor] = []
        pauses: list[Tensor] = []
        logits: list[Tensor] = []
        index = torch.tensor(rows, device=self.device)
        for slot in rows:
            self._positions[slot] += columns.shape[1]
        # Elsewhere than on a CPU shapes that change with every frame cost more than they save.
        on_cpu = self.device.type == "cpu"
        horizon = max(self._positions[slot] for slot in rows) if on_cpu else None
        for t in range(columns.shape[1]):
            columns[:, t, 0] = self._state.token
            out = self.lm(columns[:, t : t + 1], self._state.lm, active, horizon=horizon)
            row_logits = out.logits[index, 0].float()
            chosen, logprob = self._pick(row_logits, rows)
            self._state.token[index] = chosen
            tokens.append(chosen)
            logprobs.append(logprob)
            if out.pauses is not None:
                pauses.append(out.pauses[index, 0])
            if self.keep_logits:
                logits.append(row_logits)
        return StepOutput(
            torch.stack(tokens, 1).cpu().numpy(),
            torch.stack(logprobs, 1).cpu().numpy(),
            torch.stack(pauses, 1).float().cpu().numpy() if pauses else None,
            torch.stack(logits, 1).cpu().numpy() if logits else None,
        )

    def _pick(self, logits: Tensor, rows: list[int]) -> tuple[Tensor, Tensor]:
        """[n, V] float32 logits of `rows` -> tokens [n], log-probabilities [n]."""
        tokens = logits.argmax(-1)
        for i, slot in enumerate(rows):
            choose = self._choices[slot]
            if choose is not None:
                tokens[i] = choose(logits[i].cpu().numpy().copy())
        return tokens, logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]

    def _check_held(self, slots: list[int]) -> None:
        if unheld := [slot for slot in slots if slot not in self._choices]:
            raise StreamError(f"slots {unheld} are not held: open them first")

    def save(self, slot: int) -> bytes:
        """See `Engine.save`."""
        self._check_held([slot])
        tensors = {str(i): leaf for i, leaf in enumerate(save_slot(self._state.parts(), slot))}
        return save_tensors(tensors, metadata={"kiku": self._signature()})

    def restore(self, slot: int, saved: bytes) -> None:
        """See `Engine.restore`."""
        self._check_held([slot])
        signature = self._signature()
        try:
            tensors = load_tensors(saved)
            header = json.loads(saved[8 : 8 + int.from_bytes(saved[:8], "little")])
            theirs = header.get("__metadata__", {}).get("kiku")
        except (SafetensorError, ValueError) as error:
            raise StreamError(
                f"the saved state is damaged ({error}); open a fresh stream"
            ) from error
        if theirs != signature:
            raise StreamError(
                f"the saved state belongs to another model or engine ({theirs}, "
                f"this is {signature}); load the same model with the same dtype"
            )
        with torch.inference_mode():
            restore_slot(self._state.parts(), slot, [tensors[str(i)] for i in range(len(tensors))])
            self._positions[slot] = int(self._state.lm.position[slot])

    def _signature(self) -> str:
        dtype = str(self.lm.out_norm.weight.dtype)
        sizes = self.lm.config.transformer
        shape = f"{sizes.num_layers}x{sizes.dim} window {sizes.window}"
        all_numbers = repr((self.codec.config, self.lm.config)).encode()
        digest = hashlib.sha256(all_numbers).hexdigest()[:8]
        return f"torch {dtype} {shape} K {self._num_codebooks} config {digest}"
