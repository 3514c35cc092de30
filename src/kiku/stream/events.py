"""The events that a stream gives out. Every event is frozen, and none is ever taken back.

Times are seconds of the stream's own sound, counted from its first sample; the silence that a model
needs before the sound and the delay of its text are subtracted. Times of events of one kind never
decrease. When a kind of event gains a field or a meaning, `VERSION` grows.
"""

from dataclasses import asdict, dataclass
from typing import Any

from kiku.audio import StreamWarning
from kiku.serial import from_plain
from kiku.text import Partial, TurnEnd, TurnEndEager, TurnResumed, TurnStart, Word

VERSION = 2
"""One number for all kinds of events."""


@dataclass(frozen=True, slots=True)
class WordEnd:
    """The end of the word before; it follows each `Word` at once."""

    end: float
    channel: int | None = None
    """The channel of the word."""


@dataclass(frozen=True, slots=True)
class Pause:
    """The probabilities of the model's pause heads after a frame."""

    time: float
    """The end of the frame."""
    probabilities: tuple[float, ...]
    """[E] one for each head: that nobody speaks for 0.5, 1, 2 and 3 seconds."""
    channel: int | None = None
    """The channel, where each channel is transcribed by itself; None where they are mixed."""


@dataclass(frozen=True, slots=True)
class Finalized:
    """The answer to a finalize: all words that were begun before `time` have been given out, except
    one that is still being spoken."""

    time: float
    """The second of the sound at which `finalize` was called. If the model's text lags by more than
    four seconds, it is a little earlier: later words come when their text does."""
    open_word: Partial | None
    """The text so far of the word that is being spoken at `time`; it will come as a `Word` when it
    is whole. None if no word is being spoken."""
    tag: str | None = None
    """The tag that `finalize` was called with."""
    channel: int | None = None
    """The channel, where each channel is transcribed by itself: every one gives this event."""


@dataclass(frozen=True, slots=True)
class End:
    """The last event of a stream."""

    duration: float
    """Seconds of sound that were pushed."""


Event = (
    Word
    | WordEnd
    | Partial
    | Pause
    | TurnStart
    | TurnEndEager
    | TurnResumed
    | TurnEnd
    | Finalized
    | StreamWarning
    | End
)

_KINDS: dict[str, type] = {
    "word": Word,
    "word_end": WordEnd,
    "partial": Partial,
    "pause": Pause,
    "turn_start": TurnStart,
    "turn_end_eager": TurnEndEager,
    "turn_resumed": TurnResumed,
    "turn_end": TurnEnd,
    "finalized": Finalized,
    "warning": StreamWarning,
    "end": End,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def event_to_dict(event: Event) -> dict[str, Any]:
    """The event as plain values, ready for JSON: `type`, which is a name like "turn_end_eager", and
    the event's own fields."""
    return {"type": _NAMES[type(event)], **asdict(event)}


def event_from_dict(values: Any) -> Event:
    """The event of which `event_to_dict` made `values`.

    Raises:
        ValueError: `values` is not what `event_to_dict` returned.
    """
    given = dict(values)
    name = given.pop("type", None)
    if not isinstance(name, str) or name not in _KINDS:
        raise ValueError(f"there is no kind of event {name!r}")
    kind: Any = _KINDS[name]
    return from_plain(kind, given, what=f"the event {name!r}")
