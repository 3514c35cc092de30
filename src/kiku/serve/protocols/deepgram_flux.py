"""Deepgram's `/v2/listen` ("Flux"): sound as binary messages, turns as JSON.

A turn is sent as StartOfTurn, Updates while words come, perhaps an EagerEndOfTurn that a
TurnResumed takes back, and an EndOfTurn. The text of an EagerEndOfTurn is that of its EndOfTurn.

A turn begins with its first text. It ends by the stream's turns, by `ForceEndTurn`, or by
`eot_timeout_ms`; the last two are this protocol's own, so that a turn of the stream may be several
here.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from kiku.audio import StreamWarning
from kiku.errors import AudioError, ConfigError, QueueFull, StreamClosed
from kiku.options import DecodingOptions
from kiku.serve.protocols.deepgram_finalizes import Finalizes
from kiku.serve.protocols.deepgram_live import SLACK_S, DeepgramBase
from kiku.serve.protocols.deepgram_parameters import FLUX_PARAMETERS
from kiku.serve.protocols.deepgram_query import flux_query, hotwords
from kiku.serve.protocols.deepgram_words import MAX_ECHO, hangup, probability, send, transcript
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
from kiku.text import Partial, TurnEnd, TurnEndEager, TurnResumed, Word

PARAMETERS = FLUX_PARAMETERS

IDLE_S = 60.0
"""Seconds without any message after which a client has gone: there is no `KeepAlive` here."""

MAX_TURN_WORDS = 1_000
"""Number of words after which a turn ends, as every message holds all words of its turn."""


class Thresholds(msgspec.Struct):
    """When a turn ends, as a client sends it; what is left out stays as it is."""

    eager_eot_threshold: float | None = None
    eot_threshold: float | None = None
    eot_timeout_ms: float | None = None


class FluxConfigure(msgspec.Struct, tag_field="type", tag="Configure"):
    """Other settings from now on."""

    thresholds: Thresholds | None = None
    keyterms: str | list[str] | None = None
    language_hints: list[str] | None = None
    numerals: bool | None = None


class ForceEndTurn(msgspec.Struct, tag_field="type"):
    """The client ends the turn now."""


class FluxCloseStream(msgspec.Struct, tag_field="type", tag="CloseStream"):
    """No more sound comes."""


@dataclass(frozen=True, slots=True)
class _Settings:
    """When a turn ends, with all values."""

    eager_threshold: float | None
    threshold: float
    timeout_ms: int


FluxMessage = FluxConfigure | ForceEndTurn | FluxCloseStream
_DECODER: msgspec.json.Decoder[FluxMessage] = msgspec.json.Decoder(FluxMessage)


class _Unavailable(Exception):
    """A setting that is not available."""


class FluxProtocol(DeepgramBase):
    """One client of `/v2/listen`."""

    name = "deepgram-flux"
    quiet_after_s = (IDLE_S,)
    wants_progress = True

    def __init__(self, request: ClientRequest, model: ModelCard) -> None:
        """Raises `Refusal` for a query that is not valid here."""
        query = flux_query(request, model)
        super().__init__(request, model, query.options, query.container)
        self._opened_with = query.threshold
        self._keyterms = list(query.keyterms)
        self._wanted = _Settings(query.eager_threshold, query.threshold, query.timeout_ms)
        """Settings for the sound that comes."""
        self._settings = self._wanted
        """Settings for the sound that is being heard."""
        self._changes: dict[float, _Settings] = {}
        """Settings to come, by the second from which they hold, in order."""
        self._num_sent = 0
        self._turn_index = 0
        self._window_start = self._window_end = 0.0
        self._words: list[Word] = []  # of this turn
        self._partial: Partial | None = None
        self._in_turn = self._is_eager = False
        self._confidence = 0.0  # the last that was reported
        self._forced = Finalizes()
        self._configuring: list[str] | None = None
        """Key terms of a `Configure`, until they are in force."""

    def begin(self) -> Actions:
        """Send `Connected`, the first message of a connection."""
        return [self._send("Connected")]

    # From the client.

    def received(self, message: str | bytes) -> Actions:
        """Sound, or a control message."""
        if self._closing:
            return ()
        if isinstance(message, bytes):
            actions = self._sound.take(message)
            if any(isinstance(one, Open) for one in actions):  # the last stream answers no more
                self._forced.give_up()
            return actions
        try:
            given = _DECODER.decode(message)
        except (ValueError, RecursionError) as error:
            why = f"{brief(f'the message cannot be understood ({error})')}: {message[:MAX_ECHO]}"
            return [self._send("Warning", code="UNPARSABLE_CLIENT_MESSAGE", description=why)]
        match given:
            case FluxConfigure():
                return self._configure(given)
            case ForceEndTurn():
                return [*self._sound.rest(), self._forced.ask()]
            case FluxCloseStream():
                return self._close()

    def _configure(self, wanted: FluxConfigure) -> Actions:
        """Apply all of a `Configure` or nothing, but for key terms that the model cannot expect."""
        if self._configuring is not None:
            return [self._not_configured(
                "the previous Configure has not been answered yet: wait for its "
                "answer")]  # fmt: skip
        terms = wanted.keyterms
        terms = [terms] if isinstance(terms, str) else terms
        try:
            settings = self._thresholds(wanted.thresholds or Thresholds())
            if wanted.numerals:
                raise _Unavailable(
                    "numerals is not available here: the model's words are not "
                    "changed")  # fmt: skip
            words = hotwords(terms or ())
            decoding = None if terms is None else DecodingOptions(hotwords=words)
        except (_Unavailable, ConfigError) as error:
            return [self._not_configured(str(error))]
        self._set(settings)
        if decoding is None:
            return [self._configured()]
        self._configuring = [one.text for one in words]
        return [Decode(decoding)]

    def decoded(self) -> Actions:
        """Confirm that the key terms are in force."""
        self._keyterms, self._configuring = self._configuring or [], None
        return [self._configured()]

    def _set(self, settings: _Settings) -> None:
        """Have these settings hold for the sound that is sent from now on."""
        taken_s = self._sound.taken_s
        self._wanted = settings
        if taken_s is None:  # a recording does not say how far it is
            self._settings = settings
            return
        self._changes[taken_s] = settings

    def _thresholds(self, wanted: Thresholds) -> _Settings:
        """The settings that are to hold.

        How sure the stream must be of an end was settled when it was opened. What can be changed is
        whether the end is reported.
        """
        eager, threshold = wanted.eager_eot_threshold, wanted.eot_threshold
        timeout_ms = wanted.eot_timeout_ms
        if timeout_ms is not None and not 500 <= timeout_ms <= 60_000:
            raise _Unavailable(f"eot_timeout_ms must be from 500 to 60000, not {timeout_ms:g}")
        if threshold is not None and threshold not in (self._opened_with, 1.0):
            raise _Unavailable(
                f"eot_threshold can only be changed to 1.0 or back to {self._opened_with:g}, not "
                f"to {threshold:g}: open another connection with it")  # fmt: skip
        now = self._wanted
        if eager is not None and now.eager_threshold not in (None, eager):
            raise _Unavailable(
                "eager_eot_threshold can be set if it was not set, but not changed: open another "
                "connection with it")  # fmt: skip
        if eager is not None and not 0.3 <= eager <= 0.9:
            raise _Unavailable(f"eager_eot_threshold must be from 0.3 to 0.9, not {eager:g}")
        return _Settings(
            now.eager_threshold if eager is None else eager,
            now.threshold if threshold is None else threshold,
            now.timeout_ms if timeout_ms is None else round(timeout_ms),
        )

    def _configured(self) -> Action:
        wanted = self._wanted
        thresholds: dict[str, float] = {
            "eot_threshold": wanted.threshold, "eot_timeout_ms": wanted.timeout_ms,
        }  # fmt: skip
        if wanted.eager_threshold is not None:
            thresholds["eager_eot_threshold"] = wanted.eager_threshold
        return self._send("ConfigureSuccess", thresholds=thresholds, keyterms=self._keyterms)

    def _not_configured(self, why: str) -> Action:
        return self._send("ConfigureFailure", code="UNSUPPORTED_CONFIGURATION", description=why)

    # From the stream.

    def event(self, event: Event, waiting_s: float) -> Actions:
        """The messages about the turn that follow from an event."""
        match event:
            case Partial():
                return self._text(None, event)
            case Word():
                return self._text(event, None)
            case TurnEndEager(time, probability):
                return [*self.progress(time), *self._eager_end(time, probability)]
            case TurnResumed(time):
                return self._resume(self._known(time))
            case TurnEnd(time, probability):
                return [*self.progress(time), *self._turn_end(time, probability)]
            case Finalized(time, _, tag) if self._forced.is_answered_by(tag):
                # Without a word that is certain there is no turn yet.
                return self._end_turn(time, "manual") if self._in_turn and self._words else ()
            case StreamWarning(kind, message):
                return [self._send("Warning", code=f"AUDIO_{kind.upper()}", description=message)]
            case End(duration):
                return self._end(duration)
            case _:
                return ()

    def _text(self, word: Word | None, partial: Partial | None) -> Actions:
        """Take a word, or pieces of one."""
        until = word.end if word is not None else partial.start if partial is not None else 0.0
        start = until if word is None else word.start
        actions = [*self._silence(start - SLACK_S), *self._resume(until)]
        self._partial = partial
        if word is not None:
            self._words.append(word)
        if not self._in_turn:
            self._in_turn = True
            self._confidence = 0.0
            actions.append(self._info("StartOfTurn", until))
        elif word is not None:
            actions.append(self._info("Update", until))
        if len(self._words) >= MAX_TURN_WORDS:
            actions += self._end_turn(until, "model")
        return actions

    def _eager_end(self, time: float, probability: float) -> Actions:
        self._confidence = probability
        is_certain = bool(self._words) and self._partial is None
        if self._settings.eager_threshold is None or self._is_eager or not is_certain:
            return ()
        self._is_eager = True
        return [self._info("EagerEndOfTurn", self._known(time))]

    def _resume(self, until: float) -> Actions:
        if not self._is_eager:
            return ()
        self._is_eager = False
        return [self._info("TurnResumed", until)]

    def _turn_end(self, time: float, probability: float) -> Actions:
        self._confidence = probability
        if not self._in_turn or self._settings.threshold >= 1.0:
            return ()
        return self._end_turn(self._known(time), "manual" if self._forced.is_open() else "model")

    def progress(self, seconds: float, waiting_s: float = 0.0) -> Actions:
        """End the turn if nothing was said for too long."""
        return self._silence(self._known(seconds - SLACK_S))

    def _silence(self, known: float) -> Actions:
        """The messages that follow if no further word begins before `known`. Called also where the
        next word begins: of sound that comes faster than it is spoken, seconds are heard between
        two calls of `progress`.

        New settings take effect once the sound before them has been heard.
        """
        actions: list[Action] = []
        while self._changes:
            at_s = next(iter(self._changes))
            before = self._known(at_s - SLACK_S)
            if before >= known:
                break
            actions += self._time_out(before)
            self._settings = self._changes.pop(at_s)
        return [*actions, *self._time_out(known)]

    def _time_out(self, known: float) -> Actions:
        """End the turn where nothing was said up to `known` for too long."""
        if not self._in_turn or self._partial is not None or not self._words:
            return ()
        ends_at = self._words[-1].end + self._settings.timeout_ms / 1000
        return self._end_turn(ends_at, "timeout") if known >= ends_at else ()

    def _end_turn(self, until: float, trigger: str) -> Actions:
        """End the turn; the next text begins another. A partial goes to the next turn, as only
        words are certain."""
        self._partial = None
        actions = [self._info("EndOfTurn", until, trigger=trigger)]
        self._words = []
        self._in_turn = self._is_eager = False
        self._turn_index += 1
        self._window_start = self._window_end
        return actions

    def _end(self, duration: float) -> Actions:
        actions = [*self.progress(duration)]
        if self._in_turn:
            actions += self._end_turn(duration, "model")
        if self._is_idle:
            return [
                *actions,
                *self._fatal("NET-0001", f"nothing was received for {IDLE_S:g} seconds"),
            ]
        return [*actions, hangup(1000)]

    # Messages.

    def _send(self, kind: str, **fields: Any) -> Action:
        """A message with its number."""
        message = {"type": kind, "request_id": self._request.id, "sequence_id": self._num_sent}
        self._num_sent += 1
        return send({**message, **fields})

    def _info(self, event: str, until: float, **more: Any) -> Action:
        words = self._words
        if self._partial is not None:  # its probability is not known yet
            start = self._partial.start
            words = [*words, Word(self._partial.text, start, start, 0.0)]
        last = words[-1].end if words else 0.0
        self._window_end = max(self._window_end, until, last)
        items = [
            {"word": one.text, "confidence": probability(one.probability),
             "start": round_s(one.start), "end": round_s(one.end)}
            for one in words
        ]  # fmt: skip
        return self._send(
            "TurnInfo",
            event=event,
            turn_index=self._turn_index,
            audio_window_start=round_s(self._window_start),
            audio_window_end=round_s(self._window_end),
            transcript=transcript(words),
            words=items,
            end_of_turn_confidence=probability(self._confidence),
            **more,
        )

    # Errors.

    def _fatal(self, code: str, description: str, close: int = 1011) -> list[Action]:
        message = {"type": "Error", "sequence_id": self._num_sent, "code": code,
                   "description": description}  # fmt: skip
        self._num_sent += 1
        return [send(message), hangup(close, f"{code}: {description}")]

    def rejected(self, error: Exception) -> Actions:
        """Report the error; the stream goes on."""
        if self._configuring is not None and not isinstance(error, AudioError):
            self._configuring = None
            return [self._not_configured(str(error))]
        if isinstance(error, AudioError):
            if self._was_left(error):
                return ()
            return [self._send("Warning", code="UNREADABLE_AUDIO", description=str(error))]
        if isinstance(error, QueueFull | StreamClosed):  # of a `ForceEndTurn`, left unanswered
            self._forced.give_up()
        return [self._send("Warning", code="REJECTED", description=str(error))]

    def failed(self, error: Exception) -> Actions:
        """End the turn with the words that were decided, say why, and close."""
        actions = list(self._end_turn(0.0, "model")) if self._in_turn else []
        if isinstance(error, ServerEnds):
            return [*actions, hangup(1012, str(error))]
        return [*actions, *self._fatal("INTERNAL_SERVER_ERROR", str(error))]
