"""Attention over rings: its interface, its form in plain PyTorch, and the choice of a form.

The plain form copies whole rings to float32, which is correct but slow. The Triton kernels of
`ring_attention` read only what a slot's queries see. Without Triton, or where its kernels fail, the
plain form is used.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from kiku.engine.gpu.kernel_choice import KernelChoice
from kiku.engine.gpu.rings import Rings
from kiku.engine.gpu.room import ROWS_AT_ONCE, ring_capacity
from kiku.nn.attention import visible_places
from kiku.nn.rope import Rope, rotate

ATTENTIONS = ("auto", "triton", "plain")
"""The attentions that may be chosen. "auto" takes the kernels on a CUDA device where they work."""


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
            qkv: [R, T, 3, H, D] the output of the input projection.
            angles: cosines and sines [R, 1, T, D / 2] of the new positions.
            rings: the rings of all slots; written at the new positions.
            layer: the layer's number.
            slots: [R] the slot of each row.
            start: [R] positions that each slot has processed before.

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
    """[R, H, T, D] -> [R, H, T, D] over rings that already hold the new keys."""
    T, D = q.shape[2:]
    keys, values = rings.read(layer, slots)
    everyone = torch.ones_like(slots, dtype=torch.bool)
    visible = visible_places(
        start, T, everyone, rings.capacity, rings.config.window, rings.capacity
    )  # [R, T, C]
    scores = (q * D**-0.5) @ keys.transpose(2, 3)  # [R, H, T, C]
    weights = scores.masked_fill(~visible[:, None], -torch.inf).softmax(-1)
    # A ring may hold anything from before its slot was opened, and 0 times NaN is NaN.
    seen = visible.any(1)[:, None, :, None]  # [R, 1, C, 1]
    return weights @ values.masked_fill(~seen, 0.0)


def pick_attend(
    name: str, rings: Rings, device: torch.device, *, sizes: Sequence[int], dtype: torch.dtype
) -> Attend:
    """The attention called `name`, one of `ATTENTIONS`, on a device.

    Args:
        name: "auto", "triton" or "plain".
        rings: those that it is for.
        device: where they are.
        sizes: frames of a row that a call may take, as in `GpuOptions`.
        dtype: of queries and results, which is that of the network's weights.

    Raises:
        ConfigError: "triton" was asked for and does not work here.
    """
    if name == "plain" or (name == "auto" and device.type != "cuda"):
        return attend_plainly
    choice = KernelChoice[Attend](
        kernel=_attend_by_kernel,
        fallback=attend_plainly,
        compare=lambda: attend_fault(rings, device, sizes, dtype),
        option="attention",
        without="plain",
        warning="attention is plain PyTorch, which is slow",
    )
    return choice.pick(device, required=name == "triton")


def _attend_by_kernel() -> Attend:
    from kiku.engine.gpu.ring_attention import attend_by_kernel  # Triton comes with PyTorch

    return attend_by_kernel


def attend_fault(
    rings: Rings, device: torch.device, sizes: Sequence[int], dtype: torch.dtype
) -> str | None:
    """How the Triton kernels differ from plain PyTorch over rings like these, or why there is none
    for them; None if they work."""
    from kiku.engine.gpu.ring_attention import fits, trials

    if not fits(rings, device):
        return (
            f"there is no kernel for {rings.config.num_heads} heads of {rings.config.head_dim} in "
            f"{rings.dtype} on this device"
        )
    for trial in trials(rings, device, sizes, dtype):
        error = _disagreement(_attend_by_kernel(), rings, trial, device)
        if not error < _TOLERANCE:  # NaN is none
            return f"the kernels are off by {error:.2g} from plain PyTorch in {trial}"
    return None


@dataclass(frozen=True)
class Trial:
    """A call that is made to see whether an attention works."""

    rows: int
    positions: int
    dtype: torch.dtype
    """The dtype of queries and of results."""


_TOLERANCE = 0.05
"""Difference allowed in numbers of about 1: a few keys in 8 bits, and results in 16 bits, may round
to the other side."""


def _disagreement(attend: Attend, like: Rings, trial: Trial, device: torch.device) -> float:
    """The greatest difference from the plain form, over rings of one layer with random numbers.
    Rings are as long as those of the engine, so the engine runs the kernels that were compiled
    here. Some slots have wrapped around, others are young; no two rows have the same."""
    R, T = trial.rows, trial.positions
    config = replace(like.config, num_layers=1)
    most = like.capacity - ring_capacity(config, 0)
    random = torch.Generator(device).manual_seed(0)
    rope = Rope(config.head_dim, config.rope_theta)
    rope.fill(device)
    slots = torch.arange(R, device=device).flip(0)
    start = (3 + 2 * like.capacity + 197 * slots) % (3 * like.capacity)
    shape = (R, T, 3, config.num_heads, config.head_dim)
    qkv = torch.randn(shape, generator=random, device=device).to(trial.dtype)
    angles = rope(start[:, None] + torch.arange(T, device=device))
    said: list[Tensor] = []
    for one in (attend, attend_plainly):
        rings = Rings(config, R, most, like.dtype, device)
        places = torch.arange(rings.capacity, device=device).repeat(R, 1)
        random.manual_seed(1)
        ring = (R, config.num_heads, rings.capacity, config.head_dim)
        keys, values = (torch.randn(ring, generator=random, device=device) for _ in range(2))
        rings.write(0, slots, places, keys, values)
        said.append(one(qkv, angles, rings, 0, slots, start).float())
    return float((said[0] - said[1]).abs().max())  # NaN, where one is
