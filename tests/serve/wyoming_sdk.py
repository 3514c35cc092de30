"""The `wyoming` package, and a strict look at what we send to it."""

import json
import warnings
from collections.abc import Sequence
from typing import Any

from pydantic import ConfigDict, TypeAdapter, with_config

with warnings.catch_warnings():  # of audioop, which later Pythons have not
    warnings.simplefilter("ignore", DeprecationWarning)
    from wyoming.asr import (
        Transcribe,
        Transcript,
        TranscriptChunk,
        TranscriptStart,
        TranscriptStop,
        VadSensitivity,
    )
    from wyoming.audio import AudioChunk, AudioStart, AudioStop
    from wyoming.client import AsyncTcpClient
    from wyoming.error import Error
    from wyoming.event import Event as SdkEvent
    from wyoming.event import Eventable, write_event
    from wyoming.info import Describe, Info, SelectProgram
    from wyoming.ping import Ping, Pong

from kiku.serve.protocols.wyoming_messages import MessageReader

__all__ = [
    "AsyncTcpClient",
    "AudioChunk",
    "AudioStart",
    "AudioStop",
    "Describe",
    "Info",
    "Ping",
    "Pong",
    "SdkEvent",
    "SelectProgram",
    "Transcribe",
    "VadSensitivity",
    "checked",
    "chunk",
    "wire",
]


class Written:
    """A file that keeps what the SDK writes."""

    def __init__(self) -> None:
        self.data = b""

    def writelines(self, parts: Sequence[bytes]) -> None:
        self.data += b"".join(parts)

    def write(self, data: bytes) -> None:
        self.data += data

    def flush(self) -> None:
        pass


def wire(*events: Eventable | SdkEvent) -> bytes:
    """As the SDK sends it."""
    file: Any = Written()
    for event in events:
        write_event(event if isinstance(event, SdkEvent) else event.event(), file)
    return file.data


def chunk(sound: bytes, rate: int = 16_000, width: int = 2, channels: int = 1) -> AudioChunk:
    return AudioChunk(rate, width, channels, sound)


_STRICT = ConfigDict(extra="forbid", strict=True)
_KINDS: dict[str, tuple[type, bool]] = {
    "info": (Info, True),
    "transcript-start": (TranscriptStart, False),
    "transcript-chunk": (TranscriptChunk, True),
    "transcript": (Transcript, True),
    "transcript-stop": (TranscriptStop, False),
    "error": (Error, True),
    "pong": (Pong, False),
}


def checked(data: bytes) -> list[SdkEvent]:
    """The messages that we sent, each exactly what the SDK's own type wants."""
    reader = MessageReader()
    reader.feed(data)
    found: list[SdkEvent] = []
    while (one := reader.next()) is not None:
        kind, needs_data = _KINDS[one.type]
        assert one.data or not needs_data
        strict = with_config(_STRICT)(kind)
        TypeAdapter(strict).validate_json(json.dumps(dict(one.data)))
        if kind is Info:  # whose parser drops what it does not know
            shown = Info.from_event(SdkEvent("info", dict(one.data))).event().data
            assert shown == dict(one.data)
        assert one.payload == b""
        found.append(SdkEvent(one.type, dict(one.data)))
    assert reader.num_waiting == 0
    return found
