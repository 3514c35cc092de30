"""The state of all slots: their memory on the device, and on the host how far each has come."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kiku.codec import MimiEncoder
from kiku.engine.gpu.pasts import Pasts
from kiku.engine.gpu.rings import Rings, position_of
from kiku.lm import LM


@dataclass(frozen=True, slots=True)
class SlotMark:
    """A slot's state at one moment. What its rings hold is not part of it: going back does not move
    them."""

    pasts: Tensor
    heard: int
    read: int


class Slots:
    """The memory of B slots and a spare one at fixed addresses, and how far each slot has come."""

    def __init__(
        self, codec: MimiEncoder, lm: LM, num_slots: int, width: int, kv: torch.dtype,
        device: torch.device,
    ) -> None:  # fmt: skip
        """All slots are new and empty.

        Args:
            codec: whose convolutions and keys are kept.
            lm: whose keys are kept.
            num_slots: B.
            width: frames of a slot that one call takes at most.
            kv: the dtype of the decoder's keys and values.
            device: where they are kept.
        """
        inner = codec.config.transformer
        self.pasts = Pasts(codec, num_slots, device)
        self.codec_rings = Rings(
            inner, num_slots, width * inner.positions_per_frame, torch.float32, device
        )
        self.rings = Rings(lm.config.transformer, num_slots, width, kv, device)
        self.heard = np.zeros(num_slots + 1, np.int64)
        """[B + 1] latents that the codec has processed for each slot."""
        self.read = np.zeros(num_slots + 1, np.int64)
        """[B + 1] columns that the decoder has read for each slot."""
        self.initial: dict[str, Tensor] = {}
        """What the decoder's rings hold of a slot that has read the initial column."""

    def forget(self, slot: int) -> None:
        """Let the codec forget all sound of a slot."""
        self.pasts.rows[slot].zero_()
        self.heard[slot] = 0

    def begin(self, slot: int) -> None:
        """Put a slot where its decoder has read the initial column and nothing else."""
        self.rings.put_first(slot, self.initial)
        self.read[slot] = 1

    def mark(self, slot: int) -> SlotMark:
        """The state of a slot now, for `go_back`."""
        return SlotMark(self.pasts.rows[slot].clone(), int(self.heard[slot]), int(self.read[slot]))

    def go_back(self, slot: int, mark: SlotMark) -> None:
        """Put a slot back to where `mark` was taken."""
        self.pasts.rows[slot].copy_(mark.pasts)
        self.heard[slot], self.read[slot] = mark.heard, mark.read

    def save(self, slot: int) -> dict[str, NDArray[Any]]:
        """A copy of a slot's state on the host. Of keys and values it holds the window only, in the
        dtype they are kept in (bfloat16 and float8 as their bits)."""
        heard, read = int(self.heard[slot]), int(self.read[slot])
        codec = {**self.pasts.save(slot), **self.codec_rings.save(slot, heard)}
        decoder = self.rings.save(slot, read)
        codec["position"], decoder["position"] = np.array([heard]), np.array([read])
        return {f"codec.{name}": array for name, array in codec.items()} | {
            f"decoder.{name}": array for name, array in decoder.items()
        }

    def restore(self, slot: int, saved: Mapping[str, NDArray[Any]]) -> None:
        """Put what `save` gave into any slot; nothing is changed where it is refused.

        Raises:
            ValueError: an array is not known, does not fit, or holds invalid numbers.
            LookupError: an array is missing.
        """
        codec, decoder = _under("codec.", saved), _under("decoder.", saved)
        heard, read = position_of(codec), position_of(decoder)
        known = self.pasts.num_saved + 2 + len(self.codec_rings.tensors) + len(self.rings.tensors)
        if len(saved) != known or len(codec) + len(decoder) != known:
            raise ValueError("it holds parts that are not known")
        pasts = torch.from_numpy(self.pasts.check(codec))  # pyright: ignore[reportUnknownMemberType]
        codec_rings = self.codec_rings.check(heard, codec)
        rings = self.rings.check(read, decoder)
        self.pasts.rows[slot].copy_(pasts)
        self.codec_rings.restore(slot, heard, codec_rings)
        self.rings.restore(slot, read, rings)
        self.heard[slot], self.read[slot] = heard, read


def _under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
