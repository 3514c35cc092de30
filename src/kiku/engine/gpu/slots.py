"""The state of all slots: their memory on the device, and on the host how far each has come."""

from collections.abc import Iterator, Mapping
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


@dataclass(frozen=True, slots=True)
class CheckedSlot:
    """A saved slot, as tensors on the host that fit."""

    at: SlotMark
    codec_rings: Mapping[str, Tensor]
    rings: Mapping[str, Tensor]


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

    def copy(self, slot: int) -> Iterator[tuple[str, Tensor]]:
        """Copies of a slot's state in memory of their own, with their names, for `saved`. Of keys
        and values they hold the window only, in the dtype they are kept in. Each is made when it is
        iterated over; no step may come in between."""
        heard, read = int(self.heard[slot]), int(self.read[slot])
        yield "pasts", self.pasts.rows[slot].clone()
        for part, rings, position in (
            ("codec", self.codec_rings, heard), ("decoder", self.rings, read),
        ):  # fmt: skip
            for name, tensor in rings.copy(slot, position):
                yield f"{part}.{name}", tensor
            yield f"{part}.position", torch.tensor([position])  # on the host

    def saved(self, copied: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """What is saved of a slot, from the arrays of its copy."""
        arrays = dict(copied)
        pasts = self.pasts.named(arrays.pop("pasts"))
        return arrays | {f"codec.{name}": array for name, array in pasts.items()}

    def check(self, saved: Mapping[str, NDArray[Any]]) -> CheckedSlot:
        """Saved arrays as `put` takes them.

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
        checked = self.codec_rings.check(heard, codec), self.rings.check(read, decoder)
        return CheckedSlot(SlotMark(pasts, heard, read), *checked)

    def put(self, slot: int, checked: CheckedSlot) -> None:
        """Put what `check` returned into any slot."""
        at = checked.at
        self.go_back(slot, at)
        self.codec_rings.put(slot, at.heard, checked.codec_rings)
        self.rings.put(slot, at.read, checked.rings)


def _under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
