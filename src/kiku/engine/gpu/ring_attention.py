# pyright: basic
# What Triton gives is not typed.
"""Attention by the Triton kernels: which of them, in how many programs, over what memory.

The number of programs follows from shapes alone, never from how far slots have come. So nothing
asks the host, and the calls can be recorded in a CUDA graph.
"""

from typing import Any

import torch
from torch import Tensor

from kiku.engine.gpu import ring_kernels as untyped_kernels
from kiku.engine.gpu.rings import FLOAT8, FLOAT8_MAX, LEAST_SCALE, Rings

ring_kernels: Any = untyped_kernels

assert FLOAT8_MAX == 448.0  # the kernel divides by it

ONE_BY_ONE = 2
"""Number of queries up to which each has a program of its own. The second query finds the keys of
the first in the cache; more than two are worth a tensor core, which takes sixteen."""

_SIXTEEN = 16

_FUSED = {"enable_fp_fusion": True}
"""A product and the sum after it may be rounded once. Stated because Triton's default is going to
change."""

_PROGRAMS_EACH = 2
"""Programs wanted for each multiprocessor, at least: to get them, a row's keys are shared out."""

_MULTIPROCESSORS = 132
"""Multiprocessors of an H100 or H200, for the interpreter; a CUDA device is asked instead."""

_NUMBERS = 4096
"""Numbers of the keys in a block. With as many of values that makes some 16 kilobytes in 16 bits,
and a multiprocessor holds several blocks at once. Fetching 4.8 TB/s needs some 25 kilobytes on
their way to each multiprocessor."""


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
    keys, values = rings.keys[layer], rings.values[layer]
    scales = rings.key_scales[layer], rings.value_scales[layer]
    scaled = rings.dtype == FLOAT8
    queries = torch.empty(R, T, H, D, dtype=torch.float32, device=qkv.device)
    ring_kernels.place_kernel[(R, T)](
        qkv.contiguous(), *angles, slots, start, queries, keys, values, *scales,
        H, D, rings.capacity, T, _power(H), scaled, D**-0.5, LEAST_SCALE, **_FUSED,
    )  # fmt: skip
    out = torch.empty(R, T, H * D, dtype=qkv.dtype, device=qkv.device)
    single = T <= ONE_BY_ONE
    window = rings.config.window
    block, splits = shares(R * T if single else R, H, D, min(window - 1 + T, rings.capacity),
                           _multiprocessors(qkv.device))  # fmt: skip
    # If the keys are not split, `parts` and `tops` are not used.
    parts = torch.empty((R, T, H, splits, D) if splits > 1 else (1,), device=qkv.device)
    tops = torch.empty((2, R, T, H, splits) if splits > 1 else (2, 1), device=qkv.device)
    given = (queries, slots, start, keys, values, *scales, out, parts, tops[0], tops[1])
    ring = (H, D, rings.capacity, T, window, block)
    if single:
        grid = (R * T, H, splits)
        ring_kernels.attend_one_kernel[grid](*given, *ring, scaled, splits > 1, **_FUSED)
    else:
        grid = (R, H, splits)
        at_once = max(_SIXTEEN, _power(T))
        ring_kernels.attend_several_kernel[grid](
            *given, *ring, at_once, scaled, splits > 1, **_FUSED
        )
    if splits > 1:
        ring_kernels.join_kernel[(R * T * H,)](
            parts, tops[0], tops[1], out, D, splits, _power(splits), **_FUSED
        )
    return out


def shares(programs: int, heads: int, width: int, keys: int, processors: int) -> tuple[int, int]:
    """Keys of a block, and into how many parts each head's keys are split.

    Args:
        programs: of each head, without splitting.
        heads: H.
        width: D.
        keys: the most that a row's queries see.
        processors: multiprocessors of the device.
    """
    block = max(16, _NUMBERS // width)
    wanted = -(-_PROGRAMS_EACH * processors // (programs * heads))
    return block, max(1, min(wanted, -(-keys // block)))


def fits(rings: Rings, device: torch.device) -> bool:
    """Whether the kernels can be used: heads are a power of two wide, and the device has float8
    where keys are kept in that (Ada, Hopper and later have)."""
    width = rings.config.head_dim
    known = width >= _SIXTEEN and width == _power(width)
    if rings.dtype == FLOAT8 and device.type == "cuda":
        return known and torch.cuda.get_device_capability(device) >= (8, 9)
    return known


def _power(n: int) -> int:
    """The smallest power of two that is not less than n."""
    return 1 << (n - 1).bit_length()


def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return _MULTIPROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count
