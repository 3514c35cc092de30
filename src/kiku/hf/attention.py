"""Run the decoder layer by layer: with any view, attention weights, checkpointed gradients.

The decoder's own `Transformer` supports one window and consecutive positions only. Here the caller
says what each column sees, and can ask for the attention weights, which `Transformer` never forms.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

from kiku.hf.layout import Layout
from kiku.lm import LM, LMState
from kiku.nn.attention import Places, visible_places
from kiku.nn.rope import rotate
from kiku.nn.state import KVRing, all_active


@dataclass(frozen=True)
class Checkpointing:
    """Which layers drop their activations and recompute them for the gradients, and how."""

    run: Callable[..., Tensor]
    """Runs a function of tensors, as `torch.utils.checkpoint` does."""
    every: int
    """In each group of this many layers the first is checkpointed."""


def checkpointing_with(arguments: dict[str, Any], every: int) -> Checkpointing:
    """Checkpoint every `every`-th layer by `torch.utils.checkpoint` with these arguments."""
    return Checkpointing(partial(checkpoint, **arguments), every)  # pyright: ignore


def run_layers(
    lm: LM,
    x: Tensor,
    layout: Layout,
    *,
    trace: list[Tensor] | None = None,
    weights: list[Tensor] | None = None,
    checkpointing: Checkpointing | None = None,
) -> Tensor:
    """Read one whole sequence, without a past.

    Args:
        lm: the decoder.
        x: [B, T, D] summed embeddings.
        layout: what each column sees, and its position.
        trace: if given, the input of each layer is appended, padding as zeros.
        weights: if given, the attention weights [B, H, T, T] of each layer are appended.
        checkpointing: checkpoints layers; None checkpoints none.

    Returns:
        [B, T, D] before the last norm.
    """
    B, T, _ = x.shape
    places = _places(lm, layout, B, T, x.device)
    state = lm.init_state(B, x.device, x.dtype, remember=False)
    layers = zip(lm.transformer.layers, state.rings, strict=True)
    for i, (layer, ring) in enumerate(layers):
        if trace is not None:
            if layout.real is not None:  # no real column looks at padding, so its value is free
                x = x.masked_fill(~layout.real.unsqueeze(-1), 0)
            trace.append(x)
        if weights is not None:
            weights.append(_weights(layer, x, None, places))
        if checkpointing is None or i % checkpointing.every:
            x = layer(x, ring, places)
        else:
            x = checkpointing.run(layer, x, ring, places)
    return x


def _places(lm: LM, layout: Layout, B: int, T: int, device: torch.device) -> Places:
    positions = layout.positions
    # Only differences matter; the table of cosines begins at 0, but a row may count from below 0.
    positions = positions - positions.min(1, keepdim=True).values if T else positions
    view = layout.view
    if view is None:
        window = lm.config.transformer.window
        columns = torch.arange(T, device=device)
        age = columns[:, None] - columns
        view = ((age >= 0) & (age < window)).expand(B, 1, T, T)
        if layout.real is not None:
            view = view & layout.real[:, None, None, :] | (age == 0)
    if view.is_floating_point():
        view = view.to(lm.out_norm.weight.dtype)
    cos, sin = lm.transformer.rope(positions)
    return Places(cos, sin, positions, view, all_active(B, device))


def _weights(layer: Any, x: Tensor, keys: Tensor | None, places: Places) -> Tensor:
    """[B, H, T, P] attention weights: the share of each key in what a column takes in.

    The softmax is computed in float32, as in transformers.

    Args:
        layer: a layer of the decoder.
        x: [B, T, D] its input.
        keys: [B, H, P, D] keys of a ring; None takes those of `x`.
        places: see `CausalAttention`.
    """
    attention = layer.attention
    B, T, _ = x.shape
    projected = attention.in_proj(layer.norm1(x))
    q, k, _ = projected.view(B, T, 3, attention.num_heads, attention.head_dim).permute(
        2, 0, 3, 1, 4
    )
    q = rotate(q, places.cos, places.sin).to(x.dtype)
    if keys is None:
        keys = rotate(k, places.cos, places.sin).to(x.dtype)
    scores = q @ keys.to(q.dtype).transpose(-1, -2) * attention.head_dim**-0.5
    if places.visible.dtype == torch.bool:
        scores = scores.masked_fill(~places.visible, -torch.inf)
    else:
        scores = scores + places.visible
    return scores.softmax(-1, dtype=torch.float32).to(x.dtype)


def weights_with_past(
    lm: LM, inputs: list[Tensor], state: LMState, start: int, num_before: int
) -> list[Tensor]:
    """The attention weights of the columns that were read last, all rows at the same position.

    Args:
        lm: the decoder.
        inputs: the input of each layer, [B, T, D]; T is at most one span.
        state: the decoder's state after it has read these columns.
        start: position of the first of these columns.
        num_before: how many columns before them to include.

    Returns:
        For each layer [B, H, T, num_before + T], in the order of the columns.
    """
    B, T, _ = inputs[0].shape
    device, config = inputs[0].device, lm.config.transformer
    positions = torch.arange(start, start + T, device=device).expand(B, T)
    active = all_active(B, device)
    cos, sin = lm.transformer.rope(positions)
    capacity = config.capacity
    visible = visible_places(positions[:, 0], T, active, capacity, config.window, capacity)
    shown = torch.arange(start - num_before, start + T, device=device).remainder(capacity)
    places = Places(cos, sin, positions, visible.unsqueeze(1)[..., shown], active)
    rings: list[KVRing] = state.rings
    return [
        _weights(layer, x, ring.keys[:, :, shown], places)
        for layer, x, ring in zip(lm.transformer.layers, inputs, rings, strict=True)
    ]
