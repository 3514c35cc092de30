"""`kiku listen`: what it is told."""

import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kiku.audio.microphone import Microphone, list_devices
from kiku.checkpoint import DEMO
from kiku.cli import terminal
from kiku.cli.captions_view import CaptionsView
from kiku.cli.columns import columns
from kiku.cli.feed import Played, Sound
from kiku.cli.inputs import STDIN, Recording, find_recordings
from kiku.cli.listening import Listening, Sink
from kiku.cli.live_results import TEXTS, LiveFile, Printed
from kiku.cli.loaded import ModelSettings, load_with
from kiku.cli.options import (
    CalibrationFile,
    ChannelName,
    Device,
    Dtype,
    End,
    Engine,
    Formats,
    HighlightWords,
    Hotwords,
    LineCount,
    LineWidth,
    Model,
    Offline,
    Raw,
    Revision,
    Start,
    Temperature,
    Threads,
    Track,
    caption_options,
    formats_of,
    raw_format,
    stream_options,
)
from kiku.cli.outputs import PARTIAL, format_of, make_folder, refuse_existing
from kiku.cli.progress import Meter
from kiku.cli.raw import RawFormat
from kiku.cli.terminal import INTERRUPTED
from kiku.errors import OutputError
from kiku.live import LiveStream
from kiku.options import AudioFormat, StreamOptions
from kiku.text import CaptionOptions


class TurnsWanted(StrEnum):
    """How soon a silence is the end of a turn."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    OFF = "off"


_From = Annotated[
    str | None,
    typer.Option("--from", metavar="FILE", help="A recording, or - for standard input."),
]
_Speed = Annotated[
    float,
    typer.Option(metavar="X", min=0.0, help="Of --from: 1 is as spoken, 0 as fast as possible."),
]
_Mic = Annotated[
    str | None,
    typer.Option(
        "--mic", metavar="NAME", help="Which microphone: its number, or a part of its name."
    ),
]
_List = Annotated[bool, typer.Option("--list-mics", help="List the microphones, and end.")]
_Turns = Annotated[
    TurnsWanted, typer.Option(help="How eagerly a silence is the end of a turn, and of a line.")
]
_Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="A folder for files that grow while it listens, all formats unless -f says which; or "
        "one file such as talk.srt.",
    ),
]
_Force = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")]
_Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Text and errors only, also on a terminal.")
]


def listen(
    context: typer.Context,
    source: _From = None,
    speed: _Speed = 1.0,
    raw: Raw = None,
    mic: _Mic = None,
    list_mics: _List = False,
    model: Model = DEMO,
    revision: Revision = None,
    engine: Engine = "auto",
    device: Device = None,
    dtype: Dtype = None,
    threads: Threads = None,
    offline: Offline = False,
    turns: _Turns = TurnsWanted.MEDIUM,
    hotwords: Hotwords = None,
    temperature: Temperature = 0.0,
    calibration: CalibrationFile = None,
    channel: ChannelName = "mix",
    track: Track = None,
    start: Start = 0.0,
    end: End = None,
    formats: Formats = None,
    output: _Output = None,
    max_line_width: LineWidth = 42,
    max_line_count: LineCount = 2,
    highlight_words: HighlightWords = False,
    force: _Force = False,
    quiet: _Quiet = False,
) -> int:
    """Caption what is said into a microphone, or in a recording as if it were said now.

    On a terminal each word appears as it is recognised: yellow if its probability is below 0.9, red
    below 0.6, grey while it is being written. Elsewhere each turn is a line. A microphone that
    disappears is listened to again when it is back. Ctrl-C ends it, with the last words.
    """
    if list_mics:
        _say_devices()
        return 0
    wanted = _formats(formats, output)
    options = stream_options(
        hotwords=hotwords, temperature=temperature, channel=channel, track=track, start=start,
        end=end, calibration=calibration,
    )  # fmt: skip
    _check(source, mic, options, raw)
    notices: deque[str] = deque()
    heard = (
        _microphone(mic, notices)
        if source is None
        else _recording(source, speed, options, raw_format(raw))
    )
    files = _files(output, heard.stem, wanted, force=force)
    captions = caption_options(
        model, line_width=max_line_width, line_count=max_line_count, highlight_words=highlight_words
    )
    outputs = _Outputs(wanted, files, captions, heard.has_end, force, quiet)
    meter = Meter(quiet=quiet)
    settings = ModelSettings(model, revision, engine, device, dtype, threads, offline)
    recognizer = load_with(settings, meter, slots=heard.num_channels)
    if recognizer is None:
        return INTERRUPTED
    with recognizer.stream(_live(options, heard, turns)) as stream:
        listening = Listening(
            stream, heard.sound, notices, outputs.sinks(), label=heard.label, quiet=quiet,
            debug=context.ensure_object(terminal.Context).debug,
        )  # fmt: skip
        if outputs.in_view:
            listening.show(_view(listening, stream, heard.label))
        code = listening.run()
    if code == 0 and files:
        meter.note(f"wrote {', '.join(map(str, files.values()))}")
    return code


@dataclass(frozen=True, slots=True)
class _Heard:
    """What is listened to."""

    sound: Sound
    label: str
    stem: str
    """Of the names of its files."""
    num_channels: int = 1
    """That are transcribed one by one."""
    has_end: bool = False
    """A file has; a microphone and a pipe go on until somebody stops them."""


def _recording(source: str, speed: float, options: StreamOptions, raw: RawFormat | None) -> _Heard:
    """The recording of this name; AudioError where there is none."""
    (found,) = find_recordings([source])
    if not isinstance(found, Recording):
        raise found
    sound = Played(
        found.source, speed, start_s=options.start_s, end_s=options.end_s, raw=raw,
        track=options.track,
    )  # fmt: skip
    count = found.num_channels(raw, options.track) if options.channel == "each" else 1
    has_end = found.source != STDIN
    stem = found.name if found.stem.casefold().endswith(PARTIAL) else found.stem
    return _Heard(sound, found.label, stem, count, has_end)


def _microphone(mic: str | None, notices: deque[str]) -> _Heard:
    """The microphone of this number or name; AudioError where there is none."""
    wanted = int(mic) if mic is not None and mic.isdecimal() else mic
    microphone = Microphone(wanted, tell=notices.append)
    # What a microphone records is called by the time: there is no better name for it.
    return _Heard(microphone, microphone.name, f"heard-{datetime.now():%Y-%m-%d-%H%M%S}")


def _live(options: StreamOptions, heard: _Heard, turns: TurnsWanted) -> StreamOptions:
    """The same, of a stream that is captioned."""
    return replace(
        options,
        format=AudioFormat(channels=heard.num_channels, channels_axis=1),
        turns=None if turns is TurnsWanted.OFF else turns.value,
        partials=True,
    )


@dataclass(frozen=True, slots=True)
class _Outputs:
    """Where results go."""

    formats: Sequence[str]
    files: Mapping[str, Path]
    captions: CaptionOptions
    has_end: bool
    """What is heard has an end, and files are partial until that."""
    force: bool
    quiet: bool

    @property
    def in_view(self) -> bool:
        """Whether captions are drawn on a terminal."""
        is_text = bool(self.files) or self.formats == ["txt"]
        return not self.quiet and sys.stdout.isatty() and is_text

    def sinks(self) -> list[Sink]:
        """All but the captions; files are begun."""
        if not self.files and not self.in_view:
            return [Printed(TEXTS[self.formats[0]](self.captions))]
        begun: list[LiveFile] = []
        try:
            for format, path in self.files.items():
                text = TEXTS[format](self.captions)
                begun.append(LiveFile(path, text, force=self.force, has_end=self.has_end))
        except OutputError:  # empty files of the others would be in the way of the next run
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


def _check(source: str | None, mic: str | None, options: StreamOptions, raw: str | None) -> None:
    """Refuse what makes no sense before anything is loaded."""
    if source is None:
        for name, is_given in (
            ("--channel each", options.channel == "each"),
            ("--track", options.track is not None),
            ("--start", options.start_s > 0),
            ("--end", options.end_s is not None),
            ("--raw", raw is not None),
        ):
            if is_given:
                raise typer.BadParameter("it is of a recording: add --from FILE", param_hint=name)
    if source is not None and mic is not None:
        raise typer.BadParameter("--from is none; leave one of the two out", param_hint="--mic")
    if source is not None and Path(source).is_dir():
        raise typer.BadParameter("it is a folder; name one recording", param_hint="--from")


def _formats(given: Sequence[str] | None, output: Path | None) -> list[str]:
    named = formats_of(given, TEXTS)
    if output is None:
        if len(named) > 1:
            raise typer.BadParameter("several formats need a folder: add -o DIR", param_hint="-f")
        return named or ["txt"]
    file_format = format_of(output, TEXTS)
    if file_format is None:
        return named or list(TEXTS)
    if named and named != [file_format]:
        raise typer.BadParameter(
            f"{output} is one file of {file_format}; name a folder for {', '.join(named)}",
            param_hint="-o",
        )
    return [file_format]


def _files(
    output: Path | None, stem: str, formats: Sequence[str], *, force: bool
) -> Mapping[str, Path]:
    """Where results go, by format; refused before anything is loaded if they cannot."""
    if output is None:
        return {}
    if format_of(output, TEXTS) is None:
        files = {ending: output / f"{stem}.{ending}" for ending in formats}
        make_folder(output)
    else:
        files = {formats[0]: output}
        make_folder(output.parent)
    if not force:
        refuse_existing(files)
    return files
