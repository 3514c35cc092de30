"""Attention over rings in plain PyTorch. It copies whole rings to float32, which is right and slow:
a kernel that reads only what a slot holds has its place behind `Attend`."""

from typing import Protocol

import torch
from torch import Tensor

from kiku.engine.gpu.rings import Rings
from kiku.nn.attention import visible_places
from kiku.nn.rope import rotate

ROWS_AT_ONCE = 32
"""Rows whose rings are copied at once: a thousand would take tens of gigabytes."""


class Attend(Protocol):
    """One layer's attention for T new positions of R rows."""

    def __call__(
        self,
        qkv: Tensor,
        angles: tuple[Tensor, Tensor],
        rings: Rings,
        layer: int,
        slots: Tensor,
        start: Tensor,
    ) -> Tensor:
        """Turn queries and keys, put keys and values into the ring, and attend.

        Args:
            qkv: [R, T, 3, H, D] what the input projection gave.
            angles: cosines and sines [R, 1, T, D / 2] of the new positions.
            rings: of all slots; written at the new positions.
            layer: which layer's.
            slots: [R] whose rows these are.
            start: [R] positions that each had heard before.

        Returns:
            [R, T, H * D] in the dtype of `qkv`.
        """
        ...


def attend_plainly(
    qkv: Tensor,
    angles: tuple[Tensor, Tensor],
    rings: Rings,
    layer: int,
    slots: Tensor,
    start: Tensor,
) -> Tensor:
    """See `Attend`. Reads whole rings, in float32."""
    R, T, _, H, D = qkv.shape
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [R, H, T, D]
    q, k = rotate(q, *angles), rotate(k, *angles)
    steps = torch.arange(T, device=qkv.device)
    rings.write(layer, slots, (start[:, None] + steps) % rings.capacity, k, v)
    parts = [
        _attend(q[rows], rings, layer, slots[rows], start[rows])
        for rows in (slice(at, at + ROWS_AT_ONCE) for at in range(0, R, ROWS_AT_ONCE))
    ]
    return torch.cat(parts).transpose(1, 2).reshape(R, T, H * D).to(qkv.dtype)


def _attend(q: Tensor, rings: Rings, layer: int, slots: Tensor, start: Tensor) -> Tensor:
    """[R, H, T, D] -> [R, H, T, D] over rings that hold the new keys already."""
    T, D = q.shape[2:]
    keys, values = rings.read(layer, slots)
    everyone = torch.ones_like(slots, dtype=torch.bool)
    visible = visible_places(
        start, T, everyone, rings.capacity, rings.config.window, rings.capacity
    )  # [R, T, C]
    scores = (q * D**-0.5) @ keys.transpose(2, 3)  # [R, H, T, C]
    weights = scores.masked_fill(~visible[:, None], -torch.inf).softmax(-1)
    # What lies in a ring from before a slot was opened may be anything, and 0 times NaN is NaN.
    seen = visible.any(1)[:, None, :, None]  # [R, 1, C, 1]
    return weights @ values.masked_fill(~seen, 0.0)
