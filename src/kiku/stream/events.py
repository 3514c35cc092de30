"""What a stream says. Every event is frozen, and nothing that was said is taken back.

Times are seconds of the stream's own sound, counted from its first sample; the silence that a model
wants before the sound and the delay of its text are taken out. Among events of one kind they never
decrease. Where a kind gains a field or a meaning, `VERSION` grows.
"""

from dataclasses import asdict, dataclass
from typing import Any

from kiku.audio import StreamWarning
from kiku.serial import from_plain
from kiku.text import Partial, TurnEnd, TurnEndEager, TurnResumed, TurnStart, Word

VERSION = 2
"""Of all kinds together."""


@dataclass(frozen=True, slots=True)
class WordEnd:
    """The word before has ended; it follows each `Word` at once."""

    end: float
    channel: int | None = None
    """As of the word."""


@dataclass(frozen=True, slots=True)
class Pause:
    """What the model's pause heads say after a frame."""

    time: float
    """The end of the frame."""
    probabilities: tuple[float, ...]
    """[E] of each head: that nobody speaks for 0.5, 1, 2 and 3 seconds."""
    channel: int | None = None
    """Where the channels are heard one by one: which."""


@dataclass(frozen=True, slots=True)
class Finalized:
    """All words that were begun before `time` have been given out, but for one that is still being
    spoken."""

    time: float
    """Where in the sound `finalize` was called; where the model's text lags by more than four
    seconds, a little before: later words come when their text does."""
    open_word: Partial | None
    """What has been heard of the word that is being spoken there; it will come as a `Word` when it
    is whole. None where there is none."""
    tag: str | None = None
    """What `finalize` was called with."""
    channel: int | None = None
    """Where the channels are heard one by one: which. Each of them says it."""


@dataclass(frozen=True, slots=True)
class End:
    """Nothing will come after this."""

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
    """Plain values, ready for JSON: `type`, which is a name like "turn_end_eager", and the event's
    own fields."""
    return {"type": _NAMES[type(event)], **asdict(event)}


def event_from_dict(values: Any) -> Event:
    """Undo `event_to_dict`.

    Raises:
        ValueError: it is not what `event_to_dict` gave.
    """
    given = dict(values)
    name = given.pop("type", None)
    if not isinstance(name, str) or name not in _KINDS:
        raise ValueError(f"there is no kind of event {name!r}")
    kind: Any = _KINDS[name]
    return from_plain(kind, given, what=f"the event {name!r}")
