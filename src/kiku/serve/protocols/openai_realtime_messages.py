"""What a client of OpenAI's Realtime transcription may send, and the errors for what it may not.
Only the form of messages is checked here.
"""

import binascii
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from kiku.serve.protocols import openai_rest
from kiku.serve.protocols.interface import MAX_NAME, ClientRequest, ModelCard

LOGPROBS = "item.input_audio_transcription.logprobs"


# The handshake.


def check(request: ClientRequest, model: ModelCard) -> None:
    """Refuse another model, and sessions that do not transcribe."""
    intent, name = request.first("intent", "transcription"), request.first("model")
    if intent != "transcription":
        message = (
            f"intent must be transcription, not {str(intent)[:100]!r}: this service gives no "
            "responses"
        )
        raise openai_rest.error(400, message, param="intent", code="invalid_value")
    if name is not None and not model.answers_to(name):
        message = f"there is no model {name[:100]!r} here: it is called {model.name}"
        raise openai_rest.error(404, message, param="model", code="model_not_found")


# Messages.


class Mistake(Exception):
    """A client asked for what it cannot have. It is sent an `error`, and the session goes on."""

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value") -> None:
        """`param` is the path in the message of what was wrong."""
        super().__init__(message)
        self.message, self.param, self.code = message, param, code


MAX_APPEND = 15 * 2**20
"""Bytes of sound in one message."""


def sound_of(audio: object) -> bytes:
    """The sound in a message's `audio`. Raises Mistake if it is none, or too much."""
    if not isinstance(audio, str):
        raise Mistake("audio must be a string: the sound in base64", "audio", "invalid_type")
    if len(audio) > (MAX_APPEND + 2) // 3 * 4:
        raise Mistake(
            f"audio may hold {MAX_APPEND} bytes of sound: append less at a time", "audio",
            "string_above_max_length",
        )  # fmt: skip
    try:
        return binascii.a2b_base64(audio, strict_mode=True)
    except ValueError as error:
        raise Mistake(f"audio must be base64, and is not ({error})", "audio") from None


MAX_EVENT_ID = 512
"""Characters that the id of a client's message may have, as at OpenAI."""


class ClientMessage(msgspec.Struct):
    """A message of the client's. Fields may be anything, so that an error can name its id."""

    type: Any = None
    event_id: Any = None
    audio: Any = None
    session: msgspec.Raw = msgspec.Raw(b"null")


MESSAGES = msgspec.json.Decoder(ClientMessage)


# What may be set. A field that is left out stays as it was.

# Whole numbers may have a point: programs compute them, as 1000 * seconds.
_Ms = Annotated[float, msgspec.Meta(ge=0, le=60_000)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]

# All that is kept is sent back with each change, and so has a limit.
_Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
_Names = Annotated[list[_Name], msgspec.Meta(max_length=100)]
_Prompt = Annotated[str, msgspec.Meta(max_length=2**16)]
_Include = Annotated[
    list[Literal["item.input_audio_transcription.logprobs"]], msgspec.Meta(max_length=10)
]
_Modalities = Annotated[list[Literal["text", "audio"]], msgspec.Meta(max_length=10)]


class Format(msgspec.Struct, forbid_unknown_fields=True):
    """The format of the sound."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: float | None = None


class NoiseReduction(msgspec.Struct, forbid_unknown_fields=True):
    """A hint that is ignored."""

    type: Literal["near_field", "far_field"] | UnsetType | None = UNSET
    strength: float | UnsetType | None = UNSET


class TranscriptionSettings(msgspec.Struct, forbid_unknown_fields=True):
    """Which model listens, and for what."""

    model: _Name | UnsetType | None = UNSET
    language: _Name | UnsetType | None = UNSET
    languages: _Names | UnsetType | None = UNSET
    prompt: _Prompt | UnsetType | None = UNSET
    keywords: list[str] | UnsetType | None = UNSET
    delay: Literal["minimal", "low", "medium", "high", "xhigh"] | UnsetType | None = UNSET


class TurnDetection(msgspec.Struct, forbid_unknown_fields=True):
    """When the service commits by itself."""

    type: Literal["server_vad", "semantic_vad"] = "server_vad"
    threshold: _Share | UnsetType | None = UNSET
    prefix_padding_ms: _Ms | UnsetType | None = UNSET
    silence_duration_ms: _Ms | UnsetType | None = UNSET
    idle_timeout_ms: float | UnsetType | None = UNSET
    eagerness: Literal["low", "medium", "high", "auto"] | UnsetType | None = UNSET
    create_response: bool | UnsetType | None = UNSET
    interrupt_response: bool | UnsetType | None = UNSET


class Input(msgspec.Struct, forbid_unknown_fields=True):
    """`session.audio.input`."""

    format: Format | UnsetType | None = UNSET
    noise_reduction: NoiseReduction | UnsetType | None = UNSET
    transcription: TranscriptionSettings | UnsetType | None = UNSET
    turn_detection: TurnDetection | UnsetType | None = UNSET


class AudioSettings(msgspec.Struct, forbid_unknown_fields=True):
    """`session.audio`."""

    input: Input | UnsetType | None = UNSET


class Update(msgspec.Struct, forbid_unknown_fields=True):
    """`session` of `session.update`. Clients may send back fields that only the service sets."""

    type: str | UnsetType = UNSET
    audio: AudioSettings | UnsetType | None = UNSET
    include: _Include | UnsetType | None = UNSET
    id: Any = UNSET
    object: Any = UNSET
    expires_at: Any = UNSET


class BetaUpdate(msgspec.Struct, forbid_unknown_fields=True):
    """`session` of `transcription_session.update`."""

    input_audio_format: Literal["pcm16", "g711_ulaw", "g711_alaw"] | UnsetType | None = UNSET
    input_audio_noise_reduction: NoiseReduction | UnsetType | None = UNSET
    input_audio_transcription: TranscriptionSettings | UnsetType | None = UNSET
    turn_detection: TurnDetection | UnsetType | None = UNSET
    include: _Include | UnsetType | None = UNSET
    modalities: _Modalities | UnsetType | None = UNSET
    client_secret: Any = UNSET
    id: Any = UNSET
    object: Any = UNSET


DECODER = msgspec.json.Decoder(Update)
BETA_DECODER = msgspec.json.Decoder(BetaUpdate)


def shortened(text: object) -> str:
    """What a client wrote, shortened for a message to it."""
    return repr(str(text)[:100])


def mistake_of(error: Exception) -> Mistake:
    """The mistake that msgspec found, under the names of the client's message."""
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return Mistake(f"session cannot be read ({text[:200]}): send an object", "session")
    what, _, path = text.partition(" - at `$")
    path = "session" + path.rstrip("`")
    unknown = what.startswith("Object contains unknown field `")
    if unknown:
        path += "." + what.split("`")[1]
        return Mistake(
            f"{shortened(path)} is not known: leave it out", path[:200], "unknown_parameter"
        )
    return Mistake(f"{path[:200]}: {what[:200]}", path[:200])
