# pyright: basic
# What torch gives is only partly typed.
"""Rotary positions that stay exact for days."""

from typing import Any

import torch
from torch import Tensor, nn

_LOW = 2048
_HIGH = 8192


class Rope(nn.Module):
    """Cosines and sines of `position * frequency`, at any position below 16.7 million.

    In float32 the product itself loses its fraction: at position 2^16 the angle of the first pair
    is off by 4e-3. So a position is split into two digits, whose cosines and sines come from tables
    made in float64, and the angle-addition formula joins them: the error stays at float32's last
    digits (tested against float64 up to 2^23).
    """

    cos_low: Tensor
    sin_low: Tensor
    cos_high: Tensor
    sin_high: Tensor

    def __init__(self, head_dim: int, theta: float) -> None:
        """Frequencies are `theta ** (-2i / head_dim)`."""
        super().__init__()
        self.head_dim, self.theta = head_dim, theta
        for name in ("cos_low", "sin_low", "cos_high", "sin_high"):
            self.register_buffer(name, torch.empty(0), persistent=False)
        self.fill("cpu")

    def fill(self, device: torch.device | str) -> None:
        """Make the tables on `device`."""
        pairs = torch.arange(0, self.head_dim, 2, dtype=torch.float64, device="cpu")
        frequencies = self.theta ** (-pairs / self.head_dim)
        for digit, count, unit in (("low", _LOW, 1), ("high", _HIGH, _LOW)):
            angles = (
                torch.arange(count, dtype=torch.float64, device="cpu")[:, None] * unit * frequencies
            )
            setattr(self, f"cos_{digit}", angles.cos().float().to(device))
            setattr(self, f"sin_{digit}", angles.sin().float().to(device))

    def _apply(self, fn: Any, recurse: bool = True) -> "Rope":
        """Follow a move to another device, but stay in float32 when the model is cast."""
        super()._apply(fn, recurse)
        if self.cos_low.dtype != torch.float32:
            self.fill(self.cos_low.device)
        return self

    def forward(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T] positions -> cos, sin [B, 1, T, D / 2] in float32 (the axis of the heads is kept
        open)."""
        low = position % _LOW
        high = torch.div(position, _LOW, rounding_mode="floor") % _HIGH
        cl, sl, ch, sh = (
            self.cos_low[low],
            self.sin_low[low],
            self.cos_high[high],
            self.sin_high[high],
        )
        return (ch * cl - sh * sl).unsqueeze(1), (sh * cl + ch * sl).unsqueeze(1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """[B, H, T, D] turned pair by pair (0, 1), (2, 3), ...; in float32, whatever the dtype of x."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)  # each [B, H, T, D / 2]
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return turned.flatten(-2)
