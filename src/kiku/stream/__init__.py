"""One client's sound in, events out: no torch, no input or output, no clock."""

from kiku.stream.care import (
    NO_CARE,
    Care,
    FrozenPolicy,
    Look,
    LoopPolicy,
    Policy,
    Refresh,
    RefreshPolicy,
    Reread,
)
from kiku.stream.core import Due, Stream, Wishes
from kiku.stream.events import (
    VERSION,
    End,
    Event,
    Finalized,
    Pause,
    Warning,
    WordEnd,
    event_from_dict,
    event_to_dict,
)

__all__ = [
    "NO_CARE",
    "VERSION",
    "Care",
    "Due",
    "End",
    "Event",
    "Finalized",
    "FrozenPolicy",
    "Look",
    "LoopPolicy",
    "Pause",
    "Policy",
    "Refresh",
    "RefreshPolicy",
    "Reread",
    "Stream",
    "Warning",
    "Wishes",
    "WordEnd",
    "event_from_dict",
    "event_to_dict",
]
