"""What a part of `gpu.py` is told, and how it tells what it measures."""

import json
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gpu_models import config_of


class Part:
    """What a part is told, and how it tells."""

    def __init__(self, job: dict[str, Any]) -> None:
        """Of a job as in JSON."""
        self.job = job
        self.device: str = job["device"]
        self.config = config_of(job.get("shape", "tiny"))
        # To import PyTorch took some of the time already.
        gone = time.time() - job["begun"] if "begun" in job else 0.0
        self.ends = time.monotonic() + job["budget_s"] - gone
        self.steps: int = job["steps"]
        self.on_gpu = self.device.startswith("cuda")
        self.dtype = torch.bfloat16 if self.on_gpu else torch.float32
        self.graphs: bool | None = job.get("graphs")
        """False where none are to be recorded."""
        if self.on_gpu and torch.device(self.device).index is not None:
            # What is computed, waited for and counted without a word of where is so there.
            torch.cuda.set_device(self.device)

    def tell(self, what: str, **values: Any) -> None:
        """One row."""
        kept = ("shape", "kv", "temperature", "graphs")
        named = {key: self.job[key] for key in kept if key in self.job}
        print(json.dumps({"what": what, **named, **values}), flush=True)

    def attempt(self, work: Callable[[], None], missing: str = "") -> None:
        """Do one of several things that a part measures. Where it fails, a row says why, after the
        words of `missing`, and the next one is done."""
        try:
            work()
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            why = f"{missing}{type(error).__name__}: {str(error).strip()}"
            self.tell("stopped", why=why[:400])

    def wait(self) -> None:
        """Until the device is idle."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def times(self, step: Callable[[], Any], share: float, warm: int = 10) -> dict[str, float]:
        """Milliseconds of up to `steps` calls, in at most this share of the time that is left."""
        for _ in range(min(warm, self.steps)):
            step()
        self.wait()
        ends = time.monotonic() + max(1.0, (self.ends - time.monotonic()) * share)
        taken: list[float] = []
        while len(taken) < self.steps and time.monotonic() < ends:
            started = time.perf_counter()
            step()
            taken.append((time.perf_counter() - started) * 1e3)
        return spread(taken)


def spread(taken: list[float]) -> dict[str, float]:
    """How many steps there were, their median, 99th percentile and greatest, of milliseconds."""
    p50, p99 = np.percentile(taken, [50, 99])
    return {
        "steps": len(taken), "p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3),
        "max_ms": round(max(taken), 3),
    }  # fmt: skip
