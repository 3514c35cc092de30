"""Keys and values of all slots of one transformer, on the device, at addresses that never change.

Position `p` of a slot lies in place `p mod C`. Only the host knows how far each slot has come, and
passes it with every call. So opening a slot, or going back, moves nothing on the device.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kiku.config import MAX_POSITION, TransformerConfig
from kiku.engine.gpu.room import ring_capacity

FLOAT8 = torch.float8_e4m3fn
"""Numbers of 8 bits: one of sign, four of exponent, three of mantissa; 448 is the greatest."""

FLOAT8_MAX = 448.0
LEAST_SCALE = 1e-20
"""The scale of a key that is nothing but zeros, in place of 0."""

_BITS = {torch.bfloat16: torch.int16, FLOAT8: torch.uint8}
"""Dtypes that numpy does not have, and the integers as which their bits are saved."""

RING_DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float8": FLOAT8,
}
"""The dtypes in which keys and values may be kept, by name."""


class Rings:
    """The rings of B slots and a spare one, in all layers of a transformer."""

    def __init__(
        self,
        config: TransformerConfig,
        num_slots: int,
        max_new: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """All slots are new and empty.

        Args:
            config: the numbers of the transformer.
            num_slots: B.
            max_new: positions that one call appends at most.
            dtype: the dtype of keys and values; `FLOAT8` has a scale for each of them.
            device: where they are kept.
        """
        self.config, self.dtype, self.num_slots = config, dtype, num_slots
        self.capacity = ring_capacity(config, max_new)
        heads, width = config.num_heads, config.head_dim
        shape = (config.num_layers, num_slots + 1, heads, self.capacity, width)
        stored = torch.uint8 if dtype == FLOAT8 else dtype
        self.keys = torch.zeros(shape, dtype=stored, device=device)  # [L, B + 1, H, C, D]
        self.values = torch.zeros(shape, dtype=stored, device=device)
        scales = shape[:-1] if dtype == FLOAT8 else (config.num_layers, 0, 0, 0)
        self.key_scales = torch.zeros(scales, device=device)  # [L, B + 1, H, C], or nothing
        self.value_scales = torch.zeros(scales, device=device)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that hold the rings, by name."""
        kept = {"keys": self.keys, "values": self.values}
        if self.dtype == FLOAT8:
            kept |= {"key_scales": self.key_scales, "value_scales": self.value_scales}
        return kept

    def write(self, layer: int, slots: Tensor, places: Tensor, k: Tensor, v: Tensor) -> None:
        """Put new keys and values [R, H, T, D] into `places` [R, T] of `slots` [R]."""
        rows = slots[:, None]
        for new, ring, scales in (
            (k, self.keys[layer], self.key_scales[layer]),
            (v, self.values[layer], self.value_scales[layer]),
        ):
            if self.dtype == FLOAT8:
                new, scale = to_float8(new)
                scales[rows, :, places] = scale.transpose(1, 2)
            ring[rows, :, places] = new.to(ring.dtype).transpose(1, 2)  # [R, T, H, D]

    def read(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        """All places of `slots` as float32: keys and values [R, H, C, D]."""
        found: list[Tensor] = []
        for ring, scales in (
            (self.keys[layer], self.key_scales[layer]),
            (self.values[layer], self.value_scales[layer]),
        ):
            part = ring.index_select(0, slots)
            if self.dtype == FLOAT8:
                scale = scales.index_select(0, slots).unsqueeze(-1)
                found.append(part.view(FLOAT8).float() * scale)
            else:
                found.append(part.float())
        return found[0], found[1]

    # One slot.

    def first(self, slot: int) -> dict[str, Tensor]:
        """A copy of what place 0 holds in all layers."""
        return {name: kept[:, slot, :, 0].clone() for name, kept in self.tensors.items()}

    def put_first(self, slot: int, first: Mapping[str, Tensor]) -> None:
        """Put what `first` returned into place 0 of a slot, in all layers."""
        for name, kept in self.tensors.items():
            kept[:, slot, :, 0].copy_(first[name])

    def copy(self, slot: int, position: int) -> Iterator[tuple[str, Tensor]]:
        """Copies of the keys and values that the next step of a slot at `position` can see, oldest
        first: [L, H, P, ...], with their names. Each is made when it is iterated over."""
        places = self._places(position)
        for name, kept in self.tensors.items():
            yield name, kept[:, slot][:, :, places]

    def _places(self, position: int) -> Tensor:
        seen = min(position, self.config.window - 1)
        places = torch.arange(position - seen, position) % self.capacity
        return places.to(self.keys.device)

    def check(self, position: int, saved: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
        """The saved arrays as tensors that `put` can put into a slot.

        Raises:
            ValueError: the arrays do not fit the position, or hold invalid numbers.
            LookupError: one of them is missing.
        """
        if not 0 <= position <= MAX_POSITION:
            raise ValueError(f"a position of {position}")
        seen = min(position, self.config.window - 1)
        checked: dict[str, Tensor] = {}
        for name, kept in self.tensors.items():
            shape = (*kept[:, 0, :, :seen].shape,)
            checked[name] = _checked(name, saved[name], shape, kept.dtype)
        if self.dtype == FLOAT8 and any(
            bool((checked[name] & 0x7F == 0x7F).any()) for name in ("keys", "values")
        ):
            raise ValueError("keys or values that are not numbers")
        return checked

    def put(self, slot: int, position: int, checked: Mapping[str, Tensor]) -> None:
        """Put the tensors that `check` returned into a slot, which need not be the one they came
        from."""
        places = self._places(position)
        for name, kept in self.tensors.items():
            kept[:, slot][:, :, places] = checked[name].to(kept.device)


def ring_bytes(config: TransformerConfig, max_new: int, dtype: torch.dtype) -> int:
    """Bytes that the rings of one slot take."""
    width = config.head_dim * dtype.itemsize + (4 if dtype == FLOAT8 else 0)
    return 2 * config.num_layers * config.num_heads * ring_capacity(config, max_new) * width


def to_float8(x: Tensor) -> tuple[Tensor, Tensor]:
    """[..., D] -> the numbers in float8, as bits [..., D], and the scales [...] to multiply them
    by."""
    wide = x.float()
    scale = wide.abs().amax(-1).clamp(min=LEAST_SCALE) / FLOAT8_MAX
    return (wide / scale.unsqueeze(-1)).to(FLOAT8).view(torch.uint8), scale


def _checked(name: str, array: NDArray[Any], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A saved array as a tensor; ValueError unless it has this shape and dtype, and is finite."""
    tensor: Tensor = torch.from_numpy(array.copy())  # pyright: ignore[reportUnknownMemberType]
    wanted = _BITS.get(dtype, dtype)
    if tuple(tensor.shape) != shape or tensor.dtype != wanted:
        raise ValueError(
            f"{name} are {array.dtype} {list(array.shape)} where {wanted} {list(shape)} belong"
        )
    tensor = tensor.view(dtype)
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name} that are not finite")
    return tensor


def position_of(saved: Mapping[str, NDArray[Any]]) -> int:
    """The position in a saved slot; ValueError where there is no valid one."""
    position = saved["position"]
    if position.shape != (1,) or position.dtype != np.int64:
        raise ValueError("a position of another shape")
    return int(position[0])
