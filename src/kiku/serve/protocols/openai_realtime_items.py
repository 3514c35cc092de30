"""How OpenAI's Realtime reports what was said: as items, each with one id from its first message to
its transcript. Knows neither sound nor streams.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from kiku.serve.protocols.interface import Send
from kiku.serve.protocols.openai_realtime_messages import Mistake
from kiku.serve.protocols.openai_words import logprob, spelled, token
from kiku.text import Word

UNITS_PER_S = 48_000
"""Units of time in a second. Sound is counted in them: a byte of 16-bit sound at 24 kHz is one."""

_COMMITTED = "input_audio_buffer.committed"
_TRANSCRIPTION = "conversation.item.input_audio_transcription"


@dataclass(slots=True)
class ConversationItem:
    """What was said between two commits."""

    id: str
    words: list[Word] = field(default_factory=list[Word])
    is_spoken: bool = False
    """Whether `speech_started` was sent, and `speech_stopped` was not."""

    @property
    def transcript(self) -> str:
        """All its words, which is the text of all its deltas."""
        return " ".join(word.text for word in self.words)

    def token(self, index: int) -> dict[str, Any]:
        """A word as a token with its log-probability."""
        word = self.words[index]
        return token(word, logprob(word), first=index == 0)


class RealtimeMessages:
    """Makes the messages of one connection. Places in the sound are in `UNITS_PER_S`, counted over
    the whole connection, and never go back."""

    def __init__(self, prefix: str, *, beta: bool) -> None:
        """Start with nothing sent.

        Args:
            prefix: part of every id; no other connection has it.
            beta: whether the client knows only the beta's names.
        """
        self._prefix, self.beta = prefix, beta
        self._num_events = self._num_items = 0
        self._last_ms = 0
        self._last_id: str | None = None  # of the item that was committed last
        self.committed = 0
        """The place before which all sound belongs to items that were sent, or to none."""

    def skip(self, at: int) -> None:
        """Note that the sound up to here belongs to no item."""
        self.committed = max(self.committed, at)

    def event(self, type: str, **fields: Any) -> Send:
        """A message to the client."""
        self._num_events += 1
        id = f"event_{self._prefix}{self._num_events:06x}"
        return Send(msgspec.json.encode({"type": type, "event_id": id, **fields}).decode())

    def error(self, mistake: Mistake, event_id: str | None) -> Send:
        """A message that says what was wrong with one of the client's."""
        return self.event(
            "error",
            error={
                "type": "invalid_request_error",
                "code": mistake.code,
                "message": mistake.message,
                "param": mistake.param,
                "event_id": event_id,
            },
        )

    def new_item(self) -> ConversationItem:
        """An item whose first word or sound has come."""
        self._num_items += 1
        return ConversationItem(f"item_{self._prefix}{self._num_items:06x}")

    def _ms(self, at: int) -> int:
        self._last_ms = max(self._last_ms, at * 1000 // UNITS_PER_S)
        return self._last_ms

    def started(self, item: ConversationItem, at: int) -> Send:
        """The message that somebody begins to speak in an item."""
        item.is_spoken = True
        return self.event(
            "input_audio_buffer.speech_started", audio_start_ms=self._ms(at), item_id=item.id
        )

    def stopped(self, item: ConversationItem, at: int) -> Send:
        """The message that somebody has stopped speaking in an item."""
        item.is_spoken = False
        return self.event(
            "input_audio_buffer.speech_stopped", audio_end_ms=self._ms(at), item_id=item.id
        )

    def word(self, item: ConversationItem, word: Word, *, logprobs: bool) -> Send:
        """Add a word to an item. Returns the message with it."""
        item.words.append(word)
        index = len(item.words) - 1
        sure = {"logprobs": [item.token(index)]} if logprobs else {}
        return self.event(
            f"{_TRANSCRIPTION}.delta",
            item_id=item.id, content_index=0, delta=spelled(word, first=index == 0), **sure,
        )  # fmt: skip

    def committed_item(
        self, item: ConversationItem, at: int, error: Exception | None, *, logprobs: bool
    ) -> list[Send]:
        """The messages that end an item, with its transcript or with the error it failed with.

        Args:
            item: which one ends.
            at: where its sound ends.
            error: why it has no transcript; None if it has one.
            logprobs: whether to say how sure each word is.
        """
        messages = [self.stopped(item, at)] if item.is_spoken else []
        messages.append(self.event(_COMMITTED, item_id=item.id, previous_item_id=self._last_id))
        echo = {
            "id": item.id, "object": "realtime.item", "type": "message", "status": "completed",
            "role": "user", "content": [{"type": "input_audio", "transcript": None}],
        }  # fmt: skip
        kinds = ("created",) if self.beta else ("added", "done")
        for kind in kinds:
            messages.append(
                self.event(f"conversation.item.{kind}", previous_item_id=self._last_id, item=echo)
            )
        seconds = max(0, at - self.committed) / UNITS_PER_S
        self._last_id, self.committed = item.id, max(self.committed, at)
        if error is None:
            sure = [item.token(i) for i in range(len(item.words))]
            more = {"logprobs": sure} if logprobs else {}
            messages.append(
                self.event(
                    f"{_TRANSCRIPTION}.completed",
                    item_id=item.id, content_index=0, transcript=item.transcript,
                    usage={"type": "duration", "seconds": round(seconds, 3)}, **more,
                )
            )  # fmt: skip
        else:
            messages.append(self._failed(item, error))
        return messages

    def _failed(self, item: ConversationItem, error: Exception) -> Send:
        return self.event(
            f"{_TRANSCRIPTION}.failed",
            item_id=item.id,
            content_index=0,
            error={
                "type": "server_error",
                "code": "transcription_failed",
                "message": f"the sound was lost: {error}",
                "param": None,
            },
        )
