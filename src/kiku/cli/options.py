"""Options that several commands take: the model, where it runs, what it transcribes, and how."""

import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from kiku.calibration import Calibration
from kiku.cli.raw import RawFormat
from kiku.errors import ConfigError
from kiku.options import Channel, DecodingOptions, Hotword, StreamOptions
from kiku.recognizer import Recognizer
from kiku.serial import number_in
from kiku.text import CaptionOptions

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
    str, typer.Option(metavar="NAME", help="onnx, torch or cuda; auto chooses one here.")
]
Device = Annotated[
    str | None, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, mps; else the fastest.")
]
Offline = Annotated[
    bool, typer.Option("--offline", help="Never ask the network for a model: it is in the cache.")
]
ModelDir = Annotated[
    Path | None,
    typer.Option(
        "--model-dir",
        metavar="DIR",
        help="Keep converted models there, not in the user's cache; as KIKU_CACHE=DIR does.",
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="int8, int4 or float32; bfloat16 or float16 with the torch engine."
    ),
]
Threads = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Threads that compute; else all there are.")
]
Hotwords = Annotated[
    list[str] | None,
    typer.Option(
        "--hotword",
        metavar="WORD[:BOOST]",
        help="A word or phrase to expect; BOOST is how strongly: above 0, at most 20, else 2. May "
        "be given several times.",
    ),
]
Temperature = Annotated[
    float, typer.Option(metavar="X", min=0.0, help="0 takes the likeliest text; above, by chance.")
]
ChannelName = Annotated[
    str,
    typer.Option(
        "--channel",
        metavar="mix|each|N",
        help="All channels mixed; each by itself, its words marked; or one of them, from 0.",
    ),
]
Track = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=0, help="Which of several audio tracks, from 0; else the default one."
    ),
]
Start = Annotated[
    float,
    typer.Option(
        metavar="SECONDS", min=0.0, help="Begin there in a recording; times count from 0 still."
    ),
]
End = Annotated[
    float | None, typer.Option(metavar="SECONDS", min=0.0, help="End there in a recording.")
]
MaxDuration = Annotated[
    float,
    typer.Option(metavar="SECONDS", help="Stop a recording that is longer; a file may claim days."),
]

CalibrationFile = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="FILE",
        help="Tell how sure words are by what kiku evaluate --calibrate wrote.",
    ),
]

Formats = Annotated[
    list[str] | None,
    typer.Option("--format", "-f", metavar="NAME[,NAME]", help="What to write; or all."),
]
LineWidth = Annotated[
    int,
    typer.Option(metavar="N", min=0, help="Characters in a line of srt and vtt; 0: no limit."),
]
LineCount = Annotated[
    int, typer.Option(metavar="N", min=0, help="Lines in a cue of srt and vtt; 0: no limit.")
]
HighlightWords = Annotated[
    bool, typer.Option("--highlight-words", help="srt, vtt: underline each word as it is spoken.")
]

PromptText = Annotated[
    str | None,
    typer.Option(
        "--prompt",
        metavar="TEXT",
        help="What is said in --prompt-audio: the model goes on in that spelling, language and "
        "style.",
    ),
]
PromptAudio = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Some seconds of speech that the model hears before."),
]

Raw = Annotated[
    str | None,
    typer.Option(
        "--raw",
        metavar="FORMAT,RATE,CHANNELS",
        help="The sound has no header: s16le,16000,1. Also s24le, s32le, f32le, alaw, mulaw.",
    ),
]


@dataclass(frozen=True, slots=True)
class SoundOptions:
    """Which part of a recording is transcribed."""

    TITLE: ClassVar[str] = "What is heard"

    raw: Raw = None
    channel: ChannelName = "mix"
    track: Track = None
    start: Start = 0.0
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
    temperature: Temperature = 0.0
    calibration: CalibrationFile = None

    def stream_options(self) -> StreamOptions:
        """Options of a stream that picks text in this way.

        Raises:
            typer.BadParameter: one of them is invalid.
        """
        phrases = [_hotword(text) for text in self.hotwords or ()]
        with mistake_in("--hotword"):
            decoding = DecodingOptions(hotwords=phrases)
        with mistake_in("--temperature"):
            options = StreamOptions(decoding=replace(decoding, temperature=self.temperature))
        if self.calibration is None:
            return options
        with mistake_in("--calibration"):
            return replace(options, calibration=Calibration.load(self.calibration))


@dataclass(frozen=True, slots=True)
class TextOptions:
    """How text is picked, how sure its words are, and what the model reads before."""

    TITLE: ClassVar[str] = WordOptions.TITLE

    hotwords: Hotwords = None
    temperature: Temperature = 0.0
    prompt: PromptText = None
    prompt_audio: PromptAudio = None
    calibration: CalibrationFile = None

    @property
    def words(self) -> WordOptions:
        """These options without the prompt."""
        return WordOptions(self.hotwords, self.temperature, self.calibration)

    def refuse(self) -> None:
        """Raise BadParameter for half a prompt, before a model is loaded."""
        text, sound = self.prompt, self.prompt_audio
        if (text is None) != (sound is None):
            missing = "--prompt-audio FILE" if sound is None else "--prompt TEXT"
            given = "--prompt" if sound is None else "--prompt-audio"
            raise typer.BadParameter(f"add {missing}, which it belongs to", param_hint=given)
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

    TITLE: ClassVar[str] = "What is written"

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
                raise typer.BadParameter("it is about srt and vtt: add -f srt", param_hint=option)

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


def formats_of(given: Sequence[str] | None, known: Iterable[str]) -> list[str]:
    """The formats that were named, each once: with commas, or by an option for each.

    Raises:
        typer.BadParameter: there is no format of such a name.
    """
    names = list(known)
    chosen = [name.strip().lower() for some in given or () for name in some.split(",")]
    for name in chosen:
        if name not in (*names, ALL):
            raise typer.BadParameter(
                f"{name!r} is no format; there are {', '.join(names)}, and all", param_hint="-f"
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
    options, start, end = text.words.stream_options(), sound.start, sound.end
    with mistake_in("--start"):
        options = replace(options, channel=_channel(sound.channel), start_s=start)
    options = replace(options, track=sound.track)
    with mistake_in("--max-duration"):
        most_s = options.max_duration_s if max_duration is None else max_duration
        options = replace(options, max_duration_s=most_s)
    if end is not None and not end > start:
        raise typer.BadParameter(f"{end:g} is not behind --start {start:g}", param_hint="--end")
    with mistake_in("--end"):
        return replace(options, end_s=end)


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
            f"{name!r} is neither mix nor each nor the number of a channel", param_hint="--channel"
        )
    return number


@contextmanager
def mistake_in(option: str) -> Generator[None, None, None]:
    """Report a ConfigError in this block as a mistake in `option`."""
    try:
        yield
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
