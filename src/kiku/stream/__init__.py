"""One client's sound in, events out: no torch, no input or output, no clock, no threads."""

from kiku.audio import StreamWarning
from kiku.stream.events import (
    VERSION,
    End,
    Event,
    Finalized,
    Pause,
    WordEnd,
    event_from_dict,
    event_to_dict,
)
from kiku.stream.recovery import (
    POLICIES,
    ContextPolicy,
    LoopPolicy,
    Redecode,
    StallPolicy,
    StreamStats,
    Truncate,
)
from kiku.stream.session import WordSession
from kiku.stream.tokens import TokenSession
from kiku.stream.work import DecodingChange, FinalizeRequest, SlotAccess, Work

__all__ = [
    "POLICIES",
    "VERSION",
    "ContextPolicy",
    "DecodingChange",
    "End",
    "Event",
    "FinalizeRequest",
    "Finalized",
    "LoopPolicy",
    "Pause",
    "Redecode",
    "SlotAccess",
    "StallPolicy",
    "StreamStats",
    "StreamWarning",
    "TokenSession",
    "Truncate",
    "WordEnd",
    "WordSession",
    "Work",
    "event_from_dict",
    "event_to_dict",
]
