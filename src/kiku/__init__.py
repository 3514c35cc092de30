"""Kyutai's streaming speech-to-text: one engine for files, microphones and sockets.

    import kiku

    for word in kiku.load("demo").transcribe("talk.mp3"):
        print(word.text, word.start, word.end)

Nothing is imported before it is used: `import kiku` takes no time, and only `load` imports the
packages that run a model, such as PyTorch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kiku.config import ModelConfig
    from kiku.errors import KikuError
    from kiku.live import AsyncStream, LiveStream
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
    from kiku.transcription import IncompleteTranscript, Transcript, Transcription

__version__ = "0.1.0"

__all__ = [
    "AsyncStream",
    "AudioFormat",
    "DecodingOptions",
    "End",
    "Event",
    "Finalized",
    "Hotword",
    "IncompleteTranscript",
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

_NAMES = {
    "config": ["ModelConfig"],
    "errors": ["KikuError"],
    "live": ["AsyncStream", "LiveStream"],
    "loading": ["load"],
    "options": [
        "AudioFormat", "DecodingOptions", "Hotword", "Prompt", "Recovery", "StreamOptions",
        "TurnPolicy",
    ],
    "recognizer": ["Recognizer"],
    "stream": ["End", "Event", "Finalized", "Pause", "StreamWarning", "WordEnd"],
    "text": [
        "Partial", "Segment", "TurnEnd", "TurnEndEager", "TurnResumed", "TurnStart", "Word",
    ],
    "transcription": ["IncompleteTranscript", "Transcript", "Transcription"],
    # Rooms that can be named without being imported: `except kiku.errors.AudioError`.
    "audio": [], "decoding": [], "engine": [], "scheduler": [],
}  # fmt: skip
"""The rooms and their public names."""

_ROOM_OF = {name: room for room, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _NAMES:
        return import_module(f"{__name__}.{name}")
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    globals()[name] = found  # the next access does not come here
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_NAMES} - {"TYPE_CHECKING", "Any"})
