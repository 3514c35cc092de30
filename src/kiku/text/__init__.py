"""Text: what tokens mean, which words they make and when, and how words are written to files."""

from kiku.text.captions import (
    FORMATS,
    Captionable,
    CaptionOptions,
    timestamp,
    write_json,
    write_srt,
    write_tsv,
    write_txt,
    write_vtt,
)
from kiku.text.segments import Segment, segments
from kiku.text.turn_policy import Eagerness, TurnPolicy
from kiku.text.turns import (
    TurnEnd,
    TurnEndEager,
    TurnEvent,
    TurnFrame,
    TurnResumed,
    Turns,
    TurnStart,
)
from kiku.text.vocabulary import Vocabulary
from kiku.text.words import Partial, Timing, Word, WordBuilder

__all__ = [
    "FORMATS",
    "CaptionOptions",
    "Captionable",
    "Eagerness",
    "Partial",
    "Segment",
    "Timing",
    "TurnEnd",
    "TurnEndEager",
    "TurnEvent",
    "TurnFrame",
    "TurnPolicy",
    "TurnResumed",
    "TurnStart",
    "Turns",
    "Vocabulary",
    "Word",
    "WordBuilder",
    "segments",
    "timestamp",
    "write_json",
    "write_srt",
    "write_tsv",
    "write_txt",
    "write_vtt",
]
