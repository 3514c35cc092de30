"""`kiku doctor`: what is installed here, and what speed to expect of it."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from kiku.cli import terminal
from kiku.cli.columns import columns
from kiku.cli.terminal import FAILED

if TYPE_CHECKING:
    from kiku.measure.doctor import DoctorReport

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")]


def doctor(as_json: _Json = False) -> int:
    """Show what is installed, what this processor can do, and what speed to expect.

    Reads memory for half a second to measure its bandwidth. The exit code is 1 if something that
    kiku needs is missing.
    """
    from kiku.measure.doctor import examine

    report = examine()
    if as_json:
        terminal.echo(json.dumps(report.to_dict(), indent=2) + "\n")
    else:
        terminal.echo(columns(_installed(report)))
        terminal.echo("\nkernels\n" + columns(_kernels(report)))
        if report.expected:
            terminal.echo(
                "\nms for a frame of 80 ms, decoder, one live stream\n" + columns(_speed(report))
            )
    if report.missing:
        terminal.error(
            f"missing: {', '.join(report.missing)}; run  pip install --force-reinstall kiku"
        )
        return FAILED
    return 0


def _installed(report: "DoctorReport") -> Iterable[tuple[str, str]]:
    machine = report.machine
    yield "kiku", report.kiku
    yield "python", report.python
    yield "system", report.system
    for name, version in report.packages.items():
        yield name, version or "MISSING"
    for extra, there in report.extras.items():
        yield (
            f"extra {extra}",
            "installed" if there else f"not installed: pip install '.[{extra}]' in the clone",
        )
    yield "processor", machine.processor
    known = machine.instructions
    yield (
        "instructions",
        "unknown" if known is None else ", ".join(known) or "none that speed it up",
    )
    yield "threads", str(machine.threads)
    memory = machine.memory_bytes
    yield "memory", "unknown" if memory is None else f"{memory / 1e9:.1f} GB"
    read = report.bandwidth_gb_s
    yield "memory bandwidth", "not measured" if read is None else f"{read:g} GB/s"
    kept = f"{report.cache} ({report.cache_bytes / 1e6:,.1f} MB)"
    yield (
        "converted models",
        kept if report.cache else "nowhere: set KIKU_CACHE to a folder for them",
    )
    count = report.microphones
    yield "microphones", "sounddevice is not installed" if count is None else str(count)


def _kernels(report: "DoctorReport") -> Iterable[tuple[str, ...]]:
    for kernel in report.kernels:
        yield f"  {kernel.precision}", kernel.by, kernel.instructions, kernel.note


def _speed(report: "DoctorReport") -> Iterable[tuple[str, ...]]:
    yield "  MODEL", "WEIGHTS", "LIMIT", "TYPICAL", ""
    for e in report.expected:
        note = "" if e.real_time else "slower than speech"
        yield f"  {e.shape}", e.precision, f"{e.limit_ms:.1f}", f"{e.typical_ms:.1f}", note
