"""`kiku transcribe --ray`: its own options, and the calls of `kiku.fleet`."""

import os
import re
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from kiku.cli import terminal
from kiku.cli.columns import columns
from kiku.cli.loaded import ModelOptions, warn_of_calibration
from kiku.cli.options import SoundOptions, TextOptions, formats_of
from kiku.cli.progress import LINE_EVERY_S, clock
from kiku.cli.terminal import FAILED
from kiku.cli.transcribe_options import RecordingOptions, ResultOptions
from kiku.errors import InputError, MissingExtra
from kiku.options import StreamOptions

if TYPE_CHECKING:
    from kiku.fleet import ModelSettings, Progress, Report, Survey
    from kiku.fleet.batch import OnProgress

OnRay = Annotated[
    bool,
    typer.Option(
        "--ray",
        help="Transcribe on Ray. The address of a cluster may follow: HOST:PORT, auto or local. "
        "Default: RAY_ADDRESS, else this machine. PATH may also be s3://... or a manifest of "
        "JSON lines. -o is the folder for rows (-f jsonl or parquet) and captions. A second "
        "run does what is missing.",
    ),
]
Actors = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="--ray: number of processes. Default: as many as there is room for.",
    ),
]
LimitHours = Annotated[
    float | None,
    typer.Option(
        "--limit-hours", metavar="H", help="--ray: transcribe only this many hours of sound."
    ),
]
RetryFailed = Annotated[
    bool,
    typer.Option(
        "--retry-failed",
        help="--ray: try again the recordings that were not transcribed completely.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help=
        "--ray: only show what is missing, and the estimate of kiku plan for this processor or "
        "for --gpu."),
]  # fmt: skip
Gpu = Annotated[str | None, typer.Option(metavar="NAME", help="--dry-run: GPU, as for kiku plan.")]
Price = Annotated[
    float | None, typer.Option(metavar="PER_HOUR", help="--dry-run: price of a machine.")
]

_ADDRESS = re.compile(r"ray://.+|[\w.-]+:\d+|auto|local")
_FORMATS = ("jsonl", "parquet", "srt", "vtt", "txt", "tsv")


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """Options of `--ray`."""

    TITLE: ClassVar[str] = "On many machines"

    ray: OnRay = False
    actors: Actors = None
    limit_hours: LimitHours = None
    retry_failed: RetryFailed = False
    dry_run: DryRun = False
    gpu: Gpu = None
    price: Price = None

    def refuse(self) -> None:
        """Raise BadParameter if one of the others is given without `--ray`."""
        for one in fields(self):
            if getattr(self, one.name) != one.default and one.name != "ray":
                option = "--" + one.name.replace("_", "-")
                raise typer.BadParameter(
                    "it needs --ray; add it, or leave this out", param_hint=option
                )


def refuse_with_ray(sound: SoundOptions, text: TextOptions, results: ResultOptions) -> None:
    """Raise BadParameter for options that mean nothing on Ray."""
    for option, is_given in (
        ("--raw", sound.raw is not None),
        ("--prompt", text.prompt is not None),
        ("--words", results.words),
        ("--force", results.force),
        ("--skip-existing", results.skip_existing),
        *results.caption_options(),
    ):
        if is_given:
            raise typer.BadParameter(
                "it cannot be used with --ray; leave one of them out", param_hint=option
            )


def transcribe_on_ray(
    recordings: RecordingOptions,
    results: ResultOptions,
    settings: ModelOptions,
    options: StreamOptions,
    fleet: FleetOptions,
    *,
    quiet: bool,
) -> int:
    """Transcribe on Ray; return the exit code."""
    from kiku import fleet as room

    address, sources = _address_in(recordings.paths)
    output = results.place
    if output is None:
        raise typer.BadParameter("--ray writes to a folder; name one", param_hint="-o")
    named = formats_of(results.formats, _FORMATS, has_all=False) or ["jsonl"]
    settings.apply()  # processes on this machine inherit these variables
    model = room.ModelSettings(
        settings.model, settings.revision, settings.engine, settings.device, settings.dtype,
        settings.threads, recordings.slots,
    )  # fmt: skip
    warn_of_calibration(options.calibration, model.model)
    try:
        run = room.Run(address, fleet.actors, fleet.limit_hours, fleet.retry_failed)
        if fleet.dry_run:
            found = room.survey(
                sources, output, model=model, options=options, formats=named, run=run
            )
            terminal.echo(columns(list(_plan(found, model, fleet))))
            return 0
        with progress_lines(quiet=quiet) as show:
            report = room.transcribe(
                sources, output, model=model, options=options, formats=named, run=run,
                on_progress=show,
            )  # fmt: skip
    except InputError as error:
        raise typer.BadParameter(str(error)) from None
    except MissingExtra as error:
        raise MissingExtra("--ray", error.extra) from None
    if not quiet:
        terminal.error(_closing(report))
    for path in report.killed:
        terminal.error(f"{path}: the process died each time; the row in the output says so")
    return FAILED if report.progress.failed else 0


def _address_in(paths: Sequence[str]) -> tuple[str | None, list[str]]:
    """The cluster's address among the paths, if there is one, and the other paths."""
    found = [path for path in paths if _ADDRESS.fullmatch(path) and not os.path.lexists(path)]
    if len(found) > 1:
        raise typer.BadParameter(
            f"two addresses were given, {' and '.join(found)}; leave one of them out",
            param_hint="--ray",
        )
    rest = [path for path in paths if path not in found]
    if not rest or "-" in rest:
        raise typer.BadParameter(
            "--ray needs files, folders, patterns or manifests of JSON lines; name some",
            param_hint="PATH",
        )
    return (found[0] if found else None), rest


@contextmanager
def progress_lines(*, quiet: bool) -> "Generator[OnProgress | None]":
    """In the block, the progress is printed as a line at the start and every half a minute.

    The lines come even if no recording is done: Ray may wait for room, and a recording may take
    hours.
    """
    if quiet:
        yield None
        return
    stopped, latest = threading.Event(), list[tuple["Progress", float]]()

    def show(progress: "Progress") -> None:
        if not latest:
            terminal.error(_opening(progress))
        latest[:] = [(progress, time.monotonic())]

    def tell() -> None:
        while not stopped.wait(LINE_EVERY_S):
            for progress, at in latest:
                since_s = time.monotonic() - at if progress.files else 0.0
                terminal.error(line_of(replace(progress, wall_s=progress.wall_s + since_s)))

    thread = threading.Thread(target=tell, name="kiku-progress", daemon=True)
    thread.start()
    try:
        yield show
    finally:
        stopped.set()
        thread.join()


def _opening(progress: "Progress") -> str:
    return f"{progress.of:,} recordings, about {clock(progress.of_seconds)} of sound; Ray starts"


def line_of(progress: "Progress") -> str:
    """The progress in one line."""
    left = "" if progress.left_s is None else f", {clock(progress.left_s)} left"
    failed = f", {progress.failed} failed" if progress.failed else ""
    return (
        f"{progress.files} of {progress.of} recordings, {clock(progress.seconds)} of about "
        f"{clock(progress.of_seconds)} of sound, {progress.speed:.1f}x{left}{failed}"
    )


def _closing(report: "Report") -> str:
    found, progress = report.survey, report.progress
    done = f"{found.finished} of {found.files} were already done; " if found.finished else ""
    failed = f", {progress.failed} of them not complete: see their rows" if progress.failed else ""
    return (
        f"{done}{progress.files} recordings, {clock(progress.seconds)} of sound in "
        f"{clock(progress.wall_s)} ({progress.speed:.1f}x){failed}; rows are in {report.output}"
    )


def _plan(found: "Survey", model: "ModelSettings", fleet: FleetOptions) -> Iterable[Sequence[str]]:
    yield "recordings", f"{found.files:,}", f"{found.finished:,} are finished"
    if found.failed_before:
        yield (
            "",
            "",
            (f"{found.failed_before:,} of them not complete; --retry-failed tries them again"),
        )
    count = len(found.items)
    yield "to do", f"{count:,}", _basis(found)
    if not count:
        return
    from kiku.measure import hardware, known, machine
    from kiku.measure.fits import PlanOptions
    from kiku.measure.plan import Wanted, plan

    here = None
    if fleet.gpu is not None:
        place = hardware.gpu(fleet.gpu)
    else:
        this = machine.this_machine()
        here, place = (
            known.described(this),
            hardware.cpu_of(this, machine.read_bandwidth(1 << 28, seconds=0.5)),
        )
    slots = model.slots_on(gpu=place.kind == "gpu")
    wanted = Wanted(
        hours_per_day=max(found.hours, 1e-3), price=fleet.price, recordings_at_once=slots
    )
    counted = plan(model.model, place, PlanOptions(model.dtype), wanted, machine=here)
    need, speed = counted.recordings_need, counted.recordings
    if need is None or speed is None:
        yield "kiku plan", "", f"the model does not fit on {place.name}"
        return
    at_once = f"{counted.recordings_at_once:,} at once"
    yield "kiku plan", f"{speed.value:,.1f}x", f"{speed.basis}, on {place.name}, {at_once}"
    yield "machine hours", f"{need.machine_hours_per_day:,.2f}", ""
    if need.cost_per_day is not None:
        yield "cost", f"{need.cost_per_day:,.2f}", ""


def _basis(found: "Survey") -> str:
    stated = min(found.lengths.stated, len(found.items))
    by = (
        ""
        if stated >= len(found.items)
        else f", by the durations of {stated:,} and the sizes of the others"
    )
    return f"{found.hours:,.2f} hours of sound{by}"
