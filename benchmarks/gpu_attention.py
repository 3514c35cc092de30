"""Attention of one layer by Triton's kernels and in plain PyTorch: first whether they agree on this
device, then how long each takes with full windows. A part of `gpu.py`."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from gpu_job import Part
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
def compile_all(part: Part, cases: Iterable[tuple[str, int, int]]) -> str:
    """Run the kernels of these cases once, over rings of one layer; tell by which form that was."""
    forms = set[str]()
    for kv, T, rows in cases:
        given = _given(part, kv, T, rows, layers=1, name="auto")
        _calls(given, given.kernel, given.full)()
        forms.add("plain" if given.kernel is attend_plainly else "kernels")
    return ", ".join(sorted(forms))


@dataclass(frozen=True)
class _Given:
    """Rings of some layers, and what attention over them is given."""

    rings: Rings
    kernel: Attend
    qkv: Tensor
    rope: Rope
    slots: Tensor
    full: Tensor
    """Positions at which all windows are full."""


def _given(part: Part, kv: str, T: int, rows: int, layers: int, name: str) -> _Given:
    config = replace(part.config.lm.transformer, num_layers=layers)
    device = torch.device(part.device)
    rings = Rings(config, rows, T, RING_DTYPES[kv], device)
    kernel = pick_attend(name, rings, device, sizes=(T,), dtype=part.dtype)
    _fill(rings)
    shape = (rows, T, 3, config.num_heads, config.head_dim)
    rope = Rope(config.head_dim, config.rope_theta)
    rope.fill(part.device)
    return _Given(
        rings, kernel, torch.randn(shape, device=device).to(part.dtype), rope,
        torch.arange(rows, device=device),
        torch.full((rows,), config.window + 100, device=device),
    )  # fmt: skip


def _calls(given: _Given, attend: Attend, start: Tensor) -> Callable[[], Tensor]:
    """Attention of all layers after `start` positions of each row."""
    qkv, rings, slots = given.qkv, given.rings, given.slots
    angles = given.rope(start[:, None] + torch.arange(qkv.shape[1], device=qkv.device))
    return lambda: torch.stack(
        [attend(qkv, angles, rings, n, slots, start) for n in range(rings.config.num_layers)]
    )


@torch.inference_mode()
def _case(part: Part, kv: str, T: int, rows: int) -> None:
    whole, dtype = part.config.lm.transformer, RING_DTYPES[kv]
    each = ring_bytes(whole, T, dtype) // whole.num_layers * (rows + 1)
    layers = max(1, min(whole.num_layers, int(MOST_BYTES // each)))
    given = _given(part, kv, T, rows, layers, "triton")
    # Nothing heard, a little, all but full, and round the ring, one beside the other.
    starts = [0, 5, whole.window - 1, 3 * given.rings.capacity + 7]
    some = torch.tensor(starts, device=given.slots.device)
    mixed = some[given.slots % len(some)]
    ours, theirs = (
        _calls(given, attend, mixed)().float() for attend in (given.kernel, attend_plainly)
    )
    error = float((ours - theirs).abs().max() / theirs.abs().max())
    if not error < BOUND:
        raise SystemExit(f"the kernel is off by {error:.2g} with keys in {kv}, {T} queries a row")
    took = {
        name: _microseconds(part, _calls(given, attend, given.full)) / layers
        for name, attend in (("kernel_us", given.kernel), ("plain_us", attend_plainly))
    }
    width = whole.head_dim * dtype.itemsize + (4 if dtype == FLOAT8 else 0)
    seen = 2 * rows * whole.num_heads * (whole.window - 1 + T) * width
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
    """Of one run, as a graph where these are recorded; the least of several goes, which take half a
    second or so together."""
    recorded = part.on_gpu and part.graphs is not False
    graphs = Graphs(torch.device(part.device), enabled=recorded)
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
