"""The events of a turn: its start, a probable end, that somebody speaks on after all, and its end.

`endpointing` decides when each is given out.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TurnStart:
    """Somebody speaks: the first word has begun. `time` is where in the sound, so it lies before
    what was heard when this is given out; but never before an earlier event."""

    time: float
    """Seconds of the source."""
    channel: int | None = None
    """Which channel of the sound, from 0; None where all are mixed."""


@dataclass(frozen=True, slots=True)
class TurnEndEager:
    """The turn has probably ended, and all its text is there. A `TurnResumed` or the `TurnEnd`
    follows; if it is the end, then with exactly the text that is there now."""

    time: float
    """Seconds that had been heard."""
    probability: float
    """That this is a pause: what the head says; without heads, how much of the silence that makes
    an end was heard."""
    channel: int | None = None
    """As in `TurnStart`."""


@dataclass(frozen=True, slots=True)
class TurnResumed:
    """The last `TurnEndEager` was wrong: text came, or the pause is over."""

    time: float
    """Seconds that had been heard."""
    channel: int | None = None
    """As in `TurnStart`."""


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """The turn is over, and its text does not change any more. Not always is there a
    `TurnEndEager` before. The next event is a `TurnStart`."""

    time: float
    """Seconds that had been heard."""
    probability: float
    """As in `TurnEndEager`; 1 where the stream was closed."""
    channel: int | None = None
    """As in `TurnStart`."""


TurnEvent = TurnStart | TurnEndEager | TurnResumed | TurnEnd
