"""The session of OpenAI's Realtime transcription: what a client sets, checked, and its echo.

Knows both spellings of a session, today's (GA, nested under `audio.input`) and the beta's flat one;
does not know sound, items or streams.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
from msgspec import UNSET, UnsetType

from kiku.errors import ConfigError
from kiku.options import AudioFormat, DecodingOptions, Encoding, StreamOptions, TurnPolicy
from kiku.serve.protocols.interface import ModelCard
from kiku.serve.protocols.openai_realtime_messages import (
    BETA_DECODER,
    DECODER,
    LOGPROBS,
    AudioSettings,
    BetaUpdate,
    Format,
    Input,
    Mistake,
    mistake_of,
    shortened,
)
from kiku.serve.protocols.parameters import Parameter

SAMPLE_RATE, TELEPHONE_RATE = 24_000, 8_000

_INPUT = "audio.input."
_TRANSCRIPTION, _TURNS = f"{_INPUT}transcription.", f"{_INPUT}turn_detection."
_NO_RESPONSES = "there are no responses in a transcription session"

PARAMETERS = (
    Parameter("?intent", "honoured", "transcription, or left out; any other value is refused"),
    Parameter("?model", "honoured", "the model's name or an alias; any other is refused (404)"),
    Parameter("type", "honoured", "transcription; realtime is an error"),
    Parameter("include", "honoured", "logprobs; each word counts as a token"),
    Parameter(f"{_INPUT}format.type", "honoured", "audio/pcm, audio/pcmu or audio/pcma"),
    Parameter(f"{_INPUT}format.rate", "honoured", "24000; any other is an error"),
    Parameter(f"{_INPUT}noise_reduction.type", "ignored", "a hint, which changes nothing"),
    Parameter(f"{_INPUT}noise_reduction.strength", "ignored", "a hint, which changes nothing"),
    Parameter(f"{_TRANSCRIPTION}model", "honoured", "the model's name or an alias"),
    Parameter(
        f"{_TRANSCRIPTION}language",
        "ignored",
        "a language that the model does not understand is an error",
    ),
    Parameter(
        f"{_TRANSCRIPTION}languages", "ignored", "an error if the model understands none of them"
    ),
    Parameter(
        f"{_TRANSCRIPTION}prompt",
        "ignored",
        "a hint, which changes nothing; keywords make words more likely",
    ),
    Parameter(f"{_TRANSCRIPTION}keywords", "mapped", "hotwords, with their default boost"),
    Parameter(f"{_TRANSCRIPTION}delay", "ignored", "the delay of the model is fixed"),
    Parameter(
        f"{_TURNS}type", "mapped", "server_vad or semantic_vad; with null, turns end at commits"
    ),
    Parameter(f"{_TURNS}threshold", "mapped", "a higher value counts more sound as silence"),
    Parameter(
        f"{_TURNS}silence_duration_ms",
        "mapped",
        "length of the silence that ends a turn; with pause heads, values up to 500 act alike",
    ),
    Parameter(f"{_TURNS}prefix_padding_ms", "mapped", "audio_start_ms is earlier by this much"),
    Parameter(f"{_TURNS}eagerness", "mapped", "low, medium or high; auto is medium"),
    Parameter(f"{_TURNS}idle_timeout_ms", "ignored", f"{_NO_RESPONSES} to count from"),
    Parameter(f"{_TURNS}create_response", "ignored", _NO_RESPONSES),
    Parameter(f"{_TURNS}interrupt_response", "ignored", _NO_RESPONSES),
    Parameter("modalities", "ignored", "beta; the answer is text"),
    Parameter("client_secret", "ignored", "beta; API keys are those of the service"),
)
"""Today's names; each of the beta's flat names stands under today's."""


_BETA_FORMATS = {
    "pcm16": {"type": "audio/pcm", "rate": SAMPLE_RATE},
    "g711_ulaw": {"type": "audio/pcmu"},
    "g711_alaw": {"type": "audio/pcma"},
}
_ENCODINGS: dict[str, Encoding] = {
    "audio/pcm": "s16le", "audio/pcmu": "mulaw", "audio/pcma": "alaw",
}  # fmt: skip
_SERVER_VAD = {"threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "server_vad": _SERVER_VAD, "semantic_vad": {"eagerness": "auto"},
}  # fmt: skip


@dataclass(slots=True)
class RealtimeSession:
    """The settings of a session, in plain values under today's names."""

    id: str
    model: ModelCard
    named: str | None
    """The model's name as the client wrote it when it connected."""
    format: dict[str, Any] = field(default_factory=lambda: dict(_BETA_FORMATS["pcm16"]))
    noise_reduction: dict[str, Any] | None = None
    transcription: dict[str, Any] = field(default_factory=dict[str, Any])
    turn_detection: dict[str, Any] | None = field(
        default_factory=lambda: {"type": "server_vad", **_SERVER_VAD}
    )
    include: list[str] = field(default_factory=list[str])
    modalities: list[str] = field(default_factory=lambda: ["text"])

    def updated(self, session: bytes, *, beta: bool) -> "RealtimeSession":
        """This session with a client's changes.

        Args:
            session: JSON, as it stands in the client's message.
            beta: whether the names are the beta's.

        Raises:
            Mistake: something in `session` is not valid. This session stays as it is.
        """
        try:
            given = BETA_DECODER.decode(session) if beta else DECODER.decode(session)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise mistake_of(error) from None
        new = copy.copy(self)
        names = _BETA_NAMES if beta else _NAMES
        if isinstance(given, BetaUpdate):
            sound = Input(
                _ga_format(given.input_audio_format),
                given.input_audio_noise_reduction,
                given.input_audio_transcription,
                given.turn_detection,
            )
            if given.modalities:
                new.modalities = list(given.modalities)
        else:
            if given.type not in (UNSET, "transcription"):
                raise Mistake(
                    f"session.type must be transcription, not {shortened(given.type)}: this "
                    "service transcribes, and gives no responses", "session.type",
                )  # fmt: skip
            audio = given.audio
            sound = (isinstance(audio, AudioSettings) and audio.input) or Input()
        if given.include is not UNSET:
            new.include = list(given.include or ())
        new._set(sound, names)
        return new

    def _set(self, sound: Input, names: Mapping[str, str]) -> None:
        if isinstance(sound.format, Format):
            self.format = _format(sound.format, names["format"])
        if sound.noise_reduction is not UNSET:
            self.noise_reduction = _plain(sound.noise_reduction)
        if sound.transcription is not UNSET:
            given = _plain(sound.transcription) or {}
            merged = {**self.transcription, **given} if sound.transcription else {}
            self.transcription = {name: one for name, one in merged.items() if one is not None}
            self._check_transcription(names["transcription"])
        if sound.turn_detection is not UNSET:
            self.turn_detection = self._turn_detection(_plain(sound.turn_detection))

    def _check_transcription(self, where: str) -> None:
        wanted, model = self.transcription, self.model
        name = wanted.get("model")
        if name is not None and not model.answers_to(name):
            raise Mistake(
                f"there is no model {shortened(name)} here: it is called {model.name}",
                f"{where}.model", "model_not_found",
            )  # fmt: skip
        for key in ("language", "languages"):
            asked = wanted.get(key)
            asked = [asked] if isinstance(asked, str) else asked or []
            asked = [one for one in asked if one.strip()]  # clients with none in mind write ""
            if asked and not any(_code(one) in model.languages for one in asked):
                raise Mistake(
                    f"the model understands {', '.join(model.languages)}, not "
                    f"{shortened(', '.join(asked))}", f"{where}.{key}", "unsupported_value",
                )  # fmt: skip
        try:
            self.decoding  # noqa: B018
        except ConfigError as error:
            raise Mistake(str(error), f"{where}.keywords") from None

    def _turn_detection(self, given: dict[str, Any] | None) -> dict[str, Any] | None:
        if given is None:
            return None
        kind, before = given["type"], self.turn_detection
        kept = before if before is not None and before["type"] == kind else {}
        merged = {**_DEFAULTS[kind], **kept, **given}
        others = {name for other in _DEFAULTS if other != kind for name in _DEFAULTS[other]}
        wanted = {
            name: _DEFAULTS[kind].get(name) if one is None else one
            for name, one in merged.items()
            if name not in others
        }
        return {
            name: round(one) if name.endswith("_ms") and one is not None else one
            for name, one in wanted.items()
        }

    # What it means for a stream.

    @property
    def is_telephone(self) -> bool:
        """Whether a byte is a sample at 8 kHz, and not half of one at 24 kHz."""
        return self.format["type"] != "audio/pcm"

    @property
    def options(self) -> StreamOptions:
        """Options of a stream for this session, except its decoding."""
        encoding = _ENCODINGS[self.format["type"]]
        rate = TELEPHONE_RATE if self.is_telephone else SAMPLE_RATE
        return StreamOptions(
            format=AudioFormat(encoding=encoding, sample_rate=rate),
            turns=None if self.turn_detection is None else _policy(self.turn_detection),
        )

    @property
    def decoding(self) -> DecodingOptions:
        """Options of decoding. Raises ConfigError for keywords that are not valid."""
        return DecodingOptions(hotwords=tuple(self.transcription.get("keywords", ())))

    @property
    def prefix_s(self) -> float:
        """Seconds by which the reported start of speech is earlier than the real one."""
        return ((self.turn_detection or {}).get("prefix_padding_ms") or 0) / 1000

    @property
    def wants_logprobs(self) -> bool:
        """Whether deltas and transcripts say how sure each word is."""
        return LOGPROBS in self.include

    # How it is echoed.

    def echo(self) -> dict[str, Any]:
        """The whole session, for `session.created` and `session.updated`."""
        name = self.named or self.model.name
        return {
            "type": "transcription",
            "object": "realtime.transcription_session",
            "id": self.id,
            "audio": {
                "input": {
                    "format": self.format,
                    "transcription": {"model": name, **self.transcription},
                    "noise_reduction": self.noise_reduction,
                    "turn_detection": self.turn_detection,
                }
            },
            "include": self.include,
        }

    def echo_beta(self) -> dict[str, Any]:
        """The same under the beta's names."""
        kinds = {one["type"]: name for name, one in _BETA_FORMATS.items()}
        name = {} if self.named is None else {"model": self.named}
        return {
            "object": "realtime.transcription_session",
            "id": self.id,
            "modalities": self.modalities,
            "input_audio_format": kinds[self.format["type"]],
            "input_audio_transcription": {**name, **self.transcription},
            "input_audio_noise_reduction": self.noise_reduction,
            "turn_detection": self.turn_detection,
            "include": self.include,
            # Its clients expect one. No key is given away here.
            "client_secret": {"value": "", "expires_at": 0},
        }


_NAMES = {
    "format": "session.audio.input.format",
    "transcription": "session.audio.input.transcription",
}
_BETA_NAMES = {
    "format": "session.input_audio_format",
    "transcription": "session.input_audio_transcription",
}


def _plain(given: msgspec.Struct | UnsetType | None) -> dict[str, Any] | None:
    """The fields of it that are set, as plain values."""
    return cast("dict[str, Any] | None", msgspec.to_builtins(given))


def _ga_format(name: str | UnsetType | None) -> Format | UnsetType:
    if not isinstance(name, str):
        return UNSET
    return msgspec.convert(_BETA_FORMATS[name], Format)


def _format(given: Format, where: str) -> dict[str, Any]:
    wanted = SAMPLE_RATE if given.type == "audio/pcm" else TELEPHONE_RATE
    if given.rate not in (None, wanted):
        raise Mistake(
            f"{given.type} must have {wanted} samples a second here, not {given.rate:g}: resample "
            "the sound before you send it", f"{where}.rate", "unsupported_value",
        )  # fmt: skip
    return {"type": given.type} | ({"rate": wanted} if given.type == "audio/pcm" else {})


def _policy(turns: Mapping[str, Any]) -> TurnPolicy:
    """The policy for when a turn ends, from a client's `turn_detection`."""
    if turns["type"] == "semantic_vad":
        eagerness = turns["eagerness"]
        return TurnPolicy.of("medium" if eagerness == "auto" else eagerness)
    silence_s, threshold = turns["silence_duration_ms"] / 1000, turns["threshold"]
    # The first head is of a pause of 0.5 s, the next ones of 1, 2 and 3 s. The nearest below the
    # wanted silence is taken, and the rest is waited for.
    head = max([i for i, pause_s in enumerate(_HEADS_S) if pause_s <= silence_s], default=0)
    on = min(max(round(1.1 - threshold, 3), 0.2), 0.95)  # 0.5 is the policy's own 0.6
    usual = TurnPolicy()
    return TurnPolicy(
        head=head,
        eager_head=min(head, usual.eager_head),
        on=on,
        off=min(usual.off, on),
        hold_s=max(0.0, silence_s - _HEADS_S[head]),
        eager_silence_s=min(silence_s, usual.eager_silence_s),
        silence_s=silence_s,
        text_silence_s=max(usual.text_silence_s, silence_s + usual.text_silence_s - 1),
        margin_db=usual.margin_db * 2 * threshold,
        # The client has said how long a silence it wants, whatever the text looks like.
        number_s=silence_s,
        word_s=silence_s,
        longest_s=max(usual.longest_s, silence_s + 2.0),
    )


_HEADS_S = (0.5, 1.0, 2.0, 3.0)


def _code(language: str) -> str:
    """ISO-639-1 of "en" and "en-US"."""
    return language.strip().lower().replace("_", "-").split("-")[0]


class SettingsByPlace:
    """A session's settings, which hold for the sound that is sent after them: those of the sound
    that is being heard, and those to come. Places count all sound of the connection."""

    def __init__(self, first: RealtimeSession) -> None:
        """Start with the settings of the beginning."""
        self.heard = first
        """The session as it was when the sound that is being heard was sent."""
        self._changes: dict[int, RealtimeSession] = {}  # by the place from which they hold

    def change(self, place: int, session: RealtimeSession) -> None:
        """Note that the session was changed after sound up to `place` had been sent."""
        if place:
            self._changes[place] = session
        else:
            self.heard = session

    def advance(self, place: int) -> None:
        """Note that all sound up to `place` has been heard."""
        while self._changes and (at := next(iter(self._changes))) < place:
            self.heard = self._changes.pop(at)
