"""`kiku plan`: how many streams fit on a machine, and how many machines are needed."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from kiku.cli import terminal
from kiku.cli.columns import columns
from kiku.cli.themes import themed
from kiku.errors import InputError

if TYPE_CHECKING:
    from kiku.measure.fits import Figure
    from kiku.measure.hardware import Hardware
    from kiku.measure.plan import Need, Plan

_Model = Annotated[
    str,
    typer.Option(metavar="NAME", help="1b, 2.6b, demo, a Hugging Face repository, or a folder."),
]
_Gpu = Annotated[
    str | None,
    typer.Option(
        "--gpu", metavar="NAME", help="GPU to plan for: h100, h200, l40s, a100, l4, rtx4090, ..."
    ),
]
_Cpu = Annotated[
    bool, typer.Option("--cpu", help="Plan for a processor: this machine's, or one with --cores N.")
]
_Cores = Annotated[
    int | None,
    typer.Option(metavar="N", help="Number of cores of another processor; needs --bandwidth-gb-s."),
]
_Memory = Annotated[
    float | None,
    typer.Option("--memory-gb", metavar="GB", help="Memory, if it differs from the known one."),
]
_Bandwidth = Annotated[
    float | None,
    typer.Option("--bandwidth-gb-s", metavar="GB/S", help="Memory bandwidth."),
]
_Tflops = Annotated[
    float | None,
    typer.Option("--tflops", metavar="T", help="Dense bf16 performance of a GPU."),
]
_Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="NAME",
        help="Type of the weights: bf16, int8, int4; int8_kv8: and of keys.",
    ),
]
_KvDtype = Annotated[
    str | None,
    typer.Option(
        "--kv-dtype", metavar="NAME", help="Type of keys and values: fp16, bf16, fp8, int8."
    ),
]
_P99 = Annotated[
    float, typer.Option("--p99-ms", metavar="MS", help="Longest allowed step of live streams.")
]
_Efficiency = Annotated[
    float,
    typer.Option(
        "--efficiency",
        metavar="PART",
        help="Assumed ratio of the roofline's time to the p99 of a step.",
    ),
]
_Share = Annotated[
    float,
    typer.Option(
        "--memory-share", metavar="PART", help="Share of the memory for weights and streams."
    ),
]
_Streams = Annotated[
    int | None,
    typer.Option("--streams", metavar="N", help="Give the number of machines for N live streams."),
]
_Hours = Annotated[
    float | None,
    typer.Option(
        "--hours-per-day",
        metavar="H",
        help="Give the number of machines for this much recorded speech.",
    ),
]
_Price = Annotated[
    float | None,
    typer.Option(
        "--price",
        metavar="PER_HOUR",
        help="Price of a machine, in any currency; also give the costs.",
    ),
]
_ARGUMENTS = (
    "memory_gb", "bandwidth_gb_s", "memory_share", "p99_ms", "kv_dtype", "hours_per_day", "tflops",
)  # fmt: skip
_WORDS = ("cores", "dtype", "efficiency", "price", "streams")  # may be ordinary words
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@dataclass(frozen=True, slots=True)
class HardwareOptions:
    """The GPU or the processor that is planned for."""

    gpu: _Gpu = None
    cpu: _Cpu = False
    cores: _Cores = None
    memory_gb: _Memory = None
    bandwidth_gb_s: _Bandwidth = None
    tflops: _Tflops = None

    def chosen(self) -> "tuple[Hardware, str | None]":
        """The hardware, and of this machine its name among the benchmarks' machines, if it has one.

        Raises:
            typer.BadParameter: the options do not go together, or name no hardware.
        """
        if self.cpu:
            _refuse("--cpu", {"--gpu": self.gpu, "--tflops": self.tflops})
            return self._processor()
        _refuse("a GPU", {"--cores": self.cores})
        return self._card(), None

    def _card(self) -> "Hardware":
        from kiku.measure.hardware import GPUS, gpu

        numbers = self.memory_gb, self.bandwidth_gb_s, self.tflops
        if self.gpu is None and None in numbers:
            raise typer.BadParameter(
                f"nothing to plan for: give --gpu NAME ({', '.join(GPUS)}), --cpu, or all of "
                "--memory-gb, --bandwidth-gb-s and --tflops"
            )
        return gpu(
            self.gpu or "a GPU", memory_gb=self.memory_gb, bandwidth_gb_s=self.bandwidth_gb_s,
            tflops=self.tflops,
        )  # fmt: skip

    def _processor(self) -> "tuple[Hardware, str | None]":
        """Another processor, or this one with its name."""
        from kiku.measure import hardware
        from kiku.measure.known import described
        from kiku.measure.machine import read_bandwidth, this_machine

        cores, bandwidth, memory = self.cores, self.bandwidth_gb_s, self.memory_gb
        if cores is not None and bandwidth is not None:
            return hardware.cpu(cores, bandwidth, memory_gb=memory), None
        if cores is not None or bandwidth is not None or memory is not None:
            raise typer.BadParameter(
                "another processor needs both --cores and --bandwidth-gb-s; give both"
            )
        here = this_machine()
        return hardware.cpu_of(here, read_bandwidth(1 << 28, seconds=0.5)), described(here)


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How the model runs, and how far the hardware may be used."""

    dtype: _Dtype = None
    kv_dtype: _KvDtype = None
    p99_ms: _P99 = 80.0
    efficiency: _Efficiency = 0.5
    memory_share: _Share = 0.9


@dataclass(frozen=True, slots=True)
class NeedOptions:
    """What machines are counted for."""

    streams: _Streams = None
    hours_per_day: _Hours = None
    price: _Price = None


@themed
def plan_command(
    *,
    model: _Model = "1b",
    place: HardwareOptions,
    fit: FitOptions,
    need: NeedOptions,
    as_json: _Json = False,
) -> int:
    """Estimate how many live streams fit on a GPU or a processor, and how many machines you need.

    For each figure it says whether it was measured or follows from the roofline (from how much has
    to be read and computed), and what it assumes. For known models nothing is downloaded.
    """
    from kiku.measure.fits import PlanOptions
    from kiku.measure.plan import Wanted, model_of, plan

    try:
        options = PlanOptions(**asdict(fit))
        wanted = Wanted(**asdict(need))
        model_of(model)  # before the memory is read
        hardware, machine = place.chosen()
        found = plan(model, hardware, options, wanted, machine=machine)
    except InputError as error:
        raise typer.BadParameter(_as_typed(str(error))) from None
    terminal.echo(json.dumps(found.to_dict(), indent=2) + "\n" if as_json else _text(found))
    return 0


def _refuse(what: str, others: dict[str, object]) -> None:
    for option, value in others.items():
        if value is not None:
            raise typer.BadParameter(
                f"{what} and {option} cannot be used together; leave one of them out"
            )


def _as_typed(message: str) -> str:
    """The message with the names of options in place of those of arguments."""
    message = message.replace("give streams", "give --streams")
    for name in _ARGUMENTS:
        message = message.replace(name, "--" + name.replace("_", "-"))
    first, space, rest = message.partition(" ")
    return f"--{first}{space}{rest}" if first in _WORDS else message


def _text(found: "Plan") -> str:
    from kiku.measure.roofline import codec_dtype

    options = found.options
    head = (
        f"{found.model}: weights {options.dtype}, keys and values {options.kv_dtype}, codec "
        f"{codec_dtype(str(options.dtype))}\non {found.hardware.name}{_size(found.hardware)}\n\n"
    )
    text = head + columns(_figures(found))
    if found.problem is not None:
        text += f"\nno live stream fits: {found.problem}\n"
    if needs := list(_needs(found)):
        text += "\n" + columns(needs)
    if beside := list(_beside(found)):
        text += "\nbeside it\n" + "".join(f"  {line}\n" for line in beside)
    return text + "\nassumed\n" + "".join(f"  {line}\n" for line in found.assumptions)


def _size(hardware: "Hardware") -> str:
    parts = [] if hardware.cores is None else [f"cores: {hardware.cores}"]
    if hardware.memory_bytes is not None:
        parts.append(f"{hardware.memory_bytes / 1e9:,.4g} GB")
    parts.append(f"read at {hardware.bandwidth / 1e9:,.6g} GB/s")
    return ", " + ", ".join(parts)


def _figures(found: "Plan") -> Iterable[Sequence[str]]:
    live = f"{found.streams.value:,.0f}"
    yield "live streams", live, found.streams.basis, _processes(found.processes)
    yield "  by memory", _many(found.by_memory), found.stream_bytes.basis, _memory(found)
    within = f"p99 of a step up to {found.options.p99_ms:g} ms{_timed(found, found.by_time)}"
    yield "  by time", _many(found.by_time), found.by_time.basis, within
    yield "  at most", f"{found.at_most:,}", "roofline", "by memory, and with an efficiency of 1"
    if (step := found.step_ms) is not None:
        of = f"with {found.streams.value:,.0f}{_timed(found, step)}"
        yield "  p99 of a step", f"{step.value:,.1f} ms", step.basis, of
    if (speed := found.recordings) is not None:
        at_once = "1" if speed.basis == "measured" else f"{found.recordings_at_once:,}"
        note = f"seconds of sound a second, {at_once} at once"
        yield "recordings", f"{speed.value:,.1f}", speed.basis, note


def _timed(found: "Plan", figure: "Figure") -> str:
    """With which keys a time was measured, if with others than those of the plan."""
    told = found.timed_kv_dtype is not None and figure.basis == "measured"
    return f", keys in {found.timed_kv_dtype}" if told else ""


def _many(figure: "Figure | None") -> str:
    return "unknown" if figure is None else f"{figure.value:,.0f}"


def _processes(count: int) -> str:
    """Nothing, if one is enough."""
    return f"in at least {count:,} processes of kiku serve" if count > 1 else ""


def _memory(found: "Plan") -> str:
    from kiku.measure.fits import size

    said = f"{size(found.fixed_bytes.value)}, and {size(found.stream_bytes.value)} for each"
    return said if found.by_memory is not None else f"{said}; give --memory-gb"


def _needs(found: "Plan") -> Iterable[Sequence[str]]:
    for what, need in (("live", found.live_need), ("recordings", found.recordings_need)):
        if need is not None:
            yield f"machines, {what}", f"{need.machines:,}", need.basis, _of(need)


def _of(need: "Need") -> str:
    from kiku.measure.fits import size

    processes = _processes(need.processes_each)
    said = (
        f"{size(need.memory_bytes_each)} in use on each, {processes and processes + ', '}"
        f"{need.machine_hours_per_day:,.1f} machine hours a day"
    )
    return said if need.cost_per_day is None else f"{said}, costing {need.cost_per_day:,.2f} a day"


def _beside(found: "Plan") -> Iterable[str]:
    for one in found.published:
        said = one.published
        yield f"published: {said.says} ({said.source}): {one.share:g} of the roofline, or more"
    for row in found.measured:
        counts = ", ".join(str(streams) for streams, _ in row.live)
        times = ", ".join(f"{p99:.1f}" for _, p99 in row.live)
        noisy = "" if row.noise is None else " (noisy: {} took longer than {})".format(*row.noise)
        yield (
            f"measured: {counts} live: p99 of a step {times} ms{noisy}, keys and values in "
            f"{row.kv_dtype}, on {row.machine}"
        )
