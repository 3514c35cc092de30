"""`kiku listen`: its options, and whether they make sense."""

import os
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from kiku.audio.microphone import Microphone, list_devices
from kiku.cli import terminal
from kiku.cli.captions_view import CaptionsView
from kiku.cli.columns import columns
from kiku.cli.feed import Played, Sound
from kiku.cli.inputs import STDIN, Recording, find_recordings
from kiku.cli.listening import Listening, Sink
from kiku.cli.live_results import TEXTS, LiveFile, Printed
from kiku.cli.loaded import ModelOptions, load_with
from kiku.cli.options import SoundOptions, TextOptions, WritingOptions, formats_of, heard
from kiku.cli.outputs import PARTIAL, STANDARD, file_format_of, make_folder, refuse_existing
from kiku.cli.progress import Meter
from kiku.cli.raw import RawFormat
from kiku.cli.terminal import INTERRUPTED
from kiku.cli.themes import themed
from kiku.errors import OutputError
from kiku.live import LiveStream
from kiku.options import AudioFormat, StreamOptions
from kiku.serial import number_in
from kiku.text import CaptionOptions


class TurnsWanted(StrEnum):
    """How eagerly a silence is taken for the end of a turn."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    OFF = "off"


_AS_SPOKEN = 1.0

_From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FILE",
        help="Transcribe this recording, or - for standard input, instead of a microphone.",
    ),
]
_Speed = Annotated[
    float,
    typer.Option(
        metavar="X",
        min=0.0,
        help="Speed for --from: 1 plays it in real time, 0 as fast as possible.",
    ),
]
_Mic = Annotated[
    str | None,
    typer.Option(
        "--mic",
        metavar="NAME",
        help="Microphone: its number or part of its name. Default: the system's.",
    ),
]
_List = Annotated[bool, typer.Option("--list-mics", help="List the microphones and exit.")]
_Turns = Annotated[
    TurnsWanted | None,
    typer.Option(help="How soon a silence ends a turn, and with it a line. Default: medium."),
]
_Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="Folder for files that are written while it listens, in all formats or those of -f; "
        "or one file such as talk.srt.",
    ),
]
_Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]
_Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print only text and errors, also on a terminal.")
]


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Where the sound comes from."""

    TITLE: ClassVar[str] = SoundOptions.TITLE

    source: _From = None
    speed: _Speed = _AS_SPOKEN
    mic: _Mic = None
    list_mics: _List = False


@dataclass(frozen=True, slots=True)
class CaptionedOptions(WritingOptions):
    """What is written while the sound comes, when a line ends, and where it goes."""

    turns: _Turns = None
    output: _Output = None
    force: _Force = False


@themed
def listen(
    context: typer.Context,
    place: SourceOptions,
    sound: SoundOptions,
    model: ModelOptions,
    text: TextOptions,
    writing: CaptionedOptions,
    quiet: _Quiet = False,
) -> int:
    """Caption what is said into a microphone, live, or a recording as if it were live.

    On a terminal, each word appears as soon as it is recognised: yellow if its probability is below
    0.9, red below 0.6, grey while it is being written. Elsewhere each turn is a line. If the
    microphone disappears, kiku waits until it is back. Ctrl-C finishes the last words and exits.
    """
    if place.list_mics:
        _say_devices()
        return 0
    output = None if str(writing.output) == STANDARD else writing.output
    wanted = _formats(writing.formats, output)
    options = heard(sound, text)
    _check(place, options, sound.raw)
    _check_device(place, model.device)
    writing.refuse(wanted)
    if writing.force and output is None:
        raise typer.BadParameter("it needs files to write to; add -o DIR", param_hint="--force")
    notices: deque[str] = deque()
    hearing = (
        _microphone(place.mic, notices)
        if place.source is None
        else _recording(place.source, place.speed, options, sound.raw_format)
    )
    named = _files(output, hearing.stem, wanted, force=writing.force)
    outputs = _Outputs(
        wanted, named, writing.captions(model.model), hearing.has_end, writing.force, quiet
    )
    meter = Meter(quiet=quiet)
    recognizer = load_with(
        model, meter, slots=hearing.num_channels, calibration=options.calibration
    )
    if recognizer is None:
        return INTERRUPTED
    options = text.prompted(options, recognizer)
    with recognizer.stream(_live(options, hearing, writing.turns)) as stream:
        listening = Listening(
            stream, hearing.sound, notices, outputs.sinks(), label=hearing.label, quiet=quiet,
            debug=context.ensure_object(terminal.Context).debug,
        )  # fmt: skip
        if outputs.in_view:
            listening.show(_view(listening, stream, hearing.label))
        code = listening.run()
        if code == 0 and 0 < stream.duration <= options.start_s and not quiet:
            terminal.error(
                f"warning: {hearing.label} ends after {stream.duration:.2f} s, before --start "
                f"{options.start_s:g}, so nothing of it was transcribed; give an earlier --start"
            )
    if code == 0 and named:
        meter.note(f"wrote {', '.join(map(str, named.values()))}")
    return code


@dataclass(frozen=True, slots=True)
class _Heard:
    """The sound that is listened to."""

    sound: Sound
    label: str
    stem: str
    """Name of its files, without an ending."""
    num_channels: int = 1
    """Channels that are transcribed separately."""
    has_end: bool = False
    """Whether it ends by itself. A file does; a microphone and a pipe go on until stopped."""


def _recording(source: str, speed: float, options: StreamOptions, raw: RawFormat | None) -> _Heard:
    """The recording of this name; AudioError if there is none."""
    found, *others = find_recordings([source])
    if others:
        raise typer.BadParameter(
            f"it matches {1 + len(others)} recordings; name one", param_hint="--from"
        )
    if not isinstance(found, Recording):
        raise found
    sound = Played(found.source, speed, options, raw=raw)
    count = found.num_channels(raw, options.track) if options.channel == "each" else 1
    has_end = found.source != STDIN
    stem = found.name if found.stem.casefold().endswith(PARTIAL) else found.stem
    return _Heard(sound, found.label, stem, count, has_end)


def _microphone(mic: str | None, notices: deque[str]) -> _Heard:
    """The microphone of this number or name; AudioError if there is none."""
    number = None if mic is None else number_in(mic)
    microphone = Microphone(mic if number is None else number, tell=notices.append)
    # Files of a microphone are named after the time at which it was opened.
    return _Heard(microphone, microphone.name, f"heard-{datetime.now():%Y-%m-%d-%H%M%S}")


def _live(options: StreamOptions, heard: _Heard, turns: TurnsWanted | None) -> StreamOptions:
    """The same options for a stream that is captioned live."""
    return replace(
        options,
        format=AudioFormat(channels=heard.num_channels, channels_axis=1),
        turns=_turns(options, turns),
        partials=True,
        rate_check=heard.has_end,  # a header may be wrong, a microphone's driver is not
    )


def _check_device(place: SourceOptions, device: str | None) -> None:
    """Elsewhere `--device 1` is a microphone."""
    if place.source is None and (device or "").isdigit():
        raise typer.BadParameter(
            f"the model cannot run on {device}; for a microphone write --mic {device}",
            param_hint="--device",
        )


def _turns(options: StreamOptions, typed: TurnsWanted | None) -> Any:
    """What is typed; else the turns of `--options`, or medium."""
    if typed is None:
        return options.turns or TurnsWanted.MEDIUM.value
    return None if typed is TurnsWanted.OFF else typed.value


@dataclass(frozen=True, slots=True)
class _Outputs:
    """Where results go."""

    formats: Sequence[str]
    files: Mapping[str, Path]
    captions: CaptionOptions
    has_end: bool
    """Whether the sound has an end; files are called partial until it is reached."""
    force: bool
    quiet: bool

    @property
    def in_view(self) -> bool:
        """Whether captions are drawn on a terminal."""
        is_text = bool(self.files) or self.formats == ["txt"]
        return not self.quiet and sys.stdout.isatty() and is_text

    def sinks(self) -> list[Sink]:
        """All outputs except for the captions; files are opened."""
        if not self.files and not self.in_view:
            return [Printed(TEXTS[self.formats[0]](self.captions))]
        begun: list[LiveFile] = []
        try:
            for format, path in self.files.items():
                text = TEXTS[format](self.captions)
                begun.append(LiveFile(path, text, force=self.force, has_end=self.has_end))
        except OutputError:  # the next run would refuse to replace empty files
            for file in begun:
                file.discard()
            raise
        return list[Sink](begun)


def _view(listening: Listening, stream: LiveStream, label: str) -> CaptionsView:
    feed = listening.feed
    return CaptionsView(
        label,
        levels_db=lambda: (feed.level.mean_db, feed.level.peak_db),
        lag_s=lambda: feed.lag_s,
        heard_s=lambda: stream.duration,
    )


def _say_devices() -> None:
    rows = [("", "NUMBER", "NAME", "BY", "CHANNELS", "RATE")]
    for device in list_devices():
        mark = "*" if device.is_default else ""
        numbers = str(device.num_channels), f"{device.rate} Hz"
        rows.append((mark, str(device.index), device.name, device.host, *numbers))
    terminal.echo(columns(rows))


def _check(place: SourceOptions, options: StreamOptions, raw: str | None) -> None:
    """Refuse what makes no sense before anything is loaded."""
    source, mic = place.source, place.mic
    if source is None:
        for name, is_given in (
            ("--channel each", options.channel == "each"),
            ("--track", options.track is not None),
            ("--start", options.start_s > 0),
            ("--end", options.end_s is not None),
            ("--raw", raw is not None),
            ("--speed", place.speed != _AS_SPOKEN),
        ):
            if is_given:
                raise typer.BadParameter("it needs a recording; add --from FILE", param_hint=name)
    if source is not None and mic is not None:
        raise typer.BadParameter(
            "it cannot be used together with --from; leave one of them out", param_hint="--mic"
        )
    if source is not None and os.path.isdir(source):
        raise typer.BadParameter("it is a folder; name one recording", param_hint="--from")


def _formats(given: Sequence[str] | None, output: Path | None) -> list[str]:
    named = formats_of(given, TEXTS)
    if output is None:
        if len(named) > 1:
            raise typer.BadParameter("several formats need a folder; add -o DIR", param_hint="-f")
        return named or ["txt"]
    file_format = file_format_of(output, TEXTS)
    if file_format is None:
        return named or list(TEXTS)
    if named and named != [file_format]:
        raise typer.BadParameter(
            f"{output} is one {file_format} file; name a folder for {', '.join(named)}",
            param_hint="-o",
        )
    return [file_format]


def _files(
    output: Path | None, stem: str, formats: Sequence[str], *, force: bool
) -> Mapping[str, Path]:
    """Where results go, by format; raises before anything is loaded if they cannot go there."""
    if output is None:
        return {}
    if file_format_of(output, TEXTS) is None:
        files = {ending: output / f"{stem}.{ending}" for ending in formats}
        make_folder(output)
    else:
        files = {formats[0]: output}
        make_folder(output.parent)
    if not force:
        refuse_existing(files)
    return files
