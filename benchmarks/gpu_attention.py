"""Attention of one layer by Triton's kernels and in plain PyTorch: first whether they agree on this
device, then how long each takes with full windows. A part of `gpu.py`."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from gpu_parts import Part
from torch import Tensor

from kiku.engine.gpu.attention import Attend, attend_plainly, pick_attend
from kiku.engine.gpu.capture import Graphs
from kiku.engine.gpu.rings import FLOAT8, RING_DTYPES, Rings, ring_bytes
from kiku.nn.rope import Rope

MOST_BYTES = 8e9
"""Of all rings at once. Several layers are read in turn, so that none is found in a cache."""

BOUND = 0.01
"""Greatest difference, of the greatest number. Both see the same keys, in the same few bits, and
give bfloat16: a bit of that is 0.004."""


def attention(part: Part) -> None:
    """A row for each kind of keys, queries of a row, and number of rows."""
    for kv, T, rows in part.job["cases"]:
        part.attempt(lambda kv=kv, T=T, rows=rows: _case(part, kv, T, rows))


@torch.inference_mode()
def _case(part: Part, kv: str, T: int, rows: int) -> None:
    whole, dtype = part.config.lm.transformer, RING_DTYPES[kv]
    each = ring_bytes(whole, T, dtype) // whole.num_layers * (rows + 1)
    layers = max(1, min(whole.num_layers, int(MOST_BYTES // each)))
    config, device = replace(whole, num_layers=layers), torch.device(part.device)
    rings = Rings(config, rows, T, dtype, device)
    weights = torch.bfloat16 if part.on_gpu else torch.float32
    kernel = pick_attend("triton", rings, device, sizes=(T,), dtype=weights)
    _fill(rings)
    shape = (rows, T, 3, config.num_heads, config.head_dim)
    qkv = torch.randn(shape, device=device).to(weights)
    rope = Rope(config.head_dim, config.rope_theta)
    rope.fill(part.device)
    slots = torch.arange(rows, device=device)
    full = torch.full((rows,), config.window + 100, device=device)
    # Nothing heard, a little, all but full, and round the ring, one beside the other.
    some = torch.tensor([0, 5, config.window - 1, 3 * rings.capacity + 7], device=device)
    mixed = some[slots % len(some)]

    def calls(attend: Attend, start: Tensor) -> Callable[[], Tensor]:
        angles = rope(start[:, None] + torch.arange(T, device=device))
        return lambda: torch.stack(
            [attend(qkv, angles, rings, layer, slots, start) for layer in range(layers)]
        )

    ours, theirs = calls(kernel, mixed)().float(), calls(attend_plainly, mixed)().float()
    error = float((ours - theirs).abs().max() / theirs.abs().max())
    if not error < BOUND:
        raise SystemExit(f"the kernel is off by {error:.2g} with keys in {kv}, {T} queries a row")
    took = {
        name: _microseconds(part, calls(attend, full)) / layers
        for name, attend in (("kernel_us", kernel), ("plain_us", attend_plainly))
    }
    width = config.head_dim * dtype.itemsize + (4 if dtype == FLOAT8 else 0)
    seen = 2 * rows * config.num_heads * (config.window - 1 + T) * width
    part.tell("attention", keys=kv, queries=T, rows=rows, error=round(error, 6),
              **{name: round(us, 1) for name, us in took.items()},
              gb_per_s=round(seen / took["kernel_us"] / 1e3, 1))  # fmt: skip


def _fill(rings: Rings) -> None:
    for name, kept in rings.tensors.items():
        if kept.dtype == torch.uint8:
            kept.random_(0, 120)  # numbers of 8 bits below 448, no NaN
        elif "scales" in name:
            kept.fill_(0.005)
        else:
            kept.normal_()


def _microseconds(part: Part, work: Callable[[], Any]) -> float:
    """Of one run, as a graph where there is a GPU; the least of several goes, which take half a
    second or so together."""
    graphs = Graphs(torch.device(part.device), enabled=part.on_gpu)
    graphs.add("all", lambda: (work(), None)[1])
    graphs.record()
    runs, best = 1, torch.inf
    for _ in range(6):
        part.wait()
        started = time.perf_counter()
        for _ in range(runs):
            graphs.run("all")
        part.wait()
        best = min(best, (time.perf_counter() - started) / runs)
        runs = max(1, min(20, int(0.1 / best)))
    return best * 1e6
