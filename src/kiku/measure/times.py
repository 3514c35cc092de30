"""Sums up many durations in a few numbers."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Clock = Callable[[], float]
"""Seconds since some moment, as `time.perf_counter` gives them."""

REAL_TIME_MS = 80.0
"""Milliseconds that a step of live streams may take: the length of a published model's frame."""


@dataclass(frozen=True, slots=True)
class Times:
    """Durations in milliseconds; the percentiles are durations that were seen."""

    count: int
    median_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Times":
        """The summary of durations in seconds; there must be at least one."""
        assert seconds
        ms = np.asarray(seconds, np.float64) * 1000
        p90, p95, p99 = (float(np.percentile(ms, p, method="higher")) for p in (90, 95, 99))
        return cls(len(ms), *(round(x, 3) for x in (float(np.median(ms)), p90, p95, p99, max(ms))))

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return asdict(self)
