"""Deepgram's query parameters -> options of a stream, and what its protocol is to send."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kiku.errors import ConfigError
from kiku.options import (
    MAX_BOOST,
    MAX_CHANNELS,
    MAX_INPUT_RATE,
    MIN_INPUT_RATE,
    AudioFormat,
    DecodingOptions,
    Encoding,
    Hotword,
    StreamOptions,
    TurnPolicy,
)
from kiku.serve.protocols.deepgram_parameters import (
    CONTAINERS,
    FILE_PARAMETERS,
    FLUX_PARAMETERS,
    LISTEN_PARAMETERS,
)
from kiku.serve.protocols.interface import ClientRequest, ModelCard, Refusal, in_a_header
from kiku.serve.protocols.parameters import Parameter

_ENCODINGS: dict[str, Encoding] = {
    "linear16": "s16le",
    "linear32": "f32le",  # floating point, says Deepgram's documentation
    "mulaw": "mulaw",
    "alaw": "alaw",
    "opus": "opus",
}
_TELEPHONE_RATE = 8_000

_DEFAULT_BOOST = 2.0
"""Boost, in nats, of a keyword with Deepgram's intensifier 1."""

_FALSE = ("", "0", "false", "no", "off")


@dataclass(frozen=True, slots=True)
class ListenQuery:
    """What a client of `/v1/listen`, live, asks for."""

    options: StreamOptions
    container: bool
    """Whether the sound comes as a recording."""
    channels: int
    """Number of channels that are heard separately."""
    interim: bool
    ends: bool
    """Whether to report where turns end."""
    starts: bool
    """Whether to report where turns begin."""
    utterance_end_s: float | None
    keywords: tuple[Hotword, ...]
    """Hotwords that stay when the key terms are replaced."""


@dataclass(frozen=True, slots=True)
class FluxQuery:
    """What a client of `/v2/listen` asks for."""

    options: StreamOptions
    container: bool
    eager_threshold: float | None
    threshold: float
    timeout_ms: int
    keyterms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileQuery:
    """What a client asks for with a recording."""

    options: StreamOptions
    raw: AudioFormat | None
    """The format of the samples, if they are raw; None for a recording."""
    utterances: bool
    utt_split_s: float
    paragraphs: bool
    tags: tuple[str, ...] = field(default=())


def is_deepgrams(path: str) -> bool:
    """Whether errors at this path have Deepgram's form."""
    return path in ("/v1/listen", "/v2/listen")


def error_body(code: str, message: str, request: ClientRequest) -> dict[str, str]:
    """The body of Deepgram's answer to a request that failed."""
    return {"err_code": code, "err_msg": message, "request_id": request.id}


def refusal(
    request: ClientRequest, message: str, status: int = 400, code: str = "Bad Request"
) -> Refusal:
    """The answer to a request that is refused. The message is in the body and in a header, as a
    client of a socket often sees only the headers."""
    headers = {"dg-error": in_a_header(message), "dg-request-id": request.id}
    return Refusal(status, error_body(code, message, request), headers)


def busy(request: ClientRequest, retry_after_s: int, why: str = "all slots are taken") -> Refusal:
    """The answer if no slot is free, or there is no model yet."""
    message = f"{why}: try again in {retry_after_s} s"
    full = refusal(request, message, 503, "Service Unavailable")
    full.headers["Retry-After"] = str(retry_after_s)
    return full


def unsupported(request: ClientRequest, error: Exception) -> Refusal:
    """The answer if the model cannot do what the query asks for: it names the parameter. Of those
    that are read, only hotwords and the number of channels depend on the model."""
    is_of_words = "hotword" in str(error)
    names = ("keyterm", "keywords") if is_of_words else ("multichannel",)
    given = [name for name in names if request.first(name) and isinstance(error, ConfigError)]
    return refusal(request, f"{' or '.join(given)}: {error}" if given else str(error))


def hotwords(keyterms: Sequence[str]) -> tuple[Hotword, ...]:
    """Key terms as hotwords; empty ones are left out.

    Raises:
        ConfigError: a term is not valid.
    """
    return tuple(Hotword(term.strip()) for term in keyterms if term.strip())


def listen_query(request: ClientRequest, model: ModelCard) -> ListenQuery:
    """Read the query of `/v1/listen`, live.

    Raises:
        Refusal: it asks for what is not available.
    """
    _check(request, model, LISTEN_PARAMETERS)
    channels = _whole(request, "channels", 1, MAX_CHANNELS) or 1
    each = is_true(request, "multichannel")
    format, container = _format(request, channels, each)
    end_ms = _number(request, "utterance_end_ms", 1, 60_000)
    ends, starts = _endpointing(request), is_true(request, "vad_events")
    interim = is_true(request, "interim_results")
    keywords = _keywords(request)
    decoding = _decoding(request, keywords)
    try:
        options = StreamOptions(
            format=format,
            channel="each" if each else "mix",
            decoding=decoding,
            turns=ends or (TurnPolicy() if starts else None),
            partials=interim or end_ms is not None or ends is None,  # they show an open word
        )
    except ConfigError as error:
        raise refusal(request, str(error)) from error
    return ListenQuery(
        options, container, channels if each else 1, interim, ends is not None, starts,
        None if end_ms is None else end_ms / 1000, keywords,
    )  # fmt: skip


def flux_query(request: ClientRequest, model: ModelCard) -> FluxQuery:
    """Read the query of `/v2/listen`.

    Raises:
        Refusal: it asks for what is not available.
    """
    _check(request, model, FLUX_PARAMETERS)
    format, container = _format(request, 1, False)
    threshold = _number(request, "eot_threshold", 0.5, 1.0)
    threshold = 0.7 if threshold is None else threshold
    eager = _number(request, "eager_eot_threshold", 0.3, 0.9)
    if eager is not None and eager > threshold:
        raise refusal(request, "eager_eot_threshold must not be above "
                               f"eot_threshold={threshold:g}, but is {eager:g}: "
                               "lower it")  # fmt: skip
    timeout_ms = _whole(request, "eot_timeout_ms", 500, 60_000) or 5_000
    keyterms = tuple(request.all("keyterm"))
    decoding = _decoding(request)
    try:
        options = StreamOptions(
            format=format,
            decoding=decoding,
            turns=flux_policy(threshold, eager),
            partials=True,
        )
    except ConfigError as error:
        raise refusal(request, str(error)) from error
    return FluxQuery(options, container, eager, threshold, timeout_ms, keyterms)


def file_query(request: ClientRequest, model: ModelCard) -> FileQuery:
    """Read the query of a recording.

    Raises:
        Refusal: it asks for what is not available.
    """
    _check(request, model, FILE_PARAMETERS)
    channels = _whole(request, "channels", 1, MAX_CHANNELS) or 1
    each = is_true(request, "multichannel")
    raw = None
    if request.first("encoding") not in (None, "", *CONTAINERS):
        raw, _ = _format(request, channels, each)
        if raw.encoding == "opus":
            raise refusal(request, "encoding=opus means packets, and packets cannot be told apart "
                                   "here: send the recording in its Ogg or WebM "
                                   "container")  # fmt: skip
    decoding = _decoding(request, _keywords(request))
    options = StreamOptions(channel="each" if each else "mix", decoding=decoding)
    split_s = _number(request, "utt_split", 0.01, 3_600)
    return FileQuery(
        options, raw, is_true(request, "utterances"), 0.8 if split_s is None else split_s,
        is_true(request, "paragraphs"), tuple(request.all("tag")),
    )  # fmt: skip


def _check(request: ClientRequest, model: ModelCard, parameters: Sequence[Parameter]) -> None:
    """Refuse parameters that are not available, another model, and languages it does not know."""
    for one in parameters:
        if one.fate == "refused" and is_true(request, one.name):
            raise refusal(request, f"{one.name} is not available here ({one.note}): leave it out")
    name = request.first("model")
    if name and not model.answers_to(name):
        raise refusal(request, f"there is no model {name!r} here: ask for {model.name!r}")
    language = request.first("language")
    known = {one.split("-")[0].lower() for one in model.languages}
    if language and language.lower() != "multi" and language.split("-")[0].lower() not in known:
        spoken = ", ".join(model.languages)
        raise refusal(request, f"{model.name!r} does not understand language={language}, only "
                               f"{spoken}: leave it out")  # fmt: skip


def is_true(request: ClientRequest, name: str) -> bool:
    """Whether a parameter is set to anything but a false value."""
    return any(value.strip().lower() not in _FALSE for value in request.all(name))


def _number(request: ClientRequest, name: str, least: float, most: float) -> float | None:
    """The value of a parameter that is a number."""
    text = request.first(name)
    if text is None or text == "":
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise refusal(request, f"{name} must be a number from {least:g} to {most:g}, not {text!r}")
    return value


def _whole(request: ClientRequest, name: str, least: int, most: int) -> int | None:
    """As `_number`, for a whole number."""
    value = _number(request, name, least, most)
    if value is not None and value != int(value):
        raise refusal(request, f"{name} must be a whole number, not {value:g}")
    return None if value is None else int(value)


def _format(request: ClientRequest, channels: int, each: bool) -> tuple[AudioFormat, bool]:
    """How the sound is written, and whether it comes as a recording."""
    name = request.first("encoding")
    if not name or name in CONTAINERS:
        if each:
            raise refusal(request, "multichannel needs raw sound on a socket, and this is a "
                                   "recording: give encoding, sample_rate and "
                                   "channels")  # fmt: skip
        return AudioFormat(), True
    if name not in _ENCODINGS:
        known = ", ".join([*_ENCODINGS, *CONTAINERS])
        raise refusal(request, f"encoding must be one of {known}, or be left out for sound that "
                               f"states its own format, not {name!r}")  # fmt: skip
    encoding = _ENCODINGS[name]
    if encoding == "opus":
        if each:
            raise refusal(request, "multichannel and encoding=opus cannot be used together: the "
                                   "channels of packets are mixed")  # fmt: skip
        return AudioFormat(encoding=encoding), False
    rate = _whole(request, "sample_rate", MIN_INPUT_RATE, MAX_INPUT_RATE)
    if rate is None:
        if encoding not in ("mulaw", "alaw"):
            raise refusal(
                request, f"encoding={name} needs sample_rate: give the number of samples a second"
            )
        rate = _TELEPHONE_RATE
    return AudioFormat(encoding=encoding, sample_rate=rate, channels=channels), False


def _keywords(request: ClientRequest) -> tuple[Hotword, ...]:
    """Words with Deepgram's intensifiers, `word:2`."""
    found: list[Hotword] = []
    for text in request.all("keywords"):
        word, colon, factor = text.rpartition(":")
        try:
            boost = float(factor) if colon else 1.0
        except ValueError:
            word, boost = text, 1.0
        word = word if colon and word else text
        if not word.strip():
            continue
        if not boost > 0:
            raise refusal(request, f"keywords={text} would make a word less likely, which is not "
                                   "available here: leave it out")  # fmt: skip
        try:
            found.append(Hotword(word.strip(), min(MAX_BOOST, _DEFAULT_BOOST * boost)))
        except ConfigError as error:
            raise refusal(request, f"keywords={text}: {error}") from error
    return tuple(found)


def _decoding(request: ClientRequest, keywords: Sequence[Hotword] = ()) -> DecodingOptions:
    """Decoding with the key terms of a query, after its keywords."""
    try:
        terms = hotwords(request.all("keyterm"))
    except ConfigError as error:
        raise refusal(request, f"keyterm: {error}") from error
    try:
        return DecodingOptions(hotwords=(*keywords, *terms))
    except ConfigError as error:
        raise unsupported(request, error) from error


def _endpointing(request: ClientRequest) -> TurnPolicy | None:
    """The policy for when a pause ends a turn; None if ends of turns are not to be reported."""
    text = (request.first("endpointing") or "true").lower()
    if text == "false":
        return None
    if text == "true":
        return TurnPolicy()
    ms = _number(request, "endpointing", 0, 60_000)
    return TurnPolicy() if ms is None else pause_policy(ms / 1000)


def pause_policy(pause_s: float) -> TurnPolicy:
    """The policy that comes nearest to "a pause of `pause_s` seconds ends a turn".

    The pause heads know the pauses of people who have finished. The length of `pause_s` chooses how
    eagerly they are believed; what is longer than they know is waited for.
    """
    near = TurnPolicy.of("high" if pause_s < 0.5 else "medium" if pause_s < 1.5 else "low")
    silence_s = max(0.3, pause_s)
    return TurnPolicy(
        head=near.head,
        eager_head=near.eager_head,
        hold_s=near.hold_s + max(0.0, pause_s - 1.5),
        eager_silence_s=min(near.eager_silence_s, silence_s),
        silence_s=silence_s,
        text_silence_s=max(near.text_silence_s, pause_s + 1.0),
        number_s=max(near.number_s, pause_s),
        word_s=max(near.word_s, pause_s),
        longest_s=max(near.longest_s, pause_s + 2.0),
    )


_NEVER_S = 1e6


def flux_policy(threshold: float, eager: float | None) -> TurnPolicy:
    """The policy for Flux's thresholds, of which 0.7 is kiku's own default. It sets no time limit:
    `FluxProtocol` ends turns at `eot_timeout_ms`."""
    on = min(0.95, 0.6 + (threshold - 0.7))
    wanted = 0.5 if eager is None else eager
    silence_s = 1.0 + 2.0 * (threshold - 0.7)
    return TurnPolicy(
        head=2,
        eager_head=0 if wanted < 0.45 else 1 if wanted < 0.65 else 2,
        on=on,
        off=min(0.4, on),
        silence_s=silence_s,
        eager_silence_s=min(silence_s, 0.4 + 0.5 * wanted),
        longest_s=_NEVER_S,
    )
