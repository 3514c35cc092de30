"""Kyutai's streaming speech-to-text: one engine for file, microphone and socket.

    import kiku

    for word in kiku.load("demo").transcribe("talk.mp3"):
        print(word.text, word.start, word.end)

What is needed to run a model, PyTorch above all, is imported by `load` and not before.
"""

from kiku.config import ModelConfig
from kiku.engine.steering import Phrase, Steering
from kiku.errors import KikuError
from kiku.live import AsyncStream, LiveStream
from kiku.loading import load
from kiku.recognizer import Recognizer
from kiku.stream import End, Event, Finalized, Pause, Stream, Warning, WordEnd
from kiku.text import (
    Partial,
    Segment,
    TurnEnd,
    TurnEndEager,
    TurnPolicy,
    TurnResumed,
    TurnStart,
    Word,
)
from kiku.transcription import Transcription

__version__ = "0.1.0"

__all__ = [
    "AsyncStream",
    "End",
    "Event",
    "Finalized",
    "KikuError",
    "LiveStream",
    "ModelConfig",
    "Partial",
    "Pause",
    "Phrase",
    "Recognizer",
    "Segment",
    "Steering",
    "Stream",
    "Transcription",
    "TurnEnd",
    "TurnEndEager",
    "TurnPolicy",
    "TurnResumed",
    "TurnStart",
    "Warning",
    "Word",
    "WordEnd",
    "load",
]
