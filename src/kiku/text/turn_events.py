"""The events of a turn: its start, its probable end, its resumption after that, and its end.

Does not know when each event is given out (`endpointing`).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TurnStart:
    """A turn starts: its first word has begun. The event is given out later than `time`, since text
    lags sound; but `time` is never before that of an earlier event."""

    time: float
    """Second of the source at which the word begins."""
    channel: int | None = None
    """The channel of the turn, from 0; None where all channels are mixed."""


@dataclass(frozen=True, slots=True)
class TurnEndEager:
    """The turn has probably ended, and all its text is there. A `TurnResumed` or the `TurnEnd`
    follows; if the `TurnEnd` follows, the turn has exactly the text that is there now."""

    time: float
    """Seconds of the source that had been heard."""
    probability: float
    """Probability that this is a pause, from the pause head; without heads, the silence so far as a
    share of the silence that ends a turn."""
    channel: int | None = None
    """As in `TurnStart`."""


@dataclass(frozen=True, slots=True)
class TurnResumed:
    """The last `TurnEndEager` was wrong: text has come, or the pause is over."""

    time: float
    """Seconds of the source that had been heard."""
    channel: int | None = None
    """As in `TurnStart`."""


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """The turn is over, and its text does not change any more. A `TurnEndEager` may come before it,
    but need not. The next event is a `TurnStart`."""

    time: float
    """Seconds of the source that had been heard."""
    probability: float
    """As in `TurnEndEager`; 1 where the stream was closed."""
    channel: int | None = None
    """As in `TurnStart`."""


TurnEvent = TurnStart | TurnEndEager | TurnResumed | TurnEnd
