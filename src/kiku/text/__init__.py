"""Text: what tokens mean, which words they make and when, and how words are written to files."""

from kiku.options import Eagerness, TurnPolicy
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
from kiku.text.endpointing import Endpointer
from kiku.text.segments import Segment, segments
from kiku.text.turn_events import TurnEnd, TurnEndEager, TurnEvent, TurnResumed, TurnStart
from kiku.text.vocabulary import Vocabulary
from kiku.text.words import Partial, Timing, Word, WordBuilder

__all__ = [
    "FORMATS",
    "CaptionOptions",
    "Captionable",
    "Eagerness",
    "Endpointer",
    "Partial",
    "Segment",
    "Timing",
    "TurnEnd",
    "TurnEndEager",
    "TurnEvent",
    "TurnPolicy",
    "TurnResumed",
    "TurnStart",
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
