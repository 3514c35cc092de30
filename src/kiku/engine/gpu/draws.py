"""Drawing tokens where the logits are: in plain PyTorch, or by a kernel of Triton's.

Both do what `kiku.decoding.Sampler` does on the host, with the same numbers: the noise is numpy's
Philox of 64 bits, which follows from a key and a count, and scores are compared in float64.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kiku.decoding import DRAW, Sampler, SamplingParams
from kiku.engine.gpu.kernel_choice import KernelChoice
from kiku.engine.gpu.layers import FUSED, power_of_two

Draw = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The tokens [R, T] for logits [R, T, V] in float32, the likeliest tokens [R, T], which it may
write to, and how each row draws [R, `DRAW_WIDTH`]."""

DRAW_WIDTH = DRAW.itemsize // 8
"""How many numbers of 64 bits describe how a row draws: the fields of `DRAW`, in their order."""

SAMPLINGS = ("auto", "triton", "plain", "host")

_FACTORS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
"""The factors by which Philox multiplies the first and the third number in a round."""

_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
"""The numbers that Philox adds to the two halves of the key after a round."""

_ROUNDS = 10

_HALF = 0xFFFFFFFF
"""The lower 32 bits."""

_LEAST = 2.0**-54
"""Takes the place of a random number 0, which has no logarithm; as in `Sampler`."""

_AT_ONCE = 1 << 20
"""Logits that the plain form takes at once, which bounds what it needs between its operators."""


def draw_numbers(draws: NDArray[np.void]) -> NDArray[np.int64]:
    """[n] of `DRAW` as [n, `DRAW_WIDTH`]."""
    return draws.view(np.int64).reshape(len(draws), DRAW_WIDTH)


def draw_plainly(logits: Tensor, likeliest: Tensor, draws: Tensor) -> Tensor:
    """See `Draw`."""
    R, T, V = logits.shape
    each = max(1, _AT_ONCE // (T * V))
    parts = [slice(at, at + each) for at in range(0, R, each)]
    return torch.cat([_drawn(logits[rows], likeliest[rows], draws[rows]) for rows in parts])


def _drawn(logits: Tensor, likeliest: Tensor, draws: Tensor) -> Tensor:
    _, T, V = logits.shape
    temperature, top_p = (draws[:, i].view(torch.float64)[:, None, None] for i in (0, 2))
    top_k, drawn = draws[:, 1][:, None, None], draws[:, 5]
    by_chance = temperature > 0
    best = logits.amax(-1, keepdim=True)
    scores = (logits.double() - best.double()) / temperature.masked_fill(~by_chance, 1.0)
    scores = _cut(scores, top_k, top_p)
    steps = torch.arange(T, device=logits.device)
    numbers = uniform(draws[:, 3], draws[:, 4], drawn[:, None] + V * steps, V)
    noise = -torch.log(-torch.log1p(-numbers.clamp(min=_LEAST)))
    picked = (scores + noise).argmax(-1)
    return picked.where((by_chance & best.isfinite())[..., 0], likeliest)


def _cut(scores: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """[R, T, V] with minus infinity for what is not among the likeliest."""
    V = scores.shape[-1]
    down, order = scores.sort(dim=-1, descending=True, stable=True)
    last = top_k.masked_fill(top_k <= 0, V).clamp(max=V) - 1
    kth = down.gather(-1, last.expand(*down.shape[:-1], 1))
    down = down.masked_fill(down < kth, -torch.inf)
    shares = (down - down[..., :1]).exp()
    shares = shares / shares.sum(-1, keepdim=True)
    beyond = (shares.cumsum(-1) - shares >= top_p) & (top_p < 1)
    cut = torch.zeros_like(beyond).scatter(-1, order, beyond) | (scores < kth)
    return scores.masked_fill(cut, -torch.inf)


def uniform(low: Tensor, high: Tensor, start: Tensor, count: int) -> Tensor:
    """Random numbers from 0 to 1 as `np.random.Philox` makes them.

    Args:
        low: [R] first halves of the keys.
        high: [R] second halves.
        start: [R, T] how many numbers with this key come before.
        count: V.

    Returns:
        [R, T, V] in float64.
    """
    # A number of a block's four may be the first that is wanted.
    blocks = (count + 6) // 4
    numbers = torch.arange(1, blocks + 1, device=start.device)  # numpy counts before it draws
    counter = (start >> 2)[..., None] + numbers
    words = _philox(counter, low[:, None, None], high[:, None, None]).flatten(-2)
    places = (start & 3)[..., None] + torch.arange(count, device=start.device)
    return ((words.gather(-1, places) >> 11) & ((1 << 53) - 1)).double() * 2.0**-53


def _philox(counter: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """[...] -> [..., 4] numbers of 64 bits; int64 stands for them, as it goes round where they
    do."""
    first, second, third, fourth = counter, *[torch.zeros_like(counter)] * 3
    for _ in range(_ROUNDS):
        over, under = _product(_FACTORS[0], first)
        beyond, within = _product(_FACTORS[1], third)
        first, second = beyond ^ second ^ low, within
        third, fourth = over ^ fourth ^ high, under
        low, high = low + _signed(_STEPS[0]), high + _signed(_STEPS[1])
    return torch.stack([first, second, third, fourth], -1)


def _product(factor: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """The upper and the lower 64 bits of a product of 128, by halves of 32."""
    low, high = factor & _HALF, factor >> 32
    x_low, x_high = x & _HALF, (x >> 32) & _HALF
    middle = high * x_low + ((low * x_low >> 32) & _HALF)
    other = low * x_high + (middle & _HALF)
    upper = high * x_high + ((middle >> 32) & _HALF) + ((other >> 32) & _HALF)
    return upper, x * _signed(factor)


def _signed(number: int) -> int:
    """The number of 64 bits with a sign that has the same bits."""
    return number - (1 << 64) if number >> 63 else number


def pick_draw(name: str, vocab: int, device: torch.device) -> Draw | None:
    """The drawing called `name`, one of `SAMPLINGS`, among `vocab` tokens; None where the host
    draws. On a GPU the plain form is hundreds of launches: "auto" does not take it there.

    Raises:
        ConfigError: "triton" was asked for and does not work here.
    """
    if name == "host":
        return None
    if name == "plain" or (name == "auto" and device.type != "cuda"):
        return draw_plainly
    choice = KernelChoice[Draw | None](
        kernel=lambda: draw_by_kernel,
        fallback=None,
        compare=lambda: draw_fault(vocab, device),
        option="sampling",
        without="host",
        warning="tokens are drawn on the host, which is slower",
    )
    return choice.pick(device, required=name == "triton")


def draw_by_kernel(logits: Tensor, likeliest: Tensor, draws: Tensor) -> Tensor:
    """See `Draw`: one launch, which does next to nothing for rows that take the likeliest."""
    R, T, V = logits.shape
    width = power_of_two(V + 3)
    kernel = _kernels().draw_kernel[(R, T)]
    kernel(logits, draws, likeliest, V, width, num_warps=_WARPS, **FUSED)
    return likeliest


def _kernels() -> Any:
    from kiku.engine.gpu import draw_kernels  # Triton comes with PyTorch for CUDA only

    return draw_kernels


_WARPS = 16
"""Warps of a program: a row's scores and noise stay in its registers."""


def draw_fault(vocab: int, device: torch.device) -> str | None:
    """How the kernel's tokens differ from those of plain PyTorch on `device`; None if they are the
    same."""
    logits, likeliest, draws = trial(vocab, device)
    ours, plain = (
        draw(logits.clone(), likeliest.clone(), draws) for draw in (draw_by_kernel, draw_plainly)
    )
    wrong = int((ours != plain).sum())
    return f"the kernel draws {wrong} tokens otherwise than plain PyTorch" if wrong else None


def trial(vocab: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, likeliest tokens and draws to try a form of drawing with: rows that are greedy, that
    have several temperatures, and that are cut by number and by share."""
    ways = [
        None,
        SamplingParams(0.25, seed=1),
        SamplingParams(1.0, seed=2),
        SamplingParams(3.0, top_k=vocab // 3, seed=3),
        SamplingParams(2.0, top_k=5, top_p=0.9, seed=4),
        SamplingParams(1.0, top_p=0.5, seed=5),
    ]
    draws = np.zeros(len(ways), DRAW)
    for row, way in enumerate(ways):
        if way is not None:
            sampler = Sampler.of(way)
            sampler.skip(row * (4 * vocab + 1))
            draws[row] = sampler.row
    random = np.random.default_rng(0)
    noise = random.normal(0, 2, (len(ways), 3, vocab)).astype(np.float32)
    logits = torch.from_numpy(noise)  # pyright: ignore[reportUnknownMemberType]
    numbers = torch.from_numpy(draw_numbers(draws))  # pyright: ignore[reportUnknownMemberType]
    return logits.to(device), logits.argmax(-1).to(device), numbers.to(device)
