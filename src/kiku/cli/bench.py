"""`kiku bench`: how fast a model is here."""

import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kiku.audio import read_chunks
from kiku.checkpoint import DEMO
from kiku.cli import terminal
from kiku.cli.columns import columns
from kiku.cli.outputs import refuse_folder, write_result
from kiku.cli.progress import Meter
from kiku.cli.themes import themed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kiku.recognizer import Recognizer


class Precision(StrEnum):
    """Types of the decoder's weights."""

    INT8 = "int8"
    INT4 = "int4"
    INT8_KV8 = "int8_kv8"
    INT4_KV8 = "int4_kv8"
    FLOAT32 = "float32"


class ModelShape(StrEnum):
    """Shapes of the published models."""

    ONE_B = "1b"
    TWO_B = "2.6b"


SIZES = (1, 4, 8, 16, 32, 64)
"""Block sizes that are tried, in frames."""

_ANY_RATE = 24_000

_PARTS = ("live", "block", "file", "memory", "start")
_ALL = ",".join(_PARTS)
_PRECISION_OF_SHAPE = Precision.INT8

_Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="demo, a Hugging Face repository, or a folder.")
]
_Shape = Annotated[
    ModelShape | None, typer.Option(help="Measure random weights of this shape instead of a model.")
]
_Precision = Annotated[
    Precision | None,
    typer.Option(help="Precision of the decoder's weights. Default: what kiku would choose."),
]
_Streams = Annotated[
    str, typer.Option(metavar="N,N,...", help="Numbers of simultaneous live streams to measure.")
]
_What = Annotated[
    str,
    typer.Option(metavar="PART,...", help="What to measure: live, block, file, memory, start."),
]
_Frames = Annotated[
    int, typer.Option(metavar="N", min=1, help="Number of steps in each measurement.")
]
_Sound = Annotated[
    Path | None, typer.Option(metavar="PATH", help="Recording to transcribe. Default: noise.")
]
_Threads = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Number of threads. Default: all available.")
]
_Json = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Also write all results to this file as JSON."),
]


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """What is measured, and how."""

    streams: _Streams = "1,2,4"
    what: _What = _ALL
    frames: _Frames = 200
    sound: _Sound = None
    threads: _Threads = None


@dataclass(frozen=True, slots=True)
class _Measurement:
    """What is measured, and on what."""

    source: str
    precision: str | None
    threads: int | None
    streams: tuple[int, ...]
    count: int
    sound: Path | None
    note: Callable[[str], None]


@themed
def bench(
    context: typer.Context,
    *,
    model: _Model = DEMO,
    shape: _Shape = None,
    precision: _Precision = None,
    options: MeasureOptions,
    file: _Json = None,
) -> int:
    """Measure a model on this machine: its speed live and in blocks, its memory and its start.

    With --shape, kiku first writes random weights to a temporary folder (1 GB for 1b in int8) and
    removes them at the end. The time of a step does not depend on the values of the weights.
    """
    parts = _known(options.what)
    counts = _numbers(options.streams)
    named_by = context.get_parameter_source("model")
    if shape is not None and named_by is not None and named_by.name == "COMMANDLINE":
        raise typer.BadParameter(
            f"it replaces the model, but {model} was named as well; leave one of them out",
            param_hint="--shape",
        )
    if options.sound is not None:
        next(read_chunks(str(options.sound), _ANY_RATE), None)  # raises early if it is no recording
    if file is not None:
        refuse_folder(file)
    meter = Meter(quiet=False)
    with ExitStack() as stack:
        source = model
        if shape is not None:
            precision = precision or _PRECISION_OF_SHAPE
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kiku-bench-")))
            meter.note(f"writing random weights of {shape}, {precision}, to {folder}")
            source = _dummy_model(shape, precision, folder)
        job = _Measurement(
            source, precision, options.threads, counts, options.frames, options.sound, meter.note
        )
        found = _measure(job, parts, stack)
    name = f"{shape}, random weights" if shape else model
    found = {"model": name, "precision": precision and precision.value, **found}
    terminal.echo(f"{name}{f', {precision}' if precision else ''}\n")
    for part in parts:
        terminal.echo("\n" + columns(_TABLES[part](found[part])))
    if file is not None:
        write_result(file, json.dumps(found, indent=2) + "\n")
    return 0


def _known(what: str) -> list[str]:
    parts = [part.strip() for part in what.split(",") if part.strip()]
    for part in parts:
        if part not in _PARTS:
            raise typer.BadParameter(
                f"{part!r} is not known; choose from {', '.join(_PARTS)}", param_hint="--what"
            )
    if not parts:
        raise typer.BadParameter(
            "there is nothing to measure; name at least one part", param_hint="--what"
        )
    return parts


def _numbers(streams: str) -> tuple[int, ...]:
    try:
        counts = tuple(int(part) for part in streams.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{streams!r} is not a list of numbers; write it as 1,2,4", param_hint="--streams"
        ) from None
    if min(counts) < 1:
        raise typer.BadParameter("the number of streams must be at least 1", param_hint="--streams")
    return counts


def _dummy_model(shape: ModelShape, precision: Precision, folder: Path) -> str:
    from kiku.measure.dummy import shape_of, write_dummy_model

    return str(write_dummy_model(folder, shape_of(shape), precision))


def _measure(job: _Measurement, parts: Sequence[str], stack: ExitStack) -> dict[str, Any]:
    """Measure each of `parts`; the results are plain values."""
    from kiku.measure import subprocesses
    from kiku.measure.dummy import open_model

    found: dict[str, Any] = {}
    # In processes of their own, while this one holds no model yet.
    if "memory" in parts:
        job.note("measuring memory")
        memory = subprocesses.memory(job.source, precision=job.precision, threads=job.threads)
        found["memory"] = None if memory is None else memory.to_dict()
    if "start" in parts:
        job.note("measuring the start")
        path = job.sound or _noise_file(stack)
        found["start"] = subprocesses.start(
            job.source, path, precision=job.precision, threads=job.threads
        ).to_dict()
    if {"live", "block", "file"}.isdisjoint(parts):
        return found
    job.note("loading")
    slots = max(job.streams) if "live" in parts else 1
    recognizer = open_model(job.source, precision=job.precision, slots=slots, threads=job.threads)
    return found | _in_process(job, parts, recognizer)


def _in_process(
    job: _Measurement, parts: Sequence[str], recognizer: "Recognizer"
) -> dict[str, Any]:
    from kiku.measure.files import file_speed
    from kiku.measure.speed import Speed, full_window

    samples = _samples(job, recognizer)
    speed = Speed(recognizer.scheduler.engine, recognizer.config, samples)
    full = full_window(recognizer.config)
    found: dict[str, Any] = {}
    if "live" in parts:
        rows: list[dict[str, Any]] = []
        for streams in job.streams:
            for past in (0, full):
                job.note(f"{streams} live, {'full' if past else 'empty'} window")
                rows.append(speed.live(streams, past=past, count=job.count).to_dict())
        found["live"] = rows
    if "block" in parts:
        job.note("blocks")
        sizes = [size for size in SIZES if size <= recognizer.scheduler.max_block]
        found["block"] = [speed.block(size, past=full).to_dict() for size in sizes]
    if "file" in parts:
        job.note("a recording, in blocks and frame by frame")
        found["file"] = file_speed(recognizer, samples, rounds=1).to_dict()
    return found


def _samples(job: _Measurement, recognizer: "Recognizer") -> "NDArray[np.float32]":
    from kiku.measure.files import joined_sound
    from kiku.measure.speed import noise

    if job.sound is None:
        return noise(recognizer.config)
    return joined_sound([job.sound], recognizer.config.sample_rate)


def _noise_file(stack: ExitStack) -> Path:
    """A short recording of noise, used if no other is given."""
    import wave

    import numpy as np

    path = (
        Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kiku-bench-"))) / "noise.wav"
    )
    samples = np.random.default_rng(0).normal(0, 3000, 48_000).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 24_000, len(samples), "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


def _live_table(rows: "Sequence[dict[str, Any]]") -> Iterable[Sequence[str]]:
    yield "LIVE STREAMS", "WINDOW", "MEDIAN", "P90", "P95", "P99", "MAX", "CODEC", "DECODER"
    for row in rows:
        step = row["step"]
        names = ("median_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms")
        yield (
            str(row["streams"]),
            "full" if row["past"] else "empty",
            *(_ms(step[name]) for name in names),
            _ms(row["codec"] and row["codec"]["median_ms"]),
            _ms(row["decoder"] and row["decoder"]["median_ms"]),
        )


def _block_table(rows: "Sequence[dict[str, Any]]") -> Iterable[Sequence[str]]:
    yield "FRAMES IN A BLOCK", "MS A FRAME", "CODEC", "DECODER"
    for row in rows:
        yield (
            str(row["size"]),
            _ms(row["ms_per_frame"]),
            _ms(row["codec_ms_per_frame"]),
            _ms(row["decoder_ms_per_frame"]),
        )


def _file_table(row: dict[str, Any]) -> Iterable[Sequence[str]]:
    yield "A RECORDING", f"{row['sound_s']:.1f} s"
    yield "in blocks", f"{row['speed']:.1f} times as fast as speech"
    yield "against frame by frame", f"{row['ratio']:.2f} times as fast"
    passes = row["frames_per_pass"]
    yield "frames a pass", "unknown" if passes is None else f"{passes:.2f}"


def _memory_table(row: dict[str, Any] | None) -> Iterable[Sequence[str]]:
    yield "MEMORY", "" if row else "not known on this system"
    for name, key in (
        ("libraries", "libraries"), ("after loading", "after_load"),
        ("after a minute", "after_a_minute"), ("of this, private", "private"),
        ("another stream", "per_slot"),
    ):  # fmt: skip
        if row and row.get(key) is not None:
            yield name, f"{row[key] / 1e6:,.0f} MB"


def _start_table(row: dict[str, Any]) -> Iterable[Sequence[str]]:
    yield "START", ""
    yield "loaded", f"{row['loaded_s']:.2f} s"
    yield "first tokens", f"{row['first_tokens_s']:.2f} s"
    word = row["first_word_s"]
    yield "first word", "no words" if word is None else f"{word:.2f} s"


_TABLES: dict[str, Callable[[Any], Iterable[Sequence[str]]]] = {
    "live": _live_table,
    "block": _block_table,
    "file": _file_table,
    "memory": _memory_table,
    "start": _start_table,
}


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
