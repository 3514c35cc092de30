"""Wyoming, which Home Assistant speaks, over a TCP connection of its own.

    describe                                     -> info
    transcribe? audio-start audio-chunk* audio-stop
        -> transcript-start transcript-chunk* transcript transcript-stop

A connection may carry many utterances, one after the other. Each has a stream, and a slot, of its
own from audio-start until its transcript. The service announces that it needs no voice detection of
its clients (`requires_external_vad` is false), so that Home Assistant sends sound until it gets the
transcript: an utterance ends where its turn ends, or with audio-stop if that comes before. A second
program, to be chosen with select-program, always listens until audio-stop.
"""

from collections import deque
from enum import Enum, auto
from typing import Any

import msgspec

from kiku.errors import ConfigError, NoFreeSlot
from kiku.options import (
    MAX_HOTWORDS,
    MAX_INPUT_RATE,
    MIN_INPUT_RATE,
    DecodingOptions,
    StreamOptions,
)
from kiku.serve.protocols.interface import (
    Action,
    Actions,
    Base,
    ClientRequest,
    Close,
    Hangup,
    ModelCard,
    Open,
    Push,
    Send,
    ServerEnds,
    brief,
)
from kiku.serve.protocols.parameters import Parameter
from kiku.serve.protocols.wyoming_info import PATIENT_PROGRAM, PROGRAM, info
from kiku.serve.protocols.wyoming_messages import (
    Malformed,
    MessageReader,
    WyomingMessage,
    message_bytes,
)
from kiku.serve.protocols.wyoming_sound import WyomingFormat, widened
from kiku.serve.protocols.wyoming_transcribe import NAME_BOOST, TERM_BOOST, TranscribeData
from kiku.stream import End, Event
from kiku.text import TurnEnd, TurnStart, Word

GIVE_UP_S = 2.0
"""Seconds of silence after which a client that got an error is hung up on: older versions of
Home Assistant do not read errors, and wait for a transcript as long as there is a connection."""

SILENT_S = 30.0
"""Seconds without sound after which an utterance is over."""

NOTHING_S = 15.0
"""Seconds of sound without speech after which an utterance is over."""

CAUGHT_UP_S = 1.0
"""Seconds of sound; if more of it waits, a recording is being sent, whose end may have come."""

HELD_BYTES = 2**24
"""Bytes of the next utterances that are kept while one is being finished; no more is read until
then."""

PARAMETERS = (
    Parameter("transcribe.name", "mapped",
              "a name or alias of the model that is loaded; any other is an error"),
    Parameter("transcribe.language", "ignored",
              "the model recognises by itself which of its languages is spoken"),
    Parameter("transcribe.context", "ignored", "earlier text does not change the words"),
    Parameter("transcribe.vad_sensitivity", "mapped",
              "relaxed, default and aggressive mean turns of low, medium and high eagerness; "
              "without it, low"),
    Parameter("transcribe.transcript_names", "mapped",
              f"hotwords with a boost of {NAME_BOOST:g} nats; the first {MAX_HOTWORDS} of names "
              "and terms"),
    Parameter("transcribe.transcript_terms", "mapped",
              f"hotwords with a boost of {TERM_BOOST:g} nats, after the names"),
    Parameter("audio.rate", "honoured", f"{MIN_INPUT_RATE} to {MAX_INPUT_RATE}"),
    Parameter("audio.width", "honoured", "1 (unsigned), 2, 3 and 4 bytes (signed)"),
    Parameter("audio.channels", "honoured", "1 to 64; they are mixed"),
    Parameter("audio.timestamp", "ignored", "sound is used in the order in which it arrives"),
    Parameter("select-program.name", "honoured",
              f"{PROGRAM} (the first), or {PATIENT_PROGRAM}, which listens until audio-stop"),
    Parameter("ping.text", "honoured", "returned in the pong"),
)  # fmt: skip

_MESSAGE_BYTES = 2**10
"""Bytes of memory that a message takes besides its data, about."""

_SOUND = frozenset({"transcribe", "audio-start", "audio-chunk", "audio-stop"})
"""Types of the messages that make up an utterance."""


class _State(Enum):
    IDLE = auto()
    HEARING = auto()
    FINISHING = auto()  # takes no more sound; the last words come


class WyomingProtocol(Base):
    """One client that speaks Wyoming."""

    name = "wyoming"
    quiet_after_s = (GIVE_UP_S, SILENT_S)
    wants_progress = True

    def __init__(self, request: ClientRequest, model: ModelCard) -> None:
        """Ignore the request, as there is none on the wire."""
        self._model = model
        self._reader = MessageReader()
        self._is_over = False  # nothing more comes
        self._is_broken = False  # nothing that comes can be understood
        self._program = PROGRAM
        self._asked: TranscribeData | None = TranscribeData()  # None if they are not valid
        self._awaits_sound = False  # since a transcribe
        self._state = _State.IDLE
        self._drops = False  # the rest of an utterance that is over, up to its audio-stop
        self._was_refused = False  # the utterance got an error in place of a transcript
        self._held: deque[WyomingMessage] = deque()
        self._num_held = 0  # bytes
        self._begin(WyomingFormat(16_000, 2, 1))

    def _begin(self, format: WyomingFormat) -> None:
        self._format = format
        self._rest = b""  # the beginning of a sample that has come in part
        self._words: list[str] = []
        self._pushed_s = 0.0
        self._is_opening = self._has_spoken = self._turn_ended = False

    # From the client.

    def received(self, message: str | bytes) -> Actions:
        """Take some bytes, cut anywhere."""
        if self._is_broken:
            return ()
        self._reader.feed(message.encode() if isinstance(message, str) else message)
        actions: list[Action] = []
        try:
            while (one := self._reader.next()) is not None:
                actions += self._take(one)
        except Malformed as error:
            self._is_broken = True
            return [*actions, _error("malformed", str(error)), Hangup(1002, "malformed")]
        return actions

    def client_finished(self) -> Actions | None:
        """Finish the utterances that have come, and hang up after the last transcript."""
        self._is_over = True
        return None if self._state is _State.IDLE else self._ended()

    def _ended(self) -> Actions:
        """Finish or hang up, if nothing more comes."""
        if not self._is_over:
            return ()
        if self._state is _State.HEARING:
            return self._finish()
        return [Hangup(1000, "everything was sent")] if self._state is _State.IDLE else ()

    def _take(self, message: WyomingMessage) -> Actions:
        if message.type in _SOUND:
            return self._take_sound(message)
        match message.type:
            case "describe":
                return [_send("info", info(self._model))]
            case "ping":
                text = message.data.get("text")
                return [_send("pong", {"text": text if isinstance(text, str) else None})]
            case "select-program" if self._held and self._state is _State.FINISHING:
                return self._hold(message)  # held utterances keep their program
            case "select-program":
                return self._select(message.data.get("name"))
            case _:
                return ()  # the protocol says to ignore others

    def _select(self, name: object) -> Actions:
        if name not in (PROGRAM, PATIENT_PROGRAM):
            text = f"there is no program {str(name)[:80]!r} (select-program.name): "
            return [_error("unknown-program", f"{text}use {PROGRAM} or {PATIENT_PROGRAM}")]
        self._program = str(name)
        return ()

    def _take_sound(self, message: WyomingMessage) -> Actions:
        """Take a message that belongs to an utterance."""
        if self._drops:
            self._drops = message.type == "audio-chunk"
            if message.type in ("audio-chunk", "audio-stop"):
                return ()
        if self._state is _State.FINISHING:
            return self._hold(message)
        match message.type:
            case "transcribe":
                return self._take_request(message)
            case "audio-start":
                return self._start(message)
            case "audio-chunk":
                return self._chunk(message)
            case _:
                return self._stop()

    def _hold(self, message: WyomingMessage) -> Actions:
        """Keep a message of the next utterance until the present one has its transcript."""
        self._held.append(message)
        self._num_held += message.size + _MESSAGE_BYTES
        return ()

    @property
    def is_full(self) -> bool:
        """Whether enough of the next utterances is kept."""
        return self._num_held > HELD_BYTES

    def _release(self) -> Actions:
        """Take up what was held."""
        actions: list[Action] = []
        while self._held and self._state is not _State.FINISHING:
            message = self._held.popleft()
            self._num_held -= message.size + _MESSAGE_BYTES
            actions += self._take(message)
        return actions

    def _take_request(self, message: WyomingMessage) -> Actions:
        """Take what the client wants of the next utterance."""
        self._asked, self._awaits_sound = None, True
        try:
            asked = msgspec.convert(dict(message.data), TranscribeData)
        except msgspec.ValidationError as error:
            return self._refuse("invalid", f"transcribe is not possible: {error}")
        if asked.name and not self._model.answers_to(asked.name):
            return self._refuse(
                "unknown-model",
                f"there is no model {asked.name[:80]!r} here (transcribe.name): it is called "
                f"{self._model.name!r}",
            )
        self._asked = asked
        return ()

    def _refuse(self, code: str, text: str) -> Actions:
        """Send an error in place of a transcript."""
        if self._state is _State.IDLE:
            self._was_refused = True
        return [_error(code, text)]

    def _give_up(self, code: str, text: str) -> Actions:
        """As `_refuse`, for the utterance that is going on, which ends."""
        actions: list[Action] = [_error(code, text)]
        if self._state is _State.HEARING:
            actions += self._finish()
            self._drops = True
        self._was_refused = True
        return actions

    def _start(self, message: WyomingMessage) -> Actions:
        asked, self._asked, self._awaits_sound = self._asked, TranscribeData(), False
        if asked is None:  # `_take_request` has sent an error
            return self._drop()
        try:
            format = msgspec.convert(dict(message.data), WyomingFormat)
        except msgspec.ValidationError as error:
            return [*self._drop(), _error("invalid", f"{message.type} is not possible: {error}")]
        self._begin(format)
        self._state, self._was_refused, self._is_opening = _State.HEARING, False, True
        return [Open(self._options(format, asked))]

    def _drop(self) -> Actions:
        """Drop the sound of the utterance that begins."""
        actions = self._finish() if self._state is _State.HEARING else ()
        self._was_refused = self._drops = True
        return actions

    def _options(self, format: WyomingFormat, asked: TranscribeData) -> StreamOptions:
        return StreamOptions(
            format=format.audio_format,
            decoding=DecodingOptions(hotwords=asked.hotwords),
            turns=asked.eagerness if self._program == PROGRAM else None,
        )

    def _chunk(self, message: WyomingMessage) -> Actions:
        actions: Actions = ()
        if self._state is _State.IDLE:  # audio-start was left out
            actions = self._start(message)
            if self._state is _State.IDLE:
                return actions
        try:
            format = msgspec.convert(dict(message.data), WyomingFormat)
        except msgspec.ValidationError as error:
            return self._give_up("invalid", f"audio-chunk cannot be transcribed: {error}")
        if format != self._format:
            return self._give_up(
                "invalid",
                f"audio-chunk has the format {format}, but audio-start had {self._format}: start "
                "another utterance where the sound changes",
            )
        self._pushed_s += len(message.payload) / format.bytes_per_s
        samples, self._rest = widened(self._rest + message.payload, format.width)
        return [*actions, Push(samples)]

    def _stop(self) -> Actions:
        if self._state is _State.HEARING:
            return self._finish()
        asked, awaited = self._asked, self._awaits_sound
        self._asked, self._awaits_sound = TranscribeData(), False
        if asked is None or not awaited:
            return ()
        self._words = []  # there was no sound
        return [_send("transcript-start"), *self._transcript()]

    def _finish(self) -> Actions:
        self._state = _State.FINISHING
        return [Close()]

    # From the stream.

    def opened(self) -> Actions:
        """Send `transcript-start`: the words of this utterance can come."""
        self._is_opening = False
        return [_send("transcript-start")]

    def event(self, event: Event, waiting_s: float) -> Actions:
        """Send words at once, and the transcript at the end."""
        if self._is_opening:
            return ()  # the event is of an utterance that was given up
        match event:
            case Word(text):
                self._has_spoken = True
                self._words.append(text)
                is_first = len(self._words) == 1
                return [] if self._was_refused else [
                    _send("transcript-chunk", {"text": text if is_first else f" {text}"})
                ]  # fmt: skip
            case TurnStart():
                self._has_spoken, self._turn_ended = True, False
            case TurnEnd():
                self._turn_ended = True
            case End():
                self._state = _State.IDLE
                messages = () if self._was_refused else self._transcript()
                return [*messages, *self._release(), *self._ended()]
            case _:
                pass
        return ()

    def progress(self, seconds: float, waiting_s: float = 0.0) -> Actions:
        """See whether the utterance is over, as the client does not know."""
        # Sound that has come may not have reached the stream yet.
        is_live = max(waiting_s, self._pushed_s - seconds) < CAUGHT_UP_S
        if self._state is not _State.HEARING or self._is_opening or not is_live:
            return ()
        is_empty = not self._has_spoken and seconds >= NOTHING_S
        if self._turn_ended or (is_empty and self._program == PROGRAM):
            self._drops = True
            return self._finish()
        return ()

    def quiet(self, seconds: float) -> Actions:
        """End an utterance whose sound stays away, and hang up on a client that got an error."""
        if seconds >= SILENT_S:
            if self._state is _State.HEARING:
                self._drops = True
                return self._finish()
        elif self._was_refused and self._state is _State.IDLE:
            return [Hangup(1000, "an error was sent")]
        return ()

    def rejected(self, error: Exception) -> Actions:
        """Give up the utterance, with an error."""
        return self._give_up("invalid", str(error))

    def failed(self, error: Exception) -> Actions:
        """Give up the utterance, with an error; the next one may succeed."""
        if isinstance(error, ServerEnds):
            return [_error("ending", str(error)), Hangup(1012, str(error))]
        self._drops = self._state is _State.HEARING
        self._state, self._is_opening, self._was_refused = _State.IDLE, False, True
        code = "failed"
        if isinstance(error, NoFreeSlot | ConfigError):
            code = "busy" if isinstance(error, NoFreeSlot) else "invalid"
        return [_error(code, str(error)), *self._release(), *self._ended()]

    def _transcript(self) -> Actions:
        data: dict[str, Any] = {"text": " ".join(self._words)}
        if len(self._model.languages) == 1:
            data["language"] = self._model.languages[0]
        return [_send("transcript", data), _send("transcript-stop")]


def error_bytes(code: str, text: str) -> bytes:
    """The bytes of an error message."""
    return message_bytes("error", {"text": brief(text), "code": code})


def _error(code: str, text: str) -> Send:
    return Send(error_bytes(code, text))


def _send(type: str, data: dict[str, Any] | None = None) -> Send:
    return Send(message_bytes(type, data))
