"""The options of a stream: the same classes for Python, command line and server.

All are frozen and check themselves; `from_dict` reads them from JSON and refuses names that it does
not know. They only hold values, which `audio`, `decoding`, `text` and `stream` act on.
"""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Protocol, Self, cast, get_args

import numpy as np
from numpy.typing import NDArray

from kiku.calibration import Calibration
from kiku.errors import ConfigError, InputError
from kiku.serial import MAX_INT, from_plain, plain_number, plain_numbers, shown, to_plain

Encoding = Literal["s16le", "s32le", "f32le", "mulaw", "alaw", "opus"]
"""How samples are written as bytes."""

Eagerness = Literal["low", "medium", "high"]
"""How soon a silence is taken for the end of a turn."""

WhenFull = Literal["block", "error"]
"""What a push does when enough sound waits: it waits for room, or raises QueueFull."""

Channel = int | Literal["mix", "each"]
"""Which channel of the sound is transcribed: one (from 0), all mixed, or each by itself."""

MIN_INPUT_RATE, MAX_INPUT_RATE = 8_000, 192_000
"""Samples a second that pushed sound may have; the model's own rate is always accepted."""

MAX_RECORDING_S = 86_400.0
"""Seconds of one recording, where nobody says otherwise: a small file may claim days of silence."""

MAX_CHANNELS = 64
"""Channels of one recording or stream at most."""

MAX_HOTWORDS = 1_000
"""Phrases of one stream at most: their cost grows with their number."""

MAX_HOTWORD_CHARACTERS = 200
"""Characters of one phrase at most."""

MAX_BOOST = 20.0
"""Nats of a boost at most; more is surely a mistake: a word e^20 times less likely than another was
not spoken."""


_MOST_FLOAT = sys.float_info.max


class _Options:
    """Conversion to plain values and back, for every class of options."""

    WHAT: ClassVar[str] = "the options"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from `to_dict`'s values; missing ones take their defaults.

        Raises:
            ConfigError: an unknown name (the nearest known one is named), or an impossible value.
        """
        return from_plain(cls, values, what=cls.WHAT, defaults=True, lenient=True)


def _check(name: str, value: Any, wanted: str, least: float, most: float) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and least <= value <= most):
        raise ConfigError(f"{name} must be {wanted}, not {value!r}")


def _check_whole(name: str, value: Any, least: int, most: int = MAX_INT) -> None:
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return
    bounds = f"at least {least}" if most == MAX_INT else f"{least} to {most}"
    if isinstance(value, int) and value > MAX_INT:
        bounds = "below 2^62"  # saved states hold no larger ones
    raise ConfigError(f"{name} must be a whole number, {bounds}, not {shown(value)}")


def _check_one_of(name: str, value: Any, known: Sequence[Any]) -> None:
    # Compared by type as well: True is not 1 here, and an array is equal to nothing.
    if not any(isinstance(value, type(one)) and value == one for one in known) or (
        isinstance(value, bool) and not any(value is one for one in known)
    ):
        raise ConfigError(f"{name} must be one of {', '.join(map(str, known))}, not {value!r}")


def _check_bool(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False, not {value!r}")


def _check_kind(name: str, value: Any, kind: Any, wanted: str) -> None:
    if not isinstance(value, kind):
        raise ConfigError(f"{name} must be {wanted}, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioFormat(_Options):
    """How the sound that will be pushed is written."""

    WHAT: ClassVar[str] = "the audio format"

    encoding: Encoding | None = None
    """How bytes hold samples; None is "s16le". Arrays need no encoding: they have a dtype. A push
    of "opus" is one packet, without container."""
    sample_rate: int | None = None
    """Samples a second; None is the model's (24,000), 8,000 for mu-law and A-law, 48,000 for
    Opus. A push may name another. 8,000 to 192,000, or the model's own: so it is looked at when a
    stream is opened."""
    channels: int = 1
    """How many channels are interleaved in bytes."""
    channels_axis: int | None = None
    """Which axis of arrays with two axes is that of the channels; None guesses it from the shape,
    which needs more than eight samples."""

    def __post_init__(self) -> None:
        """Raise ConfigError for impossible values."""
        plain_numbers(self)
        _check_one_of("encoding", self.encoding, [None, *get_args(Encoding)])
        _check_whole("channels", self.channels, 1, MAX_CHANNELS)
        if self.sample_rate is not None:
            _check_whole("sample_rate", self.sample_rate, 1)
        _check_one_of("channels_axis", self.channels_axis, [None, 0, 1, -1, -2])
        if self.encoding == "opus" and self.sample_rate not in (None, 48_000):
            raise ConfigError(f"Opus is at 48000 Hz: leave sample_rate={self.sample_rate} out")
        if self.encoding == "opus" and self.channels != 1:
            raise ConfigError(f"Opus is heard as one channel: leave channels={self.channels} out")


@dataclass(frozen=True, slots=True)
class Hotword:
    """One or more words that are expected."""

    text: str
    """The hotword as it should be written."""
    boost: float = 2.0
    """Nats that each word of it gains at most: a word that the model holds more than e^boost times
    likelier still wins. 1 to 3 decide between words that sound alike; names that the model would
    never spell like this by itself need 4 to 8."""
    any_case: bool = True
    """Expect it also in small letters and with capitals at the beginning of its words."""

    def __post_init__(self) -> None:
        """Raise ConfigError for impossible values."""
        plain_numbers(self)
        if not isinstance(self.text, str) or not self.text.strip():  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"a hotword must be text with letters in it, not {self.text!r}")
        if len(self.text) > MAX_HOTWORD_CHARACTERS:
            raise ConfigError(
                f"a hotword may have {MAX_HOTWORD_CHARACTERS} characters, not {len(self.text)}: "
                f"{self.text[:40]!r}..."
            )
        wanted = f"above 0 and at most {MAX_BOOST:g} nats"
        _check(f"the boost of {self.text!r}", self.boost, wanted, math.ulp(0.0), MAX_BOOST)
        _check_bool("any_case", self.any_case)


_PRIOR = "language_prior"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecodingOptions(_Options):
    """How the text of a stream is picked. The default is the model's own likeliest token.

    It can be changed while a stream runs. `Word.probability` comes from the model alone, at
    temperature 1, without boosts and prior: a word that was written only because it was expected
    has a low probability.
    """

    WHAT: ClassVar[str] = "the decoding options"

    temperature: float = 0.0
    """0 takes the likeliest token. 0.25 is what Kyutai serves its 1B model with: picking by chance
    gets a stream out of silence or repetition in which the likeliest token would keep it."""
    top_k: int = 0
    """Draw among the k likeliest tokens only; 0 does not cut. Needs a temperature, as `top_p`."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that together hold this probability; 1 does not cut."""
    seed: int = 0
    """Seed of the random numbers: the same seed and sound give the same words."""
    num_codebooks: int | None = None
    """Read only the first codebooks of each frame; None reads all. Of the 32 of the published
    models Kyutai serves 20."""
    hotwords: Sequence[str | Hotword] = ()
    """Words and phrases that are expected, each as text or as a `Hotword`, which has the boost; at
    most `MAX_HOTWORDS`."""
    cooldown_s: float = 3.0
    """Seconds within which the boost of a phrase comes back after the phrase has been written. So a
    name that was written wrongly is not written again and again. 0 leaves the boost as it is."""
    language_prior: NDArray[np.float32] | None = None
    """[V] nats that are added to the logits (see `kiku.decoding.language_prior`). Values for text
    tokens weigh one text against another; values for tokens that are no text (PAD, the word-start
    marker) weigh whether there is text."""

    def __post_init__(self) -> None:
        """Raise ConfigError for impossible values."""
        plain_numbers(self)
        _check("temperature", self.temperature, "a number from 0 to 10", 0.0, 10.0)
        _check("top_p", self.top_p, "a number above 0, at most 1", math.ulp(0.0), 1.0)
        _check("cooldown_s", self.cooldown_s, "a number of seconds, at least 0", 0.0, 1e9)
        _check_whole("top_k", self.top_k, 0)
        _check_whole("seed", self.seed, 0)
        if self.num_codebooks is not None:
            _check_whole("num_codebooks", self.num_codebooks, 1)
        object.__setattr__(self, "hotwords", _hotwords(self.hotwords))
        if self.language_prior is not None:
            object.__setattr__(self, "language_prior", _prior(self.language_prior))

    def __eq__(self, other: object) -> bool:
        # The method that dataclass makes would ask whether an array is true, which raises.
        if not isinstance(other, DecodingOptions):
            return NotImplemented
        mine, theirs = self.language_prior, other.language_prior
        if mine is None or theirs is None:
            return self._plain_values() == other._plain_values() and mine is theirs
        return self._plain_values() == other._plain_values() and np.array_equal(mine, theirs)

    def __hash__(self) -> int:
        return hash(self._plain_values())

    def _plain_values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, one.name) for one in fields(self) if one.name != _PRIOR)

    @property
    def phrases(self) -> tuple[Hotword, ...]:
        """The hotwords, each as a `Hotword`."""
        return cast("tuple[Hotword, ...]", self.hotwords)

    @property
    def is_plain(self) -> bool:
        """Whether the model's own likeliest token is always taken."""
        return self.temperature == 0 and not self.hotwords and self.language_prior is None

    def to_dict(self) -> dict[str, Any]:
        """See `_Options.to_dict`."""
        prior = self.language_prior
        return to_plain(self) | {"language_prior": None if prior is None else prior.tolist()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """See `_Options.from_dict`."""
        prior = values.get("language_prior") if isinstance(values, Mapping) else None  # pyright: ignore[reportUnnecessaryIsInstance]
        if prior is None or isinstance(prior, np.ndarray):
            return from_plain(cls, values, what=cls.WHAT, defaults=True, lenient=True)
        return from_plain(
            cls,
            {**values, "language_prior": _prior(prior)},
            what=cls.WHAT,
            defaults=True,
            lenient=True,
        )


def _hotwords(given: Any) -> tuple[Hotword, ...]:
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise ConfigError(
            f"hotwords must be a list of phrases, not {shown(given)}: {_listed(given)}"
        )
    items = cast("Sequence[Any]", given)
    if len(items) > MAX_HOTWORDS:
        raise ConfigError(
            f"a stream may have {MAX_HOTWORDS} hotwords, not {len(items)}: give those that matter "
            "in this talk"
        )
    for one in items:
        if not isinstance(one, Hotword | str):
            raise ConfigError(
                f"a hotword must be text or a Hotword, not {shown(one)}: write 'Kyutai', or "
                "Hotword('Kyutai', boost=3.0)"
            )
    return tuple(one if isinstance(one, Hotword) else Hotword(one) for one in items)


def _listed(given: Any) -> str:
    """How what was given for hotwords is written instead."""
    if given is None:
        return "leave them out for none"
    if isinstance(given, str):
        return f"write [{shown(given)}]"
    if isinstance(given, Mapping):
        return "write [Hotword(text, boost), ...]"
    return "write list(...) around it" if isinstance(given, Iterable) else "write ['Kyutai', ...]"


def _prior(given: object) -> NDArray[np.float32]:
    try:
        array = np.asarray(given, np.float32).copy()
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"language_prior must be numbers, one for each token ({error})"
        ) from error
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ConfigError(
            f"language_prior must be finite numbers [V], one for each token, not "
            f"{list(array.shape)} of which {int((~np.isfinite(array)).sum())} are not finite"
        )
    array.setflags(write=False)
    return array


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnPolicy(_Options):
    """When a pause is the end of a turn.

    The third head, the thresholds 0.6 and 0.4, the smoothing (next to none) and the 12 frames are
    what Kyutai's own voice agent uses. The rest was chosen on people on whom the demo model was
    never trained; `benchmarks/people.py` measures what the levels do, and docs/live.md has its
    table.
    """

    WHAT: ClassVar[str] = "the turn policy"

    head: int = 2
    """Which pause head shows an end (from 0: the third is of 2 s); the later heads, being of longer
    pauses, show it too."""
    eager_head: int = 1
    """Which pause head shows an eager end; not above `head`."""
    on: float = 0.6
    """A pause begins where the smoothed probability is above this."""
    off: float = 0.4
    """A pause is over where the smoothed probability is below this; not above `on`."""
    half_life_s: float = 0.01
    """Seconds in which an old value loses half its weight in the smoothing."""
    ignored_frames: int = 12
    """Frames at the beginning of a stream, for which the heads give nothing useful."""
    hold_s: float = 0.0
    """Seconds for which the pause must last before it is an end."""

    eager_silence_s: float = 0.7
    """Without heads: seconds of quiet that make an eager end; not above `silence_s`."""
    silence_s: float = 1.0
    """Without heads: seconds of quiet that make an end."""
    text_silence_s: float = 2.4
    """Without heads: seconds without text that make an end even where it is not quiet."""
    margin_db: float = 9.0
    """Decibels; sound less than this above the noise is quiet. (With heads, quiet only shows since
    when there is a pause.)"""
    quiet_db: float = -60.0
    """dBFS; the noise counts as at least this loud."""
    rise_db_s: float = 4.0
    """Decibels per second by which the noise is taken to grow."""

    number_s: float = 1.6
    """Seconds that a pause must last where a number is being dictated."""
    word_s: float = 1.6
    """Seconds that a pause must last after a word that is left open."""
    longest_s: float = 4.0
    """Seconds after its last text at which a turn ends in any case."""

    def __post_init__(self) -> None:
        """Raise ConfigError for impossible numbers."""
        plain_numbers(self)
        for one in fields(self):
            value = getattr(self, one.name)
            if one.type is int:
                _check_whole(one.name, value, 0)
            elif one.name == "quiet_db":
                _check(one.name, value, "a finite number", -_MOST_FLOAT, _MOST_FLOAT)
            else:
                _check(one.name, value, "at least 0 and finite", 0.0, _MOST_FLOAT)
        for less, more in (("eager_head", "head"), ("eager_silence_s", "silence_s"), ("off", "on")):
            if getattr(self, less) > getattr(self, more):
                raise ConfigError(
                    f"{less} must not be above {more}: "
                    f"they are {getattr(self, less)} and {getattr(self, more)}"
                )
        if self.on >= 1 or self.longest_s == 0 or self.half_life_s == 0:
            raise ConfigError(
                "on must be below 1, longest_s and half_life_s above 0: "
                f"they are {self.on}, {self.longest_s} and {self.half_life_s}"
            )

    @classmethod
    def of(cls, eagerness: Eagerness) -> "TurnPolicy":
        """The policy of a level of eagerness.

        On the same frames a more eager level never ends a turn later, even where it makes several
        turns of one turn of the other level. Only a number that it has cut in two may delay it.

        Raises:
            ConfigError: there is no such level.
        """
        if not isinstance(eagerness, str) or eagerness not in _POLICIES:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"eagerness must be one of {', '.join(_POLICIES)}, not {eagerness!r}")
        return _POLICIES[eagerness]


_POLICIES: dict[Eagerness, TurnPolicy] = {
    "low": TurnPolicy(
        eager_head=2, hold_s=0.4, eager_silence_s=1.0, silence_s=1.4, text_silence_s=3.2,
        number_s=2.2, word_s=2.2, longest_s=8.0,
    ),
    "medium": TurnPolicy(),
    "high": TurnPolicy(
        head=1, eager_head=0, eager_silence_s=0.6, silence_s=0.8, text_silence_s=2.0,
        number_s=1.4, word_s=1.2, longest_s=2.0,
    ),
}  # fmt: skip


class RecoveryPolicy(Protocol):
    """Decides when a stream's decoder truncates or re-decodes; see `kiku.stream.recovery`."""

    def decide(self, stats: Any) -> Any:
        """From `StreamStats`: a `Truncate` or `Redecode` to be done at once, or None."""
        ...


@dataclass(frozen=True, slots=True)
class Recovery:
    """What keeps a stream's decoder working for hours: it truncates its context at pauses, and
    re-decodes where it has frozen or repeats itself."""

    policies: Sequence[RecoveryPolicy] | None = None
    """Asked in this order; what the first decides is done, if it decides on anything. None is
    `kiku.stream.recovery.POLICIES`."""

    def __post_init__(self) -> None:
        """Raise ConfigError for a policy without `decide`."""
        given: Any = self.policies
        if given is None:
            return
        _check_kind("policies", given, Sequence, "a list of policies, or None")
        for one in cast("Sequence[Any]", given):
            if isinstance(one, type) or not callable(getattr(one, "decide", None)):
                raise ConfigError(
                    f"a recovery policy has a method decide(stats), and {one!r} has none to call: "
                    "give objects such as kiku.stream.recovery.StallPolicy()"
                )
        object.__setattr__(self, "policies", tuple(cast("Sequence[Any]", given)))


@dataclass(frozen=True, slots=True, repr=False)
class Prompt:
    """Sound and text that a stream has processed before its own; `Recognizer.prompt` makes one.

    It can be pickled, and used with the same model on an engine of the same kind.
    """

    text: str
    """The text of the prompt's recording."""
    slot: bytes
    """What the model remembers of recording and text: some megabytes for a small model, 200 for the
    1B."""

    def __post_init__(self) -> None:
        """Raise ConfigError for impossible values."""
        _check_kind("text", self.text, str, "text")
        if not isinstance(self.slot, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(
                f"slot must be bytes, not {type(self.slot).__name__}: "
                "Recognizer.prompt(text, recording) makes a prompt"
            )

    def __repr__(self) -> str:
        return f"<Prompt {self.text!r}, {len(self.slot) / 1e6:.1f} MB>"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions(_Options):
    """Which sound a stream takes, how its text is picked, what it gives out, how much may wait."""

    WHAT: ClassVar[str] = "the stream options"

    format: AudioFormat = field(default_factory=AudioFormat)
    """How the sound that will be pushed is written; recordings state it themselves."""
    channel: Channel = "mix"
    """Which channel is transcribed. "each" transcribes every one by itself, in a slot of its own,
    and marks words with `channel`."""
    track: int | None = None
    """Which audio track of a recording is transcribed, from 0; None is its default one."""
    start_s: float = 0.0
    """Second of the sound at which transcription begins; times still count from the sound's
    beginning."""
    end_s: float | None = None
    """Second of the sound at which transcription ends; None is its end."""
    max_duration_s: float = MAX_RECORDING_S
    """Seconds of one recording; what comes after them is not transcribed, and `problem` says so.
    Live streams may be of any length."""
    signal_checks: bool = True
    """Warn of sound that is clipped, silent, very quiet, or lies off zero."""
    rate_check: bool | None = None
    """Warn also where voices sound as if the sample rate were wrong: costs some processor time.
    None does so for recordings, not for live streams."""

    decoding: DecodingOptions = field(default_factory=DecodingOptions)
    """How text is picked. None is understood as the default, here and of `format`, as by
    `set_decoding`."""
    prompt: Prompt | None = None
    """Sound and text that the model has processed before: `Recognizer.prompt` makes one."""
    calibration: Calibration | None = None
    """Converts the model's own probability of a word to `Word.probability`; None leaves it as it
    is. `kiku evaluate --calibrate` measures one, `Calibration.load` reads it."""
    recovery: Recovery | bool | None = field(default_factory=Recovery)
    """How the decoder is kept working for hours; None leaves its memory alone. False is understood
    as None, True as `Recovery()`."""

    turns: bool | Eagerness | TurnPolicy | None = None
    """Report when somebody begins and ends a turn: no, yes, how eagerly, or exactly when."""
    partials: bool = False
    """Give out the pieces of a word that is still being written, as `Partial`."""
    pauses: bool = False
    """Give out the pause heads' probabilities after every frame, as `Pause`, where the model has
    pause heads."""

    max_queue_s: float = 30.0
    """Seconds of sound that may wait to be processed."""
    when_full: WhenFull = "block"
    """What a push does when this much waits: "block" waits for room, "error" raises `QueueFull`."""
    max_events: int = 10_000
    """Events that may wait to be fetched; a stream with more is not stepped until some were."""

    def __post_init__(self) -> None:
        """Raise ConfigError for impossible values."""
        plain_numbers(self)
        object.__setattr__(self, "turns", _turns(self.turns))
        for name, default in (("format", AudioFormat), ("decoding", DecodingOptions)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, default())
        object.__setattr__(self, "recovery", _recovery(self.recovery))
        _check_kind("format", self.format, AudioFormat, "an AudioFormat")
        if not isinstance(self.channel, str):
            _check_whole("channel", self.channel, 0)
        elif self.channel not in ("mix", "each"):
            raise ConfigError(f"channel must be a number, 'mix' or 'each', not {self.channel!r}")
        for name in ("signal_checks", "partials", "pauses"):
            _check_bool(name, getattr(self, name))
        _check_one_of("rate_check", self.rate_check, [None, False, True])
        if self.track is not None:
            _check_whole("track", self.track, 0)
        _check("start_s", self.start_s, "a number of seconds, at least 0", 0.0, 1e9)
        if self.end_s is not None:
            _check("end_s", self.end_s, "a number of seconds above start_s", 0.0, 1e9)
            if self.end_s <= self.start_s:
                raise ConfigError(f"end_s must be above start_s={self.start_s}, not {self.end_s}")
        _check("max_duration_s", self.max_duration_s, "a number of seconds above 0", 1e-3, 1e9)
        _check("max_queue_s", self.max_queue_s, "at least 0.2 seconds", 0.2, 1e9)
        _check_one_of("when_full", self.when_full, get_args(WhenFull))
        _check_whole("max_events", self.max_events, 1)
        _check_kind("decoding", self.decoding, DecodingOptions, "DecodingOptions")
        _check_kind(
            "prompt", self.prompt, Prompt | None,
            "what Recognizer.prompt(text, recording) gives, or None",
        )  # fmt: skip
        _check_kind(
            "calibration", self.calibration, Calibration | None,
            "a Calibration (Calibration.load(path) reads one), or None",
        )  # fmt: skip

    def num_sessions(self, num_channels: int | None = None) -> int:
        """How many slots a sound of so many channels takes; None is as many as `format` has."""
        if self.channel != "each":
            return 1
        return self.format.channels if num_channels is None else num_channels

    @property
    def turn_policy(self) -> TurnPolicy | None:
        """`turns` as a policy; None reports no turns."""
        return cast("TurnPolicy | None", self.turns)

    @property
    def recovery_policies(self) -> Recovery | None:
        """`recovery` as a `Recovery`; None leaves the decoder's memory alone."""
        return cast("Recovery | None", self.recovery)

    def to_dict(self) -> dict[str, Any]:
        """See `_Options.to_dict`. A caller's own recovery policies and a prompt cannot be written.

        Raises:
            ConfigError: the options have one of these.
        """
        recovery = self.recovery_policies
        if recovery is not None and recovery.policies is not None:
            raise ConfigError("recovery policies of one's own cannot be written down: leave them "
                              "out, and give them where the options are read")  # fmt: skip
        if self.prompt is not None:
            raise ConfigError(
                "a prompt cannot be written down: leave it out, and give it where the options are "
                "read"
            )
        values = to_plain(self)
        values["recovery"] = recovery is not None
        values["decoding"] = self.decoding.to_dict()
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """See `_Options.from_dict`; `recovery` is true or false, `turns` may be an eagerness."""
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
    _check_kind("recovery", recovery, Recovery | None, "a Recovery, True, False or None")
    return recovery


def _turns(turns: Any) -> TurnPolicy | None:
    if turns is None or turns is False:
        return None
    if turns is True:
        return TurnPolicy()
    if isinstance(turns, TurnPolicy):
        return turns
    if isinstance(turns, str) and turns in _POLICIES:
        return TurnPolicy.of(turns)
    raise ConfigError(
        f"turns must be true or false, an eagerness ({', '.join(_POLICIES)}) or a TurnPolicy, not "
        f"{turns!r}"
    )


def checked_stream_options(given: Any) -> StreamOptions:
    """A caller's `options` as StreamOptions; None is the default.

    Raises:
        InputError: they are something else.
    """
    if given is None or isinstance(given, StreamOptions):
        return given or StreamOptions()
    if isinstance(given, DecodingOptions):
        advice = "options=StreamOptions(decoding=DecodingOptions(...))"
    elif isinstance(given, Mapping):
        advice = "options=StreamOptions(...) with these names, or StreamOptions.from_dict(...)"
    else:
        advice = "options=StreamOptions(...), such as StreamOptions(end_s=10.0)"
    raise InputError(f"options must be StreamOptions, not {shown(given)}: write {advice}")


def checked_decoding_options(given: Any) -> DecodingOptions:
    """As `checked_stream_options`, for DecodingOptions."""
    if given is None or isinstance(given, DecodingOptions):
        return given or DecodingOptions()
    raise InputError(
        f"how text is picked is said by DecodingOptions, not {shown(given)}: write "
        "DecodingOptions(...), such as DecodingOptions(temperature=0.25)"
    )


_EVER_S = 1e9
"""Seconds; a longer timeout counts as none, since clocks cannot wait for it."""


def timeout_s(given: Any) -> float | None:
    """A caller's `timeout` in seconds; None is no limit.

    Raises:
        InputError: it is something else.
    """
    value = plain_number(given)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise InputError(
            f"timeout must be a number of seconds, or None to wait without a limit, not "
            f"{shown(given)}: write timeout=1.5"
        )
    return None if value > _EVER_S else float(value)


def callback(given: Any, name: str) -> Any:
    """A caller's callback; None is no callback.

    Raises:
        InputError: it cannot be called.
    """
    if given is None or callable(given):
        return given
    raise InputError(f"{name} must be a function, or None for none, not {shown(given)}")
