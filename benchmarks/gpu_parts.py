"""The processes that `gpu.py` measures with: one part each, rows as they come.

    python benchmarks/gpu_parts.py '{"part": "live", "shape": "1b", "kv": "bfloat16", ...}'

Weights are random and made on the device. Windows are full: the rings are filled with noise, and
every slot is said to have come further than its window.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace

import gpu_attention
import gpu_saves
import gpu_tokens
import gpu_warm
import numpy as np
import torch
from gpu_job import Part
from gpu_models import asked, attention_of, frames_of, listeners, memory_of, random_model
from gpu_wanted import BLOCK

from kiku.codec import MimiEncoder
from kiku.engine.core import SlotEngine
from kiku.engine.cuda import cuda_engine
from kiku.engine.torch import torch_engine
from kiku.errors import ConfigError
from kiku.lm import LM


def live(part: Part) -> None:
    """One frame of n streams, whole step with all of the host's part, for each n."""
    engine = _fitting(part, *random_model(part.config, part.dtype, part.device))
    most = engine.num_slots
    slots = listeners(engine, part.job.get("temperature", 0.0))
    counts = sorted({*(n for n in part.job["sizes"] if n <= most), most})
    name = "cuda" if part.on_gpu and part.graphs is not False else "cuda, graphs off"
    for place, n in enumerate(counts):
        frames = frames_of(part.config, n)
        times = part.times(lambda n=n, frames=frames: engine.step(slots[:n], frames),
                           1.6 / (len(counts) - place + 0.6))  # fmt: skip
        part.tell("live", streams=n, engine=name, attention=attention_of(engine),
                  **memory_of(engine), **times)  # fmt: skip
        if times["p99_ms"] > (limit := part.job.get("limit_ms", float("inf"))):
            slow = f"the 99th percentile with {n} streams was beyond {limit:.0f} ms"
            part.tell("stopped", streams=n, why=slow)
            break


def _fitting(part: Part, codec: MimiEncoder, lm: LM) -> SlotEngine:
    """An engine of as many slots as were asked for, or as many as fit; a row says how many do."""
    (most, options), refused = asked(part.job), 0
    while True:
        if part.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        try:
            return cuda_engine(codec, lm, slots=most, device=part.device, options=options)
        except ConfigError as error:
            found = re.search(r": (\d+) do;", str(error))
            # Where as many as were said to fit do not either, one fewer would not help.
            fit = min(int(found[1]), most * 9 // 10 if refused else most - 1) if found else 0
            if fit < 1:
                raise
        part.tell("fits", streams=fit, wanted=most)
        most, refused = fit, refused + 1


def eager(part: Part) -> None:
    """The same with plain attention, without graphs, and the torch engine."""
    n, options = asked(part.job)
    frames = frames_of(part.config, n)
    off = ", graphs off" if part.graphs is False else ""
    engines = {
        f"cuda, plain attention{off}": replace(options, attention="plain"),
        "cuda, graphs off": replace(options, graphs=False),
    }

    def one(name: str) -> None:
        codec, lm = random_model(part.config, part.dtype, part.device)
        if name == "torch":
            engine = torch_engine(codec, lm, slots=n, device=part.device)
        else:
            engine = cuda_engine(codec, lm, slots=n, device=part.device, options=engines[name])
        slots = listeners(engine)
        times = part.times(lambda engine=engine, slots=slots: engine.step(slots, frames), 0.35)
        form = {} if name == "torch" else {"attention": attention_of(engine)}
        part.tell("live", streams=n, engine=name, **form, **times)

    # With graphs off another process has told of the first one.
    for name in (*(() if off else ("torch",)), *engines):
        part.attempt(lambda name=name: one(name))


def bulk(part: Part) -> None:
    """Recordings: blocks of 16 frames of n files, at the acceptance of the demo model."""
    n, options = asked(part.job)
    codec, lm = random_model(part.config, part.dtype, part.device)
    engine = cuda_engine(codec, lm, slots=n, device=part.device, options=options)
    slots = np.array(listeners(engine))
    backend = engine.backend
    frames = frames_of(part.config, n * BLOCK).reshape(n, BLOCK, -1)
    # A step of 16 frames reads them in its first pass; the rest are passes of the decoder alone.
    first = part.times(lambda: backend.encode(slots, frames), 0.3, warm=3)
    columns = np.zeros((n, BLOCK, 1 + part.config.lm.num_codebooks), np.int64)
    counts = np.full(n, BLOCK)

    def again() -> None:
        backend.read(slots, columns, counts, logits=True)
        backend.rewind(slots, counts)

    passed = part.times(again, 0.6, warm=3)
    part.tell(
        "bulk", files=n, block=BLOCK, attention=attention_of(engine), step_ms=first["p50_ms"],
        pass_ms=passed["p50_ms"],
    )  # fmt: skip

    def reckon() -> None:
        accepted, by = gpu_tokens.acceptance(part.device)
        more = max(0.0, BLOCK / accepted - 1)
        seconds = (first["p50_ms"] + more * passed["p50_ms"]) / 1e3
        speed = round(n * BLOCK / part.config.frame_rate / seconds, 1)
        part.tell("acceptance", files=n, accepted=accepted, accepted_by=by, sound_s_per_s=speed)

    part.attempt(reckon, "the acceptance is missing: ")


PARTS: dict[str, Callable[[Part], None]] = {
    "attention": gpu_attention.attention, "correct": gpu_tokens.correct, "saves": gpu_saves.saves,
    "live": live, "eager": eager, "bulk": bulk, "warm": gpu_warm.warm,
}  # fmt: skip


def main(arguments: Iterable[str]) -> None:
    """Run the part that a job names."""
    (job,) = (json.loads(one) for one in arguments)
    if job["part"] in ("moshi", "transformers"):
        import gpu_peers  # needs them installed

        PARTS.update(gpu_peers.PARTS)
    PARTS[job["part"]](Part(job))


if __name__ == "__main__":
    main(sys.argv[1:])
