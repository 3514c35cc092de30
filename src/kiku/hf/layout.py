"""Which columns of a call are real, their positions, and which columns each one sees.

There are two kinds of layout. In a plain one the real columns of each row follow one another
without a gap: padding is then left out altogether, and there may be a past. Everything else (a hole
that takes positions, positions that skip or begin again, a mask of four axes) is an open one: each
column has its own position and its own view, and there is no past.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kiku.errors import InputError
from kiku.hf.outputs import KyutaiSpeechToTextCache

_NO_PAST = (
    "; they are taken without a past only: leave past_key_values out, and use_cache=True as well"
)


@dataclass(frozen=True)
class Layout:
    """Positions, padding and view of the T columns of one call."""

    positions: Tensor
    """[B, T] positions as the caller counts them."""
    real: Tensor | None
    """[B, T] which columns are real, that is no padding; None if all are."""
    view: Tensor | None
    """[B or 1, 1 or H, T, T] which columns each one sees (booleans, or numbers that are added to
    the scores); None in a plain layout."""


def attention_layout(
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
    embeds: Tensor,
    past: KyutaiSpeechToTextCache | None,
    window: int,
) -> Layout:
    """The layout that a mask and positions ask for.

    Args:
        attention_mask: [B, T], [B, past + T], or [B or 1, H or 1, T, T].
        position_ids: [B or 1, T]; None counts the columns.
        embeds: [B, T, D] the columns.
        past: the columns read before, or None.
        window: columns that each one sees at most, its own included.

    Raises:
        InputError: shapes that do not fit, or an open layout after a past.
    """
    B, T, _ = embeds.shape
    seen = 0 if past is None else past.get_seq_length()
    if position_ids is None:
        positions = torch.arange(seen, seen + T, device=embeds.device).expand(B, T)
    else:
        positions = _positions(position_ids.to(embeds.device), B, T)
    if attention_mask is not None:
        attention_mask = attention_mask.to(embeds.device)
        if attention_mask.dim() == 4:
            _check_four_axes(attention_mask, B, T, past)
            return Layout(positions, None, attention_mask)
    mask = _two_axes(attention_mask, B, T, seen)
    new = None if mask is None else mask[:, mask.shape[1] - T :]
    real = None if new is None or bool(new.all()) else new
    if position_ids is None:
        is_plain = mask is None or not _has_hole(mask)
    else:
        is_plain = _counts_on(positions, real, past)
    if is_plain:
        return Layout(positions, real, None)
    if past is not None and seen:
        what = (
            "attention_mask has a hole"
            if position_ids is None
            else ("position_ids do not count on from one real column to the next")
        )
        raise InputError(what + _NO_PAST)
    return Layout(positions, real, _open_view(positions, real, position_ids, mask, window))


def _positions(position_ids: Tensor, B: int, T: int) -> Tensor:
    shape = position_ids.shape
    if (
        position_ids.dim() not in (1, 2)
        or shape[-1] != T
        or (len(shape) == 2 and shape[0] not in (1, B))
    ):
        raise InputError(f"position_ids must be [{B}, {T}] (batch, positions), not {list(shape)}")
    return position_ids.expand(B, T)


def _check_four_axes(mask: Tensor, B: int, T: int, past: Any) -> None:
    if past is not None and past.get_seq_length():
        raise InputError("attention_mask has four axes" + _NO_PAST)
    fits = mask.shape[0] in (1, B) and mask.shape[2:] == (T, T)
    if not fits or not (mask.dtype == torch.bool or mask.is_floating_point()):
        raise InputError(
            f"an attention_mask of four axes must be [{B}, 1 or heads, {T}, {T}], booleans or "
            f"numbers to add, not {list(mask.shape)} of {mask.dtype}"
        )


def _two_axes(attention_mask: Tensor | None, B: int, T: int, seen: int) -> Tensor | None:
    if attention_mask is None:
        return None
    shape = attention_mask.shape
    if attention_mask.dim() != 2 or shape[0] != B or shape[1] not in (T, seen + T):
        raise InputError(
            f"attention_mask must be [batch, past + positions] = [{B}, {seen + T}], or of four "
            f"axes, not {list(shape)}"
        )
    return attention_mask.bool()


def _has_hole(mask: Tensor) -> bool:
    if not mask.shape[1]:
        return False
    edges = (mask[:, 1:] != mask[:, :-1]).sum(1) + mask[:, 0].int() + mask[:, -1].int()
    return bool((edges > 2).any())


def _counts_on(positions: Tensor, real: Tensor | None, past: Any) -> bool:
    """Whether each real column's position is one more than that of the real one before it.

    The last real column of the past counts too.
    """
    T = positions.shape[1]
    if real is None:
        real = torch.ones_like(positions, dtype=torch.bool)
    order = real.logical_not().int().argsort(dim=1, stable=True)
    moved, counts = positions.gather(1, order), real.sum(1)
    steps = torch.arange(1, T, device=positions.device)
    follows = (moved[:, 1:] - moved[:, :-1] == 1) | (steps >= counts[:, None])
    if past is not None and T:
        last = past.last_position
        goes_on = (moved[:, 0] == last + 1) | (last < 0) | (counts == 0)
        return bool(follows.all()) and bool(goes_on.all())
    return bool(follows.all())


def _open_view(
    positions: Tensor,
    real: Tensor | None,
    position_ids: Tensor | None,
    mask: Tensor | None,
    window: int,
) -> Tensor:
    """[B, 1, T, T]: each column sees the columns before it in the window that are no padding.

    Positions without a mask say where a packed row begins a new sequence, as in transformers: a
    column whose position does not follow that of the one before it sees nothing before itself.
    """
    B, T = positions.shape
    columns = torch.arange(T, device=positions.device)
    age = columns[:, None] - columns
    view = ((age >= 0) & (age < window)).expand(B, T, T)
    if real is not None:
        view = view & real[:, None, :]
    if position_ids is not None and mask is None:
        jumps = positions[:, 1:] - positions[:, :-1] != 1
        part = torch.nn.functional.pad(jumps.cumsum(1), (1, 0))
        view = view & (part[:, :, None] == part[:, None, :])
    # A padding column sees itself: the mean over no column at all is undefined.
    return (view | (age == 0)).unsqueeze(1)
