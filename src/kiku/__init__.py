"""Kyutai's streaming speech-to-text: one engine for file, microphone and socket.

    import kiku

    for word in kiku.load("demo").transcribe("talk.mp3"):
        print(word.text, word.start, word.end)

What is needed to run a model, PyTorch above all, is imported by `load` and not before.
"""

from kiku.config import ModelConfig
from kiku.errors import KikuError
from kiku.live import LiveStream
from kiku.live_async import AsyncStream
from kiku.loading import load
from kiku.options import (
    AudioFormat,
    DecodingOptions,
    Hotword,
    Prompt,
    Recovery,
    StreamOptions,
    TurnPolicy,
)
from kiku.recognizer import Recognizer
from kiku.stream import End, Event, Finalized, Pause, StreamWarning, WordEnd
from kiku.text import (
    Partial,
    Segment,
    TurnEnd,
    TurnEndEager,
    TurnResumed,
    TurnStart,
    Word,
)
from kiku.transcription import Transcript, Transcription

__version__ = "0.1.0"

__all__ = [
    "AsyncStream",
    "AudioFormat",
    "DecodingOptions",
    "End",
    "Event",
    "Finalized",
    "Hotword",
    "KikuError",
    "LiveStream",
    "ModelConfig",
    "Partial",
    "Pause",
    "Prompt",
    "Recognizer",
    "Recovery",
    "Segment",
    "StreamOptions",
    "StreamWarning",
    "Transcript",
    "Transcription",
    "TurnEnd",
    "TurnEndEager",
    "TurnPolicy",
    "TurnResumed",
    "TurnStart",
    "Word",
    "WordEnd",
    "load",
]
