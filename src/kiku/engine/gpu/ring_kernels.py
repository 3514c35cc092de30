# pyright: basic, reportMissingImports=false
# What Triton gives is not typed, and it comes with PyTorch for CUDA only.
"""Attention over rings as Triton kernels, which read only what each slot's queries see.

Three kernels, or two. The first turns queries and keys, and puts keys and values into the ring. The
second attends. If a few rows would leave most of the device idle, each row's keys are SHARED out
among several programs, and the third kernel joins their results.

In all kernels axes are [R, T, H, D] for new positions and [B, H, C, D] for rings, and names in
capitals are known when a kernel is compiled. A position's place is its remainder by C.

Pointers that belong together come as one tuple: `rows` are the slot of each row and how many
positions it has processed before; `ring` are one layer's keys, values, and their scales [B, H, C]
in float8; `parts` are the results of shares: weighted values, greatest scores, sums of weights.
"""

from dataclasses import dataclass

import triton
import triton.language as tl

from kiku.engine.gpu.rings import FLOAT8_MAX, LEAST_SCALE

NOWHERE = tl.constexpr(-1e30)
"""A score below all others, in place of minus infinity, of which two cannot be subtracted."""

GREATEST = tl.constexpr(FLOAT8_MAX)
LEAST = tl.constexpr(LEAST_SCALE)


@dataclass(frozen=True)
class Shape:
    """What is known when kernels are compiled. It follows from a ring and T alone, so calls of
    other numbers of rows run the same kernels."""

    H: int  # heads
    D: int  # their width, a power of two
    C: int  # places of a ring
    T: int  # new positions of each row
    WINDOW: int  # keys that a query sees
    N: int  # keys of a block
    SCALED: bool  # whether keys and values are float8
    HEADS: int  # the power of two from H
    M: int  # what a tensor core takes at once of the T queries: T, or more
    SCALE: float  # of scores


@triton.jit
def place_kernel(qkv, angles, rows, queries, ring, SHAPE: tl.constexpr):
    """Turn one position's queries and keys; write its keys and values into the ring.

    A program takes all heads of one new position. Pairs (0, 1), (2, 3), ... are turned, so even and
    odd numbers are loaded separately. `angles` are cosines and sines [R, T, D / 2]. `queries`
    [R, T, H, D] float32 are stored multiplied by SCALE.
    """
    row, step = tl.program_id(0), tl.program_id(1)
    slots, start = rows
    cosines, sines = angles
    keys, values, key_scales, value_scales = ring
    inner: tl.constexpr = SHAPE.H * SHAPE.D
    place = (tl.load(start + row) + step) % SHAPE.C
    heads = tl.arange(0, SHAPE.HEADS)[:, None]
    pairs = tl.arange(0, SHAPE.D // 2)[None, :]
    inside = heads < SHAPE.H
    new = row * SHAPE.T + step
    cos = tl.load(cosines + new * (SHAPE.D // 2) + pairs)
    sin = tl.load(sines + new * (SHAPE.D // 2) + pairs)
    at = heads * SHAPE.D + 2 * pairs
    numbers = qkv + new * (3 * inner) + at

    even = tl.load(numbers, mask=inside, other=0.0).to(tl.float32)
    odd = tl.load(numbers + 1, mask=inside, other=0.0).to(tl.float32)
    turned = queries + new * inner + at
    tl.store(turned, (even * cos - odd * sin) * SHAPE.SCALE, mask=inside)
    tl.store(turned + 1, (even * sin + odd * cos) * SHAPE.SCALE, mask=inside)

    even = tl.load(numbers + inner, mask=inside, other=0.0).to(tl.float32)
    odd = tl.load(numbers + inner + 1, mask=inside, other=0.0).to(tl.float32)
    entry = (tl.load(slots + row) * SHAPE.H + heads) * SHAPE.C + place  # [HEADS, 1]
    _put(keys, key_scales, entry, inside,
         even * cos - odd * sin, even * sin + odd * cos, SHAPE)  # fmt: skip
    even = tl.load(numbers + 2 * inner, mask=inside, other=0.0).to(tl.float32)
    odd = tl.load(numbers + 2 * inner + 1, mask=inside, other=0.0).to(tl.float32)
    _put(values, value_scales, entry, inside, even, odd, SHAPE)


@triton.jit
def _put(numbers, scales, entry, inside, even, odd, SHAPE: tl.constexpr):
    """Put even and odd numbers, [HEADS, D / 2] each, into the entries [HEADS, 1] of the ring that
    are `inside`. In float8 each head has a scale, and the bits are those that `to_float8` gives."""
    at = numbers + entry * SHAPE.D + 2 * tl.arange(0, SHAPE.D // 2)[None, :]
    if SHAPE.SCALED:
        greatest = tl.maximum(tl.max(tl.abs(even), 1), tl.max(tl.abs(odd), 1))
        scale = tl.div_rn(tl.maximum(greatest, LEAST), GREATEST)[:, None]
        tl.store(scales + entry, scale, mask=inside)
        even = tl.div_rn(even, scale + tl.zeros_like(even)).to(tl.float8e4nv)
        odd = tl.div_rn(odd, scale + tl.zeros_like(odd)).to(tl.float8e4nv)
        tl.store(at, even.to(tl.uint8, bitcast=True), mask=inside)
        tl.store(at + 1, odd.to(tl.uint8, bitcast=True), mask=inside)
    else:
        tl.store(at, even, mask=inside)
        tl.store(at + 1, odd, mask=inside)


@triton.jit
def attend_one_kernel(queries, rows, ring, out, parts, SHAPE: tl.constexpr, SHARED: tl.constexpr):
    """One query of one head over its share of the keys that it sees, N at a time.

    There are only a few operations for each byte, so they are done in plain float32: tensor cores
    would want sixteen queries.
    """
    H: tl.constexpr = SHAPE.H
    D: tl.constexpr = SHAPE.D
    N: tl.constexpr = SHAPE.N
    new, head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row, step = new // SHAPE.T, new % SHAPE.T
    slots, start = rows
    keys, values, key_scales, value_scales = ring
    slot = tl.load(slots + row)
    query_at = tl.load(start + row) + step
    oldest = tl.maximum(query_at - (SHAPE.WINDOW - 1), 0)
    count = (query_at - oldest + 1).to(tl.int32)
    origin = (oldest % SHAPE.C).to(tl.int32)
    begin, end = _share(count, part, SHAPE)
    entry = (slot * H + head) * SHAPE.C
    keys += entry * D
    values += entry * D
    dims = tl.arange(0, D)
    query = tl.load(queries + (new * H + head) * D + dims)
    top = tl.full([], NOWHERE, tl.float32)
    total = tl.full([], 0.0, tl.float32)
    out_row = tl.zeros([D], tl.float32)
    for at in range(begin, end, N):
        heard = at + tl.arange(0, N)
        held = heard < end
        places = (origin + heard) % SHAPE.C
        # Both are loaded before either is used, so that more bytes are on their way.
        key = _numbers(keys, places, dims, held, SHAPE).to(tl.float32)
        value = _numbers(values, places, dims, held, SHAPE).to(tl.float32)
        score = tl.sum(key * query[None, :], 1)  # [N]
        if SHAPE.SCALED:
            score *= tl.load(key_scales + entry + places, mask=held, other=0.0)
        score = tl.where(held, score, NOWHERE)
        higher = tl.maximum(top, tl.max(score, 0))
        weight = tl.where(held, tl.exp(score - higher), 0.0)
        kept = tl.exp(top - higher)
        total = total * kept + tl.sum(weight, 0)
        if SHAPE.SCALED:
            weight *= tl.load(value_scales + entry + places, mask=held, other=0.0)
        out_row = out_row * kept + tl.sum(value * weight[:, None], 0)
        top = higher
    if SHARED:
        outs, tops, sums = parts
        at = (new * H + head) * tl.num_programs(2) + part
        tl.store(outs + at * D + dims, out_row)
        tl.store(tops + at, top)
        tl.store(sums + at, total)
    else:
        tl.store(out + (new * H + head) * D + dims, out_row / total)


@triton.jit
def attend_several_kernel(
    queries, rows, ring, out, parts, SHAPE: tl.constexpr, SHARED: tl.constexpr
):
    """All T queries of one row and head over a share of the keys that any of them sees.

    What is computed for queries beyond T is not stored.
    """
    H: tl.constexpr = SHAPE.H
    D: tl.constexpr = SHAPE.D
    N: tl.constexpr = SHAPE.N
    M: tl.constexpr = SHAPE.M
    row, head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    slots, start = rows
    keys, values, key_scales, value_scales = ring
    slot = tl.load(slots + row)
    first = tl.load(start + row)
    oldest = tl.maximum(first - (SHAPE.WINDOW - 1), 0)
    before = (first - oldest).to(tl.int32)  # keys that the first query sees of the past
    origin = (oldest % SHAPE.C).to(tl.int32)
    begin, end = _share(before + SHAPE.T, part, SHAPE)
    entry = (slot * H + head) * SHAPE.C
    keys += entry * D
    values += entry * D
    dims = tl.arange(0, D)
    steps = tl.arange(0, M)
    new = (row * SHAPE.T + steps) * H + head  # [M]
    there = steps < SHAPE.T
    query = tl.load(queries + new[:, None] * D + dims[None, :], mask=there[:, None], other=0.0)
    top = tl.full([M], NOWHERE, tl.float32)
    total = tl.zeros([M], tl.float32)
    out_rows = tl.zeros([M, D], tl.float32)
    for at in range(begin, end, N):
        heard = at + tl.arange(0, N)
        held = heard < end
        places = (origin + heard) % SHAPE.C
        key = _numbers(keys, places, dims, held, SHAPE)
        value = _numbers(values, places, dims, held, SHAPE)
        score = _product(query, tl.trans(key))  # [M, N]
        if SHAPE.SCALED:
            score *= tl.load(key_scales + entry + places, mask=held, other=0.0)[None, :]
        age = (before + steps)[:, None] - heard[None, :]
        seen = held[None, :] & (age >= 0) & (age < SHAPE.WINDOW)
        score = tl.where(seen, score, NOWHERE)
        higher = tl.maximum(top, tl.max(score, 1))
        weight = tl.where(seen, tl.exp(score - higher[:, None]), 0.0)
        kept = tl.exp(top - higher)
        total = total * kept + tl.sum(weight, 1)
        if SHAPE.SCALED:
            weight *= tl.load(value_scales + entry + places, mask=held, other=0.0)[None, :]
        out_rows = out_rows * kept[:, None] + _product(weight, value)
        top = higher
    if SHARED:
        outs, tops, sums = parts
        at = new * tl.num_programs(2) + part
        tl.store(outs + at[:, None] * D + dims[None, :], out_rows, mask=there[:, None])
        tl.store(tops + at, top, mask=there)
        tl.store(sums + at, total, mask=there)
    else:
        whole = out_rows / tl.where(there, total, 1.0)[:, None]
        tl.store(out + new[:, None] * D + dims[None, :], whole, mask=there[:, None])


@triton.jit
def join_kernel(parts, out, D: tl.constexpr, SPLITS: tl.constexpr, MOST: tl.constexpr):
    """Join the SPLITS parts of one query of one head; parts that had no keys weigh nothing. MOST is
    the power of two from SPLITS."""
    outs, tops, sums = parts
    at = tl.program_id(0)
    numbers = tl.arange(0, MOST)
    there = numbers < SPLITS
    dims = tl.arange(0, D)
    top = tl.load(tops + at * SPLITS + numbers, mask=there, other=NOWHERE)
    total = tl.load(sums + at * SPLITS + numbers, mask=there, other=0.0)
    weight = tl.exp(top - tl.max(top, 0))
    rows = (at * SPLITS + numbers)[:, None] * D + dims[None, :]
    part = tl.load(outs + rows, mask=there[:, None], other=0.0)
    whole = tl.sum(part * weight[:, None], 0) / tl.sum(total * weight, 0)
    tl.store(out + at * D + dims, whole)


@triton.jit
def _share(count, part, SHAPE: tl.constexpr):
    """The first key of a program's share of `count` keys, and the end of the share. Shares are
    whole blocks: a slot with few keys is read by few programs, and the others end at once."""
    each = tl.cdiv(tl.cdiv(count, SHAPE.N), tl.num_programs(2)) * SHAPE.N
    begin = part * each
    return begin, tl.minimum(begin + each, count)


@triton.jit
def _numbers(ring, places, dims, held, SHAPE: tl.constexpr):
    """[N, D] of a head's keys or values, in the dtype in which they are kept."""
    at = ring + places[:, None] * SHAPE.D + dims[None, :]
    if SHAPE.SCALED:
        found = tl.load(at, mask=held[:, None], other=0).to(tl.float8e4nv, bitcast=True)
    else:
        found = tl.load(at, mask=held[:, None], other=0.0)
    return found


@triton.jit
def _product(wide, narrow):
    """float32 [M, X] times [X, Y] in the dtype that is kept, as if both were float32.

    Tensor cores multiply numbers of 16 bits, so the float32 side is split in two: what 16 bits
    hold, and the rest. The error left is about 2^-17, far below that of the keys themselves.
    """
    if narrow.dtype == tl.float32:
        product = tl.dot(wide, narrow, input_precision="ieee")
    else:
        if narrow.dtype == tl.float8e4nv:
            narrow = narrow.to(tl.bfloat16)  # exactly
        near = wide.to(narrow.dtype)
        rest = (wide - near.to(tl.float32)).to(narrow.dtype)
        product = tl.dot(rest, narrow, tl.dot(near, narrow))
    return product
