"""What is told to a Realtime client, checked strictly against the SDK's own types and against the
order that items keep."""

import json
from typing import Any

from openai import BaseModel
from openai.types.beta.realtime import RealtimeServerEvent as BetaServerEvent
from openai.types.beta.realtime import TranscriptionSession
from openai.types.realtime import RealtimeServerEvent
from openai.types.realtime.realtime_transcription_session_create_request import (
    RealtimeTranscriptionSessionCreateRequest,
)
from pydantic import TypeAdapter

TRANSCRIPTION = "conversation.item.input_audio_transcription"

_GA: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
_BETA: TypeAdapter[Any] = TypeAdapter(BetaServerEvent)

# The services' own sessions have these too; `RealtimeTranscriptionSessionCreateResponse` says so of
# today's, `TranscriptionSessionUpdate` of the beta's.
_MORE: dict[type, set[str]] = {
    RealtimeTranscriptionSessionCreateRequest: {"id", "object"},
    TranscriptionSession: {"id", "object", "include", "input_audio_noise_reduction"},
}


def strictly(raw: str, *, beta: bool = False) -> dict[str, Any]:
    """A message as plain values: its kind is known, every field that must be there is, none is
    there that is not known, and each has its type."""
    values = json.loads(raw)
    told = values
    if beta and values["type"] == "transcription_session.created":
        # The SDK has no type for it; it is the same as the other.
        told = {**values, "type": "transcription_session.updated"}
    value = (_BETA if beta else _GA).validate_json(json.dumps(told), strict=True)
    assert value.type == told["type"], f"the SDK does not know {values['type']}"
    _no_extras(value)
    return values


def _no_extras(value: Any) -> None:
    if isinstance(value, BaseModel):
        extras = set(value.model_extra or ()) - _MORE.get(type(value), set())
        assert not extras, f"{type(value).__name__} knows no {extras}"
        for name in type(value).model_fields:
            _no_extras(getattr(value, name))
    elif isinstance(value, list):
        for one in value:
            _no_extras(one)


class Told:
    """All that a client was told, in order; each message is checked as it comes."""

    def __init__(self, *, beta: bool = False) -> None:
        self.beta = beta
        self.messages: list[dict[str, Any]] = []
        self.transcripts: dict[str, str] = {}
        """Of the items that were completed, in order."""
        self.failed: dict[str, str] = {}
        self.errors: list[dict[str, Any]] = []
        self.committed: list[str] = []
        self._deltas: dict[str, str] = {}
        self._last_ms = 0
        self._speaking: str | None = None
        self._started: set[str] = set()
        self._ids: set[str] = set()

    @property
    def types(self) -> list[str]:
        return [one["type"].removeprefix("conversation.item.") for one in self.messages]

    def of(self, item_id: str) -> list[str]:
        """The kinds of all messages about an item."""
        return [
            one["type"].removeprefix("conversation.item.").removeprefix("input_audio_")
            for one in self.messages
            if item_id in (one.get("item_id"), one.get("item", {}).get("id"))
        ]

    def take(self, raw: str) -> dict[str, Any]:
        """One more message."""
        # An update is answered under the names in which it was written.
        kind = json.loads(raw)["type"].split(".")[0]
        beta = {"session": False, "transcription_session": True}.get(kind, self.beta)
        one = strictly(raw, beta=beta)
        assert one["event_id"] not in self._ids
        self._ids.add(one["event_id"])
        if not self.messages:
            names = ("transcription_session.created", "session.created")
            assert one["type"] == names[not self.beta]
        self.messages.append(one)
        kind = one["type"]
        if kind == "error":
            self.errors.append(one["error"])
        elif kind.startswith("input_audio_buffer.speech_"):
            self._speech(one)
        elif kind.startswith(TRANSCRIPTION):
            self._transcription(one)
        elif kind == "input_audio_buffer.committed":
            assert self._speaking is None
            assert one["previous_item_id"] == (self.committed[-1] if self.committed else None)
            self.committed.append(one["item_id"])
        elif kind.startswith("conversation.item."):
            assert kind.split(".")[-1] in (("created",) if self.beta else ("added", "done"))
            assert one["item"]["id"] == self.committed[-1]
            assert one["previous_item_id"] == ([None, *self.committed][-2])
        else:
            assert "session" in one or kind == "input_audio_buffer.cleared"
        return one

    def _speech(self, one: dict[str, Any]) -> None:
        starts = one["type"].endswith("started")
        ms = one["audio_start_ms" if starts else "audio_end_ms"]
        assert ms >= self._last_ms
        assert one["item_id"] not in self.committed
        if starts:
            assert self._speaking is None
            assert one["item_id"] not in self._started
            self._started.add(one["item_id"])
        else:
            assert self._speaking == one["item_id"]
        self._last_ms, self._speaking = ms, one["item_id"] if starts else None

    def _transcription(self, one: dict[str, Any]) -> None:
        id, kind = one["item_id"], one["type"].removeprefix(TRANSCRIPTION + ".")
        assert one["content_index"] == 0
        assert id not in self.transcripts
        assert id not in self.failed
        if kind == "delta":
            assert id not in self.committed
            self._deltas[id] = self._deltas.get(id, "") + one["delta"]
            return
        assert id == self.committed[-1]
        if kind == "completed":
            assert one["transcript"] == self._deltas.get(id, "")
            self.transcripts[id] = one["transcript"]
        else:
            self.failed[id] = one["error"]["message"]

    def assert_all_answered(self) -> None:
        """Every commit ended in completed or failed."""
        assert [*self.committed] == [id for id in self.committed if self._is_answered(id)]

    def _is_answered(self, id: str) -> bool:
        return id in self.transcripts or id in self.failed
