"""faster-whisper's interface for Kyutai's models: a program changes its import and its model.

    from kiku.compat.faster_whisper import WhisperModel

    model = WhisperModel("kyutai/stt-1b-en_fr", device="cpu", compute_type="int8")
    segments, info = model.transcribe("talk.mp3", word_timestamps=True)
    for segment in segments:
        print(f"[{segment.start:.2f}s -> {segment.end:.2f}s] {segment.text}")

Work happens while the segments are iterated over. New programs should rather use `kiku.load`.
"""

import logging
import math
import os
import warnings
import zlib
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from kiku.audio import duration_s, read_file
from kiku.checkpoint import DEMO, KNOWN_REPOS, is_local
from kiku.compat.whisper_arguments import (
    TEMPERATURES,
    NamedTupleLike,
    TranscriptionOptions,
    check_arguments,
    device_of,
    dtype_of,
    language_of,
    options_of,
    refuse_whispers,
)
from kiku.compat.whisper_functions import (
    ABSENT,
    available_models,
    decode_audio,
    format_timestamp,
)
from kiku.errors import UnsupportedConfig, VocabularyError
from kiku.loading import load
from kiku.recognizer import Recognizer
from kiku.text import segments as segments_of
from kiku.text.segments import Segment as Sentence
from kiku.transcription import Transcription
from kiku.transcription.sources import SampleArray

SAMPLE_RATE = 16_000
"""Rate of arrays in Hz, as faster-whisper takes them."""

_SEEKS_PER_S = 100

_logger = logging.getLogger(__name__)

__all__ = [
    "BatchedInferencePipeline",
    "Segment",
    "TranscriptionInfo",
    "TranscriptionOptions",
    "WhisperModel",
    "Word",
    "available_models",
    "decode_audio",
    "format_timestamp",
]


def __getattr__(name: str) -> Any:
    if name in ABSENT:
        # An AttributeError would become an ImportError that does not say what to do.
        raise ImportError(f"kiku.compat.faster_whisper has no {name}: {ABSENT[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


Audio = str | os.PathLike[str] | BinaryIO | SampleArray
"""A path, a file open for reading bytes, or samples at 16 kHz."""


@dataclass(slots=True)
class Word(NamedTupleLike):
    """One word."""

    start: float
    """Seconds."""
    end: float
    word: str
    """With a space before it."""
    probability: float


@dataclass(slots=True)
class Segment(NamedTupleLike):
    """A sentence or phrase."""

    id: int
    """From 1."""
    seek: int
    """Where it begins, in hundredths of a second."""
    start: float
    """Seconds."""
    end: float
    text: str
    """With a space before it."""
    tokens: list[int]
    """Tokens of the text, in the model's own vocabulary."""
    avg_logprob: float
    """Mean log-probability over the tokens."""
    compression_ratio: float
    """Bytes of the text, divided by those of the text compressed."""
    no_speech_prob: float
    """Always 0, as there are words."""
    words: list[Word] | None
    """The words, if `word_timestamps` asked for them."""
    temperature: float | None


@dataclass(slots=True)
class TranscriptionInfo(NamedTupleLike):
    """What is known before the first segment."""

    language: str | None
    """The language that was asked for, or the only one that the model knows; else None, as no
    language is detected."""
    language_probability: float
    """1, or NaN if the language is None."""
    duration: float
    """Seconds; NaN if the recording does not state its length."""
    duration_after_vad: float
    """The same as `duration`: no silence is cut out."""
    all_language_probs: list[tuple[str, float]] | None
    transcription_options: TranscriptionOptions
    """The arguments of the call, and faster-whisper's defaults for the others."""
    vad_options: Any


class WhisperModel:
    """A Kyutai model with the interface of faster-whisper's `WhisperModel`."""

    def __init__(
        self,
        model_size_or_path: str,
        device: str = "auto",
        device_index: int | list[int] = 0,
        compute_type: str = "default",
        cpu_threads: int = 0,
        num_workers: int = 1,
        download_root: str | None = None,
        local_files_only: bool = False,
        files: dict[str, Any] | None = None,
        revision: str | None = None,
        use_auth_token: bool | str | None = None,
        **model_kwargs: Any,
    ) -> None:
        """Load a model.

        Args:
            model_size_or_path: as `kiku.load` takes it, such as "kyutai/stt-1b-en_fr".
            device: "cpu", "cuda" or "auto".
            device_index: which CUDA device; one.
            compute_type: "int8", "float16" ...; int8 is for processors, others run in half
                precision instead, and a warning says so.
            cpu_threads: how many threads compute; 0 is as many as the process may use, and more
                are not taken.
            num_workers: how many calls can run side by side.
            download_root: only None is allowed: HF_HOME says where models are kept.
            local_files_only: only False is allowed, except for a model in a folder:
                HF_HUB_OFFLINE=1 says that nothing is downloaded.
            files: only None is allowed.
            revision: branch, tag or commit of the repository.
            use_auth_token: only None is allowed: HF_TOKEN holds the token.
            **model_kwargs: change nothing, and a warning says so.

        Raises:
            InputError: it is the name of a Whisper model.
            UnsupportedConfig: an argument asks for something that is not possible here.
            CheckpointError: see `kiku.load`.
            ConfigError: see `kiku.load`.
        """
        refuse_whispers(model_size_or_path)
        local = is_local(model_size_or_path)
        for name, is_asked, instead in (
            ("download_root", download_root is not None, "set HF_HOME"),
            ("local_files_only", local_files_only and not local, "set HF_HUB_OFFLINE=1"),
            ("files", files is not None, "name a folder"),
            ("use_auth_token", use_auth_token not in (None, False), "set HF_TOKEN"),
        ):
            if is_asked:
                raise UnsupportedConfig(f"{name} is not possible here: leave it out and {instead}")
        place = device_of(device, device_index)
        dtype, remark = dtype_of(compute_type, place)
        idle = [f"{name}={value!r} changes nothing" for name, value in model_kwargs.items()]
        _warn("; ".join([*([remark] if remark else []), *idle]))
        self.recognizer: Recognizer = load(
            model_size_or_path, device=place, dtype=dtype, slots=num_workers,
            threads=cpu_threads or None, revision=revision,
        )  # fmt: skip
        """The recognizer that does the work. It has `stream` and all else that faster-whisper
        lacks."""

    @property
    def supported_languages(self) -> list[str]:
        """Languages of a published model, or of the demo; empty for other models, whose languages
        are not known."""
        found = next((one for one in KNOWN_REPOS if one.repo_id == self.recognizer.name), None)
        if found is not None:
            return found.languages.split(", ")
        return ["en"] if self.recognizer.name == DEMO else []

    def detect_language(self, *_: Any, **__: Any) -> Any:
        """Not possible: these models detect no language.

        Raises:
            UnsupportedConfig: always.
        """
        raise UnsupportedConfig("these models write what they hear, and do not report its language")

    def transcribe(
        self,
        audio: Audio,
        language: str | None = None,
        task: str = "transcribe",
        *,
        temperature: float | Sequence[float] = TEMPERATURES,
        word_timestamps: bool = False,
        clip_timestamps: str | Iterable[float] = "0",
        hotwords: str | None = None,
        **others: Any,
    ) -> tuple[Generator[Segment, None, None], TranscriptionInfo]:
        """Transcribe a recording, while the segments are iterated over.

        Args:
            audio: a path, a file open for reading bytes, or samples at 16 kHz.
            language: one of those that the model knows. The models have no such input, and write
                whatever is spoken.
            task: only "transcribe" is allowed.
            temperature: if there are several, the first is taken.
            word_timestamps: give each segment its words.
            clip_timestamps: "start,end" in seconds; one clip.
            hotwords: words that are expected; with commas between them, phrases.
            **others: faster-whisper's other arguments, which change nothing. Values that ask for
                something are named in a warning, or refused if they would have to change the text.

        Returns:
            Segments as soon as they are final, and what is known beforehand.

        Raises:
            UnsupportedConfig: an argument asks for something that these models cannot do.
            InputError: faster-whisper has no such argument.
            AudioError: the recording cannot be read.
        """
        known = self.supported_languages
        spoken = language_of(language, known)
        _warn(check_arguments({"task": task, **others}))
        options = options_of(temperature, hotwords, clip_timestamps)
        given = TranscriptionOptions.of(
            temperature, others, word_timestamps=word_timestamps, hotwords=hotwords,
            clip_timestamps=clip_timestamps,
        )  # fmt: skip
        length_s = _length_s(audio)
        info = TranscriptionInfo(
            spoken, math.nan if spoken is None else 1.0, length_s, length_s, None,
            given, others.get("vad_parameters"),
        )  # fmt: skip
        rate = None if _is_file(audio) else SAMPLE_RATE
        words = self.recognizer.transcription(audio, options, rate=rate)
        return self._segments(words, word_timestamps, options.decoding.temperature), info

    def _segments(
        self, transcription: Transcription, with_words: bool, temperature: float
    ) -> Generator[Segment, None, None]:
        try:
            for number, sentence in enumerate(_sentences(transcription), 1):
                yield self._segment(number, sentence, with_words, temperature)
        finally:  # free the slot if only the first segments are used
            transcription.stop()
            for warning in transcription.warnings:
                _logger.warning("%s", warning.message)

    def _segment(
        self, number: int, sentence: Sentence, with_words: bool, temperature: float
    ) -> Segment:
        tokens = self._tokens(sentence.text)
        likely = [math.log(max(word.probability, 1e-30)) for word in sentence.words]
        known = [one for one in likely if not math.isnan(one)]
        text = f" {sentence.text}"
        written = text.encode()
        words = [Word(w.start, w.end, f" {w.text}", w.probability) for w in sentence.words]
        return Segment(
            id=number,
            seek=round(sentence.start * _SEEKS_PER_S),
            start=sentence.start,
            end=sentence.end,
            text=text,
            tokens=tokens,
            avg_logprob=sum(known) / max(len(tokens), len(known), 1),
            compression_ratio=len(written) / len(zlib.compress(written)),
            no_speech_prob=0.0,
            words=words if with_words else None,
            temperature=temperature,
        )

    def _tokens(self, text: str) -> list[int]:
        try:
            return self.recognizer.vocabulary.encode(text)
        except VocabularyError:  # half a letter cannot be spelled
            return []


class BatchedInferencePipeline:
    """faster-whisper's way to transcribe windows side by side; a stream has no windows."""

    def __init__(self, model: WhisperModel) -> None:
        """Take a model that is loaded."""
        self.model = model

    def transcribe(
        self, audio: Audio, *args: Any, vad_filter: bool = True, batch_size: int = 8, **kwargs: Any
    ) -> tuple[Generator[Segment, None, None], TranscriptionInfo]:
        """As `WhisperModel.transcribe`; `vad_filter` and `batch_size` change nothing."""
        return self.model.transcribe(audio, *args, **kwargs)


def _sentences(transcription: Transcription) -> Generator[Sentence, None, None]:
    """The words in sentences, each as soon as the next one has begun."""
    open_words = list[Any]()
    problem: Exception | None = None
    try:
        for word in transcription:
            open_words.append(word)
            *whole, last = segments_of(open_words)
            yield from whole
            open_words = list(last.words)
    except Exception as error:  # also a warning, where these are errors
        problem = error
    yield from segments_of(open_words)
    if problem is not None:
        raise problem


def _is_file(audio: Audio) -> bool:
    return isinstance(audio, str | os.PathLike) or hasattr(audio, "read")


def _length_s(audio: Audio) -> float:
    """Seconds of a recording. One that cannot be read raises now, as in faster-whisper."""
    if not _is_file(audio):
        shape = getattr(audio, "shape", ())
        return max(shape) / SAMPLE_RATE if shape else math.nan  # the other axis is of channels
    source = cast("str | BinaryIO", audio)
    length_s = duration_s(source)
    if length_s is None and isinstance(audio, str | os.PathLike) and not _comes_once(audio):
        with closing(read_file(source)) as chunks:
            next(chunks, None)
    return math.nan if length_s is None else length_s


def _comes_once(path: str | os.PathLike[str]) -> bool:
    """Whether the recording can be read only once, like a pipe."""
    with suppress(OSError):  # the name is too long, say: reading it will raise
        return os.fspath(path) == "-" or Path(path).is_fifo()
    return False


def _warn(message: str) -> None:
    """Warn the program that called the calling method."""
    if message:
        warnings.warn(message, stacklevel=3)
