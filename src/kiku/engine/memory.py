"""Keys and values of the slots of one transformer, in buffers that ONNX Runtime writes in place."""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiku.config import REWIND_FRAMES, TransformerConfig

_SLACK_FRAMES = 80
"""Frames between two moves of a layer's keys. More would make attention, which computes over all
that lies in the buffer, slower; fewer, the moves more frequent."""

_MAX_POSITION = 2**42
"""Of a saved slot: what a slot hears in more than a thousand years."""


class Memory:
    """What the attention of B slots remembers.

    A layer's keys lie in order from place 0 of its buffer [B, H, P, D]; new ones are appended.
    Before the buffer is full, what the window and a rewind still need is moved to its beginning:
    not in all layers at once, so that no step waits for all of them.
    """

    def __init__(self, config: TransformerConfig, num_slots: int, max_block: int) -> None:
        """Nothing heard.

        Args:
            config: of the transformer.
            num_slots: B.
            max_block: positions that one call appends at most.
        """
        self.config = config
        self.num_slots = num_slots
        per_frame = config.positions_per_frame
        self._kept = config.window - 1 + REWIND_FRAMES * per_frame
        slack = _SLACK_FRAMES * per_frame
        self.capacity = self._kept + max_block + slack
        shape = (num_slots, config.num_heads, self.capacity, config.head_dim)
        # Zeros that nobody has touched cost no memory.
        self.keys = [np.zeros(shape, np.float32) for _ in range(config.num_layers)]
        self.values = [np.zeros(shape, np.float32) for _ in range(config.num_layers)]
        self.position = np.zeros(num_slots, np.int64)
        self._starts = np.zeros((config.num_layers, num_slots), np.int64)
        offsets = np.arange(config.num_layers) * slack // config.num_layers
        self._first_limits = self.capacity - offsets
        self._limits = np.repeat(self._first_limits[:, None], num_slots, axis=1)
        pairs = np.arange(0, config.head_dim, 2, dtype=np.float64)
        self._frequencies = config.rope_theta ** (-pairs / config.head_dim)

    def forget(self, slot: int) -> None:
        """Make a slot as new."""
        self.position[slot] = 0
        self._starts[:, slot] = 0
        self._limits[:, slot] = self._first_limits

    def make_room(self, slots: range, positions: int) -> None:
        """See to it that every one of `slots` can append so many positions."""
        places = self.position[slots.start : slots.stop] - self._starts[:, slots.start : slots.stop]
        limits = self._limits[:, slots.start : slots.stop]
        for layer, offset in np.argwhere(places + positions > limits):
            self._move(int(layer), slots.start + int(offset))

    def _move(self, layer: int, slot: int) -> None:
        """Bring what a layer still needs of a slot to the beginning of its buffer."""
        start, position = int(self._starts[layer, slot]), int(self.position[slot])
        new_start = max(start, position - self._kept)
        width = self.config.head_dim * 4
        count = (position - new_start) * width
        for buffer in (self.keys[layer], self.values[layer]):
            for head in buffer[slot]:  # [P, D], contiguous
                to = head.ctypes.data
                ctypes.memmove(to, to + (new_start - start) * width, count)
        self._starts[layer, slot] = new_start
        self._limits[layer, slot] = self.capacity

    def lengths(self, slots: range, counts: NDArray[np.int32]) -> NDArray[np.int32]:
        """[L, B] keys of each layer after appending `counts` [B], less one (0 at least)."""
        part = slice(slots.start, slots.stop)
        places = self.position[part] - self._starts[:, part] + counts - 1
        return np.maximum(places, 0).astype(np.int32)

    def angles(self, slots: range, positions: int) -> NDArray[np.float64]:
        """[B * S, D' / 2] of the next S positions of each slot; float64 keeps them exact for
        years."""
        first = self.position[slots.start : slots.stop, None]
        return (first + np.arange(positions)).reshape(-1, 1) * self._frequencies

    @property
    def num_saved(self) -> int:
        """How many arrays `save` gives."""
        return 1 + 2 * self.config.num_layers

    def save(self, slot: int) -> dict[str, NDArray[Any]]:
        """Copies of the keys and values that a slot's next step can see, [H, P, D] each, and its
        position."""
        seen = min(int(self.position[slot]), self.config.window - 1)
        saved: dict[str, NDArray[Any]] = {"position": self.position[slot : slot + 1].copy()}
        for layer in range(self.config.num_layers):
            last = int(self.position[slot] - self._starts[layer, slot])
            for name, buffers in (("keys", self.keys), ("values", self.values)):
                saved[f"{name}.{layer}"] = buffers[layer][slot, :, last - seen : last].copy()
        return saved

    def check(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Raise ValueError (or KeyError) unless `restore` could put these into a slot."""
        position = saved["position"]
        if position.shape != (1,) or position.dtype != np.int64:
            raise ValueError("a position of another shape")
        if not 0 <= int(position[0]) <= _MAX_POSITION:
            raise ValueError(f"a position of {int(position[0])}")
        seen = min(int(position[0]), self.config.window - 1)
        shape = (self.config.num_heads, seen, self.config.head_dim)
        for layer in range(self.config.num_layers):
            for name in ("keys", "values"):
                part = saved[f"{name}.{layer}"]
                if part.shape != shape or part.dtype != np.float32:
                    raise ValueError(f"{name} of {part.dtype} {list(part.shape)}, not {shape}")
                if not np.isfinite(part).all():
                    raise ValueError(f"{name} that are not finite")

    def restore(self, slot: int, saved: Mapping[str, NDArray[Any]]) -> None:
        """Put what `save` gave, and `check` let through, into any slot."""
        self.forget(slot)
        position = int(saved["position"][0])
        seen = saved["keys.0"].shape[1]
        for layer in range(self.config.num_layers):
            self.keys[layer][slot, :, :seen] = saved[f"keys.{layer}"]
            self.values[layer][slot, :, :seen] = saved[f"values.{layer}"]
        self.position[slot] = position
        self._starts[:, slot] = position - seen


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """Where the packed positions of a call belong."""

    slots: range
    """The neighbouring slots that the call goes over; some may be idle."""
    inputs: dict[str, NDArray[np.generic]]
    """As the graph declares them."""


def layout_of(memory: Memory, slots: NDArray[np.int64], counts: NDArray[np.int64]) -> BatchLayout:
    """The layout of `counts[i]` new positions of each of `slots`, which come packed in this
    order."""
    first_slot = int(slots.min())
    over = range(first_slot, int(slots.max()) + 1)
    most = int(counts.max())
    memory.make_room(over, most)
    rows = slots - first_slot
    by_slot = np.zeros(len(over), np.int32)
    by_slot[rows] = counts
    pad = np.zeros((len(over), most), np.int64)  # row and position -> place among the packed
    given = np.arange(most) < counts[:, None]
    places = np.zeros(given.shape, np.int64)
    places[given] = np.arange(int(counts.sum()))
    pad[rows] = places
    unpad = (rows[:, None] * most + np.arange(most))[given]  # packed -> place among the padded
    # ONNX Runtime asks for as many angles as there are keys.
    num_angles = max(memory.capacity, len(over) * most)
    cos, sin = (np.zeros((num_angles, memory.config.head_dim // 2), np.float32) for _ in range(2))
    angles = memory.angles(over, most)
    cos[: len(angles)], sin[: len(angles)] = np.cos(angles), np.sin(angles)
    return BatchLayout(
        over,
        {
            "spread": pad,
            "pack": unpad,
            "counts": by_slot,
            "lengths": memory.lengths(over, by_slot),
            "capacity": np.array(memory.capacity, np.int32),
            "angles": np.arange(len(over) * most).reshape(len(over), most),
            "cos": cos,
            "sin": sin,
        },
    )
