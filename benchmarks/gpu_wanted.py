"""What `gpu.py` measures: its parts, what each is told, and the rows that are hoped for. It says
this without PyTorch, which only the parts' own processes import."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

LIVE = (1, 16, 64, 256, 512, 1000)
FLOAT8_LIVE = (*LIVE, 1400)  # what an H200 is to carry
BIG_LIVE = (1, 16, 64)
DRAWN_LIVE = (64, 1000)
TOO_SLOW_MS = 160.0
"""More streams are not tried where the 99th percentile of a step is beyond this."""
TEMPERATURE = 0.25  # with which Kyutai serves the 1B
BLOCK = 16
"""Frames of a recording that are read at once."""

KINDS = ("float32", "float32, drawn", "bfloat16", "keys in float8")
"""Precisions whose tokens are compared with the processor's."""

SAVERS = 2
"""Threads that save streams while all are stepped."""


@dataclass(frozen=True)
class Wanted:
    """A part: its share of the time, what it is told, and the rows that are hoped for."""

    name: str
    share: float
    job: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    otherwise: dict[str, Any] = field(default_factory=dict)
    """What a second process is told in its place where the first one gave no row."""


def wanted(shape: str, big: str, device: str, tiny: bool) -> list[Wanted]:
    """All parts in order: what matters most comes first."""
    live, float8_live, big_live, drawn = (
        ((1, 3), (1, 3), (1, 2), (1, 3)) if tiny else (LIVE, FLOAT8_LIVE, BIG_LIVE, DRAWN_LIVE)
    )
    some = 2 if tiny else 64
    # The demo first: of its tokens something is known.
    models = ["tiny"] if tiny else ["demo", "tiny"]
    # Keys in, queries of a row, rows.
    cases = [("float32", 1, 3), ("float8", 4, 2)] if tiny else [
        ("float32", 4, 8), *[(kv, T, n) for kv in ("bfloat16", "float8")
                             for T, n in ((1, 1), (1, 64), (1, 1000), (4, 64), (16, 64))],
    ]  # fmt: skip
    ours = "cuda" if device != "cpu" else "cuda, graphs off"
    saved = {"shape": shape, "kv": "bfloat16", "streams": some}
    others = {"what": "live", "shape": shape, "streams": some}
    recordings = {"shape": big, "kv": "bfloat16", "files": some}
    return [
        Wanted("attention", 0.1, {"part": "attention", "shape": shape, "cases": cases},
               [{"what": "attention", "keys": kv, "queries": T, "rows": n} for kv, T, n in cases]),
        Wanted("correct", 0.12, {"part": "correct", "models": models},
               [{"what": "correct", "model": m, "precision": k} for m in models for k in KINDS]),
        Wanted("saves", 0.08, {"part": "saves", **saved},
               [{"what": "saved", **saved},
                *({"what": "saves", **saved, "savers": number} for number in (0, SAVERS))]),
        _live("live bfloat16", 0.19, ours, shape, "bfloat16", live),
        _live("live float8", 0.22, ours, shape, "float8", float8_live),
        _live("drawn", 0.07, ours, shape, "bfloat16", drawn, temperature=TEMPERATURE),
        _live("big", 0.1, ours, big, "bfloat16", big_live),
        Wanted("bulk", 0.09, {"part": "bulk", "shape": big, "kv": "bfloat16", "streams": some},
               [{"what": what, **recordings} for what in ("bulk", "acceptance")]),
        Wanted("moshi", 0.09, {"part": "moshi", "shape": shape, "streams": some},
               [{**others, "engine": "moshi"}], {"compiled": False}),
        Wanted("eager", 0.08, {"part": "eager", "shape": shape, "streams": some},
               [{**others, "engine": engine}
                for engine in ("torch", "cuda, plain attention", "cuda, graphs off")]),
        Wanted("transformers", 0.09, {"part": "transformers", "shape": shape},
               [{**others, "engine": "transformers", "streams": 1}]),
    ]  # fmt: skip


def _live(
    name: str, share: float, engine: str, shape: str, kv: str, sizes: Sequence[int], **more: Any
) -> Wanted:
    named = {"shape": shape, "kv": kv, **more}
    rows = [{"what": "live", "engine": engine, **named, "streams": n} for n in sizes]
    # How long a processor takes for a few numbers says nothing.
    limit = {} if shape == "tiny" else {"limit_ms": TOO_SLOW_MS}
    return Wanted(name, share, {"part": "live", **named, **limit, "sizes": sizes}, rows)


def calls(job: dict[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """For how many frames of a stream, and for how many streams, the engine of a part has calls;
    it has as many slots as the most."""
    frames = (1, BLOCK) if job["part"] == "bulk" else (1,)
    return tuple(job.get("frames", frames)), tuple(job.get("sizes", [job.get("streams")]))


def warming(parts: Sequence[Wanted]) -> list[Wanted]:
    """Parts that compile all kernels of others, each about as long as another. What takes longest
    comes first."""
    found: list[Wanted] = []
    engines: dict[tuple[str, str, tuple[int, ...]], set[int]] = {}
    for part in parts:
        job = part.job
        if job["part"] == "attention":
            for kv in dict.fromkeys(keys for keys, _, _ in job["cases"]):
                cases = [case for case in job["cases"] if case[0] == kv]
                found.append(_warming(f"attention, {kv}", {**job, "cases": cases}))
        elif job["part"] == "correct":
            for model in job["models"]:
                # The demo's decoder has no kernels, and its codec is the same in all precisions;
                # how tokens are picked changes no other kernel.
                kinds = KINDS[:1] if model == "demo" else [k for k in KINDS if "drawn" not in k]
                found += [_warming(f"{model}, {k}", {"model": model, "kind": k}) for k in kinds]
        elif job["part"] in ("live", "saves", "bulk", "eager"):
            frames, rows = calls(job)
            key = (job["shape"], job.get("kv", "bfloat16"), frames)
            engines.setdefault(key, set()).update(rows)
    for (shape, kv, frames), rows in engines.items():
        job = {"shape": shape, "kv": kv, "frames": frames, "sizes": sorted(rows)}
        found.append(_warming(f"{shape}, {kv}, frames {frames}", job))
    return found


def _warming(of: str, job: dict[str, Any]) -> Wanted:
    return Wanted(f"warm {of}", 0.0, {**job, "part": "warm", "of": of},
                  [{"what": "warm", "of": of}])  # fmt: skip
