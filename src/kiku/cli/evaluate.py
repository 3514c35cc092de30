"""`kiku evaluate`: how well a model recognizes recordings whose text is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from kiku.calibration import KINDS, CalibrationKind
from kiku.cli import terminal
from kiku.cli.columns import columns
from kiku.cli.loaded import ModelOptions, load_with
from kiku.cli.options import SoundOptions, WordOptions
from kiku.cli.outputs import exists, make_folder, refuse_no_file, same_file
from kiku.cli.progress import Meter
from kiku.cli.terminal import FAILED, INTERRUPTED
from kiku.cli.themes import themed
from kiku.errors import OutputError

if TYPE_CHECKING:
    from kiku.evaluate import Comparison, Evaluation, HearingOptions, Manifest
    from kiku.recognizer import Recognizer

_CALIBRATION = "calibration.json"

_SHOWN_PROBLEMS = 10
"""Problems that are printed one by one; the report has all."""

_Manifests = Annotated[
    list[Path],
    typer.Argument(
        metavar="MANIFEST",
        help="Files of JSON lines, or folders: LibriSpeech, Common Voice, LJSpeech, Kaldi, or "
        "with a .txt beside each recording.",
    ),
]
_Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Folder to keep the transcripts in; also write report.json, report.md and "
        "report.html there.",
    ),
]
_Recorded = Annotated[
    bool,
    typer.Option(
        "--recorded",
        help="Transcribe as recordings, not as live streams: faster, but without latencies.",
    ),
]
_Slots = Annotated[
    int, typer.Option(metavar="N", min=1, help="Number of recordings to transcribe at once.")
]
_Normalise = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="How to normalise texts before comparing: english (Whisper's), basic (case and "
        "punctuation), none, or auto: english for English, else basic.",
    ),
]
_By = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD",
        help="Also give figures for each value of a field, such as speaker, or of length. Can be "
        "repeated.",
    ),
]
_Only = Annotated[
    list[str] | None,
    typer.Option(metavar="FIELD=VALUE", help="Take only rows with this value, such as split=dev."),
]
_Against = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Compare with the evaluation in this folder."),
]
_Calibrate = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="Fit a calibration of the words' probabilities and write it to -o as "
        "calibration.json: isotonic, or temperature if there are few words.",
    ),
]
_Page = Annotated[
    int,
    typer.Option(
        "--page",
        metavar="N",
        min=0,
        help="Number of recordings with errors to include in report.html.",
    ),
]
_Fresh = Annotated[
    bool, typer.Option("--fresh", help="Discard the transcripts in -o and start again.")
]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only figures and errors.")]


@dataclass(frozen=True, slots=True)
class RowOptions:
    """Which recordings are run through the model, and how."""

    TITLE: ClassVar[str] = SoundOptions.TITLE

    only: _Only = None
    recorded: _Recorded = False
    slots: _Slots = 4


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What is measured, and where it goes."""

    TITLE: ClassVar[str] = "Measurement"

    normalise: _Normalise = "auto"
    by: _By = None
    against: _Against = None
    calibrate: _Calibrate = None
    output: _Output = None
    page: _Page = 300
    fresh: _Fresh = False


@themed
def evaluate_command(
    manifests: _Manifests,
    rows: RowOptions,
    model: ModelOptions,
    words: WordOptions,
    report: ReportOptions,
    quiet: _Quiet = False,
) -> int:
    """Measure how well a model transcribes recordings whose text is known: word errors, invented
    words, times, latency, turns, and how reliable its probabilities are.

    A row that cannot be evaluated does not stop the others; the exit code is then 1. With -o,
    transcripts are kept as they are made, and the same command continues where it was stopped.
    """
    from kiku.evaluate import HearingOptions, forget, read_evaluation, read_manifests
    from kiku.evaluate.evaluation import check_evaluation
    from kiku.evaluate.hearing import LIVE_CHUNK_S
    from kiku.evaluate.normalising import CHOICES

    kind, output, by = _kind(report.calibrate, report.output), report.output, report.by or ()
    if output is not None:
        _check_output(output, manifests, report, words.calibration)
    if report.normalise not in CHOICES:
        raise typer.BadParameter(
            f"{report.normalise!r} is not known; choose one of {', '.join(CHOICES)}",
            param_hint="--normalise",
        )
    stream = words.stream_options()
    manifest = read_manifests(manifests, only=_values_of(rows.only))
    for note in manifest.notes:
        terminal.error(note)
    # These checks come before a model is loaded, which may take minutes.
    check_evaluation(manifest, by=by, normalise=report.normalise)
    if report.against is not None:
        read_evaluation(manifest, report.against, normalise=report.normalise)
    if output is not None:
        make_folder(output, wants="a folder")
    meter = Meter(quiet=quiet)
    slots = min(rows.slots, len(manifest.utterances))
    recognizer = load_with(model, meter, slots=slots, calibration=stream.calibration)
    if recognizer is None:
        return INTERRUPTED
    if output is not None and report.fresh:  # results stay if no model is loaded
        forget(output)
    job = _Job(manifest, output, report.normalise, tuple(by), report.against, kind, report.page)
    options = HearingOptions(stream=stream, chunk_s=None if rows.recorded else LIVE_CHUNK_S)
    return job.run(recognizer, options, meter)


def _kind(calibrate: str | None, output: Path | None) -> CalibrationKind | None:
    if calibrate is None:
        return None
    known: dict[str, CalibrationKind] = {one: one for one in KINDS}
    kind = known.get(calibrate)
    if kind is None:
        raise typer.BadParameter(
            f"{calibrate!r} is not known; choose one of {', '.join(KINDS)}",
            param_hint="--calibrate",
        )
    if output is None:
        raise typer.BadParameter("it writes a file; add -o DIR", param_hint="--calibrate")
    return kind


def _check_output(
    output: Path, manifests: Sequence[Path], report: ReportOptions, calibration: Path | None
) -> None:
    """Refuse a folder in which results would replace a file that is read, or one that no
    evaluation wrote."""
    from kiku.evaluate.report import FILES
    from kiku.evaluate.store import NAME

    if report.against is not None and same_file(report.against, output):
        raise typer.BadParameter(
            f"{output} is also the folder of -o, and would be compared with itself; name another "
            "folder",
            param_hint="--against",
        )
    written = [NAME, *FILES, *([_CALIBRATION] if report.calibrate is not None else [])]
    for path in (output / name for name in written):
        if any(same_file(path, one) for one in (*manifests, calibration) if one is not None):
            raise typer.BadParameter(
                f"{path} is a file that this command reads, and would be replaced; name another "
                "folder",
                param_hint="-o",
            )
        # Files that an evaluation writes are always next to its results.
        if path.name != NAME and exists(path) and not exists(output / NAME):
            raise OutputError(
                f"{path} does not belong to an evaluation (there is no {NAME} next to it); name "
                "another folder, or remove the file"
            )
        if exists(path):
            refuse_no_file(path)


def _values_of(only: Sequence[str] | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in only or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise typer.BadParameter(
                f"{text!r} is not of the form FIELD=VALUE; write it as split=dev",
                param_hint="--only",
            )
        found[name] = value
    return found


@dataclass(frozen=True, slots=True)
class _Job:
    """What one command evaluates, and where it goes."""

    manifest: "Manifest"
    output: Path | None
    normalise: str
    by: tuple[str, ...]
    against: Path | None
    calibrate: CalibrationKind | None
    page: int

    def run(self, recognizer: "Recognizer", options: "HearingOptions", meter: Meter) -> int:
        """Run the recordings, print and write the results; return the exit code."""
        from kiku.evaluate import evaluate
        from kiku.evaluate.report import speed

        progress = _Progress(meter)
        try:
            evaluation = evaluate(
                self.manifest, recognizer, options=options, folder=self.output,
                normalise=self.normalise, by=self.by, on_heard=progress.tell,
            )  # fmt: skip
        except KeyboardInterrupt:
            kept = "" if self.output is None else "; run the same command again to continue"
            terminal.error(f"interrupted after {progress.done} of {progress.of} recordings{kept}")
            return INTERRUPTED
        meter.note(speed(evaluation))
        comparison = self._comparison(evaluation)
        self._print(evaluation, comparison)
        self._write(evaluation, comparison, meter)
        return self._tell_problems(evaluation)

    def _comparison(self, evaluation: "Evaluation") -> "Comparison | None":
        from kiku.evaluate import compare, read_evaluation

        if self.against is None:
            return None
        earlier = read_evaluation(self.manifest, self.against, normalise=self.normalise)
        told = {one.where for one in evaluation.problems}
        problems = [one for one in earlier.problems if one.where not in told]
        for one in problems[:_SHOWN_PROBLEMS]:
            terminal.error(f"{self.against}: {one.where}: {one.message}")
        if problems:
            total = len(earlier.scored) + len(problems)
            terminal.error(f"{len(problems)} of {total} rows were not compared")
        return compare(earlier, evaluation)

    def _print(self, evaluation: "Evaluation", comparison: "Comparison | None") -> None:
        from kiku.evaluate.report import report_tables

        blocks: list[str] = []
        for table in report_tables(evaluation, comparison):
            if table.title in ("Figures", "Compared") or table.title.startswith("By "):
                header = [table.header] if any(table.header) else []
                blocks.append(columns([*header, *table.rows]))
        terminal.echo("\n".join(blocks))

    def _write(
        self, evaluation: "Evaluation", comparison: "Comparison | None", meter: Meter
    ) -> None:
        from kiku.evaluate import write_report

        if self.output is None:
            return
        meter.note("writing the report")
        paths = write_report(
            evaluation, self.output, comparison=comparison, page_utterances=self.page
        )
        meter.note(f"open {paths[-1]} to see and play the errors")
        if self.calibrate is not None:
            _write_calibration(evaluation, self.calibrate, self.output / _CALIBRATION)

    def _tell_problems(self, evaluation: "Evaluation") -> int:
        problems = evaluation.problems
        for one in problems[:_SHOWN_PROBLEMS]:
            terminal.error(f"{one.where}: {one.message}")
        if not problems:
            return 0
        total = len(problems) + len(evaluation.scored)
        terminal.error(f"{len(problems)} of {total} rows were not evaluated")
        return FAILED


def _write_calibration(evaluation: "Evaluation", kind: CalibrationKind, path: Path) -> None:
    from kiku.evaluate.trust import crossed_ece

    found = evaluation.calibration(kind)
    found.save(path)
    crossed = crossed_ece([one.trusts for one in evaluation.scored], kind)
    told = "" if crossed is None else f"; on words that it was not fitted to, ECE {crossed:.3f}"
    terminal.echo(f"\n{path.name}: {kind}, from {found.words} words{told}\n")


class _Progress:
    """How many recordings are done, reported after every tenth of them."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.done = self.of = 0

    def tell(self, done: int, of: int) -> None:
        """Note that one more is done."""
        before, self.done, self.of = self.done, done, of
        if 10 * done // of > 10 * before // of:
            self._meter.note(f"{done} of {of} transcribed")
