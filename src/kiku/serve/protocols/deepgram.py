"""Deepgram's `/v1/listen`, live: sound as binary messages, results as JSON.

A final result holds the words since the last final one. It comes where a turn ends, where a
sentence ends, after five seconds of speech, at `Finalize` and at the end. Each word is in one final
result and is never changed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kiku.errors import AudioError, ConfigError, QueueFull, StreamClosed, TruncatedAudio
from kiku.options import DecodingOptions
from kiku.serve.protocols.deepgram_finalizes import Finalizes
from kiku.serve.protocols.deepgram_live import SLACK_S, DeepgramBase
from kiku.serve.protocols.deepgram_messages import (
    DECODER,
    CloseStream,
    Configure,
    FinalizeNow,
    KeepAlive,
)
from kiku.serve.protocols.deepgram_parameters import LISTEN_PARAMETERS
from kiku.serve.protocols.deepgram_query import ListenQuery, hotwords, listen_query
from kiku.serve.protocols.deepgram_words import (
    MAX_ECHO,
    confidence,
    hangup,
    model_info,
    model_uuid,
    new_digest,
    send,
    time_of_day,
    transcript,
    word_item,
)
from kiku.serve.protocols.interface import (
    Action,
    Actions,
    ClientRequest,
    Decode,
    ModelCard,
    Open,
    ServerEnds,
    brief,
    round_s,
)
from kiku.stream import End, Event, Finalized
from kiku.text import Partial, TurnEnd, TurnStart, Word
from kiku.text.segments import ends_sentence

PARAMETERS = LISTEN_PARAMETERS

FINAL_AFTER_S = 5.0
"""Seconds from the start of the first word after which words become final, even mid-sentence."""

GAP_S = 1.0
"""Seconds of silence between two words; a longer one parts results, as it parts segments."""

IDLE_S = 10.0
"""Seconds without sound and `KeepAlive` after which the connection ends with an error, as with
Deepgram."""

_IDLE = "NET-0001"
_NO_SOUND = "DATA-0000"


@dataclass(slots=True)
class _Channel:
    """What was said in one channel and is not final yet."""

    index: int
    start: float = 0.0
    """Where the last final result ended."""
    words: list[Word] = field(default_factory=list[Word])
    partial: Partial | None = None
    word_end: float | None = None
    """Where the last word ends, until `UtteranceEnd` reports it."""
    shown: str = ""
    """The text of the last result that is not final."""
    turn_end: float | None = None
    """When a turn ended, if the answer to a `Finalize` is to report it."""


class DeepgramProtocol(DeepgramBase):
    """One client of `/v1/listen`."""

    name = "deepgram"

    def __init__(self, request: ClientRequest, model: ModelCard) -> None:
        """Raises `Refusal` for a query that is not valid here."""
        self._query: ListenQuery = listen_query(request, model)
        super().__init__(request, model, self._query.options, self._query.container)
        self.quiet_after_s = (IDLE_S,)
        self.wants_progress = self._query.utterance_end_s is not None or not self._query.ends
        self._channels = [_Channel(index) for index in range(self._query.channels)]
        self._metadata = {
            "request_id": request.id,
            "model_info": model_info(model),
            "model_uuid": model_uuid(model),
        }
        self._finalizes = Finalizes()
        self._digest = new_digest()
        self._configuring: dict[str, Any] | None = None
        """The answer to a `Configure`, until its key terms are in force."""
        self._why: tuple[int, str] | None = None
        """Close code and reason, if the connection ends for an error that the client was told."""

    # From the client.

    def received(self, message: str | bytes) -> Actions:
        """Sound, or a control message."""
        if self._closing:
            return ()  # nothing is heard after the end
        if isinstance(message, bytes):
            return self._heard_sound(message)
        try:
            given = DECODER.decode(message)
        except (ValueError, RecursionError) as error:  # it is no JSON, or no message
            return [self._error("SchemaError", brief(f"the message cannot be understood: {error}"),
                                message[:MAX_ECHO])]  # fmt: skip
        match given:
            case KeepAlive():
                return ()
            case FinalizeNow():
                return [*self._sound.rest(), self._finalizes.ask()]
            case CloseStream():
                return self._close()
            case Configure():
                return self._configure(given)

    def _heard_sound(self, data: bytes) -> Actions:
        if not data:  # an empty message is the older way to say CloseStream
            return self._close()
        self._digest.update(data)
        actions = self._sound.take(data)
        if self._query.options.channel == "each":  # a WAV header may have more of them
            for index in range(len(self._channels), self._sound.num_channels):
                self._channels.append(_Channel(index))
        if any(isinstance(one, Open) for one in actions):  # the last stream answers no more
            self._finalizes.give_up(len(self._channels))
        return actions

    def _configure(self, wanted: Configure) -> Actions:
        if self._configuring is not None:
            return [
                self._not_configured(
                    "CONFIGURE_ALREADY_PENDING",
                    "the previous Configure has not been answered yet: wait for its answer",
                )
            ]
        refused = {one.name for one in PARAMETERS if one.fate == "refused"}
        for name, value in (wanted.features or {}).items():
            if value and name in refused:
                why = f"the feature {name} is not available here"
                return [self._not_configured("CONFIGURE_INTERNAL_ERROR", why)]
        done: dict[str, Any] = {"type": "ConfigureSuccess", "request_id": self._request.id}
        if wanted.keyterms is None:
            return [send(done)]
        try:
            terms = hotwords(wanted.keyterms)
            decoding = DecodingOptions(hotwords=(*self._query.keywords, *terms))
        except ConfigError as error:
            return [self._not_configured("CONFIGURE_KEYTERM_LIMIT_EXCEEDED", str(error))]
        self._configuring = {**done, "keyterms": [one.text for one in terms]}
        return [Decode(decoding)]

    def decoded(self) -> Actions:
        """Confirm that the key terms are in force."""
        done, self._configuring = self._configuring, None
        return [] if done is None else [send(done)]

    def _not_configured(self, code: str, description: str) -> Action:
        return send({"type": "ConfigureFailure", "request_id": self._request.id, "code": code,
                     "description": description})  # fmt: skip

    def _error(self, variant: str, description: str, message: str) -> Action:
        return send({"type": "Error", "variant": variant, "description": description,
                     "message": message})  # fmt: skip

    # From the stream.

    def event(self, event: Event, waiting_s: float) -> Actions:
        """The results and other messages that follow from an event."""
        actions: list[Action] = []
        if not isinstance(event, Finalized | End):
            actions += self._held(self._channel(getattr(event, "channel", None)))
        return [*actions, *self._event(event)]

    def _event(self, event: Event) -> Actions:
        match event:
            case Word():
                channel = self._channel(event.channel)
                return [*self._silence(channel, event.start - SLACK_S),
                        *self._word(channel, event)]  # fmt: skip
            case Partial():
                channel = self._channel(event.channel)
                actions = self._silence(channel, event.start - SLACK_S)
                channel.partial = event
                return [*actions, *self._interim(channel)]
            case TurnStart(time) if self._query.starts:
                channel = self._channel(event.channel)
                return [send({"type": "SpeechStarted", "channel": self._index(channel),
                              "timestamp": round_s(time)})]  # fmt: skip
            case TurnEnd(time) if self._query.ends:
                channel = self._channel(event.channel)
                actions = self._silence(channel, self._known(time - SLACK_S))
                channel.turn_end = time
                is_asked = self._finalizes.is_open(channel.index)
                return actions if is_asked else [*actions, *self._held(channel)]
            case Finalized(time, open_word, tag) if self._finalizes.is_answered_by(
                tag, event.channel or 0
            ):
                channel = self._channel(event.channel)
                end, ends_turn = time if open_word is None else open_word.start, channel.turn_end
                channel.turn_end = None
                return [self._final(channel, end, speech_final=ends_turn is not None,
                                    from_finalize=True)]  # fmt: skip
            case End(duration):
                return self._end(duration)
            case _:
                return ()

    def _held(self, channel: _Channel) -> list[Action]:
        """Report the end of a turn, if one waits. An end that a `Finalize` brings about waits for
        its answer: a client looks for the words in the result that says `from_finalize`."""
        time, channel.turn_end = channel.turn_end, None
        return [] if time is None else [self._final(channel, self._known(time), speech_final=True)]

    def _channel(self, index: int | None) -> _Channel:
        return self._channels[index or 0]

    def _index(self, channel: _Channel) -> list[int]:
        return [channel.index, len(self._channels)]

    def _word(self, channel: _Channel, word: Word) -> Actions:
        actions: list[Action] = []
        words = channel.words
        if words and (
            ends_sentence(words[-1].text, word.text) or word.start - words[-1].end > GAP_S
        ):
            actions.append(self._final(channel, word.start))
        channel.words.append(word)
        channel.partial, channel.word_end = None, word.end
        if word.end - channel.words[0].start >= FINAL_AFTER_S:
            actions.append(self._final(channel, word.end))
        return [*actions, *self._interim(channel)]

    def progress(self, seconds: float, waiting_s: float = 0.0) -> Actions:
        """Make words final that are due, and report gaps between words."""
        known = self._known(seconds - SLACK_S)
        actions: list[Action] = []
        for channel in self._channels:
            actions += self._silence(channel, known)
        return actions

    def _silence(self, channel: _Channel, known: float) -> list[Action]:
        """The messages that follow if no further word begins before `known`.

        Called also where the next word begins: of sound that comes faster than it is spoken,
        seconds are heard between two calls of `progress`.
        """
        if channel.partial is not None or not self.wants_progress:
            return []
        actions: list[Action] = []
        gap_s, words, word_end = self._query.utterance_end_s, channel.words, channel.word_end
        gap_at = math.inf if gap_s is None or word_end is None else word_end + gap_s
        final_at = min(gap_at, words[0].start + FINAL_AFTER_S) if words else math.inf
        if known >= final_at:
            actions.append(self._final(channel, final_at))
        if known >= gap_at:
            actions.append(send({"type": "UtteranceEnd", "channel": self._index(channel),
                                 "last_word_end": round_s(word_end or 0.0)}))  # fmt: skip
            channel.word_end = None
        return actions

    def _end(self, duration: float) -> Actions:
        actions = [*self.progress(duration), *self._rest(duration)]
        if self._why is not None:
            return [*actions, hangup(*self._why)]
        if self._is_idle:
            why = f"no sound and no KeepAlive came for {IDLE_S:g} seconds"
            return [*actions, self._error(_IDLE, why, ""), hangup(1011, f"{_IDLE}: {why}")]
        metadata = {
            "type": "Metadata",
            "transaction_key": "deprecated",
            "request_id": self._request.id,
            "sha256": self._digest.hexdigest(),
            "created": time_of_day(self._request.at),
            "duration": round_s(duration),
            "channels": len(self._channels),
        }
        return [*actions, send(metadata), hangup(1000)]

    def _rest(self, end: float) -> list[Action]:
        """All words that are not final yet."""
        actions: list[Action] = []
        for channel in self._channels:
            actions += self._held(channel)
            if channel.words:
                actions.append(self._final(channel, end))
        return actions

    # Results.

    def _final(
        self,
        channel: _Channel,
        end: float,
        *,
        speech_final: bool = False,
        from_finalize: bool = False,
    ) -> Action:
        """A final result with the words since the last one; this one reaches to `end`."""
        words, start = channel.words, channel.start
        channel.start = max([start, end, *(word.end for word in words)])
        channel.words, channel.shown = [], ""
        return self._result(
            channel, words, (start, channel.start),
            is_final=True, speech_final=speech_final, from_finalize=from_finalize,
        )  # fmt: skip

    def _interim(self, channel: _Channel) -> Actions:
        """A result with what is known since the last final one, if it is new and wanted."""
        if not self._query.interim:
            return ()
        words, partial = channel.words, channel.partial
        if partial is not None:  # its probability is not known yet
            words = [*words, Word(partial.text, partial.start, partial.start, 0.0)]
        text = transcript(words)
        if text == channel.shown:
            return ()
        channel.shown = text
        end = max([channel.start, *(word.end for word in words)])
        decided = channel.words
        return [self._result(channel, words, (channel.start, end), confidence(decided))]

    def _result(
        self,
        channel: _Channel,
        words: Sequence[Word],
        span: tuple[float, float],
        sureness: float | None = None,
        *,
        is_final: bool = False,
        speech_final: bool = False,
        from_finalize: bool = False,
    ) -> Action:
        start, end = round_s(span[0]), round_s(span[1])
        alternative = {
            "transcript": transcript(words),
            "confidence": confidence(words) if sureness is None else sureness,
            "words": [word_item(word) for word in words],
        }
        return send(
            {
                "type": "Results",
                "channel_index": self._index(channel),
                "duration": round_s(end - start),
                "start": start,
                "is_final": is_final,
                "speech_final": speech_final,
                "from_finalize": from_finalize,
                "channel": {"alternatives": [alternative]},
                "metadata": self._metadata,
            }
        )

    def rejected(self, error: Exception) -> Actions:
        """Report the error; the stream goes on."""
        if self._configuring is not None and not isinstance(error, AudioError):
            self._configuring = None
            return [self._not_configured("CONFIGURE_KEYTERMS_NOT_SUPPORTED", str(error))]
        if self._query.container and isinstance(error, AudioError):  # no more of it is heard
            if self._was_left(error):
                return ()
            is_cut = isinstance(error, TruncatedAudio)
            self._why = None if is_cut else (1008, f"{_NO_SOUND}: {error}")
        if isinstance(error, QueueFull | StreamClosed):  # of a `Finalize`, left unanswered
            self._finalizes.give_up(len(self._channels))
        variant = _NO_SOUND if isinstance(error, AudioError) else type(error).__name__
        return [self._error(variant, str(error), "")]

    def failed(self, error: Exception) -> Actions:
        """Send the words that were decided, and close."""
        rest = self._rest(0.0)
        if isinstance(error, ServerEnds):
            return [*rest, hangup(1012, str(error))]
        return [*rest, self._error(type(error).__name__, str(error), ""), hangup(1011, str(error))]
