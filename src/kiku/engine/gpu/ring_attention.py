# pyright: basic
# What Triton gives is not typed.
"""Attention by the Triton kernels: which of them, in how many programs, over what memory.

The number of programs follows from shapes alone, never from how far slots have come. So nothing
asks the host, and the calls can be recorded in a CUDA graph.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kiku.engine.gpu import ring_kernels as untyped_kernels
from kiku.engine.gpu.attention import Trial
from kiku.engine.gpu.layers import FUSED, power_of_two
from kiku.engine.gpu.ring_kernels import Shape
from kiku.engine.gpu.rings import FLOAT8, Rings

ring_kernels: Any = untyped_kernels

ONE_BY_ONE = 2
"""Number of queries up to which each has a program of its own. The second query finds the keys of
the first in the cache; more than two are worth a tensor core, which takes sixteen."""

_SIXTEEN = 16

_PROGRAMS_EACH = 2
"""Programs wanted for each multiprocessor, at least: to get them, a row's keys are shared out."""

_MULTIPROCESSORS = 132
"""Multiprocessors of an H100 or H200, for the interpreter; a CUDA device is asked instead."""

_NUMBERS = 4096
"""How many numbers the keys of a block have. Keys and values of a block are some 16 kilobytes in 16
bits, and a multiprocessor holds several blocks at once. Fetching 4.8 TB/s needs some 25 kilobytes
on their way to each multiprocessor."""


def attend_by_kernel(
    qkv: Tensor,
    angles: tuple[Tensor, Tensor],
    rings: Rings,
    layer: int,
    slots: Tensor,
    start: Tensor,
) -> Tensor:
    """See `Attend`. Reads the keys and values that the queries see, as they are kept."""
    R, T, _, H, D = qkv.shape
    shape, single = _shape(T, rings), T <= ONE_BY_ONE
    rows = (slots, start)
    ring = (rings.keys[layer], rings.values[layer],
            rings.key_scales[layer], rings.value_scales[layer])  # fmt: skip
    queries = torch.empty(R, T, H, D, dtype=torch.float32, device=qkv.device)
    ring_kernels.place_kernel[(R, T)](qkv.contiguous(), angles, rows, queries, ring, shape, **FUSED)
    out = torch.empty(R, T, H * D, dtype=qkv.dtype, device=qkv.device)
    programs = R * T if single else R
    keys = min(shape.WINDOW - 1 + T, rings.capacity)
    splits = shares(programs, H, D, keys, _multiprocessors(qkv.device))
    # If the keys are not split, `outs` and `tops` are not used.
    outs = torch.empty((R, T, H, splits, D) if splits > 1 else (1,), device=qkv.device)
    tops = torch.empty((2, R, T, H, splits) if splits > 1 else (2, 1), device=qkv.device)
    parts = (outs, tops[0], tops[1])
    kernel = ring_kernels.attend_one_kernel if single else ring_kernels.attend_several_kernel
    kernel[(programs, H, splits)](queries, rows, ring, out, parts, shape, splits > 1, **FUSED)
    if splits > 1:
        ring_kernels.join_kernel[(R * T * H,)](parts, out, D, splits, power_of_two(splits), **FUSED)
    return out


def _shape(T: int, rings: Rings) -> Shape:
    """What the kernels are compiled for, in a call of T positions of each row."""
    config = rings.config
    H, D = config.num_heads, config.head_dim
    return Shape(
        H=H, D=D, C=rings.capacity, T=T, WINDOW=config.window, N=_block(D),
        SCALED=rings.dtype == FLOAT8, HEADS=power_of_two(H),
        M=max(_SIXTEEN, power_of_two(T)), SCALE=D**-0.5,
    )  # fmt: skip


def _block(width: int) -> int:
    """How many keys a block has, of heads that are `width` wide."""
    return max(_SIXTEEN, _NUMBERS // width)


def shares(programs: int, heads: int, width: int, keys: int, processors: int) -> int:
    """Into how many parts each head's keys are split, in whole blocks.

    Args:
        programs: programs of each head without splitting.
        heads: H.
        width: D.
        keys: how many keys a row's queries see at most.
        processors: multiprocessors of the device.
    """
    wanted = -(-_PROGRAMS_EACH * processors // (programs * heads))
    return max(1, min(wanted, -(-keys // _block(width))))


def trials(
    rings: Rings, device: torch.device, sizes: Sequence[int], dtype: torch.dtype
) -> list[Trial]:
    """Calls that together run every form of the kernels that an engine's calls over such rings
    run: of each size, for one row, whose keys are shared out most, and for as many rows as need no
    sharing."""
    frame = rings.config.positions_per_frame
    unshared = -(-_PROGRAMS_EACH * _multiprocessors(device) // rings.config.num_heads)
    return [Trial(rows, size * frame, dtype) for size in sizes for rows in (1, max(2, unshared))]


def fits(rings: Rings, device: torch.device) -> bool:
    """Whether the kernels can be used: heads are a power of two wide, and the device has float8
    where keys are kept in that (Ada, Hopper and later have)."""
    width = rings.config.head_dim
    known = width >= _SIXTEEN and width == power_of_two(width)
    if rings.dtype == FLOAT8 and device.type == "cuda":
        return known and torch.cuda.get_device_capability(device) >= (8, 9)
    return known


def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return _MULTIPROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count
