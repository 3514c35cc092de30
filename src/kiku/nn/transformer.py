# pyright: basic
# What torch gives is only partly typed.
"""A causal transformer: any number of positions a call, any number of unsynchronised slots."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kiku.config import TransformerConfig
from kiku.nn.attention import CausalAttention, Places, visible_places
from kiku.nn.rope import Rope
from kiku.nn.state import KVRing


class RMSNorm(nn.Module):
    """`x * weight / rms(x)`, in float32 whatever the dtype of x (upstream: `rms_norm_f32`)."""

    def __init__(self, dim: int, eps: float) -> None:
        """`eps` is added to the mean square (1e-8 upstream)."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]"""
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * (self.weight.float() * scale)).to(x.dtype)


class FeedForward(nn.Module):
    """Two linear maps with `gelu` between, or with a gate: `silu(first half) * second half`."""

    def __init__(self, config: TransformerConfig) -> None:
        """No biases."""
        super().__init__()
        self.gated = config.gated
        self.linear_in = nn.Linear(
            config.dim, config.ffn_dim * (2 if config.gated else 1), bias=False
        )
        self.linear_out = nn.Linear(config.ffn_dim, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]"""
        x = self.linear_in(x)
        if self.gated:
            gate, value = x.chunk(2, dim=-1)
            return self.linear_out(F.silu(gate) * value)
        return self.linear_out(F.gelu(x))


class TransformerLayer(nn.Module):
    """Attention and feed-forward, each on a normed branch that is added back (scaled, where the
    config says so)."""

    def __init__(self, config: TransformerConfig) -> None:
        """Pre-norm."""
        super().__init__()

        def norm() -> nn.Module:
            if config.norm == "rms":
                return RMSNorm(config.dim, config.norm_eps)
            return nn.LayerNorm(config.dim, eps=config.norm_eps)

        self.norm1, self.norm2 = norm(), norm()
        self.attention = CausalAttention(config)
        self.feed_forward = FeedForward(config)
        self.scale1 = nn.Parameter(torch.full((config.dim,), 0.01)) if config.layer_scale else None
        self.scale2 = nn.Parameter(torch.full((config.dim,), 0.01)) if config.layer_scale else None

    def forward(self, x: Tensor, ring: KVRing, places: Places) -> Tensor:
        """[B, T, D] -> [B, T, D]"""
        update = self.attention(self.norm1(x), ring, places)
        x = x + (update if self.scale1 is None else self.scale1 * update)
        update = self.feed_forward(self.norm2(x))
        return x + (update if self.scale2 is None else self.scale2 * update)


@dataclass
class TransformerState:
    """How far each slot has come, and the keys and values of its window."""

    position: Tensor  # [B] int64
    rings: list[KVRing]


class Transformer(nn.Module):
    """Layers over one shared window; positions are counted per slot and never wrap in practice."""

    def __init__(self, config: TransformerConfig) -> None:
        """There is no norm at the end: the caller adds one where the model has it."""
        super().__init__()
        self.config = config
        self.rope = Rope(config.head_dim, config.rope_theta)
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_layers))

    def init_state(
        self,
        batch_size: int,
        device: torch.device | str,
        dtype: torch.dtype,
        *,
        remember: bool = True,
        longest: int | None = None,
    ) -> TransformerState:
        """An empty past. With `remember=False`: for one whole sequence in one call (training),
        nothing kept. `longest` says how many positions a slot comes to at most, which saves room;
        None is any number."""
        capacity = self.config.capacity if remember else 0
        if longest is not None:
            capacity = min(capacity, longest)
        rings = [
            layer.attention.init_state(batch_size, device, dtype, capacity=capacity)  # pyright: ignore
            for layer in self.layers
        ]
        return TransformerState(torch.zeros(batch_size, dtype=torch.int64, device=device), rings)

    def forward(
        self,
        x: Tensor,
        state: TransformerState,
        active: Tensor,
        *,
        trace: list[Tensor] | None = None,
        horizon: int | None = None,
    ) -> Tensor:
        """Advance by T positions.

        Args:
            x: [B, T, D].
            state: what is remembered; advanced in place where `active`.
            active: [B] which slots get input in this call.
            trace: if given, the input of each layer [B, T, D] is appended, span by span (T at
                most `config.span`), for inspection.
            horizon: no active slot will be past this position after the call. Places of the rings
                beyond it are then not read, which makes young streams faster. None reads all.

        Returns:
            [B, T, D]; rows of inactive slots hold no meaning.
        """
        capacity = state.rings[0].keys.shape[2]
        num_places = capacity if horizon is None else min(capacity, horizon)
        if capacity == 0 or x.shape[1] <= self.config.span:
            return self._advance(x, state, active, trace, num_places)
        # A long block goes through span by span: the ring has room for one beyond the window.
        spans = x.split(self.config.span, dim=1)
        parts = [self._advance(span, state, active, trace, num_places) for span in spans]
        return torch.cat(parts, dim=1)

    def _advance(
        self,
        x: Tensor,
        state: TransformerState,
        active: Tensor,
        trace: list[Tensor] | None,
        num_places: int,
    ) -> Tensor:
        T = x.shape[1]
        capacity = state.rings[0].keys.shape[2]
        positions = state.position[:, None] + torch.arange(T, device=x.device)
        cos, sin = self.rope(positions)
        visible = visible_places(
            state.position, T, active, capacity, self.config.window, num_places
        )
        places = Places(
            cos, sin, positions.remainder(max(capacity, 1)), visible.unsqueeze(1), active
        )
        for layer, ring in zip(self.layers, state.rings, strict=True):
            if trace is not None:
                trace.append(x)
            x = layer(x, ring, places)
        state.position.add_(T * active)
        return x
