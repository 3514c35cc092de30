"""OpenAI's transcription of recordings: fields of a form -> what is asked; words -> the answer.

`POST /v1/audio/transcriptions` answers with one document (`document`), or with events as words are
decided (`TranscriptEvents`); `/v1/models` says which model there is. Every error has OpenAI's form.
"""

import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import msgspec

from kiku.errors import ConfigError
from kiku.options import DecodingOptions, StreamOptions
from kiku.serve.protocols.interface import ModelCard, Refusal, round_s
from kiku.serve.protocols.openai_words import logprob, spelled, token
from kiku.serve.protocols.parameters import Parameter
from kiku.text import Segment, Word
from kiku.transcription import Transcript

NAME = "openai_rest"
"""Name of the protocol in logs and metrics."""

PARAMETERS = (
    Parameter("file", "honoured", "its content decides the format, not its name or type"),
    Parameter("model", "honoured", "the model's name or an alias; any other is an error (404)"),
    Parameter("chunking_strategy", "ignored", "a recording is transcribed as one stream"),
    Parameter(
        "include", "honoured", "logprobs, with response_format json; each word counts as a token"
    ),
    Parameter("keywords", "mapped", "hotwords, with their default boost"),
    Parameter("known_speaker_names", "refused", "speakers are not distinguished"),
    Parameter("known_speaker_references", "refused", "speakers are not distinguished"),
    Parameter("language", "ignored", "a language that the model does not understand is an error"),
    Parameter("languages", "ignored", "an error if the model understands none of them"),
    Parameter(
        "prompt", "ignored", "a hint, which changes nothing; keywords[] make words more likely"
    ),
    Parameter("response_format", "honoured", "all but diarized_json, which is an error"),
    Parameter("stream", "honoured", "sends events, with response_format json or text"),
    Parameter("temperature", "honoured", "from 0 to 1"),
    Parameter("timestamp_granularities", "honoured", "with response_format verbose_json"),
)

Format = Literal["json", "text", "srt", "verbose_json", "vtt"]

Encode = Callable[[str], Sequence[int]]
"""The ids of the model's text tokens that spell a text."""

_LISTS = frozenset({"include", "keywords", "known_speaker_names", "known_speaker_references"}
                   | {"languages", "timestamp_granularities"})  # fmt: skip
_SPEAKERS = ("known_speaker_names", "known_speaker_references")
_STRATEGIES = ("auto", "server_vad")
_STRATEGY_KEYS = ("type", "prefix_padding_ms", "silence_duration_ms", "threshold")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}

_LANGUAGES = {
    "de": "german", "en": "english", "es": "spanish", "fr": "french", "it": "italian",
    "ja": "japanese", "nl": "dutch", "pl": "polish", "pt": "portuguese",
}  # fmt: skip
"""Names of languages in `verbose_json`."""

_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"


# Errors.


def error(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Refusal:
    """A refusal in OpenAI's form, which names the parameter at fault."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = {"message": message, "type": kind, "param": param, "code": code}
    return Refusal(status, {"error": body}, headers)


def unknown_model(name: str) -> Refusal:
    """The refusal of a model that is not here."""
    message = f"there is no model {name[:100]!r} here; GET /v1/models names the loaded one"
    return error(404, message, param="model", code="model_not_found")


def unknown_url(method: str, path: str) -> Refusal:
    """The refusal of a path under which there is nothing."""
    message = f"there is nothing at {method} {path[:200]}: check the path"
    return error(404, message, code="unknown_url")


def wrong_method(method: str, path: str, allowed: Sequence[str]) -> Refusal:
    """The refusal of a method that a path does not answer."""
    names = ", ".join(allowed)
    message = f"{path[:200]} does not answer {method}: use {names}"
    return error(405, message, code="method_not_supported", headers={"allow": names})


def too_large(most_bytes: int) -> Refusal:
    """The refusal of a body that is longer than it may be."""
    message = f"the request is longer than {most_bytes} bytes: send a shorter or compressed file"
    return error(413, message, param="file", code="request_too_large")


def too_slow() -> Refusal:
    """The refusal of a body whose rest does not come."""
    return error(
        408, "the rest of the request did not arrive: send it again", code="request_timeout"
    )


def busy(retry_after_s: int, why: str = "all slots are taken") -> Refusal:
    """The refusal if no slot came free in time, or there is no model yet."""
    message = f"{why}: try again in {retry_after_s} s"
    return error(503, message, code="server_busy", headers={"retry-after": str(retry_after_s)})


def is_openais(path: str) -> bool:
    """Whether errors under this path have OpenAI's form."""
    return path == "/v1" or (path.startswith("/v1/") and path != "/v1/listen")


# The request.


@dataclass(frozen=True, slots=True)
class TranscriptionRequest:
    """What a client asks for, all of it checked."""

    options: StreamOptions
    format: Format = "json"
    words: bool = False
    """Whether `verbose_json` has words."""
    segments: bool = True
    """Whether `verbose_json` has segments."""
    stream: bool = False
    """Whether to answer with events as words are decided."""
    logprobs: bool = False
    """Whether to say how likely each word is."""
    language: str = ""
    """As `verbose_json` names it; empty if the model understands several and none is named."""

    @classmethod
    def of(cls, fields: Iterable[tuple[str, str]], model: ModelCard) -> "TranscriptionRequest":
        """A request from the fields of a form, without its file.

        Raises:
            Refusal: a value is not valid, or not available here; the refusal names the parameter.
        """
        given = _Given(fields)
        name = given.one("model")
        if name is None:
            raise error(400, "the field model is missing: name a model", param="model")
        if not model.answers_to(name):
            raise unknown_model(name)
        for speaker in _SPEAKERS:
            if given.all(speaker):
                raise error(
                    400,
                    f"{speaker}: speakers are not distinguished here; leave it out",
                    param=speaker,
                )
        given.check_chunking()
        format, stream = _format(given), _truth(given, "stream")
        if stream and format not in ("json", "text"):
            raise error(
                400, f"stream=true only sends text, not {format}: leave it out, or send "
                    "response_format=json", param="response_format",
            )  # fmt: skip
        wanted = _granularities(given, format)
        return cls(
            StreamOptions(decoding=_decoding(given)),
            format,
            words="word" in wanted,
            segments="segment" in wanted,
            stream=stream,
            logprobs=_logprobs(given, format),
            language=_language(given, model),
        )


class _Given:
    """The fields of a form by name, without brackets."""

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        known = {one.name for one in PARAMETERS}
        self._values: dict[str, list[str]] = {}
        self._chunking: dict[str, str] = {}
        for written, value in fields:
            name, bracket, key = written.partition("[")
            if bracket and name == "chunking_strategy":
                self._chunking[key.removesuffix("]")] = value
                continue
            is_list = name in _LISTS
            if name not in known or (bracket and not (is_list and key == "]")):
                raise error(
                    400, f"the parameter {written[:100]!r} is not known: leave it out, or check "
                    "its name", param=written[:100], code="unknown_parameter",
                )  # fmt: skip
            if name in self._values and not is_list:
                raise error(400, f"{name} was sent twice: send it once", param=name)
            self._values.setdefault(name, []).append(value)

    def one(self, name: str) -> str | None:
        """The value of a field; None if it is missing or empty."""
        return self._values.get(name, [""])[0] or None

    def all(self, name: str) -> list[str]:
        """The values of a list."""
        return self._values.get(name, [])

    def check_chunking(self) -> None:
        """Refuse a `chunking_strategy` that is not valid; a valid one changes nothing."""
        asked, values = self.one("chunking_strategy"), dict[str, Any](self._chunking)
        if asked is not None and asked.lstrip().startswith("{"):
            try:
                values |= msgspec.json.decode(asked, type=dict[str, Any])
            except (msgspec.MsgspecError, RecursionError):
                raise _wrong("chunking_strategy", asked, _STRATEGIES) from None
            asked = None
        kind = values.get("type", asked)
        if (asked is not None or values) and kind not in _STRATEGIES:
            raise _wrong("chunking_strategy", str(kind), _STRATEGIES)
        for key in values.keys() - set(_STRATEGY_KEYS):
            raise _wrong("chunking_strategy", key, _STRATEGY_KEYS)


def _wrong(name: str, seen: str, known: Sequence[str]) -> Refusal:
    return error(
        400, f"{name} must be one of {', '.join(known)}, not {seen[:100]!r}", param=name,
        code="invalid_value",
    )  # fmt: skip


def _truth(given: _Given, name: str) -> bool:
    text = given.one(name) or "false"
    if text.lower() not in _TRUTH:
        raise _wrong(name, text, ("true", "false"))
    return _TRUTH[text.lower()]


def _format(given: _Given) -> Format:
    text = given.one("response_format") or "json"
    if text == "diarized_json":
        raise error(
            400, "diarized_json needs speakers, which are not distinguished here: use verbose_json",
            param="response_format", code="unsupported_value",
        )  # fmt: skip
    if text not in get_args(Format):
        raise _wrong("response_format", text, get_args(Format))
    return cast("Format", text)


def _granularities(given: _Given, format: Format) -> frozenset[str]:
    """What `verbose_json` is to contain: word, segment, or both."""
    name = "timestamp_granularities"
    asked = frozenset(given.all(name)) - {""}
    for one in asked - {"word", "segment"}:
        raise _wrong(name, one, ("word", "segment"))
    if asked and format != "verbose_json":
        raise error(400, f"{name} needs response_format=verbose_json, not {format}", param=name)
    return asked or frozenset({"segment"})


def _logprobs(given: _Given, format: Format) -> bool:
    asked = frozenset(given.all("include")) - {""}
    for one in asked - {"logprobs"}:
        raise _wrong("include", one, ("logprobs",))
    if asked and format != "json":
        raise error(
            400, f"include[]=logprobs needs response_format=json, not {format}",
            param="include",
        )  # fmt: skip
    return bool(asked)


def _decoding(given: _Given) -> DecodingOptions:
    text = given.one("temperature") or "0"
    try:
        temperature = float(text)
    except ValueError:
        temperature = math.nan
    if not 0 <= temperature <= 1:
        raise error(
            400, f"temperature must be a number from 0 to 1, not {text[:100]!r}",
            param="temperature", code="invalid_value",
        )  # fmt: skip
    try:
        return DecodingOptions(temperature=temperature, hotwords=tuple(given.all("keywords")))
    except ConfigError as why:
        raise error(400, f"keywords: {why}", param="keywords", code="invalid_value") from None


def _language(given: _Given, model: ModelCard) -> str:
    """The name of the language in the answer, from what was asked and what the model knows."""
    one, several = given.one("language"), [text for text in given.all("languages") if text]
    name = "languages" if one is None else "language"
    asked = several if one is None else [one]
    known = [code for code in map(_code, asked) if code in model.languages]
    if asked and not known:
        raise error(
            400, f"{name}: the model understands {', '.join(model.languages)}, not "
            f"{', '.join(asked)[:100]!r}", param=name, code="unsupported_value",
        )  # fmt: skip
    left = set(known or model.languages)
    return _LANGUAGES.get(code := left.pop(), code) if len(left) == 1 else ""


def _code(language: str) -> str:
    """ISO-639-1 of "en", "en-US" and "English"."""
    short = language.strip().lower().replace("_", "-").split("-")[0]
    return next((code for code, name in _LANGUAGES.items() if name == short), short)


# The answer.


def document(
    request: TranscriptionRequest, transcript: Transcript, encode: Encode
) -> tuple[bytes, str]:
    """The body of an answer in one piece, and its `Content-Type`.

    This takes a while for hours of text. `encode` may raise nothing.
    """
    match request.format:
        case "text":
            return transcript.text.encode(), _TEXT
        case "srt":
            return transcript.to_srt().encode(), _TEXT
        case "vtt":
            return transcript.to_vtt().encode(), _TEXT
        case "verbose_json":
            return msgspec.json.encode(_verbose(request, transcript, encode)), _JSON
        case "json":
            answer: dict[str, Any] = {"text": transcript.text}
            if request.logprobs:
                answer["logprobs"] = _logprobs_of(transcript.words)
            return msgspec.json.encode(answer | {"usage": _seconds(transcript)}), _JSON


def _seconds(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": round_s(transcript.duration)}


def _verbose(
    request: TranscriptionRequest, transcript: Transcript, encode: Encode
) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "language": request.language,
        "duration": round_s(transcript.duration),
        "text": transcript.text,
    }
    if request.words:
        answer["words"] = [
            {"word": word.text, "start": round_s(word.start), "end": round_s(word.end)}
            for word in transcript.words
        ]
    if request.segments:
        temperature = request.options.decoding.temperature
        answer["segments"] = [
            _segment(number, one, temperature, encode)
            for number, one in enumerate(transcript.segments)
        ]
    return answer | {"usage": _seconds(transcript)}


def _segment(number: int, segment: Segment, temperature: float, encode: Encode) -> dict[str, Any]:
    text = f" {segment.text}"  # whisper's begin so, too, so that they can be joined
    tokens = list(encode(segment.text))
    logs = [log for log in map(_logprob, segment.words) if log is not None]
    data = text.encode()
    return {
        "id": number,
        "seek": round(100 * segment.start),  # whisper counts hundredths of a second
        "start": round_s(segment.start),
        "end": round_s(segment.end),
        "text": text,
        "tokens": tokens,
        "temperature": temperature,
        "avg_logprob": sum(logs) / max(len(tokens), len(logs), 1),
        "compression_ratio": len(data) / len(zlib.compress(data)),
        # Every segment has words; avg_logprob says how sure they are.
        "no_speech_prob": 0.0,
    }


def _logprob(word: Word) -> float | None:
    """The log-probability of a word; None if it is not known."""
    return None if math.isnan(word.probability) else logprob(word)


def _token(word: Word, *, first: bool) -> dict[str, Any]:
    return token(word, _logprob(word), first=first)


def _logprobs_of(words: Sequence[Word]) -> list[dict[str, Any]]:
    return [_token(word, first=i == 0) for i, word in enumerate(words)]


class TranscriptEvents:
    """The words of one recording as server-sent events."""

    def __init__(self, request: TranscriptionRequest) -> None:
        """Start with no words."""
        self._logprobs = request.logprobs
        self._words: list[Word] = []

    def word(self, word: Word) -> bytes:
        """The event of a word that has just been decided."""
        first = not self._words
        self._words.append(word)
        event: dict[str, Any] = {
            "type": "transcript.text.delta", "delta": spelled(word, first=first),
        }  # fmt: skip
        if self._logprobs:
            event["logprobs"] = [_token(word, first=first)]
        return _event(event)

    def done(self, num_frames: int, encode: Encode) -> bytes:
        """The event that ends the answer. Takes a while for hours of text, as `document` does.

        Args:
            num_frames: of the sound. The model reads frames, so that each counts as a token.
            encode: see `document`.
        """
        text = " ".join(word.text for word in self._words)
        num_tokens = len(encode(text)) if text else 0
        event: dict[str, Any] = {"type": "transcript.text.done", "text": text}
        if self._logprobs:
            event["logprobs"] = _logprobs_of(self._words)
        event["usage"] = {
            "type": "tokens",
            "input_tokens": num_frames,
            "input_token_details": {"audio_tokens": num_frames, "text_tokens": 0},
            "output_tokens": num_tokens,
            "total_tokens": num_frames + num_tokens,
        }
        return _event(event)

    @staticmethod
    def failed(why: Refusal) -> bytes:
        """The event of a failure; clients raise what it says."""
        return _event(cast("Mapping[str, Any]", why.body))


def _event(values: Mapping[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(values) + b"\n\n"


# The model.


def model_object(model: ModelCard) -> dict[str, Any]:
    """One entry of `/v1/models`."""
    return {"id": model.name, "object": "model", "created": model.created, "owned_by": "kiku"}


def model_list(model: ModelCard) -> dict[str, Any]:
    """The answer of `/v1/models`."""
    return {"object": "list", "data": [model_object(model)]}
