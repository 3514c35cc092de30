"""Keys and values of the slots of one transformer, in buffers that ONNX Runtime writes in place."""

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from kiku.config import MAX_POSITION, REWIND_FRAMES, TransformerConfig
from kiku.graph import SCALE_BYTES

_SLACK_FRAMES = 80
"""Frames between two moves of a layer's keys. More would make attention, which computes over all
that lies in the buffer, slower; fewer, the moves more frequent."""

_KEPT_TYPES = (np.dtype(np.float32), np.dtype(np.float16), np.dtype(np.int8))
"""Dtypes of keys and values; a saved slot may have any, whichever is kept here. A row of int8 has
its scale, a float32, behind its numbers."""

_GREATEST = float(np.finfo(np.float16).max)
"""Keys in 16 and 8 bits are cut off there."""

_LEAST = 1e-30
"""A row of int8 whose numbers are all smaller is one of zeros: 127 divided by less might be
infinite."""


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """To which slots the packed positions of a call belong, and where in them."""

    slots: range
    """The neighbouring slots that the call goes over; some may be idle."""
    inputs: dict[str, NDArray[np.generic]]
    """The layout for the graph: some of its inputs, by the names that it declares."""


class PositionMemory(ABC):
    """The memory of the attention of B slots: keys and values of each layer, [B, H, P, D]; in int8
    [B, H, P, D + 4].

    Their order along P depends on the operator that reads them.
    """

    def __init__(
        self,
        config: TransformerConfig,
        num_slots: int,
        capacity: int,
        dtype: type[np.generic],
    ) -> None:
        """All slots are new and empty.

        Args:
            config: of the transformer.
            num_slots: B.
            capacity: P.
            dtype: of keys and values.
        """
        self.config, self.num_slots, self.capacity = config, num_slots, capacity
        shape = (num_slots, config.num_heads, capacity, _row_length(config.head_dim, dtype))
        # Zeros cost no memory until they are written to.
        self.dtype = dtype
        self.keys: list[NDArray[Any]] = [np.zeros(shape, dtype) for _ in range(config.num_layers)]
        self.values: list[NDArray[Any]] = [np.zeros(shape, dtype) for _ in range(config.num_layers)]
        self.position = np.zeros(num_slots, np.int64)
        pairs = np.arange(0, config.head_dim, 2, dtype=np.float64)
        self._frequencies = config.rope_theta ** (-pairs / config.head_dim)

    @abstractmethod
    def layout(self, slots: NDArray[np.int64], counts: NDArray[np.int64]) -> BatchLayout:
        """The layout of `counts[i]` new positions of each of `slots`, which come packed in this
        order."""

    @abstractmethod
    def _places(self, layer: int, slot: int, count: int) -> Any:
        """An index along P: where the last `count` positions of a slot lie, in order."""

    def forget(self, slot: int) -> None:
        """Make a slot as new."""
        self.position[slot] = 0

    def _turns(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.float32], ...]:
        """Cosines and sines [..., D / 2] of positions [...]; float64 keeps them exact for years."""
        angles = positions[..., None] * self._frequencies
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    @property
    def num_saved(self) -> int:
        """How many arrays `save` gives."""
        return 1 + 2 * self.config.num_layers

    def save(self, slot: int) -> dict[str, NDArray[Any]]:
        """Copies of the keys and values that a slot's next step can see, [H, P, D] each (in int8
        [H, P, D + 4]), in order, and its position."""
        seen = min(int(self.position[slot]), self.config.window - 1)
        saved: dict[str, NDArray[Any]] = {"position": self.position[slot : slot + 1].copy()}
        for layer in range(self.config.num_layers):
            places = self._places(layer, slot, seen)
            saved[f"keys.{layer}"] = self.keys[layer][slot][:, places].copy()
            saved[f"values.{layer}"] = self.values[layer][slot][:, places].copy()
        return saved

    def check(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Raise ValueError (or KeyError) unless `restore` could put these into a slot."""
        position = saved["position"]
        if position.shape != (1,) or position.dtype != np.int64:
            raise ValueError("a position of another shape")
        if not 0 <= int(position[0]) <= MAX_POSITION:
            raise ValueError(f"a position of {int(position[0])}")
        seen = min(int(position[0]), self.config.window - 1)
        for layer in range(self.config.num_layers):
            for name in ("keys", "values"):
                part = saved[f"{name}.{layer}"]
                length = _row_length(self.config.head_dim, part.dtype)
                shape = (self.config.num_heads, seen, length)
                if part.shape != shape or part.dtype not in _KEPT_TYPES:
                    raise ValueError(f"{name} of {part.dtype} {list(part.shape)}, not {shape}")
                if not np.isfinite(_widened(part)).all():
                    raise ValueError(f"{name} that are not finite")

    def restore(self, slot: int, saved: Mapping[str, NDArray[Any]]) -> None:
        """Put what `save` gave, and `check` let through, into any slot."""
        self.forget(slot)
        self.position[slot] = int(saved["position"][0])
        seen = saved["keys.0"].shape[1]
        for layer in range(self.config.num_layers):
            places = self._restored_places(layer, slot, seen)
            for name, buffers in (("keys", self.keys), ("values", self.values)):
                buffers[layer][slot][:, places] = _kept(saved[f"{name}.{layer}"], self.dtype)

    def _restored_places(self, layer: int, slot: int, seen: int) -> Any:
        """An index along P: where the last `seen` positions go in a slot that was forgotten."""
        return self._places(layer, slot, seen)


def _row_length(head_dim: int, dtype: DTypeLike) -> int:
    """Numbers of a row; the four behind those in int8 are the bytes of their scale."""
    return head_dim + SCALE_BYTES if np.dtype(dtype) == np.int8 else head_dim


def _kept(rows: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """Rows [..., D], or [..., D + 4] in int8, of any dtype in another one."""
    if rows.dtype == dtype:
        return rows
    rows = _widened(rows)
    if dtype is np.float32:
        return rows
    rows = np.clip(rows, -_GREATEST, _GREATEST)
    return rows.astype(dtype) if dtype is np.float16 else _narrowed(rows)


def _widened(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Rows [..., D], or [..., D + 4] in int8, as float32 [..., D]."""
    if rows.dtype != np.int8:
        return rows.astype(np.float32, copy=False)
    scales = np.ascontiguousarray(rows[..., -SCALE_BYTES:]).view(np.float32)
    return rows[..., :-SCALE_BYTES] * scales


def _narrowed(rows: NDArray[np.float32]) -> NDArray[np.int8]:
    """Rows [..., D] as int8 [..., D + 4], rounded as the operator of `kiku-kernels` does."""
    greatest = np.abs(rows).max(axis=-1, keepdims=True)
    tiny = greatest < np.float32(_LEAST)
    steps = np.where(tiny, np.float32(0), np.float32(127) / np.where(tiny, 1, greatest))
    numbers = np.rint(rows * steps).astype(np.int8)
    scales = (greatest / np.float32(127)).astype(np.float32)
    return np.concatenate([numbers, scales.view(np.int8)], axis=-1)


class RingMemory(PositionMemory):
    """For the operators of `kiku-kernels`: position p lies at p mod P, and nothing is moved."""

    def __init__(
        self,
        config: TransformerConfig,
        num_slots: int,
        max_block: int,
        dtype: type[np.generic] = np.float32,
    ) -> None:
        """All slots are empty; one call appends `max_block` positions at most."""
        kept = config.window - 1 + REWIND_FRAMES * config.positions_per_frame
        super().__init__(config, num_slots, kept + max_block, dtype)

    def _places(self, layer: int, slot: int, count: int) -> NDArray[np.int64]:
        last = int(self.position[slot])
        return np.arange(last - count, last, dtype=np.int64) % self.capacity

    def layout(self, slots: NDArray[np.int64], counts: NDArray[np.int64]) -> BatchLayout:
        """See `PositionMemory.layout`."""
        first_slot = int(slots.min())
        over = range(first_slot, int(slots.max()) + 1)
        rows = slots - first_slot
        begins = np.cumsum(counts) - counts
        by_slot, firsts = (np.zeros(len(over), np.int32) for _ in range(2))
        by_slot[rows], firsts[rows] = counts, begins
        within = np.arange(int(counts.sum())) - np.repeat(begins, counts)
        cos, sin = self._turns(np.repeat(self.position[slots], counts) + within)
        return BatchLayout(
            over,
            {
                "counts": by_slot,
                "firsts": firsts,
                "positions": self.position[over.start : over.stop],
                "cos": cos,
                "sin": sin,
            },
        )


class OrderedMemory(PositionMemory):
    """For ONNX Runtime's own operator: a layer's keys lie in order from place 0; new ones are
    appended.

    Before the buffer is full, the keys that the window and a rewind still need are moved to its
    beginning: not in all layers at once, so that no step waits for all of them.
    """

    def __init__(self, config: TransformerConfig, num_slots: int, max_block: int) -> None:
        """All slots are empty; one call appends `max_block` positions at most."""
        self._kept = config.window - 1 + REWIND_FRAMES * config.positions_per_frame
        slack = _SLACK_FRAMES * config.positions_per_frame
        super().__init__(config, num_slots, self._kept + max_block + slack, np.float32)
        self._starts = np.zeros((config.num_layers, num_slots), np.int64)
        offsets = np.arange(config.num_layers) * slack // config.num_layers
        self._first_limits = self.capacity - offsets
        self._limits = np.repeat(self._first_limits[:, None], num_slots, axis=1)

    def forget(self, slot: int) -> None:
        """See `PositionMemory.forget`."""
        super().forget(slot)
        self._starts[:, slot] = 0
        self._limits[:, slot] = self._first_limits

    def _places(self, layer: int, slot: int, count: int) -> slice:
        last = int(self.position[slot] - self._starts[layer, slot])
        return slice(last - count, last)

    def _restored_places(self, layer: int, slot: int, seen: int) -> slice:
        self._starts[layer, slot] = self.position[slot] - seen
        return slice(0, seen)

    def make_room(self, slots: range, positions: int) -> None:
        """Make room for `positions` new positions in each of `slots`."""
        places = self.position[slots.start : slots.stop] - self._starts[:, slots.start : slots.stop]
        limits = self._limits[:, slots.start : slots.stop]
        for layer, offset in np.argwhere(places + positions > limits):
            self._move(int(layer), slots.start + int(offset))

    def _move(self, layer: int, slot: int) -> None:
        """Move the keys and values of a slot that a layer still needs to the buffer's beginning."""
        start, position = int(self._starts[layer, slot]), int(self.position[slot])
        new_start = max(start, position - self._kept)
        width = self.config.head_dim * self.keys[layer].itemsize
        count = (position - new_start) * width
        for buffer in (self.keys[layer], self.values[layer]):
            for head in buffer[slot]:  # [P, D], contiguous
                to = head.ctypes.data
                ctypes.memmove(to, to + (new_start - start) * width, count)
        self._starts[layer, slot] = new_start
        self._limits[layer, slot] = self.capacity

    def _lengths(self, slots: range, counts: NDArray[np.int32]) -> NDArray[np.int32]:
        """[L, B] keys of each layer after `counts` [B] are appended, minus one (0 at least)."""
        part = slice(slots.start, slots.stop)
        places = self.position[part] - self._starts[:, part] + counts - 1
        return np.maximum(places, 0).astype(np.int32)

    def layout(self, slots: NDArray[np.int64], counts: NDArray[np.int64]) -> BatchLayout:
        """See `PositionMemory.layout`; the operator wants positions laid out by slot, [B, S]."""
        first_slot = int(slots.min())
        over = range(first_slot, int(slots.max()) + 1)
        most = int(counts.max())
        self.make_room(over, most)
        rows = slots - first_slot
        by_slot = np.zeros(len(over), np.int32)
        by_slot[rows] = counts
        pad = np.zeros((len(over), most), np.int64)  # row and position -> place among the packed
        given = np.arange(most) < counts[:, None]
        places = np.zeros(given.shape, np.int64)
        places[given] = np.arange(int(counts.sum()))
        pad[rows] = places
        unpad = (rows[:, None] * most + np.arange(most))[given]  # packed -> place among the padded
        # ONNX Runtime wants at least as many angles as there are keys.
        num_angles = max(self.capacity, len(over) * most)
        shape = (num_angles, self.config.head_dim // 2)
        cos, sin = (np.zeros(shape, np.float32) for _ in range(2))
        positions = self.position[over.start : over.stop, None] + np.arange(most)
        cos[: positions.size], sin[: positions.size] = self._turns(positions.reshape(-1))
        return BatchLayout(
            over,
            {
                "spread": pad,
                "pack": unpad,
                "counts": by_slot,
                "lengths": self._lengths(over, by_slot),
                "capacity": np.array(self.capacity, np.int32),
                "angles": np.arange(len(over) * most).reshape(len(over), most),
                "cos": cos,
                "sin": sin,
            },
        )
