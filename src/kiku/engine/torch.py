"""The reference backend: PyTorch, a fixed batch of slots, any device that PyTorch knows."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kiku.codec import MimiEncoder, MimiState
from kiku.config import MAX_POSITION, PAD_ID, REWIND_FRAMES, WORD_START_ID
from kiku.engine.backend import Arrays, Said
from kiku.engine.core import SlotEngine
from kiku.engine.forked import is_forked
from kiku.engine.gpu.precision import products
from kiku.errors import ConfigError
from kiku.lm import LM, LMState
from kiku.nn.state import (
    Mark,
    all_active,
    copy_slot,
    leaves,
    mark,
    restore_slot,
    rewind,
    save_slot,
)

_MPS_MAX_SAMPLES = 65_536

_RUNS, _RUN = 4, 64
"""Of each weight this many runs of this many numbers go into the digest of a model. To read all
would take seconds. If single numbers were read of a mapped file, the pages around each would come
into memory."""


def pick_device(name: str | None) -> torch.device:
    """The device called `name`; without a name the first that exists of CUDA, MPS and the CPU. Of
    several GPUs "cuda" is the one that the calling thread is on; the result has its number.

    Raises:
        ConfigError: PyTorch knows no such device, or not on this machine.
    """
    if name is None or name == "auto":
        if torch.cuda.is_available():
            return _numbered(torch.device("cuda"))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device: torch.device | None = None
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"there is no device {name!r} here ({_why_not(device)}); use 'cpu', or leave it out"
        ) from error
    return _numbered(device)


def _why_not(device: torch.device | None) -> str:
    """Why a device cannot be used; None is one whose name PyTorch does not know."""
    if device is None:
        return "devices are called cpu, cuda, cuda:1, mps"
    if device.type != "cuda":
        return f"PyTorch cannot use {device.type} on this machine"
    if not torch.backends.cuda.is_built():
        return "PyTorch is installed without CUDA"
    count = torch.cuda.device_count()
    if not count:
        return "CUDA finds no GPU"
    if (device.index or 0) >= count:
        return f"CUDA finds {count}, from cuda:0 on"
    return "CUDA finds the GPU and cannot use it"


def _numbered(device: torch.device) -> torch.device:
    """Give "cuda" its number, as it would be another GPU in a thread that is on another one."""
    if str(device) == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return device


def use_threads(number: int) -> None:
    """Have the whole process compute with `number` threads on the processor. A process that was
    forked gets one, as PyTorch would wait for ever for the threads that stayed in the parent."""
    torch.set_num_threads(1 if is_forked() else number)


def use_at_most(number: int) -> None:
    """Compute with at most `number` threads: PyTorch does not know a container's quota, and threads
    beyond it wait for one another."""
    if torch.get_num_threads() > number:
        use_threads(number)


@torch.inference_mode()
def digest_of_model(codec: MimiEncoder, lm: LM) -> str:
    """A digest of the configs and of some numbers of every weight: it tells to which model a saved
    slot belongs."""
    digest = hashlib.sha256(repr((codec.config, lm.config)).encode())
    weights = [*codec.state_dict().values(), *lm.state_dict().values()]
    samples = torch.cat([_some_of(weight.reshape(-1)).float() for weight in weights])
    digest.update(samples.cpu().numpy().tobytes())  # one wait for the device
    return digest.hexdigest()[:16]


def _some_of(flat: Tensor) -> Tensor:
    """The runs of a weight [N] that go into the digest, its first and last numbers among them."""
    if len(flat) <= _RUNS * _RUN:
        return flat
    step = (len(flat) - _RUN) // (_RUNS - 1)
    return flat.as_strided((_RUNS, _RUN), (step, 1)).reshape(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class _TorchState:
    """The state of the two networks for a number of slots."""

    def __init__(
        self,
        codec: MimiEncoder,
        lm: LM,
        batch_size: int,
        device: torch.device,
        room: tuple[int | None, int | None],
    ) -> None:
        """All slots are new. `room` is how many frames and columns a slot can take at most; None is
        any number."""
        # On a CPU attention over float32 keys is the faster one (see `nn.attention`).
        dtype = torch.float32 if device.type == "cpu" else lm.out_norm.weight.dtype
        frames, columns = room
        self.codec: MimiState = codec.init_state(batch_size, device, torch.float32, longest=frames)
        self.lm: LMState = lm.init_state(batch_size, device, dtype, longest=columns)

    def parts(self) -> list[MimiState | LMState]:
        return [self.codec, self.lm]


@dataclass(frozen=True, slots=True)
class _TorchMark:
    """Where a slot stood."""

    state: Mark
    position: int


def torch_engine(
    codec: MimiEncoder,
    lm: LM,
    *,
    slots: int = 1,
    device: str | None = None,
    keep_logits: bool = False,
    pad_id: int = PAD_ID,
    word_start_id: int = WORD_START_ID,
) -> SlotEngine:
    """An engine of `slots` slots on `device` (see `pick_device`); the networks are moved there.

    In a forked process PyTorch computes with one thread from then on, as the others stayed in the
    parent. For `keep_logits`, `pad_id` and `word_start_id` see `SlotEngine`.
    """
    backend = TorchBackend(codec, lm, slots=slots, device=device)
    return SlotEngine(backend, pad_id=pad_id, word_start_id=word_start_id, keep_logits=keep_logits)


class TorchBackend:
    """`Backend` with PyTorch. Each call computes for all slots; idle ones are not advanced."""

    width = 16  # columns that the decoder reads in one pass of a block
    reads_alike = False
    can_draw = False

    def __init__(
        self,
        codec: MimiEncoder,
        lm: LM,
        *,
        slots: int,
        device: str | None = None,
        longest: int | None = None,
    ) -> None:
        """See `torch_engine`. No slot may hear more than `longest` frames (None: any number)."""
        if is_forked():  # other code may have set another number since
            use_threads(1)
        self.device = pick_device(device)
        self.max_block = REWIND_FRAMES
        if self.device.type == "mps":
            # Before macOS 15.1 no axis of a convolution's output may be longer there than 65,536.
            self.max_block = min(REWIND_FRAMES, _MPS_MAX_SAMPLES // codec.config.frame_size)
        self.codec_config, self.lm_config = codec.config, lm.config
        self.num_slots = slots
        self.codec = codec.to(self.device).eval()
        self.lm = lm.to(self.device).eval()
        self._dtype = str(lm.out_norm.weight.dtype).removeprefix("torch.")
        self.description = f"torch {self._dtype} on {self.device.type}"
        self._signature: str | None = None
        # Columns that are read ahead and taken back need room as well.
        columns = None if longest is None else 1 + longest + self.width
        self._positions = np.zeros(slots, np.int64)  # of the decoder
        with torch.inference_mode():
            self._state = _TorchState(codec, lm, slots, self.device, (longest, columns))
            self._primed = _TorchState(codec, lm, 1, self.device, (0, 1))
            out = lm(lm.initial_column(1, self.device), self._primed.lm, all_active(1, self.device))
            self.first = self._said(out.logits, out.pauses, logits=True)

    @property
    def signature(self) -> str:
        """See `Backend`. It is computed when a slot is first saved or restored, as it reads weights
        that may not have been read yet."""
        if self._signature is None:
            sizes = self.lm_config.transformer
            shape = f"{sizes.num_layers}x{sizes.dim} window {sizes.window}"
            digest = digest_of_model(self.codec, self.lm)
            self._signature = (
                f"torch {self._dtype} {shape} K {self.lm_config.num_codebooks} model {digest}"
            )
        return self._signature

    @torch.inference_mode()
    def forget(self, slot: int) -> None:
        """See `Backend.forget`."""
        copy_slot(self._state.codec, slot, self._primed.codec)

    @torch.inference_mode()
    def begin(self, slot: int) -> None:
        """See `Backend.begin`: copies a state that has read the initial column."""
        copy_slot(self._state.lm, slot, self._primed.lm)
        self._positions[slot] = 1

    @torch.inference_mode()
    def encode(self, slots: NDArray[np.int64], frames: NDArray[np.float32]) -> NDArray[np.int64]:
        """See `Backend.encode`."""
        n, T, size = frames.shape
        pcm = torch.zeros(self.num_slots, 1, T * size)
        samples = _tensor(np.ascontiguousarray(frames, dtype=np.float32))
        pcm[slots, 0] = samples.view(n, T * size)
        with products():
            codes = self.codec(pcm.to(self.device), self._state.codec, self._active(slots))
        return codes.transpose(1, 2)[slots].cpu().numpy()

    def _active(self, slots: NDArray[np.int64]) -> Tensor:
        active = torch.zeros(self.num_slots, dtype=torch.bool)
        active[slots] = True
        return active.to(self.device)

    @torch.inference_mode()
    def read(
        self,
        slots: NDArray[np.int64],
        columns: NDArray[np.int64],
        counts: NDArray[np.int64],
        *,
        logits: bool,
        draws: NDArray[Any] | None = None,
    ) -> Said:
        """See `Backend.read`. All slots read as many columns as the longest; what is too much for a
        slot is taken back."""
        most = columns.shape[1]
        padded = np.zeros((self.num_slots, *columns.shape[1:]), np.int64)
        padded[slots] = columns
        # Elsewhere than on a CPU shapes that change with every frame cost more than they save.
        on_cpu = self.device.type == "cpu"
        horizon = int(self._positions[slots].max()) + most if on_cpu else None
        given = _tensor(padded).to(self.device)
        out = self.lm(given, self._state.lm, self._active(slots), horizon=horizon)
        self._positions[slots] += most
        short = np.flatnonzero(counts < most)
        if len(short):
            self.rewind(slots[short], most - counts[short])
        pauses = None if out.pauses is None else out.pauses[slots]
        return self._said(out.logits[slots], pauses, logits=logits)

    @torch.inference_mode()
    def rewind(self, slots: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        """See `Backend.rewind`: keys and values ahead of the position are never seen."""
        back = _tensor(columns).to(self.device)
        self._state.lm.position[_tensor(slots).to(self.device)] -= back
        self._positions[slots] -= columns

    def _said(self, logits_of: Tensor, pauses: Tensor | None, *, logits: bool) -> Said:
        """The output for logits [n, T, V] and pauses [n, T, E]."""
        wide = logits_of.float()
        tokens = wide.argmax(-1)
        logprobs = wide.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
        return Said(
            tokens.cpu().numpy(),
            logprobs.cpu().numpy(),
            None if pauses is None else pauses.float().cpu().numpy(),
            wide.cpu().numpy() if logits else None,
        )

    @torch.inference_mode()
    def mark(self, slot: int) -> Any:
        """See `Backend.mark`."""
        return _TorchMark(mark(self._state.parts(), slot), int(self._positions[slot]))

    @torch.inference_mode()
    def go_back(self, slot: int, mark: Any) -> None:
        """See `Backend.go_back`."""
        assert isinstance(mark, _TorchMark)
        rewind(self._state.parts(), slot, mark.state)
        self._positions[slot] = mark.position

    def copy(self, slot: int) -> Callable[[], Arrays]:
        """See `Backend.copy`: every leaf of the state; bfloat16 is saved as its bits."""
        tensors = save_slot(self._state.parts(), slot)
        return lambda: {str(i): _as_array(tensor) for i, tensor in enumerate(tensors)}

    @torch.inference_mode()
    def check(self, saved: Arrays) -> Any:
        """See `Backend.check`."""
        ours = [leaf[0] for leaf in leaves(self._state.parts())]
        if set(saved) != {str(i) for i in range(len(ours))}:
            raise ValueError("it holds parts that are not known")
        return [_as_tensor(saved[str(i)], leaf) for i, leaf in enumerate(ours)]

    @torch.inference_mode()
    def put(self, slot: int, checked: Any) -> None:
        """See `Backend.put`."""
        restore_slot(self._state.parts(), slot, checked)
        self._positions[slot] = int(self._state.lm.position[slot])


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]


def _as_array(tensor: Tensor) -> NDArray[Any]:
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy()
    return tensor.numpy()


def _as_tensor(array: NDArray[Any], like: Tensor) -> Tensor:
    """A saved leaf as a tensor; raises ValueError unless shape, dtype and values fit `like`."""
    bits = like.dtype == torch.bfloat16
    wanted = torch.int16 if bits else like.dtype
    tensor = _tensor(array.copy())
    if tensor.shape != like.shape or tensor.dtype != wanted:
        raise ValueError(
            f"a tensor is {tensor.dtype} {list(tensor.shape)} where {wanted} {list(like.shape)} "
            "belongs"
        )
    tensor = tensor.view(torch.bfloat16) if bits else tensor
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise ValueError("a tensor contains numbers that are not finite")
    is_count = tensor.dtype == torch.int64
    if is_count and not bool(((tensor >= 0) & (tensor <= MAX_POSITION)).all()):
        raise ValueError("an impossible position")
    return tensor
