"""OpenAI's Realtime API, for sessions that transcribe: today's names (GA) and the beta's.

    session.update ------------------> another stream, other keywords
    input_audio_buffer.append -------> Push
    input_audio_buffer.commit -------> Finalize, and after its words the item: committed, completed
    words, turns of the stream ------> deltas of the item that is open; the end of a turn commits it

When the stream must be replaced (other sound, other turns, `clear`), messages that come meanwhile
wait here, in their order. An `error` is a mistake of the client's and names its message; the
session goes on. Every commit is answered by `completed` or `failed`.
"""

from collections import deque

import msgspec

from kiku.errors import ConfigError, NoFreeSlot, StreamError
from kiku.options import DecodingOptions
from kiku.serve.protocols.interface import (
    Action,
    Actions,
    Base,
    ClientRequest,
    Decode,
    FinalizeStream,
    Hangup,
    ModelCard,
    Open,
    Push,
    Send,
    ServerEnds,
)
from kiku.serve.protocols.openai_realtime_items import (
    UNITS_PER_S,
    ConversationItem,
    RealtimeMessages,
)
from kiku.serve.protocols.openai_realtime_messages import (
    MAX_EVENT_ID,
    MESSAGES,
    ClientMessage,
    Mistake,
    check,
    sound_of,
)
from kiku.serve.protocols.openai_realtime_pending import (
    ChangeDecoding,
    Commit,
    CommitKind,
    PendingAudio,
    PendingSteps,
    Reopen,
)
from kiku.serve.protocols.openai_realtime_session import (
    PARAMETERS,
    RealtimeSession,
    SettingsByPlace,
)
from kiku.stream import End, Event, Finalized
from kiku.text import TurnEnd, TurnStart, Word

__all__ = ["PARAMETERS", "RealtimeProtocol"]

IDLE_S = 900.0
"""Seconds without a message after which a connection is closed. LiveKit keeps unused ones for ten
minutes."""

_OF_CONVERSATIONS = ("response.", "conversation.", "output_audio_buffer.")

_TELEPHONE_UNITS = UNITS_PER_S // 8_000
"""Units of time in one byte of telephone sound."""


class RealtimeProtocol(Base):
    """One client of `/v1/realtime`."""

    name = "openai_realtime"
    quiet_after_s = (IDLE_S,)

    def __init__(self, request: ClientRequest, model: ModelCard) -> None:
        """Raises `Refusal` for another model, or for a session that does not transcribe."""
        check(request, model)
        prefix = request.id.replace("-", "")[:16]
        beta = (
            "realtime=v1" in request.headers.get("openai-beta", "")
            or "openai-beta.realtime-v1" in request.subprotocols
        )
        self._messages = RealtimeMessages(prefix, beta=beta)
        self._session = RealtimeSession(f"sess_{prefix}", model, request.first("model"))
        self._settings = SettingsByPlace(self._session)
        self._options = self._session.options  # of the stream that is open, or is being opened
        self._wanted = self._options  # of the stream there will be when all that waits is done
        self.initial_open = Open(self._options)
        self._decoding = ChangeDecoding(DecodingOptions())  # that the stream has accepted
        self._changing: deque[ChangeDecoding] = deque()  # that it has not answered

        self._pending = PendingSteps()
        self._asked: deque[Commit] = deque()  # finalizes that the stream has not answered
        self._num_commits = 0
        # Places, counted over all sound of the connection.
        self._appended = 0
        self._committed = 0  # sound before it is in no item to come
        self._position = 0  # up to here sound was pushed
        self._settled = 0  # up to here all words have come
        self._offset = 0  # where the stream's first sample is
        self._is_opening = self._is_deaf = False
        self._item: ConversationItem | None = None
        self._goodbye: Hangup | None = None  # sent after the last finalize
        self._lost: Exception | None = None  # why the next item is not whole

    @property
    def is_full(self) -> bool:
        """Whether too much waits for another stream."""
        return self._pending.is_full

    def begin(self) -> Actions:
        """Greet the client, before anything else."""
        return [self._session_event("created", beta=self._messages.beta)]

    def _session_event(self, what: str, *, beta: bool) -> Send:
        session = self._session
        if beta:
            return self._messages.event(
                f"transcription_session.{what}", session=session.echo_beta()
            )
        return self._messages.event(f"session.{what}", session=session.echo())

    # From the client.

    def received(self, message: str | bytes) -> Actions:
        """Take one of five messages, or answer a mistake."""
        try:
            given = MESSAGES.decode(message)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            why = Mistake(
                f"the message cannot be understood ({str(error)[:200]}): send a JSON object with a "
                "type", code="invalid_json",
            )  # fmt: skip
            return [self._messages.error(why, None)]
        event_id = given.event_id if isinstance(given.event_id, str) else None
        if event_id is not None and len(event_id) > MAX_EVENT_ID:
            why = Mistake(
                f"event_id may have {MAX_EVENT_ID} characters, not {len(event_id)}: shorten it",
                "event_id", "string_above_max_length",
            )  # fmt: skip
            return [self._messages.error(why, None)]
        try:
            return self._dispatch(given, event_id)
        except Mistake as mistake:
            return [self._messages.error(mistake, event_id)]

    def _dispatch(self, given: ClientMessage, event_id: str | None) -> Actions:
        match given.type:
            case "input_audio_buffer.append":
                return self._append(given.audio)
            case "input_audio_buffer.commit":
                return self._commit()
            case "input_audio_buffer.clear":
                return self._clear()
            case "session.update":
                return self._update(given.session, event_id, beta=False)
            case "transcription_session.update":
                return self._update(given.session, event_id, beta=True)
            case str(name) if name.startswith(_OF_CONVERSATIONS):
                raise Mistake(
                    f"a transcription session has no {name[:100]}: it gives no responses, and its "
                    "items come from the sound", "type", "unsupported_value",
                )  # fmt: skip
            case name:
                seen = repr(name[:100]) if isinstance(name, str) else "without a type"
                raise Mistake(
                    f"there is no message {seen}: send session.update or "
                    "input_audio_buffer.append, .commit or .clear", "type",
                )  # fmt: skip

    def _append(self, audio: object) -> Actions:
        data = sound_of(audio)
        if self._appended == self._committed and data[:4] == b"RIFF" and data[8:12] == b"WAVE":
            raise Mistake(
                "audio begins with the header of a WAV file: append its samples alone, as the "
                "session's format says", "audio",
            )  # fmt: skip
        units = len(data) * (_TELEPHONE_UNITS if self._session.is_telephone else 1)
        self._appended += units
        self._pending.add(PendingAudio(data, units))
        return self._go_on()

    def _commit(self) -> Actions:
        if self._appended - self._committed < 2:  # no whole sample
            raise Mistake(
                "nothing was appended since the last commit: append sound first",
                code="input_audio_buffer_commit_empty",
            )
        self._committed = self._appended
        self._num_commits += 1
        self._pending.add(Commit(f"commit {self._num_commits}", self._appended))
        return self._go_on()

    def _clear(self) -> Actions:
        if self._appended == self._committed:
            return [self._messages.event("input_audio_buffer.cleared")]
        self._committed = self._appended
        messages: list[Action] = []
        if not self._pending.commits and all(one.is_own for one in self._asked):
            # Words that still come belong to the cleared sound: drop them.
            if self._item is not None:
                messages += self._stop_speech(self._item)
            self._is_deaf, self._item, self._lost = True, None, None
        messages.append(self._messages.event("input_audio_buffer.cleared"))
        self._pending.forget(self._wanted)
        return [*messages, *self._go_on()]

    def _stop_speech(self, item: ConversationItem) -> list[Action]:
        """Send `speech_stopped` for an item in which somebody speaks."""
        return [self._messages.stopped(item, self._position)] if item.is_spoken else []

    def _update(self, session: msgspec.Raw, event_id: str | None, *, beta: bool) -> Actions:
        new = self._session.updated(bytes(session), beta=beta)
        old, self._session = self._session, new
        self._settings.change(self._appended, new)
        messages: list[Action] = [self._session_event("updated", beta=beta)]
        keywords = new.transcription.get("keywords")
        if keywords != old.transcription.get("keywords"):
            self._pending.add(ChangeDecoding(new.decoding, keywords, event_id))
        options = new.options
        if (options.format, options.turns) != (self._wanted.format, self._wanted.turns):
            self._wanted = options
            self._pending.reopen(options)
        return [*messages, *self._go_on()]

    # What waits.

    def _go_on(self) -> list[Action]:
        """Do what waits, as far as it can be done now."""
        actions: list[Action] = []
        waiting = self._pending
        while not self._is_opening:
            match step := waiting.first:
                case None:
                    break
                case PendingAudio(data, units):
                    self._position += units
                    actions.append(Push(data))
                case Commit():
                    self._asked.append(step)
                    actions.append(FinalizeStream(step.tag))
                case ChangeDecoding(decoding):
                    self._changing.append(step)
                    actions.append(Decode(decoding))
                case Reopen():
                    if self._asked:
                        break
                    if not step.drops and self._position > self._settled:
                        rest = Commit("rest", self._position, CommitKind.REST)
                        self._asked.append(rest)
                        actions.append(FinalizeStream(rest.tag))
                        break
                    actions += self._reopen(step)
            waiting.pop()
        return actions

    def _reopen(self, step: Reopen) -> list[Action]:
        messages: list[Action] = []
        if step.drops:
            self._item = self._lost = None
        elif self._item is not None and step.options.turns is not None:
            # The next stream does not know the item's turn, and would never end it.
            messages += self._end_item(self._position)
        elif self._item is not None:
            messages += self._stop_speech(self._item)
        self._position += step.units
        if step.drops:
            self._messages.skip(self._position)
        self._settings.advance(self._position + 1)
        self._settled = self._offset = self._position
        self._options, self._is_opening = step.options, True
        return [*messages, Open(step.options)]

    def opened(self) -> Actions:
        """Another stream is open: go on with what waited for it."""
        self._is_opening = self._is_deaf = False
        if not self._decoding.decoding.is_plain and self._decoding not in self._changing:
            self._changing.appendleft(self._decoding)
        again = [Decode(one.decoding) for one in self._changing]  # what the last one did not answer
        return [*again, *self._go_on()]

    def decoded(self) -> Actions:
        """Go by the options that the stream has accepted."""
        if self._changing:
            self._decoding = self._changing.popleft()
        return ()

    # From the stream.

    def event(self, event: Event, waiting_s: float) -> Actions:
        """Make words deltas of the item that is open; ends of turns and finalizes commit it."""
        if self._is_opening:
            return ()  # an event of the last stream
        if isinstance(event, Word | TurnStart | TurnEnd):
            self._settings.advance(
                self._place(event.end if isinstance(event, Word) else event.time)
            )
        match event:
            case Word():
                return () if self._is_deaf else self._word(event)
            case TurnStart(time):
                return () if self._is_deaf else self._started(time)
            case TurnEnd(time):
                return () if self._is_deaf else self._turn_ended(time)
            case Finalized(tag=str(tag)):
                return self._finalized(tag)
            case End():
                return self.failed(StreamError("the stream ended before its sound did"))
            case _:
                return ()

    def _place(self, seconds: float) -> int:
        """The place of a second of the stream; never beyond the sound that the stream was given."""
        return min(self._offset + round(seconds * UNITS_PER_S), self._position)

    def _started(self, seconds: float) -> list[Action]:
        if self._item is None:
            self._item = self._messages.new_item()
        if self._settings.heard.turn_detection is None or self._item.is_spoken:
            return []
        at = self._place(seconds) - round(self._settings.heard.prefix_s * UNITS_PER_S)
        return [self._messages.started(self._item, max(at, 0))]

    def _word(self, word: Word) -> list[Action]:
        # After a commit inside a turn, the turn goes on without another `TurnStart`.
        messages = self._started(word.start)
        assert self._item is not None
        messages.append(
            self._messages.word(self._item, word, logprobs=self._settings.heard.wants_logprobs)
        )
        return messages

    def _turn_ended(self, seconds: float) -> list[Action]:
        if self._settings.heard.turn_detection is None or self._item is None:
            return []
        at = self._place(seconds)
        asked = self._asked[0] if self._asked else None
        if asked is not None and asked.kind is not CommitKind.REST and asked.at <= at:
            return []  # the commit that is about to be answered ends it
        self._committed = max(self._committed, at)
        return self._end_item(at)

    def _finalized(self, tag: str) -> list[Action]:
        actions: list[Action] = []
        while self._asked:
            one = self._asked.popleft()
            self._settled = one.at
            if one.tag == tag:
                if one.kind is CommitKind.LAST:
                    actions += self._last_item(one.at)
                elif one.kind is CommitKind.CLIENT:
                    actions += self._end_item(one.at)
                break
            actions += self._end_item(one.at, StreamError("its end was not answered"))
        return [*actions, *self._go_on()]

    def _last_item(self, at: int) -> list[Action]:
        """End the connection of a silent client. Its item is committed only if turns commit; else
        commits are the client's own."""
        is_open = self._item is not None and self._settings.heard.turn_detection is not None
        actions = self._end_item(at) if is_open else []
        return actions if self._goodbye is None else [*actions, self._goodbye]

    def _end_item(self, at: int, error: Exception | None = None) -> list[Action]:
        """Commit the item that is open, or one without words."""
        item, self._item = self._item or self._messages.new_item(), None
        error, self._lost = error or self._lost, None
        logprobs = self._settings.heard.wants_logprobs
        return [*self._messages.committed_item(item, at, error, logprobs=logprobs)]

    # When something goes wrong.

    def quiet(self, seconds: float) -> Actions:
        """Take the client for gone, and hang up."""
        return self.idle(f"nothing was received for {seconds:g} seconds")

    def idle(self, reason: str) -> Actions:
        """End the item that is open after the last words, and hang up."""
        if self._goodbye is not None:
            return ()
        self._goodbye = Hangup(1000, reason)
        if self._position <= self._settled and self._item is None and self._pending.first is None:
            return [self._goodbye]
        self._pending.add(Commit("last", self._appended, CommitKind.LAST))
        return self._go_on()

    def rejected(self, error: Exception) -> Actions:
        """Report keywords that the model cannot expect as the client's mistake. Sound that was not
        taken makes its item fail."""
        if isinstance(error, ConfigError) and self._changing:
            refused = self._changing.popleft()
            if not self._changing and not self._pending.changes_decoding:
                self._take_back_keywords()
            mistake = Mistake(str(error), "session.audio.input.transcription.keywords")
            return [self._messages.error(mistake, refused.event_id)]
        if isinstance(error, StreamError) and self._asked:  # the stream takes no more finalizes
            return self._finalized_without(error)
        self._lost = error
        return ()

    def _take_back_keywords(self) -> None:
        """Have the session say which keywords the stream goes by."""
        before = self._decoding.keywords
        kept = {k: v for k, v in self._session.transcription.items() if k != "keywords"}
        self._session.transcription = kept | ({} if before is None else {"keywords": before})

    def _finalized_without(self, error: Exception) -> Actions:
        one = self._asked.pop()
        self._settled = one.at
        actions = [] if one.is_own else self._end_item(one.at, error)
        return [*actions, *self._go_on()]

    def failed(self, error: Exception) -> Actions:
        """Report what was lost. The session goes on with another stream, if there can be one."""
        actions: list[Action] = []
        while self._asked:
            one = self._asked.popleft()
            if not one.is_own:
                actions += self._end_item(one.at, error)
        ends = isinstance(error, ServerEnds)
        if self._position > self._messages.committed:  # some of its sound is in no item
            if self._settings.heard.turn_detection is None:
                self._lost = error
            elif self._item is not None or not ends:
                self._committed = max(self._committed, self._position)
                actions += self._end_item(self._position, error)
        if ends or self._is_opening or self._position == self._offset:
            return [*actions, *self._end(error)]
        self._settled = self._position  # no more words of it will come
        if not isinstance(self._pending.first, Reopen):
            self._pending.put_first(Reopen(self._options, drops=False))
        return [*actions, *self._go_on()]

    def _end(self, error: Exception) -> Actions:
        """Answer the commits that wait with `failed`, as there is no stream left, and hang up."""
        actions: list[Action] = []
        for one in self._pending.commits:
            if not one.is_own:
                actions += self._end_item(one.at, error)
        self._pending.clear()
        code = 1011
        if isinstance(error, ServerEnds | NoFreeSlot):
            code = 1012 if isinstance(error, ServerEnds) else 1013
        return [*actions, Hangup(code, str(error)[:100])]
