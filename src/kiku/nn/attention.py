"""Causal attention over a sliding window, with keys and values of the past in a ring."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kiku.config import TransformerConfig
from kiku.nn.rope import rotate
from kiku.nn.state import KVRing


@dataclass(frozen=True)
class Places:
    """Where the new positions of one call are. The same for every layer, so computed once a
    call."""

    cos: Tensor  # [B, 1, T, D / 2]
    sin: Tensor  # [B, 1, T, D / 2]
    taken: Tensor  # [B, T] places in the ring that the new positions take
    visible: Tensor  # [B, 1, T, P] which keys each query sees
    active: Tensor  # [B]


def visible_places(
    position: Tensor, num_new: int, active: Tensor, capacity: int, window: int, num_places: int
) -> Tensor:
    """Which places of the ring each new query sees, once the new keys are written.

    Args:
        position: [B] how many positions each slot had seen before.
        num_new: T, positions of this call; at most `capacity - window + 1`.
        active: [B] slots whose new keys are written.
        capacity: places of the ring; 0 means the keys are just the new ones.
        window: keys that a query sees, its own included.
        num_places: P, places that are read, counted from the first; at most the capacity.

    Returns:
        [B, T, P] (P = T where the capacity is 0).
    """
    steps = torch.arange(num_new, device=position.device)
    queries = position[:, None] + steps  # [B, T]
    if capacity == 0:
        holds = queries[:, None, :]  # [B, 1, T]
    else:
        last = position - 1 + num_new * active  # [B] newest position in the ring
        places = torch.arange(num_places, device=position.device)
        holds = last[:, None] - (last[:, None] - places).remainder(capacity)  # [B, P]
        holds = holds[:, None, :]
    age = queries[:, :, None] - holds
    return (holds >= 0) & (age >= 0) & (age < window)


class CausalAttention(nn.Module):
    """Self-attention; one fused input projection in the order query, key, value."""

    def __init__(self, config: TransformerConfig) -> None:
        """No biases, as in both of Kyutai's transformers."""
        super().__init__()
        self.num_heads, self.head_dim = config.num_heads, config.head_dim
        inner = config.num_heads * config.head_dim
        self.in_proj = nn.Linear(config.dim, 3 * inner, bias=False)
        self.out_proj = nn.Linear(inner, config.dim, bias=False)

    def init_state(
        self, batch_size: int, device: torch.device | str, dtype: torch.dtype, *, capacity: int
    ) -> KVRing:
        """An empty ring of `capacity` positions."""
        shape = (batch_size, self.num_heads, capacity, self.head_dim)
        return KVRing(
            torch.zeros(shape, device=device, dtype=dtype),
            torch.zeros(shape, device=device, dtype=dtype),
        )

    def forward(self, x: Tensor, ring: KVRing, places: Places) -> Tensor:
        """[B, T, D] -> [B, T, D]; the ring takes the new keys and values of active slots."""
        B, T, _ = x.shape
        q, k, v = (
            self.in_proj(x).view(B, T, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        )
        # Attention is computed in the dtype of the ring, which may be wider than that of the
        # weights: for a single bfloat16 query PyTorch's kernel for CPUs takes eight times as long
        # as for a float32 one.
        dtype = ring.keys.dtype
        q = rotate(q, places.cos, places.sin).to(dtype)
        k = rotate(k, places.cos, places.sin).to(dtype)
        v = v.to(dtype)  # each [B, H, T, D]
        if ring.keys.shape[2]:
            _write(ring.keys, k, places)
            _write(ring.values, v, places)
            num_places = places.visible.shape[-1]
            k, v = ring.keys[:, :, :num_places], ring.values[:, :, :num_places]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=places.visible)
        return self.out_proj(out.transpose(1, 2).reshape(B, T, -1).to(x.dtype))


def _write(ring: Tensor, new: Tensor, places: Places) -> None:
    """Put `new` [B, H, T, D] into the places of active slots; the others keep what they have."""
    rows = torch.arange(ring.shape[0], device=ring.device)[:, None]
    kept = torch.where(
        places.active[:, None, None, None], new.transpose(1, 2), ring[rows, :, places.taken]
    )
    ring[rows, :, places.taken] = kept  # [B, T, H, D]
