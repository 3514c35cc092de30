"""`kiku transcribe`: its options, and whether they make sense."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from kiku.cli import terminal
from kiku.cli.inputs import Recording, find_recordings
from kiku.cli.loaded import ModelSettings, load_with
from kiku.cli.options import (
    MaxDuration,
    SoundOptions,
    TextOptions,
    WritingOptions,
    formats_of,
    heard,
)
from kiku.cli.outputs import STANDARD, exists, format_of, make_folder, name_outputs, refuse_existing
from kiku.cli.progress import Meter
from kiku.cli.run import TXT, Request, Run
from kiku.cli.terminal import FAILED, INTERRUPTED
from kiku.cli.themes import themed
from kiku.cli.transcribe_fleet import FleetOptions, on_ray, refuse_with_ray
from kiku.errors import ConfigError, KikuError, OutputError
from kiku.options import MAX_RECORDING_S
from kiku.text import FORMATS

_Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH", help="Audio or video files, folders of such, or - for standard input."
    ),
]
_Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="A folder, for talk.txt of talk.mp3; or of one recording a file such as talk.srt.",
    ),
]
_Words = Annotated[
    bool, typer.Option("--words", help="txt: one word a line: start, end, probability, word.")
]
_Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Results and errors only, no progress.")
]
_Progress = Annotated[
    bool,
    typer.Option(
        "--progress", help="Without a terminal, too, tell of the model and of each file written."
    ),
]
_Force = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")]
_Skip = Annotated[
    bool, typer.Option("--skip-existing", help="Leave out recordings whose files exist, exit 0.")
]
_Recursive = Annotated[
    bool, typer.Option("--recursive", "-r", help="Of folders take those inside them, too.")
]


_Slots = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1,
        help="Recordings at once; else 1, and with --ray in each process 8, or 64 on a GPU.",
    ),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class RecordingOptions:
    """Which recordings there are, and how many are transcribed at once."""

    TITLE: ClassVar[str] = SoundOptions.TITLE

    recursive: _Recursive = False
    max_duration: MaxDuration = MAX_RECORDING_S
    slots: _Slots = None


@dataclass(frozen=True, slots=True)
class FileOptions:
    """Where results go."""

    TITLE: ClassVar[str] = WritingOptions.TITLE

    output: _Output = None
    words: _Words = False
    force: _Force = False
    skip_existing: _Skip = False


@themed
def transcribe(
    context: typer.Context,
    paths: _Paths,
    recordings: RecordingOptions,
    sound: SoundOptions,
    model: ModelSettings,
    text: TextOptions,
    writing: WritingOptions,
    files: FileOptions,
    fleet: FleetOptions,
    quiet: _Quiet = False,
    progress: _Progress = False,
) -> int:
    """Write down what is said in recordings, word by word as it is recognised.

    Without -o, or with -o -, the text goes to standard output. A recording that cannot be read does
    not stop the others; the exit code is then 1. Ctrl-C keeps what was transcribed, as
    talk.partial.txt.
    """
    output = None if files.output == STANDARD else files.output
    options = heard(sound, text, recordings.max_duration)
    if fleet.ray:
        refuse_with_ray({
            "--raw": sound.raw, "--prompt": text.prompt, "--words": files.words,
            "--force": files.force, "--skip-existing": files.skip_existing,
            "--max-line-width": writing.max_line_width != 42,
            "--max-line-count": writing.max_line_count != 2,
            "--highlight-words": writing.highlight_words,
        })  # fmt: skip
        return on_ray(
            paths, output, writing.formats, model, options, fleet, slots=recordings.slots,
            quiet=quiet,
        )  # fmt: skip
    fleet.refuse()
    found = find_recordings(paths, recursive=recordings.recursive)
    named = formats_of(writing.formats, FORMATS)
    place = None if output is None else Path(output)
    file_format = None if place is None else format_of(place, FORMATS)
    _check_file(place, file_format, named, len(found))
    request = Request(
        formats=[file_format] if file_format else named or [TXT],
        to_files=place is not None,
        captions=writing.captions(model.model),
        words=files.words,
        force=files.force,
        skip_existing=files.skip_existing,
        quiet=quiet,
        several=len(found) > 1,
        options=options,
        raw=sound.raw_format,
        at_once=recordings.slots or 1,
    )
    _check(request)
    writing.refuse(request.formats)
    meter = Meter(quiet=quiet, forced=progress)
    debug = context.ensure_object(terminal.Context).debug
    return _run(found, request, place, file_format, model, text, meter, debug=debug)


def _run(
    found: Sequence[Recording | KikuError], request: Request, output: Path | None,
    file_format: str | None, settings: ModelSettings, text: TextOptions, meter: Meter, *,
    debug: bool,
) -> int:  # fmt: skip
    """Transcribe the recordings that were named; give the exit code."""
    recordings = [item for item in found if isinstance(item, Recording)]
    outputs = _outputs(request, recordings, output, file_format)
    to_do = _to_do(found, outputs, request)
    if skipped := len(found) - len(to_do):
        meter.note(f"{skipped} of {len(found)} are done already")
    # Before a model is loaded for minutes.
    for item in to_do:
        if not isinstance(item, Recording):
            terminal.error(str(item))
    recordings = [item for item in to_do if isinstance(item, Recording)]
    if not recordings:
        return FAILED if to_do else 0
    options = request.options
    each = options.channel == "each"
    slots = max(one.num_channels(request.raw, options.track) if each else 1 for one in recordings)
    recognizer = load_with(settings, meter, slots=slots * min(request.at_once, len(recordings)))
    if recognizer is None:
        return INTERRUPTED
    request = replace(request, options=text.prompted(options, recognizer))
    return Run(recognizer, request, outputs, meter, debug=debug).all(to_do)


def _to_do(
    found: Sequence[Recording | KikuError],
    outputs: Mapping[Recording, Mapping[str, Path]],
    request: Request,
) -> list[Recording | KikuError]:
    """What is left to do: recordings that are done are left out, and one that would overwrite a
    file is replaced by the error."""
    left: list[Recording | KikuError] = []
    for item in found:
        if not isinstance(item, Recording):
            left.append(item)
            continue
        files = outputs.get(item, {})
        if request.skip_existing and files and all(map(exists, files.values())):
            continue
        try:
            if not (request.force or request.skip_existing):
                refuse_existing(files)
            left.append(item)
        except OutputError as error:
            left.append(error)
    return left


def _check_file(
    output: Path | None, file_format: str | None, named: Sequence[str], count: int
) -> None:
    """Refuse a single file for results that need several."""
    if file_format is None:
        return
    if count > 1:
        raise typer.BadParameter(
            f"{output} is one file, for one recording, and there are {count}; name a folder",
            param_hint="-o",
        )
    if named and named != [file_format]:
        raise typer.BadParameter(
            f"{output} is one file of {file_format}; name a folder for {', '.join(named)}",
            param_hint="-o",
        )


def _check(request: Request) -> None:
    """Refuse what makes no sense before anything is loaded."""
    if request.skip_existing and not request.to_files:
        raise typer.BadParameter("it is about files: add -o DIR", param_hint="--skip-existing")
    if request.skip_existing and request.force:
        raise typer.BadParameter("--force says the opposite", param_hint="--skip-existing")
    if request.force and not request.to_files:
        raise typer.BadParameter("it is about files: add -o DIR", param_hint="--force")
    if request.raw is not None and request.at_once > 1:
        raise typer.BadParameter("raw samples are heard one after the other", param_hint="--slots")
    if request.words and TXT not in request.formats:
        raise typer.BadParameter(
            "it is a form of txt (json has all words' times)", param_hint="--words"
        )
    if request.to_files:
        return
    if len(request.formats) > 1:
        raise typer.BadParameter("several formats need a folder: add -o DIR", param_hint="-f")
    if request.several and request.formats[0] not in (TXT, "json"):
        raise typer.BadParameter(
            f"several recordings as {request.formats[0]} need a folder: add -o DIR",
            param_hint="-f",
        )


def _outputs(
    request: Request, recordings: Sequence[Recording], output: Path | None, file_format: str | None
) -> Mapping[Recording, dict[str, Path]]:
    if output is None:
        return {}
    if file_format is not None:
        make_folder(output.parent)
        return {recording: {file_format: output} for recording in recordings}
    try:
        named = name_outputs(recordings, output, request.formats)
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="-o") from error
    make_folder(output)
    return named
