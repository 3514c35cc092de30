"""Operations on every state: its leaves are tensors, and their first axis is the slot.

So copying a slot, moving, sizing, saving and rewinding are written once, here. A fresh slot is a
copy of a fresh one-slot state; no module resets itself.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor


@dataclass
class KVRing:
    """Keys and values of past positions; position `p` lies in place `p mod P`.

    A ring without room (`P` = 0) remembers nothing: for one whole sequence seen at once.
    """

    keys: Tensor  # [B, H, P, D]
    values: Tensor  # [B, H, P, D]


def _walk(state: Any, *, rings: bool) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, list | tuple):
        for part in cast("list[Any]", state):
            yield from _walk(part, rings=rings)
    elif rings or not isinstance(state, KVRing):
        for f in dataclasses.fields(state):
            yield from _walk(getattr(state, f.name), rings=rings)


def leaves(state: Any) -> Iterator[Tensor]:
    """Every tensor of a state, in the order of its fields; the first axis of each is the slot."""
    return _walk(state, rings=True)


def copy_slot(dst: Any, slot: int, src: Any, src_slot: int = 0) -> None:
    """Make slot `slot` of `dst` equal to slot `src_slot` of `src`, in place.

    A ring of `src` may have fewer places than that of `dst`, if it was never full.
    """
    for to, origin in zip(leaves(dst), leaves(src), strict=True):
        row, kept = to[slot], origin[src_slot]
        if row.shape != kept.shape:  # [H, P, D]
            # Nobody sees what lies in the other places, but a NaN there would come through a mask.
            row[:, kept.shape[1] :].zero_()
            row = row[:, : kept.shape[1]]
        row.copy_(kept)


def nbytes(state: Any) -> int:
    """Bytes of all leaves."""
    return sum(leaf.numel() * leaf.element_size() for leaf in leaves(state))


@dataclass(frozen=True)
class Mark:
    """Where a slot stood: everything but the rings, whose older entries are still in place."""

    tensors: tuple[Tensor, ...]


def mark(state: Any, slot: int) -> Mark:
    """Remember where `slot` stands, to `rewind` to it. Costs a copy of the small leaves only."""
    return Mark(tuple(leaf[slot].clone() for leaf in _walk(state, rings=False)))


def rewind(state: Any, slot: int, to: Mark) -> None:
    """Put `slot` back where it stood, exactly.

    This works while the slot has advanced by at most `REWIND_FRAMES` since the mark: until then the
    rings still hold every entry that the older window needs.
    """
    for leaf, kept in zip(_walk(state, rings=False), to.tensors, strict=True):
        leaf[slot].copy_(kept)


def save_slot(state: Any, slot: int) -> list[Tensor]:
    """A copy of one slot on the CPU, rings included, which can outlive the process."""
    return [leaf[slot].detach().to("cpu", copy=True) for leaf in leaves(state)]


def restore_slot(state: Any, slot: int, saved: list[Tensor]) -> None:
    """Put what `save_slot` gave into `slot`, in place."""
    for leaf, kept in zip(leaves(state), saved, strict=True):
        leaf[slot].copy_(kept)


def all_active(batch_size: int, device: torch.device | str = "cpu") -> Tensor:
    """[B] every slot advances."""
    return torch.ones(batch_size, dtype=torch.bool, device=device)
