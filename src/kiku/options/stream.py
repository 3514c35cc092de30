"""`StreamOptions`, which holds all other options; `Recovery` and `Prompt`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, Self, cast, get_args

from kiku.calibration import Calibration
from kiku.errors import ConfigError
from kiku.options.audio_format import AudioFormat
from kiku.options.base import (
    Options,
    check_bool,
    check_kind,
    check_number,
    check_one_of,
    check_whole,
)
from kiku.options.decoding import DecodingOptions
from kiku.options.turns import Eagerness, TurnPolicy, turn_policy_of
from kiku.serial import from_plain, plain_numbers, to_plain

WhenFull = Literal["block", "error"]
"""What a push does when the queue is full: it waits for room, or raises QueueFull."""

Channel = int | Literal["mix", "each"]
"""Which channel of the sound is transcribed: one (from 0), all mixed, or each by itself."""

MAX_RECORDING_S = 86_400.0
"""Longest recording in seconds, by default: a small file may claim days of silence."""


class RecoveryPolicy(Protocol):
    """Decides when a stream's decoder truncates its context or re-decodes; see
    `kiku.stream.recovery`."""

    def decide(self, stats: Any) -> Any:
        """Return a `Truncate` or `Redecode` to be done at once, or None, from `StreamStats`."""
        ...


@dataclass(frozen=True, slots=True)
class Recovery:
    """What keeps a stream's decoder working for hours: policies that truncate its context at
    pauses, and re-decode where it has frozen or repeats itself."""

    policies: Sequence[RecoveryPolicy] | None = None
    """The policies, asked in this order until one decides on something. None is
    `kiku.stream.recovery.POLICIES`."""

    def __post_init__(self) -> None:
        """Raise ConfigError for a policy without `decide`."""
        given: Any = self.policies
        if given is None:
            return
        check_kind("policies", given, Sequence, "a list of policies, or None")
        for one in cast("Sequence[Any]", given):
            if isinstance(one, type) or not callable(getattr(one, "decide", None)):
                raise ConfigError(
                    f"a recovery policy must have a method decide(stats), but {one!r} has none: "
                    "give objects such as kiku.stream.recovery.StallPolicy()"
                )
        object.__setattr__(self, "policies", tuple(cast("Sequence[Any]", given)))


@dataclass(frozen=True, slots=True, repr=False)
class Prompt:
    """Sound and text that a stream has processed before its own; `Recognizer.prompt` makes one.

    A prompt can be pickled, and used with the same model on an engine of the same kind.
    """

    text: str
    """The text of the prompt's recording."""
    slot: bytes
    """What the model remembers of the recording and its text: some megabytes for a small model, 200
    for the 1B."""

    def __post_init__(self) -> None:
        """Raise ConfigError for impossible values."""
        check_kind("text", self.text, str, "text")
        if not isinstance(self.slot, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(
                f"slot must be bytes, not {type(self.slot).__name__}: "
                "Recognizer.prompt(text, recording) makes a prompt"
            )

    def __repr__(self) -> str:
        return f"<Prompt {self.text!r}, {len(self.slot) / 1e6:.1f} MB>"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions(Options):
    """Which sound a stream takes, how its text is picked, which events it gives out, and how much
    may wait."""

    WHAT: ClassVar[str] = "the stream options"

    format: AudioFormat = field(default_factory=AudioFormat)
    """How the sound that will be pushed is encoded; recordings state it themselves."""
    channel: Channel = "mix"
    """Which channel is transcribed. "each" transcribes every channel separately, each in a slot of
    its own, and words then have a `channel`."""
    track: int | None = None
    """Which audio track of a recording is transcribed, from 0; None is its default track."""
    start_s: float = 0.0
    """Second of the sound at which transcription begins; times still count from the sound's
    beginning."""
    end_s: float | None = None
    """Second of the sound at which transcription ends; None is the end of the sound."""
    max_duration_s: float = MAX_RECORDING_S
    """Longest recording in seconds. What comes after them is not transcribed, and `problem` says
    so. Live streams may have any length."""
    signal_checks: bool = True
    """Warn about sound that is clipped, silent, very quiet, or has a constant offset."""
    rate_check: bool | None = None
    """Also warn if voices sound as if the sample rate were wrong; this costs some processor time.
    None does so for recordings, but not for live streams."""

    decoding: DecodingOptions = field(default_factory=DecodingOptions)
    """How text is picked. Here and for `format`, None means the default, as in `set_decoding`."""
    prompt: Prompt | None = None
    """Sound and text that the model processes before the stream's own; `Recognizer.prompt` makes
    one."""
    calibration: Calibration | None = None
    """Converts the model's own probability of a word to `Word.probability`; None leaves it as it
    is. `kiku evaluate --calibrate` measures one, `Calibration.load` reads it."""
    recovery: Recovery | bool | None = field(default_factory=Recovery)
    """How the decoder is kept working for hours; None leaves its context alone. False means None,
    True means `Recovery()`."""

    turns: bool | Eagerness | TurnPolicy | None = None
    """Whether to report when somebody begins and ends a turn: no, yes, a level of eagerness, or a
    policy."""
    partials: bool = False
    """Whether to give out the pieces of a word that is still being written, as `Partial`."""
    pauses: bool = False
    """Whether to give out the pause heads' probabilities after every frame, as `Pause`, if the
    model has pause heads."""

    max_queue_s: float = 30.0
    """How many seconds of sound may wait to be processed."""
    when_full: WhenFull = "block"
    """What a push does when `max_queue_s` is reached: "block" waits for room, "error" raises
    `QueueFull`."""
    max_events: int = 10_000
    """How many events may wait to be fetched. A stream with more is not stepped until some were
    fetched."""

    def __post_init__(self) -> None:
        """Raise ConfigError for impossible values."""
        plain_numbers(self)
        object.__setattr__(self, "turns", turn_policy_of(self.turns))
        for name, default in (("format", AudioFormat), ("decoding", DecodingOptions)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, default())
        object.__setattr__(self, "recovery", _recovery(self.recovery))
        check_kind("format", self.format, AudioFormat, "an AudioFormat")
        if not isinstance(self.channel, str):
            check_whole("channel", self.channel, 0)
        elif self.channel not in ("mix", "each"):
            raise ConfigError(f"channel must be a number, 'mix' or 'each', not {self.channel!r}")
        for name in ("signal_checks", "partials", "pauses"):
            check_bool(name, getattr(self, name))
        check_one_of("rate_check", self.rate_check, [None, False, True])
        if self.track is not None:
            check_whole("track", self.track, 0)
        check_number("start_s", self.start_s, "a number of seconds, at least 0", 0.0, 1e9)
        if self.end_s is not None:
            check_number("end_s", self.end_s, "a number of seconds above start_s", 0.0, 1e9)
            if self.end_s <= self.start_s:
                raise ConfigError(f"end_s must be above start_s={self.start_s}, not {self.end_s}")
        check_number(
            "max_duration_s", self.max_duration_s, "a number of seconds above 0", 1e-3, 1e9
        )
        check_number("max_queue_s", self.max_queue_s, "at least 0.2 seconds", 0.2, 1e9)
        check_one_of("when_full", self.when_full, get_args(WhenFull))
        check_whole("max_events", self.max_events, 1)
        check_kind("decoding", self.decoding, DecodingOptions, "DecodingOptions")
        check_kind(
            "prompt", self.prompt, Prompt | None,
            "what Recognizer.prompt(text, recording) gives, or None",
        )  # fmt: skip
        check_kind(
            "calibration", self.calibration, Calibration | None,
            "a Calibration (Calibration.load(path) reads one), or None",
        )  # fmt: skip

    def num_sessions(self, num_channels: int | None = None) -> int:
        """How many slots sound with `num_channels` channels takes; None is the number in
        `format`."""
        if self.channel != "each":
            return 1
        return self.format.channels if num_channels is None else num_channels

    @property
    def turn_policy(self) -> TurnPolicy | None:
        """`turns` as a policy; None if turns are not reported."""
        return cast("TurnPolicy | None", self.turns)

    @property
    def recovery_policies(self) -> Recovery | None:
        """`recovery` as a `Recovery`; None if the decoder's context is left alone."""
        return cast("Recovery | None", self.recovery)

    def to_dict(self) -> dict[str, Any]:
        """See `Options.to_dict`. The caller's own recovery policies and a prompt cannot be written.

        Raises:
            ConfigError: the options have one of these.
        """
        recovery = self.recovery_policies
        if recovery is not None and recovery.policies is not None:
            raise ConfigError(
                "recovery policies of your own cannot be saved: leave them out, and give them "
                "where the options are read")  # fmt: skip
        if self.prompt is not None:
            raise ConfigError(
                "a prompt cannot be saved: leave it out, and give it where the options are read"
            )
        values = to_plain(self)
        values["recovery"] = recovery is not None
        values["decoding"] = self.decoding.to_dict()
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """See `Options.from_dict`; `recovery` is true or false, `turns` may be an eagerness."""
        if not isinstance(values, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"{cls.WHAT} must be an object, not {values!r}")
        given = dict(values)
        rich: dict[str, Any] = {}
        if "recovery" in given:
            rich["recovery"] = given.pop("recovery")
            if not isinstance(rich["recovery"], bool):
                raise ConfigError(f"recovery must be true or false, not {rich['recovery']!r}")
        if "decoding" in given:
            rich["decoding"] = DecodingOptions.from_dict(given.pop("decoding"))
        return replace(from_plain(cls, given, what=cls.WHAT, defaults=True, lenient=True), **rich)


def _recovery(recovery: Any) -> Recovery | None:
    if isinstance(recovery, bool):
        return Recovery() if recovery else None
    check_kind("recovery", recovery, Recovery | None, "a Recovery, True, False or None")
    return recovery
