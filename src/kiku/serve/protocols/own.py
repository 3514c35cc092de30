"""kiku's own protocol: sound as it is, events as JSON. The page uses it, and new programs may.

A client says in the query how its sound is written and which events it wants, and sends the sound
as binary messages and commands as JSON. It gets `ready`, then every event of the stream as
`kiku.stream.event_to_dict` writes it, and now and then `lag`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, get_args

import msgspec

from kiku.errors import AudioError, ConfigError, NoFreeSlot
from kiku.options import AudioFormat, DecodingOptions, Eagerness, Encoding, StreamOptions
from kiku.serial import number_in
from kiku.serve.protocols.interface import (
    MAX_NAME,
    Actions,
    Base,
    ClientRequest,
    Close,
    Decode,
    FinalizeStream,
    Hangup,
    ModelCard,
    Open,
    Push,
    PushGap,
    Refusal,
    Send,
    ServerEnds,
    brief,
    round_s,
    session_of,
)
from kiku.serve.protocols.parameters import Parameter
from kiku.stream import End, Event, event_to_dict

PARAMETERS = (
    Parameter("encoding", "honoured", "s16le (default), s32le, f32le, mulaw, alaw or opus"),
    Parameter("rate", "honoured", "samples a second; default 24000, for G.711 8000"),
    Parameter("channels", "honoured", "number of interleaved channels; default 1"),
    Parameter("container", "honoured", "true: the bytes are a recording, such as ogg or webm"),
    Parameter("channel", "honoured", "mix, each, or a number"),
    Parameter("turns", "honoured", "low, medium or high: send turns, and how soon they end"),
    Parameter("partials", "honoured", "true: also send words that are still being written"),
    Parameter("pauses", "honoured", "true: send the values of the pause heads after every frame"),
    Parameter("hotwords", "honoured", "a word or phrase to favour; can be repeated"),
    Parameter("temperature", "honoured", "0 always picks the likeliest token"),
    Parameter(
        "options",
        "honoured",
        "further StreamOptions as JSON: decoding, turns, recovery, rate_check, signal_checks; the "
        "other parameters, where they are given, count instead",
    ),
    Parameter(
        "session", "honoured", "a name with which a client can come back after it was cut off"
    ),
    Parameter("after", "honoured", "how many events of the session the client has received"),
    Parameter(
        "told", "honoured", "end time of the last word of the session that the client has received"
    ),
    Parameter(
        "generation",
        "honoured",
        "the generation in the last `ready` of the session, if there was one",
    ),
    Parameter("auth_id", "honoured", "an API key"),
)

_LAG_S = 0.5
"""Seconds of heard sound between two `lag` messages."""

_FURTHER = ("decoding", "turns", "recovery", "rate_check", "signal_checks")
"""What `options` may set; the rest is the service's own, or has a parameter."""

_TIMES = frozenset({"start", "end", "time", "duration"})
"""Fields of events that are times, written as all protocols write them."""

_ENCODE = msgspec.json.Encoder().encode


class FinalizeCommand(msgspec.Struct, tag_field="type", tag="finalize", forbid_unknown_fields=True):
    """Finalize all words until now."""

    tag: str | None = None
    cut: bool = True


class CloseCommand(msgspec.Struct, tag_field="type", tag="close", forbid_unknown_fields=True):
    """No more sound comes."""


class GapCommand(msgspec.Struct, tag_field="type", tag="gap", forbid_unknown_fields=True):
    """Sound of this length is missing."""

    seconds: float


class ConfigureCommand(
    msgspec.Struct, tag_field="type", tag="configure", forbid_unknown_fields=True
):
    """Decode with other options from now on; an option that is not named stays."""

    hotwords: list[str] | None = None
    temperature: float | None = None
    decoding: dict[str, Any] | None = None
    """Further `DecodingOptions`."""


Command = FinalizeCommand | CloseCommand | GapCommand | ConfigureCommand

_COMMANDS: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)


class OwnProtocol(Base):
    """One client of kiku's own protocol."""

    name = "kiku"
    wants_progress = True
    tells_times = True

    def __init__(self, request: ClientRequest, model: ModelCard) -> None:
        """Raises `Refusal` for a query that is not valid."""
        self._model = model
        self.session = session_of(request)
        try:
            self._options = options = _options_of(request)
            is_container = _flag(request, "container")
        except ConfigError as error:
            raise Refusal(400, {"error": str(error)}) from error
        self.initial_open = Open(options, is_container)
        self._asked: StreamOptions | None = None  # options that the stream has not accepted yet
        self._lag_at = 0.0
        # Of a session that was known:
        self._num_received: int | None = None  # messages
        self._generation: int | None = None
        self._num_bytes = 0  # of sound that came; the last sample may be incomplete

    def begin(self) -> Actions:
        """Send `ready`, which describes the model that listens."""
        return self.resumed(0.0)

    def found(self, num_received: int, generation: int | None) -> None:
        """See `LiveProtocol`."""
        self._num_received, self._generation = num_received, generation

    def resumed(self, taken_s: float) -> Actions:
        """Send `ready`, which describes the model, and says whether the session is known and how
        much of the sound was taken: a session that is known may have taken none yet."""
        model = self._model
        ready: dict[str, Any] = {
            "type": "ready",
            "model": model.name,
            "version": model.version,
            "languages": model.languages,
            "delay_s": model.delay_s,
            "session": self.session,
            "resumed": self._num_received is not None,
            "count": self._num_received or 0,
            "taken_s": taken_s,
            "taken_bytes": self._num_bytes,
        }
        if self._generation is not None:
            ready["generation"] = self._generation
        return [_send(ready, counted=False)]

    def restore(self, counts: Mapping[str, int], options: StreamOptions, num_bytes: int) -> None:
        """See `LiveProtocol`."""
        self._options, self._num_bytes = options, num_bytes

    def received(self, message: str | bytes) -> Actions:
        """Sound, or a command."""
        if isinstance(message, bytes):
            self._num_bytes += len(message)
            return [Push(message)]
        try:
            command = _COMMANDS.decode(message)
        except (msgspec.MsgspecError, RecursionError) as error:
            return _error(f"the command cannot be understood ({error}): send JSON whose type is "
                          "finalize, close, gap or configure")  # fmt: skip
        match command:
            case FinalizeCommand(tag, cut):
                if tag is not None and len(tag) > MAX_NAME:
                    return _error(f"a tag may have {MAX_NAME} characters, not {len(tag)}: shorten "
                                  "it")  # fmt: skip
                return [FinalizeStream(tag, cut)]
            case CloseCommand():
                return [Close()]
            case GapCommand(seconds):
                return [PushGap(seconds)]
            case ConfigureCommand():
                return self._configure(command)

    def _configure(self, command: ConfigureCommand) -> Actions:
        given: dict[str, Any] = dict(command.decoding or {})
        if command.hotwords is not None:
            given["hotwords"] = command.hotwords
        if command.temperature is not None:
            given["temperature"] = command.temperature
        try:
            decoding = DecodingOptions.from_dict(self._options.decoding.to_dict() | given)
        except ConfigError as error:
            return _error(str(error))
        self._asked = replace(self._options, decoding=decoding)
        return [Decode(decoding)]

    def decoded(self) -> Actions:
        """Go by the options that the stream has accepted."""
        if self._asked is not None:
            self._options, self._asked = self._asked, None
        return ()

    def event(self, event: Event, waiting_s: float) -> Actions:
        """Send the event; after the stream's end, hang up."""
        message = {
            name: round_s(value) if name in _TIMES else value
            for name, value in event_to_dict(event).items()
        }
        if isinstance(event, End):
            return [_send(message), Hangup(1000)]
        return [_send(message)]

    def progress(self, seconds: float, waiting_s: float = 0.0) -> Actions:
        """Send now and then how far the model is behind the sound."""
        if seconds - self._lag_at < _LAG_S:
            return ()
        self._lag_at = seconds
        lag = {"type": "lag", "waiting_s": round_s(waiting_s), "heard_s": round_s(seconds)}
        return [_send(lag, counted=False)]

    def rejected(self, error: Exception) -> Actions:
        """Report the client's mistake; the talk goes on."""
        if not isinstance(error, AudioError):  # which says nothing of a `configure`
            self._asked = None
        return _error(str(error))

    def failed(self, error: Exception) -> Actions:
        """Report the error, and hang up."""
        code = 1012 if isinstance(error, ServerEnds) else 1011
        if isinstance(error, NoFreeSlot):
            code = 1013
        return [*_error(str(error)), Hangup(code, str(error))]


def _send(message: dict[str, Any], *, counted: bool = True) -> Send:
    return Send(_ENCODE(message).decode(), counted)


def _error(message: str) -> Actions:
    return [_send({"type": "error", "message": brief(message)})]


def _options_of(request: ClientRequest) -> StreamOptions:
    """The options of the stream that the query asks for.

    Raises:
        ConfigError: the query is not valid.
    """
    known = {one.name for one in PARAMETERS}
    for name, _ in request.query:
        if name not in known:
            raise ConfigError(f"{name} is not a known parameter: use {', '.join(sorted(known))}")
    options = _further_options_of(request)
    turns = request.first("turns")
    if turns is not None and turns not in get_args(Eagerness):
        raise ConfigError(f"turns must be one of {', '.join(get_args(Eagerness))}, not {turns!r}")
    decoding, hotwords = options.decoding, request.all("hotwords")
    temperature = _number(request, "temperature", float)
    return replace(
        options,
        format=_format_of(request),
        channel=_channel_of(request.first("channel", "mix") or "mix"),
        turns=options.turns if turns is None else turns,
        partials=_flag(request, "partials"),
        pauses=_flag(request, "pauses"),
        decoding=replace(
            decoding,
            hotwords=hotwords or decoding.hotwords,
            temperature=decoding.temperature if temperature is None else temperature,
        ),
    )


def _further_options_of(request: ClientRequest) -> StreamOptions:
    """What the parameter `options` says; ConfigError if it is not valid."""
    text = request.first("options")
    if text is None:
        return StreamOptions()
    try:
        given = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        raise ConfigError(
            f'options must be a JSON object, such as {{"recovery": false}}, not {brief(repr(text))}'
        ) from None
    for name in given:
        if name not in _FURTHER:
            raise ConfigError(f"options cannot have {brief(repr(name))}: use {', '.join(_FURTHER)}")
    try:
        return StreamOptions.from_dict(given)
    except ConfigError as error:
        raise ConfigError(f"options: {error}") from error


def _format_of(request: ClientRequest) -> AudioFormat:
    encoding = request.first("encoding", "s16le")
    if encoding not in get_args(Encoding):
        kinds = ", ".join(get_args(Encoding))
        raise ConfigError(f"encoding must be one of {kinds}, not {encoding!r}")
    channels = _number(request, "channels", int)
    return AudioFormat(
        encoding=encoding,  # pyright: ignore[reportArgumentType]
        sample_rate=_number(request, "rate", int),
        channels=1 if channels is None else channels,
    )


def _channel_of(text: str) -> Any:
    number = number_in(text)
    return text[:100] if number is None else number


def _number(request: ClientRequest, name: str, kind: Callable[[str], Any]) -> Any:
    text = request.first(name)
    try:
        return None if text is None else kind(text)
    except ValueError:
        raise ConfigError(f"{name} must be a number, not {brief(repr(text))}") from None


def _flag(request: ClientRequest, name: str) -> bool:
    text = request.first(name, "false")
    if text not in ("true", "false"):
        raise ConfigError(f"{name} must be true or false, not {text!r}")
    return text == "true"
