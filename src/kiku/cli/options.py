"""Options that several commands take: the model, where it runs, what it transcribes, and how."""

import json
import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from kiku.calibration import Calibration
from kiku.cli.raw import RawFormat
from kiku.cli.themes import LISTED_LAST
from kiku.errors import ConfigError
from kiku.options import Channel, Hotword, StreamOptions
from kiku.recognizer import Recognizer
from kiku.serial import number_in
from kiku.text import CaptionOptions
from kiku.writing import reason_of

ALL = "all"
"""The name of all formats together."""
_CAPTIONS = frozenset(("srt", "vtt"))
_LINE_WIDTH, _LINE_COUNT = 42, 2

Model = Annotated[
    str, typer.Option(metavar="NAME", help="demo, a Hugging Face repository, or a folder.")
]
Revision = Annotated[
    str | None, typer.Option(metavar="REV", help="Branch, tag or commit of the repository.")
]
Engine = Annotated[
    str, typer.Option(metavar="NAME", help="onnx, torch or cuda; auto lets kiku choose.")
]
Device = Annotated[
    str | None, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1 or mps. Default: the fastest.")
]
Offline = Annotated[
    bool, typer.Option("--offline", help="Use only models in the cache; never use the network.")
]
ModelDir = Annotated[
    Path | None,
    typer.Option(
        "--model-dir",
        metavar="DIR",
        help="Folder for converted models. KIKU_CACHE=DIR does the same. Default: the user's "
        "cache.",
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="int8, int4, float32, int8_kv8 or int4_kv8; also bfloat16 or float16 with the "
        "torch engine.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, help="Number of threads that compute. Default: all available."
    ),
]
Hotwords = Annotated[
    list[str] | None,
    typer.Option(
        "--hotword",
        metavar="WORD[:BOOST]",
        help="Word or phrase to favour. BOOST is its strength, above 0 and at most 20. Default: "
        "2. Can be repeated.",
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        min=0.0,
        help="0 always picks the likeliest token; above 0, tokens are drawn at random. Default: 0.",
    ),
]
OptionsFile = Annotated[
    Path | None,
    typer.Option(
        "--options",
        metavar="FILE",
        help="JSON file with further StreamOptions, by their names in Python. The command's own "
        "options come first.",
    ),
]
ChannelName = Annotated[
    str | None,
    typer.Option(
        "--channel",
        metavar="mix|each|N",
        help="mix transcribes all channels mixed; each transcribes them separately and marks the "
        "words; N takes one channel, counted from 0. Default: mix.",
    ),
]
Track = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        help="Audio track to use, counted from 0. Default: the file's default track.",
    ),
]
Start = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        min=0.0,
        help="Start at this time in a recording; times still count from its start.",
    ),
]
End = Annotated[
    float | None, typer.Option(metavar="SECONDS", min=0.0, help="Stop at this time in a recording.")
]
MaxDuration = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Stop longer recordings here, because a file may claim to last days. Default: 86400.",
    ),
]

CalibrationFile = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="FILE",
        help="Correct the words' probabilities with this file, written by kiku evaluate "
        "--calibrate.",
    ),
]

Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        "-f",
        metavar="NAME[,NAME]",
        help="Format of the output, or all for every format.",
    ),
]
LineWidth = Annotated[
    int,
    typer.Option(
        metavar="N", min=0, help="Most characters in a line of srt and vtt; 0 means no limit."
    ),
]
LineCount = Annotated[
    int,
    typer.Option(metavar="N", min=0, help="Most lines in a cue of srt and vtt; 0 means no limit."),
]
HighlightWords = Annotated[
    bool,
    typer.Option(
        "--highlight-words", help="In srt and vtt, underline each word while it is spoken."
    ),
]

PromptText = Annotated[
    str | None,
    typer.Option(
        "--prompt",
        metavar="TEXT",
        help="The text of --prompt-audio: the model continues in its spelling, language and style.",
    ),
]
PromptAudio = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="A few seconds of speech for the model to hear before the recording."
    ),
]

Raw = Annotated[
    str | None,
    typer.Option(
        "--raw",
        metavar="FORMAT,RATE,CHANNELS",
        help="Format of sound without a header, as s16le,16000,1. Other encodings: s24le, s32le, "
        "f32le, alaw, mulaw.",
    ),
]


@dataclass(frozen=True, slots=True)
class SoundOptions:
    """Which part of a recording is transcribed."""

    TITLE: ClassVar[str] = "Input"

    raw: Raw = None
    channel: ChannelName = None
    track: Track = None
    start: Start = None
    end: End = None

    @property
    def raw_format(self) -> RawFormat | None:
        """The format that `--raw` names; BadParameter if it is invalid."""
        return raw_format(self.raw)


@dataclass(frozen=True, slots=True)
class WordOptions:
    """How text is picked, and how sure its words are."""

    TITLE: ClassVar[str] = "How words are chosen"

    hotwords: Hotwords = None
    temperature: Temperature = None
    options: OptionsFile = field(default=None, metadata=LISTED_LAST)
    calibration: CalibrationFile = field(default=None, metadata=LISTED_LAST)

    def stream_options(self) -> StreamOptions:
        """Options of a stream that picks text in this way.

        Raises:
            typer.BadParameter: one of them is invalid.
        """
        options = StreamOptions() if self.options is None else _options_in(self.options)
        decoding = options.decoding
        if self.hotwords:
            with mistake_in("--hotword"):
                decoding = replace(decoding, hotwords=[_hotword(text) for text in self.hotwords])
        if self.temperature is not None:
            with mistake_in("--temperature"):
                decoding = replace(decoding, temperature=self.temperature)
        options = replace(options, decoding=decoding)
        if self.calibration is None:
            return options
        with mistake_in("--calibration"):
            return replace(options, calibration=Calibration.load(self.calibration))


@dataclass(frozen=True, slots=True)
class TextOptions(WordOptions):
    """How text is picked, how sure its words are, and what the model reads before."""

    prompt: PromptText = None
    prompt_audio: PromptAudio = None

    def refuse(self) -> None:
        """Raise BadParameter for half a prompt, before a model is loaded."""
        text, sound = self.prompt, self.prompt_audio
        if (text is None) != (sound is None):
            missing = "--prompt-audio FILE" if sound is None else "--prompt TEXT"
            given = "--prompt" if sound is None else "--prompt-audio"
            raise typer.BadParameter(f"it needs {missing}; add it", param_hint=given)
        if sound is not None and not os.path.isfile(sound):
            raise typer.BadParameter(f"{sound}: no such file", param_hint="--prompt-audio")

    def prompted(self, options: StreamOptions, recognizer: Recognizer) -> StreamOptions:
        """The options with the prompt, which the model reads now; BadParameter if it is invalid."""
        if self.prompt is None or self.prompt_audio is None:
            return options
        with mistake_in("--prompt"):
            return replace(options, prompt=recognizer.prompt(self.prompt, self.prompt_audio))


@dataclass(frozen=True, slots=True)
class WritingOptions:
    """What is written, and how captions look."""

    TITLE: ClassVar[str] = "Output"

    formats: Formats = None
    max_line_width: LineWidth = _LINE_WIDTH
    max_line_count: LineCount = _LINE_COUNT
    highlight_words: HighlightWords = False

    def refuse(self, formats: Iterable[str]) -> None:
        """Raise BadParameter for options of captions if none of the formats is a caption format."""
        if not _CAPTIONS.isdisjoint(formats):
            return
        for option, is_given in self.caption_options():
            if is_given:
                raise typer.BadParameter(
                    "it needs the format srt or vtt; add -f srt", param_hint=option
                )

    def caption_options(self) -> Iterable[tuple[str, bool]]:
        """The options about captions alone, and whether each was given."""
        yield "--max-line-width", self.max_line_width != _LINE_WIDTH
        yield "--max-line-count", self.max_line_count != _LINE_COUNT
        yield "--highlight-words", self.highlight_words

    def captions(self, model: str) -> CaptionOptions:
        """The options that writers of captions take."""
        return CaptionOptions(
            model,
            max_line_width=self.max_line_width or None,
            max_line_count=self.max_line_count or None,
            highlight_words=self.highlight_words,
        )


def raw_format(text: str | None) -> RawFormat | None:
    """The format that `--raw` names.

    Raises:
        typer.BadParameter: it is invalid.
    """
    if text is None:
        return None
    with mistake_in("--raw"):
        return RawFormat.parse(text)


def formats_of(
    given: Sequence[str] | None, known: Iterable[str], *, has_all: bool = True
) -> list[str]:
    """The formats that were named, each once: with commas, or by an option for each. `all` means
    all that are known, unless these exclude one another (`has_all`).

    Raises:
        typer.BadParameter: there is no format of such a name.
    """
    names = list(known)
    chosen = [name.strip().lower() for some in given or () for name in some.split(",")]
    for name in chosen:
        if name not in names and not (has_all and name == ALL):
            further = ", and all" if has_all else ""
            raise typer.BadParameter(
                f"{name!r} is not a format; choose from {', '.join(names)}{further}",
                param_hint="-f",
            )
    return names if ALL in chosen else list(dict.fromkeys(chosen))


def heard(
    sound: SoundOptions, text: TextOptions, max_duration: float | None = None
) -> StreamOptions:
    """Stream options of `transcribe` and `listen`; the prompt comes later.

    Raises:
        typer.BadParameter: one of them is invalid.
    """
    text.refuse()
    options = text.stream_options()
    if sound.channel is not None:
        options = replace(options, channel=_channel(sound.channel))
    if sound.track is not None:
        options = replace(options, track=sound.track)
    if max_duration is not None:
        with mistake_in("--max-duration"):
            options = replace(options, max_duration_s=max_duration)
    start = options.start_s if sound.start is None else sound.start
    end = options.end_s if sound.end is None else sound.end
    if end is not None and not end > start:
        raise typer.BadParameter(
            f"{end:g} is not after --start {start:g}; give a later end", param_hint="--end"
        )
    with mistake_in("--start"):
        options = replace(options, start_s=start, end_s=None)
    with mistake_in("--end"):
        return replace(options, end_s=end)


def _options_in(path: Path) -> StreamOptions:
    """The options in a JSON file; BadParameter if they are invalid."""
    with mistake_in("--options"):
        try:
            values = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            why = reason_of(error) if isinstance(error, OSError) else "it is not JSON"
            raise ConfigError(f"{path} cannot be read: {why}") from error
        return StreamOptions.from_dict(values)


def _hotword(text: str) -> Hotword:
    """A hotword as in "Kyutai" or "Kyutai:4"; "10:30" is written "10:30:2"."""
    word, _, boost = text.rpartition(":")
    with mistake_in("--hotword"):
        try:
            strength = float(boost) if word else None
        except ValueError:
            strength = None  # the colon belongs to the word
        return Hotword(text) if strength is None else Hotword(word, strength)


def _channel(name: str) -> Channel:
    if name == "mix" or name == "each":
        return name
    number = number_in(name)
    if number is None:
        raise typer.BadParameter(
            f"{name!r} is not a channel; give mix, each, or a number from 0", param_hint="--channel"
        )
    return number


@contextmanager
def mistake_in(option: str) -> Generator[None, None, None]:
    """Report a ConfigError in this block as a mistake in `option`."""
    try:
        yield
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
