"""One client's sound in, events out. No network, no device, no clock, no threads.

A session is the sound of one client in one slot. The scheduler asks it what is `pending`, takes
frames, and gives back what the model made of them:

    push, finalize, ... -> Inbox -> FrameSource -> take   (frames to the engine)
    next_event <- events <- EventWriter <- begin, accept  (tokens from the engine)

    state    | reached by                               | push, requests | events
    ---------+------------------------------------------+----------------+----------------------
    new      | the constructor                          | wait for a slot| none
    open     | the driver: it has a slot (`begin`)      | are taken      | as they are found
    closing  | the client: `close`                      | StreamClosed   | the last ones, `End`
    ended    | the driver: all is heard (`finish`), or  | StreamClosed   | those that wait, then
             | it was given up (`cut`)                  |                | None
    failed   | the driver: `fail`                       | the failure    | those that wait, then
             |                                          |                | the failure
    done     | the driver: its slot is free; after      | as before      | as before
             | ended or failed (`released`)             |                |

A state only leads to those below it, and `save` needs a slot: open or closing. Requests are
`finalize` and `change_decoding`: each has its place in the sound, after what was pushed before it.

Two threads use a session. The client's thread appends sound and requests to the inbox and pops from
`events`: both are deques, which need no lock. It also clears the flag that events hold the session
back. Everything else is changed only by the thread that drives the scheduler; there is one at a
time.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiku.audio import Chunk, StreamWarning
from kiku.config import REWIND_FRAMES, ModelConfig
from kiku.errors import KikuError, StreamClosed, StreamError
from kiku.options import DecodingOptions, StreamOptions
from kiku.serial import MAX_INT, from_plain, to_plain
from kiku.stream.event_writer import EventWriter
from kiku.stream.events import Event, event_to_dict
from kiku.stream.frame_source import FrameSource
from kiku.stream.inbox import LONG_S, Inbox, InboxItem
from kiku.stream.recovery import Redecode, Truncate
from kiku.stream.session_setup import SessionSetup
from kiku.stream.session_state import DueState, SessionState
from kiku.stream.work import (
    ChangeWork,
    DecodingChange,
    FinalizeRequest,
    FinalizeWork,
    RedecodeWork,
    Tokens,
    TruncateWork,
    Work,
)
from kiku.text import Vocabulary, WordBuilder


class WordSession:
    """Sound in, words and other events out.

    Words come in the order they were spoken, each once, never revised. After `close` the remaining
    words come, then one `End`.

    Args:
        config: of the model that will listen.
        vocabulary: the text tokens of the model.
        options: what is transcribed and which events are wanted; None asks for words alone.
        channel: the channel that the session transcribes, if each channel has a session of its own;
            its events are marked with it.
        padded: whether the session puts the model's silence before the sound and lets the model's
            delay run out after it. If not, the model hears exactly the whole frames of what is
            pushed.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocabulary: Vocabulary,
        options: StreamOptions | None = None,
        *,
        channel: int | None = None,
        padded: bool = True,
    ) -> None:
        """A session that no scheduler knows yet."""
        options = options or StreamOptions()
        prompted = options.prompt is not None
        self._setup = SessionSetup(config, vocabulary, options, channel, padded, prompted)
        self._inbox = Inbox()
        self._source = FrameSource(self._setup, self._inbox)
        self._writer = EventWriter(self._setup, self._source)
        self.input = self._source.input
        """Checks what the client pushes; the driver's thread feeds it."""
        self.events = self._writer.events
        """Events that were not fetched, the oldest first."""
        self.on_change: Callable[[], None] | None = None
        """Called by the driver's thread after events were added, sound was heard, or the end."""
        self.on_input: Callable[[], None] | None = None
        """Called by the client's thread when it has given sound or a request, or made room for
        events: the scheduler sets it."""
        self.on_room: Callable[[], None] | None = None
        """Called by the client's thread after `on_input`, if it has made room for events."""
        self._is_held_back = False  # by events that nobody fetched
        self.failure: Exception | None = None
        """What the session failed with; nothing more will come."""
        self._trace: TracebackType | None = None
        self.decoding = options.decoding
        """How tokens are picked now; changes that wait are not in it."""
        self.work: Work | None = None
        """What is to be done in the slot before the next frame."""
        self.has_ended = False
        """Whether its last event, or its failure, is there."""
        self.done = False
        """Whether nothing more will come and its slot is free."""
        if prompted:  # the token before the first frame is the prompt's
            self.begin(config.pad_id, 0.0)

    @property
    def is_closing(self) -> bool:
        """Whether nothing more is taken: the client has closed it, or it was cut or failed."""
        return self._inbox.closed_by is not None or self.failure is not None

    # For the client's thread.

    def push(self, chunk: Chunk) -> None:
        """Take sound that `input.check` has let through. The caller keeps to `max_queue_s`."""
        inbox = self._inbox
        seconds = chunk.num_samples / chunk.rate
        if seconds > LONG_S:
            inbox.add_pieces(chunk)
        else:
            inbox.pushed_s += seconds
            inbox.items.append(chunk)  # as `_give`, which costs a call for every chunk
        if self.on_input is not None:
            self.on_input()

    def warn(self, warning: StreamWarning) -> None:
        """Give out a warning about the sound that is pushed next, when that is heard."""
        self._give(warning)

    def _give(self, item: InboxItem) -> None:
        self._inbox.items.append(item)
        if self.on_input is not None:
            self.on_input()

    def finalize(self, request: FinalizeRequest) -> None:
        """Ask for all words that were begun until now, without ending the talk.

        The text's delay then runs out at full speed, over silence in the place of the sound that
        has not come, and the slot is put back. `Finalized` comes after the words. Equal requests
        at one place are one, as long as the first of them waits. The caller asks `check_finalize`
        before.
        """
        if not self._inbox.ends_with(request):
            self._inbox.finalizes.made += 1
            self._give(request)

    def check_finalize(self, request: FinalizeRequest) -> None:
        """Raise QueueFull if no further finalize may wait."""
        if not self._inbox.ends_with(request):
            self._inbox.finalizes.check()

    def new_change(self, decoding: DecodingOptions) -> DecodingChange:
        """A change for `change_decoding`, of this session and of others with the same model. It may
        take a while to make: hotwords are spelled here.

        Raises:
            ConfigError: the model cannot decode so.
        """
        return DecodingChange.of(decoding, self._setup.vocabulary, self._setup.config)

    def change_decoding(self, change: DecodingChange) -> None:
        """Pick tokens otherwise from the frame on in which the sound ends that was pushed until
        now, whether that sound waits or has been heard. The caller asks `check_change` before.
        """
        self._inbox.changes.made += 1
        self._give(change)

    def check_change(self) -> None:
        """Raise QueueFull if no further change of decoding may wait."""
        self._inbox.changes.check()

    def close(self) -> None:
        """Say that no more sound comes. What is still inside becomes words; calling it again
        changes nothing."""
        if self._inbox.closed_by is None:
            self._inbox.closed_by = "close()"
            self._give("close")

    def check_open(self, what: str = "sound was pushed") -> None:
        """Raise StreamClosed if nothing more may come, or what the session failed with."""
        self.check_alive()
        if (closed_by := self._inbox.closed_by) is not None:
            raise StreamClosed(f"{what} after {closed_by}: open another stream")

    def check_alive(self) -> None:
        """Raise what the session failed with, if it did."""
        if self.failure is not None:
            raise self.failure.with_traceback(self._trace)

    def next_event(self) -> Event | None:
        """The oldest event; None if there is none.

        Raises:
            Exception: what the session failed with, once all events before have been given out.
        """
        try:
            event = self.events.popleft()
        except IndexError:  # there is none, or another thread has just taken it
            self.check_alive()
            return None
        if self._is_held_back:  # looked at after the event was taken; see `pending`
            self._note_fetched()
        return event

    def _note_fetched(self) -> None:
        self._is_held_back = False
        if self.on_input is not None:
            self.on_input()
        if self.on_room is not None:
            self.on_room()

    @property
    def duration(self) -> float:
        """Seconds of sound pushed so far."""
        return self._source.duration

    @property
    def waiting_s(self) -> float:
        """Seconds of sound that wait to be heard; what does not fill a frame is not counted."""
        return self._source.waiting_s

    @property
    def heard_s(self) -> float:
        """Seconds of sound that were processed, in whole frames. All events of that sound are in
        `events` already."""
        return self._writer.heard_s

    # For the driver's thread: what the scheduler asks and reports.

    def pending(self, most: int = REWIND_FRAMES) -> int | Work | None:
        """How many frames may be taken, or what is to be done before; None at the end. Raises why
        the sound cannot be converted any further, when all before has been heard.

        Args:
            most: frames that can be taken now; so much sound is converted.
        """
        max_events = self._setup.options.max_events
        if len(self.events) >= max_events:  # nobody fetches them
            self._is_held_back = True
            # Whoever took an event before this line may not have seen that; it made room, though.
            if len(self.events) >= max_events:
                return 0
        if self.work is not None:
            return self.work
        converted_s = self._inbox.converted_s
        pending = self._source.pending(most)
        if pending and isinstance(pending, int):
            due_in = self._writer.tracker.due_in
            return pending if pending < due_in else due_in
        self._note_room(converted_s)
        if pending:
            self.work = pending
        return pending

    def _note_room(self, before_s: float) -> None:
        """Report that there is room again, if sound was converted of which no frame came, such as
        sound before the start. Less than a frame of it did not count as waiting.

        Args:
            before_s: the inbox's `converted_s` before.
        """
        moved_s = self._inbox.converted_s - before_s
        # A little less than a frame: both are sums of seconds, which may be off by a rounding.
        if moved_s >= 0.99 * self._setup.frame_s and self.on_change is not None:
            self.on_change()

    def take(self, num_frames: int) -> Sequence[NDArray[np.float32]]:
        """The samples of the next frames, in pieces [S] that nobody may write into."""
        return self._source.take(num_frames)

    def begin(self, token: int, logprob: float) -> None:
        """Take the token that the model gives before the first frame."""
        self._writer.begin(token, logprob)

    def accept(
        self,
        tokens: Sequence[int],
        logprobs: Sequence[float],
        levels: Sequence[float],
        pauses: Sequence[Sequence[float]] | None,
    ) -> None:
        """Take the model's output for the frames taken last.

        Args:
            tokens: [T] one for each frame; the one before any frame is taken by `begin`.
            logprobs: [T] natural logarithms of the tokens' probabilities.
            levels: [T] loudness of the frames, dBFS.
            pauses: [T][E] where the model has pause heads.
        """
        writer = self._writer
        writer.accept(tokens, logprobs, levels, pauses)
        if writer.tracker.due_in <= 0:
            self._decide()
        writer.note_heard()
        if self.on_change is not None:
            self.on_change()

    def _decide(self) -> None:
        writer = self._writer
        action = writer.tracker.decide(word_open=not writer.emitter.is_idle, seconds=writer.now)
        if action is not None:
            self.work = (
                TruncateWork(action) if isinstance(action, Truncate) else RedecodeWork(action)
            )

    @property
    def may_go_on(self) -> bool:
        """Whether more may be pending now, although the client has given nothing more."""
        return self._source.may_go_on or self.work is not None

    # For the driver's thread: what work reports when it is done.

    def fork(self) -> WordBuilder:
        """A copy of the session's word builder, with the tokens until now."""
        return self._writer.emitter.builder.fork()

    def truncated(self, action: Truncate) -> None:
        """The decoder has forgotten all but the last frames."""
        self._writer.tracker.done(action, action.frames)
        self.work = None

    def redecoded(self, action: Redecode, tokens: Tokens) -> None:
        """The decoder has decoded the last frames again and picked these tokens. Words that were
        given out before stay, and are not given out again."""
        self.work = None
        self._writer.redecoded(action, tokens)
        if self.on_change is not None:
            self.on_change()

    def finalized(self, work: FinalizeWork) -> None:
        """A finalize knows its words, and the slot is back where it stood before."""
        self.work = None
        self._source.due.popleft()
        self._writer.finalized(work)
        self._inbox.finalizes.done += 1
        if self.on_change is not None:
            self.on_change()

    def decoding_changed(self, work: ChangeWork) -> None:
        """The slot picks tokens as `work` says from the next frame on."""
        self.work = None
        self._source.due.popleft()
        self._inbox.changes.done += 1
        self.decoding = work.state.decoding

    # For the driver's thread: the end.

    def finish(self) -> None:
        """Give out the last word and `End`: all frames have been heard."""
        self._finish(is_cut=False)

    def _finish(self, *, is_cut: bool) -> None:
        if not self.has_ended:
            self._writer.finish(is_cut=is_cut)
            self.has_ended = True

    def cut(self) -> None:
        """End at once: sound that waits is dropped; the open word and `End` come out."""
        self._inbox.closed_by = "stop()"
        self._source.drop()
        self.work = None
        self._finish(is_cut=True)

    def fail(self, error: Exception) -> None:
        """Nothing more will come: the events until now can be fetched, then `error` is raised."""
        if self.has_ended:
            return
        self._source.closed = True
        with suppress(BaseException):  # what was heard is not lost
            self._writer.finish_word()
        self._trace, self.has_ended = error.__traceback__, True
        self.failure = error  # set last: the client's thread may look at it from here on

    def released(self) -> None:
        """Its slot is free again."""
        self.done = True
        if self.on_change is not None:
            self.on_change()

    # Saving and going on.

    @property
    def num_given(self) -> int:
        """Pieces of sound and requests that the client has ever given."""
        return self._source.num_given

    def convert_before(self, num_given: int, most: int = 1) -> bool:
        """Convert what still waits of the first `num_given` pieces of sound and requests, at most
        `most` of them, so that others wait for little at a time; whether none is left."""
        converted_s = self._inbox.converted_s
        done = self._source.convert_before(num_given, most)
        self._note_room(converted_s)
        return done

    def save(self, num_given: int) -> dict[str, Any]:
        """A copy of all that it remembers but its slot, in plain values, arrays and bytes (see
        `pack_stream`); no `work` may be left.

        Args:
            num_given: how many pieces of sound and requests it had been given when the client asked
                for it. Those that still wait are converted now (see `convert_before`).

        Raises:
            Exception: what the session failed with, or will fail with once all sound before has
                been heard.
        """
        self.check_alive()
        setup, source, writer = self._setup, self._source, self._writer
        endpointer = writer.turns.endpointer
        self.convert_before(num_given, MAX_INT)
        if source.broken is not None:
            raise source.broken
        state = SessionState(
            config=setup.config, channel=setup.channel, padded=setup.padded,
            prompted=setup.prompted, decoding=self.decoding,
            input=source.input.save(), waiting=source.frames.peek(),
            due=[DueState.of(work) for work in source.due], num_frames=source.num_frames,
            warnings=list(source.warnings), closed=source.closed,
            emitter=writer.emitter.save(), tracker=writer.tracker.save(),
            endpointer=None if endpointer is None else endpointer.save(),
            levels=list(writer.levels), num_loud=writer.num_loud,
            turn_time=writer.turns.time, warned_at=writer.warned_at, late=writer.turns.late,
            events=[event_to_dict(event) for event in list(self.events)],
        )  # fmt: skip
        return to_plain(state)

    def restore(self, saved: Any) -> None:
        """Go on where `save` was called; on a fresh session for the same model.

        What it hears (format, channel, start and end, checks) stays as it was saved. Turns go on
        where they were if both sessions report them.

        Raises:
            StreamError: the state is of another model, or damaged.
        """
        state = from_plain(SessionState, saved, what="the saved stream", error=StreamError)
        try:
            state.check(self._setup.config, self._setup.channel)
            setup = replace(self._setup, padded=state.padded, prompted=state.prompted)
            source = FrameSource(setup, self._inbox)
            source.restore(state)
            writer = EventWriter(setup, source)  # words' times begin where the saved sound does
            writer.restore(state)
        except (ValueError, TypeError, ArithmeticError, KikuError) as error:
            if isinstance(error, StreamError):
                raise
            raise StreamError(
                f"the saved stream is damaged ({error}); open a fresh stream"
            ) from error
        self._setup, self._source, self._writer = setup, source, writer
        self.input, self.events, self.decoding = source.input, writer.events, state.decoding
