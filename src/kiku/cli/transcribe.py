"""`kiku transcribe`: whether its options make sense, and what is left to do."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import typer

from kiku.cli import terminal
from kiku.cli.inputs import Recording
from kiku.cli.loaded import ModelOptions, load_with
from kiku.cli.options import SoundOptions, TextOptions, formats_of, heard
from kiku.cli.outputs import exists, file_format_of, make_folder, name_outputs, refuse_existing
from kiku.cli.progress import Meter
from kiku.cli.run import TXT, TranscribeRequest, TranscribeRun
from kiku.cli.terminal import FAILED, INTERRUPTED
from kiku.cli.themes import themed
from kiku.cli.transcribe_fleet import FleetOptions, refuse_with_ray, transcribe_on_ray
from kiku.cli.transcribe_options import ProgressOptions, RecordingOptions, ResultOptions
from kiku.errors import ConfigError, KikuError, OutputError
from kiku.text import FORMATS


@themed
def transcribe_command(
    context: typer.Context,
    recordings: RecordingOptions,
    sound: SoundOptions,
    model: ModelOptions,
    text: TextOptions,
    results: ResultOptions,
    fleet: FleetOptions,
    shown: ProgressOptions,
) -> int:
    """Transcribe recordings, and print each word as soon as it is recognised.

    Without -o, or with -o -, the text goes to standard output. A recording that cannot be read does
    not stop the others; the exit code is then 1. Ctrl-C keeps what was transcribed, as
    talk.partial.txt.
    """
    options = heard(sound, text, recordings.max_duration)
    if fleet.ray:
        refuse_with_ray(sound, text, results)
        return transcribe_on_ray(recordings, results, model, options, fleet, quiet=shown.quiet)
    fleet.refuse()
    found = recordings.found()
    named = formats_of(results.formats, FORMATS)
    output = None if results.place is None else Path(results.place)
    file_format = None if output is None else file_format_of(output, FORMATS)
    _check_file(output, file_format, named, len(found))
    request = TranscribeRequest(
        formats=[file_format] if file_format else named or [TXT],
        output=output,
        is_one_file=file_format is not None,
        captions=results.captions(model.model),
        words=results.words,
        force=results.force,
        skip_existing=results.skip_existing,
        quiet=shown.quiet,
        several=len(found) > 1,
        options=options,
        raw=sound.raw_format,
        at_once=recordings.slots or 1,
    )
    _check(request)
    results.refuse(request.formats)
    meter = Meter(quiet=shown.quiet, forced=shown.progress)
    debug = context.ensure_object(terminal.Context).debug
    return _run(found, request, model, text, meter, debug=debug)


def _run(
    found: Sequence[Recording | KikuError],
    request: TranscribeRequest,
    settings: ModelOptions,
    text: TextOptions,
    meter: Meter,
    *,
    debug: bool,
) -> int:
    """Transcribe the recordings that were named; return the exit code."""
    recordings = [item for item in found if isinstance(item, Recording)]
    outputs = _outputs(request, recordings)
    to_do = _to_do(found, outputs, request)
    if skipped := len(found) - len(to_do):
        meter.note(f"{skipped} of {len(found)} are already done")
    # These errors come before a model is loaded, which may take minutes.
    for item in to_do:
        if not isinstance(item, Recording):
            terminal.error(str(item))
    recordings = [item for item in to_do if isinstance(item, Recording)]
    if not recordings:
        return FAILED if to_do else 0
    options = request.options
    each = options.channel == "each"
    slots = max(one.num_channels(request.raw, options.track) if each else 1 for one in recordings)
    recognizer = load_with(
        settings, meter, slots=slots * min(request.at_once, len(recordings)),
        calibration=options.calibration,
    )  # fmt: skip
    if recognizer is None:
        return INTERRUPTED
    request = replace(request, options=text.prompted(options, recognizer))
    return TranscribeRun(recognizer, request, outputs, meter, debug=debug).all(to_do)


def _to_do(
    found: Sequence[Recording | KikuError],
    outputs: Mapping[Recording, Mapping[str, Path]],
    request: TranscribeRequest,
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
            f"{output} is one file for one recording, but there are {count}; name a folder",
            param_hint="-o",
        )
    if named and named != [file_format]:
        raise typer.BadParameter(
            f"{output} is one {file_format} file; name a folder for {', '.join(named)}",
            param_hint="-o",
        )


def _check(request: TranscribeRequest) -> None:
    """Refuse what makes no sense before anything is loaded."""
    if request.skip_existing and not request.to_files:
        raise typer.BadParameter(
            "it needs files to write to; add -o DIR", param_hint="--skip-existing"
        )
    if request.skip_existing and request.force:
        raise typer.BadParameter(
            "it contradicts --force; leave one of them out", param_hint="--skip-existing"
        )
    if request.force and not request.to_files:
        raise typer.BadParameter("it needs files to write to; add -o DIR", param_hint="--force")
    if request.raw is not None and request.at_once > 1:
        raise typer.BadParameter(
            "raw samples can only be transcribed one recording at a time; leave it out, or give "
            "--slots 1",
            param_hint="--slots",
        )
    if request.words and TXT not in request.formats:
        raise typer.BadParameter(
            "it needs the format txt (json always has the times of words); add -f txt",
            param_hint="--words",
        )
    if request.to_files:
        return
    if len(request.formats) > 1:
        raise typer.BadParameter("several formats need a folder; add -o DIR", param_hint="-f")
    if request.several and request.formats[0] not in (TXT, "json"):
        raise typer.BadParameter(
            f"several recordings as {request.formats[0]} need a folder; add -o DIR",
            param_hint="-f",
        )


def _outputs(
    request: TranscribeRequest, recordings: Sequence[Recording]
) -> Mapping[Recording, dict[str, Path]]:
    """The files for each recording, by format; their folder is made."""
    output = request.output
    if output is None:
        return {}
    if request.is_one_file:
        make_folder(output.parent)
        return {recording: {request.formats[0]: output} for recording in recordings}
    try:
        named = name_outputs(recordings, output, request.formats)
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="-o") from error
    make_folder(output)
    return named
