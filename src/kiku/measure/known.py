"""Measured and published figures of how many streams fit, to be shown next to estimates.

`measured.json` is made from benchmarks/results by benchmarks/plan_data.py; a test checks that they
agree.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import combinations, takewhile
from typing import Any, cast

from kiku.checkpoint import DEMO, find, read_config
from kiku.checkpoint.model_shapes import SHAPES
from kiku.config import ModelConfig
from kiku.measure.hardware import GPUS, Hardware
from kiku.measure.machine import Machine
from kiku.measure.roofline import NetworkCost, step_ms


@dataclass(frozen=True, slots=True)
class PublishedStreams:
    """A published figure: how many streams a GPU serves."""

    model: str
    gpu: str
    streams: int
    step_ms: float
    """Milliseconds that a step takes at most, if the figure is right."""
    says: str
    source: str


@dataclass(frozen=True, slots=True)
class Beside:
    """A published figure, compared with the roofline."""

    published: PublishedStreams
    share: float
    """The roofline's time of such a step, divided by the published `step_ms`."""


_README = "README of kyutai-labs/delayed-streams-modeling"
_SERVER = "Kyutai's Rust server"
PUBLISHED = (
    PublishedStreams("1b", "h100", 400, 80.0, f"400 live streams, {_SERVER}", _README),
    PublishedStreams(
        "1b", "l40s", 64, 80 / 3, f"64 live streams at 3 times real time, {_SERVER}", _README
    ),
    PublishedStreams(
        "2.6b", "h100", 256, 80 / 1.49,
        "256 streams at 1.49 times real time, 380 s of sound a second",
        "arXiv 2509.08753, table 10",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measured:
    """Benchmark results of one model on one machine, with one type of weights and one of keys."""

    machine: str
    kv_dtype: str = "float32"
    """The type of the keys and values."""
    live: tuple[tuple[int, float], ...] = ()
    """Numbers of streams with full windows, and the p99 of their steps in ms; the fewest first."""
    fixed_bytes: float | None = None
    stream_bytes: float | None = None
    speed: float | None = None
    """Seconds of sound a second, for one recording alone."""
    source: tuple[str, ...] = ()
    """Dates and commits of the benchmarks."""

    def streams_within(self, ms: float) -> int:
        """The most streams whose steps were within `ms`, as were the steps of all fewer streams.
        More streams never take less time: if they seem to, something else used the machine for a
        while, and may do so again."""
        within = takewhile(lambda row: row[1] <= ms, self.live)
        return max((streams for streams, _ in within), default=0)

    def exceeded(self, ms: float) -> bool:
        """Whether a number of streams was tried whose steps took longer than `ms`."""
        return any(p99 > ms for _, p99 in self.live)

    @property
    def noise(self) -> tuple[int, int] | None:
        """A number of streams that took longer than a larger number, by more than a tenth, and that
        larger number; None if there is no such pair."""
        pairs = combinations(self.live, 2)
        return next(((few, more) for (few, a), (more, b) in pairs if a > 1.1 * b), None)


def shape_name(config: ModelConfig) -> str | None:
    """The name under which figures of a model of this shape are kept, whatever it is called."""
    for name, known in {**SHAPES, DEMO: _demo()}.items():
        if config.lm.transformer == known.lm.transformer:
            return name
    return None


@cache
def _demo() -> ModelConfig:
    return read_config(find(DEMO, weights=False))


def published(
    shape: str | None, hardware: Hardware, parts: Sequence[NetworkCost]
) -> tuple[Beside, ...]:
    """What is published of this model on this GPU."""
    return tuple(
        Beside(one, round(step_ms(parts, hardware, one.streams) / one.step_ms, 2))
        for one in PUBLISHED
        if one.model == shape and GPUS[one.gpu].name == hardware.name
    )


def measured(shape: str | None, dtype: str) -> tuple[Measured, ...]:
    """What was measured of this model in this type of weights, by machine."""
    rows = [row for row in _rows() if (row["model"], row["dtype"]) == (shape, dtype)]
    ways = sorted({(row["machine"], row["kv"]) for row in rows})
    return tuple(
        _of(*way, [row for row in rows if (row["machine"], row["kv"]) == way]) for way in ways
    )


def socket_us() -> float:
    """Processor time that the server was measured to take for a stream's frame, in microseconds."""
    return max(row["us_a_frame"] for row in _rows() if row["what"] == "sockets")


def streams_a_process(frame_rate: float) -> int:
    """Live streams that one process of the server feeds, if it has a core for its own work."""
    return max(1, math.floor(1e6 / frame_rate / socket_us()))


def described(machine: Machine) -> str:
    """A machine as the benchmarks' rows name it."""
    known = ", ".join(machine.instructions or ())
    memory = f"{(machine.memory_bytes or 0) / 1e9:.0f} GB"
    return f"{machine.processor} ({known}), {machine.threads} cores, {memory}"


def _of(machine: str, kv_dtype: str, rows: Sequence[dict[str, Any]]) -> Measured:
    live = sorted((row["streams"], row["p99_ms"]) for row in rows if row["what"] == "live")
    none: dict[str, Any] = {}
    memory = next((row for row in rows if row["what"] == "memory"), none)
    recording = next((row for row in rows if row["what"] == "file"), none)
    return Measured(
        machine,
        kv_dtype,
        tuple(live),
        memory.get("fixed_bytes"),
        memory.get("stream_bytes"),
        recording.get("speed"),
        tuple(sorted({f"{row['date']}, commit {row['commit']}" for row in rows})),
    )


@cache
def _rows() -> tuple[dict[str, Any], ...]:
    text = files("kiku.measure").joinpath("measured.json").read_text(encoding="utf-8")
    return tuple(cast(list[dict[str, Any]], json.loads(text)))
