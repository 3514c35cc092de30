"""Kyutai's streaming speech-to-text: one engine for file, microphone and socket.

    import kiku

    for word in kiku.load("demo").transcribe("talk.mp3"):
        print(word.text, word.start, word.end)

What is needed to run a model, PyTorch above all, is imported by `load` and not before.
"""

from kiku.config import ModelConfig
from kiku.errors import KikuError
from kiku.recognizer import Recognizer, Transcription, load
from kiku.stream import End, Event, Stream
from kiku.text import Segment, Word

__version__ = "0.1.0"

__all__ = [
    "End",
    "Event",
    "KikuError",
    "ModelConfig",
    "Recognizer",
    "Segment",
    "Stream",
    "Transcription",
    "Word",
    "load",
]
