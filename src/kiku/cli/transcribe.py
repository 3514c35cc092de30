"""`kiku transcribe`: what it is told."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from kiku.checkpoint import DEMO
from kiku.cli import terminal
from kiku.cli.inputs import Recording, find_recordings
from kiku.cli.loaded import ModelSettings, load_with
from kiku.cli.options import (
    ChannelName,
    Dtype,
    End,
    Engine,
    Hotwords,
    Model,
    Revision,
    Start,
    Temperature,
    Threads,
    stream_options,
)
from kiku.cli.outputs import exists, make_folder, name_outputs, refuse_existing
from kiku.cli.progress import Meter
from kiku.cli.run import Format, Request, Run
from kiku.cli.terminal import FAILED, INTERRUPTED
from kiku.errors import ConfigError, KikuError, OutputError
from kiku.text import CaptionOptions

_Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH", help="Audio or video files, folders of such, or - for standard input."
    ),
]
_Device = Annotated[
    str | None, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, mps; else the fastest.")
]
_Format = Annotated[Format, typer.Option("--format", "-f", help="What to write; all needs -o.")]
_Folder = Annotated[
    Path | None,
    typer.Option("--output-dir", "-o", metavar="DIR", help="Write talk.txt for talk.mp3 here."),
]
_Width = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Characters in a line of srt and vtt.")
]
_Count = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Lines in a cue of srt and vtt.")
]
_Words = Annotated[
    bool, typer.Option("--words", help="txt: one word a line: start, end, probability, word.")
]
_Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Results and errors only, no progress.")
]
_Force = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")]
_Skip = Annotated[
    bool, typer.Option("--skip-existing", help="Leave out recordings whose files exist, exit 0.")
]
_Recursive = Annotated[
    bool, typer.Option("--recursive", "-r", help="Of folders take those inside them, too.")
]


def transcribe(
    context: typer.Context,
    paths: _Paths,
    recursive: _Recursive = False,
    model: Model = DEMO,
    revision: Revision = None,
    engine: Engine = "auto",
    device: _Device = None,
    dtype: Dtype = None,
    threads: Threads = None,
    format: _Format = Format.TXT,
    folder: _Folder = None,
    max_line_width: _Width = None,
    max_line_count: _Count = None,
    words: _Words = False,
    hotwords: Hotwords = None,
    temperature: Temperature = 0.0,
    channel: ChannelName = "mix",
    start: Start = 0.0,
    end: End = None,
    quiet: _Quiet = False,
    force: _Force = False,
    skip_existing: _Skip = False,
) -> int:
    """Write down what is said in recordings, word by word as it is recognised.

    Without -o the text goes to standard output. A recording that cannot be read does not stop the
    others; the exit code is then 1. Ctrl-C keeps what was transcribed, as talk.partial.txt.
    """
    options = stream_options(
        hotwords=hotwords, temperature=temperature, channel=channel, start=start, end=end
    )
    found = find_recordings(paths, recursive=recursive)
    request = Request(
        format=format,
        folder=folder,
        captions=CaptionOptions(
            model, max_line_width=max_line_width, max_line_count=max_line_count
        ),
        words=words,
        force=force,
        skip_existing=skip_existing,
        quiet=quiet,
        several=len(found) > 1,
        options=options,
    )
    _check(request)
    recordings = [item for item in found if isinstance(item, Recording)]
    outputs = _outputs(request, recordings)
    meter = Meter(quiet=quiet)
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
    settings = ModelSettings(model, revision, engine, device, dtype, threads)
    slots = max(one.num_channels() for one in recordings) if channel == "each" else 1
    recognizer = load_with(settings, meter, slots=slots)
    if recognizer is None:
        return INTERRUPTED
    debug = context.ensure_object(terminal.Context).debug
    return Run(recognizer, request, outputs, meter, debug=debug).all(to_do)


def _to_do(
    found: Sequence[Recording | KikuError],
    outputs: Mapping[Recording, Mapping[str, Path]],
    request: Request,
) -> list[Recording | KikuError]:
    """What is left of what was named: not those that are done, and of those that would overwrite a
    file the error in their place."""
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


def _check(request: Request) -> None:
    """Refuse what makes no sense before anything is loaded."""
    if request.skip_existing and request.folder is None:
        raise typer.BadParameter("it is about files: add -o DIR", param_hint="--skip-existing")
    if request.skip_existing and request.force:
        raise typer.BadParameter("--force says the opposite", param_hint="--skip-existing")
    if request.words and request.format not in (Format.TXT, Format.ALL):
        raise typer.BadParameter(
            "it is a form of txt (json has all words' times)", param_hint="--words"
        )
    if request.folder is not None:
        return
    if request.format is Format.ALL:
        raise typer.BadParameter("all formats need a folder: add -o DIR", param_hint="-f")
    if request.several and request.format not in (Format.TXT, Format.JSON):
        raise typer.BadParameter(
            f"several recordings as {request.format} need a folder: add -o DIR", param_hint="-f"
        )


def _outputs(
    request: Request, recordings: Sequence[Recording]
) -> Mapping[Recording, dict[str, Path]]:
    if request.folder is None:
        return {}
    try:
        named = name_outputs(recordings, request.folder, request.endings)
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="-o") from error
    make_folder(request.folder)
    return named
