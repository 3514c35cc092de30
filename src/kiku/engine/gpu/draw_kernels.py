# pyright: basic, reportMissingImports=false
# What Triton gives is not typed, and it comes with PyTorch for CUDA only.
"""Drawing tokens as a Triton kernel. Names in capitals are known when it is compiled.

A program has a row of logits in its registers. What is cut is found without sorting: scores from 0
downwards are distances from 0 upwards, the bits of which are in the same order as whole numbers. So
the last distance that stays is found bit by bit, from the highest down.
"""

import triton
import triton.language as tl

_FACTOR_A = tl.constexpr(0xD2E7470EE14C6C93)
_FACTOR_B = tl.constexpr(0xCA5A826395121157)
_STEP_A = tl.constexpr(0x9E3779B97F4A7C15)
_STEP_B = tl.constexpr(0xBB67AE8584CAA73B)


@triton.jit
def _uniform(low, high, start, WIDTH: tl.constexpr):
    """[WIDTH] random numbers of 53 bits, from the first of the block in which `start` lies."""
    first = ((start >> 2) + 1 + tl.arange(0, WIDTH // 4)).to(tl.uint64)
    second = tl.zeros_like(first)
    third = tl.zeros_like(first)
    fourth = tl.zeros_like(first)
    a = tl.full(first.shape, _FACTOR_A, tl.uint64)
    b = tl.full(first.shape, _FACTOR_B, tl.uint64)
    for _ in tl.static_range(10):
        over = tl.umulhi(first, a)
        under = first * a
        beyond = tl.umulhi(third, b)
        within = third * b
        first = beyond ^ second ^ low
        second = within
        third = over ^ fourth ^ high
        fourth = under
        low += tl.full([], _STEP_A, tl.uint64)
        high += tl.full([], _STEP_B, tl.uint64)
    words = tl.join(tl.join(first, third), tl.join(second, fourth))
    return tl.reshape(words, [WIDTH]) >> 11


@triton.jit
def _keep_number(distance, k):
    """The k least distances, and those that are as long as the last of them; others are made
    infinite."""
    bits = distance.to(tl.int64, bitcast=True)
    last = tl.full([], 0, tl.int64)
    for i in range(63):
        higher = last | (tl.full([], 1, tl.int64) << (62 - i))
        last = tl.where(tl.sum((bits < higher).to(tl.int32), 0) < k, higher, last)
    return tl.where(bits > last, float("inf"), distance)


@triton.jit
def _keep_share(distance, p):
    """The least distances that together have the share p; others are made infinite. Of those that
    are as long as the last one, the first."""
    bits = distance.to(tl.int64, bitcast=True)
    shares = tl.exp(-distance)
    shares = shares / tl.sum(shares, 0)
    last = tl.full([], 0, tl.int64)
    for i in range(63):
        higher = last | (tl.full([], 1, tl.int64) << (62 - i))
        last = tl.where(tl.sum(tl.where(bits < higher, shares, 0.0), 0) < p, higher, last)
    equal = bits == last
    before = tl.sum(tl.where(bits < last, shares, 0.0), 0)
    each = tl.max(tl.where(equal, shares, 0.0), 0)
    rank = tl.cumsum(equal.to(tl.int32), 0) - 1
    stays = (bits < last) | (equal & (before + rank * each < p))
    return tl.where(stays, distance, float("inf"))


@triton.jit
def draw_kernel(logits, draws, tokens, V: tl.constexpr, WIDTH: tl.constexpr):
    """Draw the token of one column of a row, where the row draws: logits [R, T, V], draws [R, 6],
    tokens [R, T]. WIDTH is the power of two from V + 3."""
    cell = tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    way = draws + tl.program_id(0) * 6
    temperature = tl.load(way).to(tl.float64, bitcast=True)
    if temperature > 0:
        start = tl.load(way + 5) + tl.program_id(1) * V
        token = tl.arange(0, WIDTH) - (start & 3).to(tl.int32)
        inside = (token >= 0) & (token < V)
        x = tl.load(logits + cell * V + token, mask=inside, other=float("-inf"))
        best = tl.max(x, 0)
        distance = (best.to(tl.float64) - x.to(tl.float64)) / temperature
        k = tl.load(way + 1)
        if (k > 0) & (k < V):
            distance = _keep_number(distance, k)
        p = tl.load(way + 2).to(tl.float64, bitcast=True)
        if p < 1:
            distance = _keep_share(distance, p)
        low = tl.load(way + 3).to(tl.uint64, bitcast=True)
        high = tl.load(way + 4).to(tl.uint64, bitcast=True)
        bits = _uniform(low, high, start, WIDTH)
        # 1 - u is exact, but for the number that stands for u = 0.
        spread = -tl.log(1.0 - bits.to(tl.float64) * 1.1102230246251565e-16)
        spread = tl.where(bits == 0, 5.551115123125783e-17, spread)
        place = tl.argmax(-tl.log(spread) - distance, 0)
        picked = place - (start & 3)
        numbers = tl.sum((x != x).to(tl.int32), 0) == 0  # NaN is not itself
        good = numbers & (best > float("-inf")) & (best < float("inf"))
        tl.store(tokens + cell, picked.to(tl.int64), mask=good & (picked >= 0) & (picked < V))
