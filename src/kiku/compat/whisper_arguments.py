"""Arguments of faster-whisper's calls -> what they mean to kiku, in one table.

Knows what they mean for Whisper; does not know how anything is transcribed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, cast

from kiku.errors import ConfigError, InputError, UnsupportedConfig
from kiku.options import DecodingOptions, StreamOptions
from kiku.serial import plain_number

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Temperatures that faster-whisper tries one after the other; only the first is used here."""

_WHISPERS = ("tiny", "base", "small", "medium", "large", "turbo", "distil-")
"""How the names of Whisper's sizes begin."""

_GREEDY = "the likeliest token is taken"
_NO_WINDOWS = "the model hears a stream, which is not cut into windows"
_NO_FALLBACK = "a decoder that stalls or repeats itself is restarted by itself"
_PUNCTUATION = "punctuation always stays with its word"
_PREPENDED = "\"'“¿([{-"
_APPENDED = "\"'.\u3002,\uff0c!\uff01?\uff1f:\uff1a\u201d)]}\u3001"
"""Punctuation that faster-whisper appends to the word before it."""

_IDLE: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "beam_size": ((5, 1), _GREEDY),
    "best_of": ((5, 1), _GREEDY),
    "patience": ((1,), _GREEDY),
    "length_penalty": ((1,), _GREEDY),
    "repetition_penalty": ((1,), _NO_FALLBACK),
    "no_repeat_ngram_size": ((0,), _NO_FALLBACK),
    "compression_ratio_threshold": ((2.4, None), _NO_FALLBACK),
    "log_prob_threshold": ((-1.0, None), _NO_FALLBACK),
    "no_speech_threshold": ((0.6, None), "silence gives no text"),
    "condition_on_previous_text": ((True, False), _NO_WINDOWS),
    "prompt_reset_on_temperature": ((0.5,), _NO_WINDOWS),
    "suppress_blank": ((True,), "silence gives no text"),
    "without_timestamps": ((False, True), "every segment has its times"),
    "max_initial_timestamp": ((1.0, 0.0), _NO_WINDOWS),
    "prepend_punctuations": ((_PREPENDED,), _PUNCTUATION),
    "append_punctuations": ((_APPENDED,), _PUNCTUATION),
    "multilingual": ((False,), "the model recognises by itself which of its languages is spoken"),
    "vad_filter": ((False,), "silence gives no text and times keep it, so nothing is cut out"),
    "vad_parameters": ((None,), "silence gives no text and times keep it, so nothing is cut out"),
    "max_new_tokens": ((None,), _NO_WINDOWS),
    "chunk_length": ((None,), _NO_WINDOWS),
    "hallucination_silence_threshold": ((None,), "silence gives no text"),
    "language_detection_threshold": ((0.5, None), "no language is detected"),
    "language_detection_segments": ((1,), "no language is detected"),
    "log_progress": ((False,), "no bar is drawn; kiku.load(...).transcribe has progress="),
    "batch_size": ((None, 8, 16), "load the model with num_workers=N to have N calls at once"),
}
"""Arguments that change nothing here: the values that ask for nothing, and why the others change
nothing."""

_REFUSED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "task": (("transcribe", None), "the models write what is said and do not translate it"),
    "initial_prompt": ((None, ""), "the models take no prompt: name words in hotwords"),
    "prefix": ((None, ""), "the models take no prompt: name words in hotwords"),
    "suppress_tokens": (([-1], (-1,), [], (), None), "the models have other tokens than Whisper"),
}
"""Arguments that would have to change the text but cannot: the values that ask for nothing, and why
others are refused."""

_DTYPES: Mapping[str, str | None] = {
    "default": None, "auto": None, "float32": "float32", "float16": "float16",
    "bfloat16": "bfloat16", "int8": "int8", "int8_float32": "int8", "int8_float16": "int8",
    "int8_bfloat16": "int8",
}  # fmt: skip


class NamedTupleLike:
    """A record that older programs can use like a named tuple."""

    def _asdict(self) -> dict[str, Any]:
        return asdict(cast("Any", self))


@dataclass(slots=True, kw_only=True)
class TranscriptionOptions(NamedTupleLike):
    """The options of a transcription, as faster-whisper reports them. They are those that were
    asked for; most of them change nothing here."""

    beam_size: int = 5
    best_of: int = 5
    patience: float = 1
    length_penalty: float = 1
    repetition_penalty: float = 1
    no_repeat_ngram_size: int = 0
    log_prob_threshold: float | None = -1.0
    no_speech_threshold: float | None = 0.6
    compression_ratio_threshold: float | None = 2.4
    condition_on_previous_text: bool = True
    prompt_reset_on_temperature: float = 0.5
    temperatures: Sequence[float] = TEMPERATURES
    initial_prompt: str | Iterable[int] | None = None
    prefix: str | None = None
    suppress_blank: bool = True
    suppress_tokens: Sequence[int] | None = (-1,)
    without_timestamps: bool = False
    max_initial_timestamp: float = 1.0
    word_timestamps: bool = False
    prepend_punctuations: str = _PREPENDED
    append_punctuations: str = _APPENDED
    multilingual: bool = False
    max_new_tokens: int | None = None
    clip_timestamps: str | Iterable[float] = "0"
    hallucination_silence_threshold: float | None = None
    hotwords: str | None = None

    @classmethod
    def of(
        cls, temperature: float | Sequence[float], others: Mapping[str, Any], **known: Any
    ) -> "TranscriptionOptions":
        """The options among the arguments of a call; the other arguments are reported elsewhere."""
        names = {one.name for one in fields(cls)}
        options = {name: value for name, value in others.items() if name in names}
        several = isinstance(temperature, list | tuple)
        temperatures = list(temperature) if several else [cast("float", temperature)]
        return cls(**options, **known, temperatures=temperatures)


def refuse_whispers(model: str) -> None:
    """Refuse the names of Whisper's sizes, which are other models.

    Raises:
        InputError: it is such a name.
    """
    name = str(model).rpartition("/")[2].removeprefix("faster-").removeprefix("whisper-")
    if name.startswith(_WHISPERS) and "stt" not in name:
        raise InputError(
            f"{model!r} is a Whisper model, which kiku does not run: name one of Kyutai's, such "
            "as 'kyutai/stt-1b-en_fr', or 'demo'"
        )


def device_of(device: str, index: int | Sequence[int]) -> str | None:
    """The device as `kiku.load` names it.

    Raises:
        UnsupportedConfig: there are several devices.
    """
    index = plain_number(index)
    indices: list[int] = [index] if isinstance(index, int) else list(index)
    if len(indices) != 1:
        raise UnsupportedConfig(
            f"device_index={index!r}: a model runs on one device: load one for each"
        )
    if device == "auto":
        return f"cuda:{indices[0]}" if indices[0] else None
    return f"{device}:{indices[0]}" if device == "cuda" and indices[0] else device


def dtype_of(compute_type: str, device: str | None) -> tuple[str | None, str]:
    """The dtype as `kiku.load` names it, and a remark about it, or "".

    Raises:
        ConfigError: there is no compute type of this name.
    """
    if compute_type not in _DTYPES:
        raise ConfigError(f"compute_type must be one of {', '.join(_DTYPES)}, not {compute_type!r}")
    dtype = _DTYPES[compute_type]
    if dtype != "int8" or device is None or not device.startswith("cuda"):
        return dtype, ""
    instead = "bfloat16" if compute_type.endswith("bfloat16") else "float16"
    return instead, f"compute_type={compute_type!r} is for processors: {device} runs in {instead}"


def check_arguments(given: Mapping[str, Any]) -> str:
    """A remark about arguments that change nothing here, or "".

    Raises:
        InputError: there is no such argument.
        UnsupportedConfig: an argument asks for something that these models cannot do.
    """
    idle: list[str] = []
    for name, value in given.items():
        if name in _REFUSED:
            neutral, why = _REFUSED[name]
            if not _is_one_of(value, neutral):
                raise UnsupportedConfig(f"{name}={value!r} is not possible here: {why}")
        elif name in _IDLE:
            neutral, why = _IDLE[name]
            if not _is_one_of(value, neutral):
                idle.append(f"{name}={value!r} changes nothing ({why})")
        else:
            raise InputError(f"transcribe has no argument {name!r}; see kiku.compat.faster_whisper")
    return "; ".join(idle)


def _is_one_of(value: Any, neutral: Iterable[Any]) -> bool:
    # `0 == False`, but 0 in place of False asks for the same.
    return any(type(value) in (type(one), int, float) and value == one for one in neutral)


def language_of(asked: str | None, known: Sequence[str]) -> str | None:
    """The language that is transcribed; None if the model knows several and none was asked for.

    Raises:
        UnsupportedConfig: the model does not know the language that is asked for.
    """
    if asked is None:
        return known[0] if len(known) == 1 else None
    if known and asked.lower() not in known:
        raise UnsupportedConfig(
            f"language={asked!r}: this model only understands {' and '.join(known)}; leave "
            "language out, or load a model of that language"
        )
    return asked.lower()


def options_of(
    temperature: float | Sequence[float],
    hotwords: str | None,
    clip_timestamps: str | Iterable[float],
) -> StreamOptions:
    """The options with which a recording is transcribed.

    Raises:
        ConfigError: a number is invalid.
        UnsupportedConfig: there are several clips.
    """
    temperature = plain_number(temperature)
    first = temperature if isinstance(temperature, int | float) else [*temperature, 0.0][0]
    start_s, end_s = _clip(clip_timestamps)
    return StreamOptions(
        decoding=DecodingOptions(temperature=first, hotwords=_phrases(hotwords or "")),
        start_s=start_s,
        end_s=end_s,
    )


def _phrases(text: str) -> list[str]:
    """Hotwords from a text of them: phrases if there are commas between them, else single words."""
    parts = text.split(",") if "," in text else text.split()
    return [part.strip() for part in parts if part.strip()]


def _clip(clips: str | Iterable[float]) -> tuple[float, float | None]:
    parts = [part for part in clips.split(",") if part.strip()] if isinstance(clips, str) else clips
    try:
        numbers = [float(cast("Any", part)) for part in parts]
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"clip_timestamps must be start and end in seconds, such as '10,20', not {clips!r}"
        ) from error
    if len(numbers) > 2:
        raise UnsupportedConfig(
            f"clip_timestamps={clips!r}: only one clip can be transcribed in one call; call it "
            "once for each"
        )
    return (numbers[0] if numbers else 0.0), (numbers[1] if len(numbers) == 2 else None)
