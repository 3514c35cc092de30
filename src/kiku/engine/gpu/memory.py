"""How much of a device's memory a slot takes, and how many fit."""

import gc
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from kiku.codec import MimiEncoder
from kiku.config import CodecConfig, LMConfig
from kiku.engine.gpu.capture import RECORDING, errors_of
from kiku.engine.gpu.pasts import Pasts
from kiku.engine.gpu.rings import FLOAT8, ring_bytes
from kiku.engine.gpu.room import slots_in, workspace_bytes
from kiku.errors import ConfigError


def slot_bytes(codec: CodecConfig, lm: LMConfig, kv: torch.dtype, pasts: int, width: int) -> int:
    """Bytes of one slot. The convolutions remember `pasts` numbers of it, and one call takes
    `width` frames at most."""
    latents = width * codec.transformer.positions_per_frame
    return (
        ring_bytes(codec.transformer, latents, torch.float32)
        + ring_bytes(lm.transformer, width, kv)
        + 4 * pasts
    )


@dataclass(frozen=True)
class Room:
    """The memory that an engine's slots take, and the memory that is free for them."""

    slots: int
    each: int
    """Bytes of a slot."""
    workspace: int
    """Bytes that computing takes besides the slots."""
    free: int | None
    """Bytes that are free besides the weights; None where that is not known."""
    kv: torch.dtype
    """The dtype of the decoder's keys and values."""

    @property
    def fit(self) -> int:
        """How many slots fit, not counting the spare slot."""
        return slots_in(self.free or 0, self.each, self.workspace)

    def check(self) -> None:
        """Raise unless the slots fit.

        Raises:
            ConfigError: they do not fit; it says how many would.
        """
        if self.free is not None and self.slots > self.fit:
            raise self._refused(self.fit)

    def ran_out(self) -> ConfigError:
        """The error if memory ran out though the slots were to fit: it advises a lower number."""
        return self._refused(max(0, min(self.fit, self.slots) - 1))

    def _refused(self, fit: int) -> ConfigError:
        advice = [f"ask for no more (slots={fit}, --slots {fit})"] if fit else []
        advice += ["keep keys and values in float8"] if self.kv != FLOAT8 else []
        return ConfigError(
            f"{self.slots} slots of {self.each / 1e6:.0f} MB do not fit into the "
            f"{(self.free or 0) / 1e9:.1f} GB that are free on the device besides the weights: "
            f"{fit} do; {', or '.join(advice or ['end what else is on the device'])}"
        )


def room_for(
    codec: MimiEncoder, lm: LMConfig, slots: int, width: int, kv: torch.dtype, free: int | None
) -> Room:
    """The memory that `slots` slots take, of the `free` bytes that there are; one call takes
    `width` frames of a slot at most."""
    pasts = Pasts(codec, 0, torch.device("meta")).width
    each = slot_bytes(codec.config, lm, kv, pasts, width)
    return Room(slots, each, workspace_bytes(codec.config, lm, slots, width), free, kv)


def free_bytes(device: torch.device) -> int:
    """Bytes of a GPU's memory that are free."""
    # PyTorch keeps the memory of freed tensors, and CUDA counts it as taken. An engine that was
    # dropped may still hold tensors and graphs: its parts refer to one another, and wait to be
    # collected. No graph may be destroyed while another one is recorded.
    with RECORDING:
        gc.collect()
        torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info(device)[0])


@contextmanager
def out_of_memory_as(refusal: Callable[[], ConfigError]) -> Generator[None]:
    """Raise `refusal()` in place of any error that comes from a device without free memory."""
    try:
        yield
    except RuntimeError as error:
        # While a graph is recorded, the error of its end hides the one that ended it.
        if any(_is_out_of_memory(one) for one in errors_of(error)):
            raise refusal() from error
        raise


def _is_out_of_memory(error: BaseException) -> bool:
    # Libraries and graphs have no error class of their own for it.
    signs = ("out of memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in signs)


def no_weights(codec: nn.Module, lm: nn.Module, device: torch.device) -> ConfigError:
    """The error if not even the weights fit."""
    weights = [*codec.state_dict().values(), *lm.state_dict().values()]
    size = sum(weight.nbytes for weight in weights) / 1e9
    return ConfigError(
        f"weights of {size:.1f} GB do not fit into what is free on {str(device)!r}; end what else "
        "is there, or take another device"
    )
