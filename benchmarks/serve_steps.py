"""What the steps of a service's model took during a run of clients, by its own figures.

`/metrics` has a histogram of steps. A percentile is given as the bound of the bucket it lies in:
"at most" so much. The processor time of service and clients is the system's.
"""

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from kiku.serve.loadtest import FRAME_S, Load, LoadReport


def processor_s(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Steps:
    """What the service has counted since its start."""

    counts: dict[float, float]
    """How many steps took at most so many seconds."""

    seconds: float
    num_frames: float

    @classmethod
    def read(cls, metrics: str) -> "Steps":
        """From the text of /metrics."""
        found = [
            sample
            for family in text_string_to_metric_families(metrics)
            for sample in family.samples
        ]
        counts = {
            float(one.labels["le"]): one.value
            for one in found
            if one.name == "kiku_step_seconds_bucket"
        }
        values = {one.name: one.value for one in found}
        return cls(counts, values["kiku_step_seconds_sum"], values["kiku_frames_total"])


def steps_between(before: Steps, after: Steps) -> dict[str, Any]:
    """The steps between two readings: how many, how long, and how many longer than a frame."""
    counts = {bound: after.counts[bound] - before.counts[bound] for bound in sorted(after.counts)}
    total = counts[math.inf]
    if not total:
        return {"steps": 0}

    def at_most(share: float) -> float | None:
        bound = next(bound for bound, count in counts.items() if count >= share * total)
        return None if math.isinf(bound) else round(1e3 * bound, 1)

    long = total - counts[FRAME_S]
    return {
        "steps": int(total), "mean_ms": round(1e3 * (after.seconds - before.seconds) / total, 1),
        "p50_at_most_ms": at_most(0.5), "p99_at_most_ms": at_most(0.99),
        "longer_than_a_frame": round(long / total, 4),
    }  # fmt: skip


class MeasuredLoad(Load):
    """Clients of a service; after each run, what its steps and its processor time were."""

    def __init__(
        self, port: int, pid: int, protocol: str, sounds: Sequence[NDArray[np.float32]]
    ) -> None:
        """See Load. `pid` is the service's process."""
        super().__init__(f"ws://127.0.0.1:{port}", protocol, sounds)
        self._metrics_url, self._pid = f"http://127.0.0.1:{port}/metrics", pid
        self.costs: list[dict[str, Any]] = []
        """Of each run."""

    async def run(self, streams: int, seconds: float) -> LoadReport:
        """See Load."""
        begun = (time.monotonic(), processor_s(self._pid), time.process_time())
        before = await self._steps()
        report = await super().run(streams, seconds)
        after = await self._steps()
        ended = (time.monotonic(), processor_s(self._pid), time.process_time())
        passed, service, mine = (b - a for a, b in zip(begun, ended, strict=True))
        num_frames = after.num_frames - before.num_frames
        self.costs.append({
            "step": steps_between(before, after),
            "share_of_time_in_steps": round((after.seconds - before.seconds) / passed, 2),
            "processor_ms_a_frame": round(1e3 * service / max(1, num_frames), 2),
            "cores_of_service": round(service / passed, 2),
            "cores_of_clients": round(mine / passed, 2),
        })  # fmt: skip
        return report

    async def _steps(self) -> Steps:
        async with httpx.AsyncClient(timeout=60) as client:
            return Steps.read((await client.get(self._metrics_url)).text)
