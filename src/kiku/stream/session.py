"""One client's sound in, events out. No network, no device, no clock, no threads.

A session owns what concerns one client: the silence before and after its sound, the delay of its
text, its time, its words and turns, and what is to be done in its slot. The scheduler asks what is
`pending`, takes frames, and gives back what the engine said.

    state    | comes by                                 | push, requests | events
    ---------+------------------------------------------+----------------+----------------------
    new      | who makes it                             | wait for a slot| none
    open     | the driver: it has a slot (`begin`)      | are taken      | as they are found
    closing  | the client: `close`                      | StreamClosed   | the last ones, `End`
    ended    | the driver: all is heard (`finish`), or  | StreamClosed   | those that wait, then
             | it was given up (`cut`)                  |                | None
    failed   | the driver: `fail`                       | the failure    | those that wait, then
             |                                          |                | the failure
    done     | the driver: its slot is free; after      | as before      | as before
             | ended or failed (`released`)             |                |

A state only leads to those below it, and `save` wants a slot: open or closing. Requests are
`finalize` and `change_decoding`: each has its place in the sound, behind what was pushed before it.

Two threads use a session. The client's thread appends sound and requests to `_inbox` and pops from
`events`: both are deques, which need no lock. All else is touched only by the thread that drives
the scheduler; there is one at a time.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kiku.audio import HEARD_DB, AudioInput, Chunk, FrameQueue, StreamWarning
from kiku.config import MAX_STREAM_FRAMES, REWIND_FRAMES, TAIL_S, ModelConfig
from kiku.errors import KikuError, QueueFull, StreamClosed, StreamError
from kiku.options import DecodingOptions, StreamOptions
from kiku.serial import MAX_INT, from_plain, to_plain
from kiku.stream.emitter import WordEmitter
from kiku.stream.events import End, Event, Finalized, Pause, WordEnd, event_from_dict, event_to_dict
from kiku.stream.recovery import RecoveryTracker, Redecode, Truncate
from kiku.stream.work import (
    ChangeState,
    ChangeWork,
    DecodingChange,
    FinalizeRequest,
    FinalizeState,
    FinalizeWork,
    RedecodeWork,
    Tokens,
    TruncateWork,
    Work,
)
from kiku.text import Endpointer, Timing, Vocabulary, Word, WordBuilder

_LEVELS = 64
"""Frames whose loudness is kept for a finalize: 5 s."""

_WORDLESS_S = 1.0
"""Seconds of frames that were loud enough for speech: if there are as many and no word came, the
end brings a "no_words" warning."""

_ENOUGH = REWIND_FRAMES
"""Frames that are converted ahead of the engine: as many as one step takes at most."""

_MAX_REQUESTS = 32
"""Requests to finalize that may wait, and as many changes of decoding."""

PAUSE_HEAD = 2
"""The head of a pause of 2 s, which Kyutai's own services go by."""

_CLOSE: Literal["close"] = "close"

_Given = Chunk | FinalizeRequest | DecodingChange | Literal["close"]
"""What the client gives, in its order."""


@dataclass(slots=True)
class _DueState:
    """One request that has not come to its place: one of the two."""

    finalize: FinalizeState | None
    change: ChangeState | None

    @property
    def at(self) -> int:
        """The frame before which it is done; ValueError where there is none."""
        if (self.finalize is None) == (self.change is None):
            raise ValueError("a request that is none, or two")
        return self.change.at if self.finalize is None else self.finalize.at  # pyright: ignore[reportOptionalMemberAccess]


@dataclass(slots=True)
class _SessionState:
    """All that a session remembers, in plain values; its parts write and read themselves."""

    config: ModelConfig
    channel: int | None
    padded: bool
    prompted: bool
    input: Any
    waiting: NDArray[np.float32]
    emitter: Any
    tracker: Any
    endpointer: Any
    due: list[_DueState]
    decoding: DecodingOptions
    num_frames: int
    levels: list[float]
    num_loud: int
    turn_time: float
    warned_at: float
    late: list[Word]
    warnings: list[StreamWarning]
    closed: bool
    events: list[Any]


class WordSession:
    """Sound in, words and other events out.

    Words come in the order they were spoken, each once, never revised. After `close` the remaining
    words come, then one `End`.

    Args:
        config: of the model that will listen.
        vocabulary: its text tokens.
        options: what it hears and says; None is words alone.
        channel: the channel that it hears where each is heard by itself; marks its events.
        padded: put the model's silence before the sound and let its delay run out after it.
            Without, the model hears exactly what is pushed (whole frames of it).
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
        self._config, self._vocabulary, self._options = config, vocabulary, options
        self._channel, self._padded, self._prompted = channel, padded, options.prompt is not None
        self._pad_id, self._frame_s = config.pad_id, 1 / config.frame_rate
        self.input = self._new_input()
        self._prefix_s = self._own_prefix_s
        self._emitter = self._new_emitter()
        self._tracker = self._new_tracker()
        self._endpointer = self._new_endpointer()
        self._max_events = options.max_events
        self._tells_each_frame = self._endpointer is not None or options.pauses
        self._wants_partial = self._endpointer is not None or options.partials
        self.events: deque[Event] = deque()
        """What has come and was not fetched, oldest first."""
        self.on_change: Callable[[], None] | None = None
        """Called by whoever drives, after events have come, sound was heard, or the end."""
        self.on_input: Callable[[], None] | None = None
        """Called when sound or a request was given: the scheduler's own."""
        self.failure: Exception | None = None
        """What the session failed with; nothing more will come."""
        self._trace: TracebackType | None = None
        self._inbox: deque[_Given] = deque()
        self._pushed_s = self._converted_s = 0.0  # of the client's hand, of the driver's
        self._is_converting = False
        self._uneven_s = 0.0  # by how much more was taken than pushes had seemed to be
        self._num_requests = self._num_answered = 0  # likewise, of finalizes
        self._num_changes = self._num_changed = 0  # and of changes of decoding
        self._frames = FrameQueue(config.frame_size)
        self._due: deque[FinalizeWork | ChangeWork] = deque()  # by their place
        self.decoding = self._last_decoding = options.decoding  # now; behind all that is due
        self.work: Work | None = None
        """What is to be done in the slot before the next frame."""
        self._num_frames = 0  # taken; all but those of the step under way were heard
        self._levels: deque[float] = deque(maxlen=_LEVELS)  # dBFS of the last frames heard
        self.heard_s = 0.0
        """Seconds of sound that were processed, in whole frames. All events of that sound are in
        `events` already."""
        self._num_loud = 0  # frames heard that were loud enough for words
        self._warnings: deque[StreamWarning] = deque()  # of sound that has not been heard yet
        self._turn_time = self._warned_at = 0.0
        self._late: list[Word] = []  # emitted since the last frame, for the endpointer
        self.is_closing = self._closed = False  # by the client, by the driver
        self._cut = False  # closed by `cut`
        self.has_ended = False
        """Whether its last event, or its failure, is there."""
        self.done = False
        """Whether nothing more will come and its slot is free."""
        self._frames.push(np.zeros(int(self._prefix_s * config.sample_rate), np.float32))
        if self._prompted:  # what the model said before the first frame is the prompt's
            self.begin(self._pad_id, 0.0)

    def _new_input(self) -> AudioInput:
        options = self._options
        channel = options.channel if self._channel is None else self._channel
        return AudioInput(
            self._config.sample_rate,
            options.format,
            channel="mix" if channel == "each" else channel,
            checks=options.signal_checks,
            rate_check=bool(options.rate_check),
            start_s=options.start_s,
            end_s=options.end_s,
        )

    @property
    def _own_prefix_s(self) -> float:
        """Seconds of silence before the sound; a prompt has heard them already."""
        return self._config.silence_prefix_s if self._padded and not self._prompted else 0.0

    def _new_emitter(self) -> WordEmitter:
        config = self._config
        timing = Timing(
            config.frame_rate, config.text_delay_s, self._prefix_s, offset_s=self.input.start_s
        )
        builder = WordBuilder(
            self._vocabulary,
            timing,
            pad_id=config.pad_id,
            word_start_id=config.word_start_id,
            channel=self._channel,
            calibration=self._options.calibration,
        )
        return WordEmitter(builder)

    def _new_tracker(self) -> RecoveryTracker:
        config = self._config
        return RecoveryTracker(
            self._options.recovery_policies,
            frame_rate=config.frame_rate,
            delay_s=config.text_delay_s,
            window=config.lm.transformer.window,
        )

    def _new_endpointer(self) -> Endpointer | None:
        policy, config = self._options.turn_policy, self._config
        if policy is None:
            return None
        return Endpointer(
            policy,
            frame_rate=config.frame_rate,
            delay_s=config.text_delay_s,
            channel=self._channel,
        )

    # The client's hand.

    def push(self, chunk: Chunk) -> None:
        """Take sound that `input.check` has let through. Who pushes keeps to `max_queue_s`."""
        self._pushed_s += chunk.num_samples / chunk.rate
        self._inbox.append(chunk)  # as `_give_in`, which costs a call for every chunk
        if self.on_input is not None:
            self.on_input()

    def _give_in(self, item: _Given) -> None:
        self._inbox.append(item)
        if self.on_input is not None:
            self.on_input()

    def finalize(self, request: FinalizeRequest) -> None:
        """Have all words that were begun until now, without ending the talk.

        The delay of the text is let run out at full speed, with silence in the place of the sound
        that has not come, and then taken back. `Finalized` comes after the words. Equal requests
        at one place are one, as long as the first of them waits.

        Raises:
            QueueFull: too many wait.
        """
        self.check_finalize()
        self._num_requests += 1
        self._give_in(request)

    def check_finalize(self) -> None:
        """Raise QueueFull where no further request may wait."""
        waiting = self._num_requests - self._num_answered
        if waiting >= _MAX_REQUESTS:
            raise QueueFull(
                f"{waiting} finalizes wait to be answered: wait for `Finalized` before the next"
            )

    def new_change(self, decoding: DecodingOptions) -> DecodingChange:
        """What `change_decoding` takes, also of other sessions for the same model. It may take a
        while: hotwords are spelled here.

        Raises:
            ConfigError: the model cannot decode so.
        """
        return DecodingChange.of(decoding, self._vocabulary, self._config)

    def change_decoding(self, change: DecodingChange) -> None:
        """Pick tokens so from the frame on in which the sound ends that was pushed until now,
        whether that waits or has been heard. Who asks for it keeps to `check_change`.
        """
        self._num_changes += 1
        self._give_in(change)

    def check_change(self) -> None:
        """Raise QueueFull where no further change of decoding may wait."""
        waiting = self._num_changes - self._num_changed
        if waiting >= _MAX_REQUESTS:
            raise QueueFull(
                f"{waiting} changes of decoding wait for the sound before them to be heard: make "
                "the next one later, or fewer of them"
            )

    def close(self) -> None:
        """Say that no more sound comes. What is still inside becomes words; calling it again
        changes nothing."""
        if not self.is_closing:
            self.is_closing = True
            self._give_in(_CLOSE)

    def check_open(self, what: str = "sound was pushed") -> None:
        """Raise StreamClosed if nothing more may come, or what the session failed with."""
        self.check_alive()
        if self.is_closing:
            how = "stop()" if self._cut else "close()"
            raise StreamClosed(f"{what} after {how}: open another stream")

    def check_alive(self) -> None:
        """Raise what the session failed with, if it did."""
        if self.failure is not None:
            raise self.failure.with_traceback(self._trace)

    def next_event(self) -> Event | None:
        """The oldest event; None if there is none.

        Raises:
            Exception: what the session failed with, once all events before have been given out.
        """
        waiting = len(self.events)
        try:
            event = self.events.popleft()
        except IndexError:  # there is none, or another thread has just taken it
            self.check_alive()
            return None
        if waiting >= self._max_events and self.on_input is not None:
            self.on_input()  # there is room again
        return event

    @property
    def duration(self) -> float:
        """Seconds of sound pushed so far."""
        converted_s, pushed_s = self._converted_s, self._pushed_s
        if not self._is_converting:
            taken_s = self.input.duration
            # Whether the driver has converted nothing meanwhile: it is then no moment at which a
            # chunk is in the one sum already, and not in the other.
            if not self._is_converting and self._converted_s == converted_s:
                self._uneven_s = taken_s - converted_s
                return taken_s + max(0.0, pushed_s - converted_s)
        return pushed_s + self._uneven_s

    @property
    def waiting_s(self) -> float:
        """Seconds of sound that wait to be heard, but for a part of a frame."""
        given_s = self._pushed_s - self._converted_s
        frames = self._frames
        ready_s = frames.num_samples // frames.frame_size * self._frame_s
        return ready_s + given_s if given_s > 0 else ready_s

    @property
    def num_given(self) -> int:
        """How many pieces of sound and requests wait to be looked at."""
        return len(self._inbox)

    # The driver's hand: what the scheduler asks and tells.

    def pending(self) -> int | Work | None:
        """How many frames may be taken, or what is to be done before; None at the end."""
        if len(self.events) >= self._max_events:
            return 0  # nobody fetches them
        if self.work is not None:
            return self.work
        frames = self._frames
        enough = _ENOUGH * frames.frame_size
        converted_s = self._converted_s
        if self._inbox and frames.num_samples < enough:
            self._convert(enough)
        ready = frames.num_samples // frames.frame_size
        if self._due:
            before = self._due[0].state.at - self._num_frames
            if before <= 0:
                self.work = self._due[0]
                return self.work
            ready = min(ready, before)
        if not ready:
            if self._converted_s - converted_s >= self._frame_s and self.on_change is not None:
                self.on_change()  # sound before the start: there is room again, without a frame
            return None if self._closed and not self._inbox else 0
        due_in = self._tracker.due_in
        return ready if ready < due_in else due_in

    def _convert(self, enough: int, most: int | None = None) -> None:
        """Convert what the client gave into frames until `enough` samples wait; at most `most` of
        its pieces."""
        inbox, frames = self._inbox, self._frames
        while inbox and frames.num_samples < enough and most != 0:
            most = None if most is None else most - 1
            item = inbox.popleft()
            if isinstance(item, Chunk):
                self._is_converting = True
                frames.push(self.input.feed(item))
                self._converted_s += item.num_samples / item.rate
                self._is_converting = False
                self._note_warnings()
            elif isinstance(item, FinalizeRequest):
                self._add_finalize(item)
            elif isinstance(item, DecodingChange):
                self._add_change(item)
            else:
                self._add_end()

    def _note_warnings(self) -> None:
        # They are emitted when the decoder has come to their time, however the sound was cut.
        if self.input.untold:
            self._warnings += self.input.warnings()

    def _add_finalize(self, request: FinalizeRequest) -> None:
        at, time = self._next_at, self._input_s
        last = self._due[-1] if self._due else None
        if isinstance(last, FinalizeWork) and last.merges(at, time, request):
            self._num_answered += 1
            return
        rest = np.concatenate([self._frames.rest(), self.input.tail()])
        self._due.append(FinalizeWork(FinalizeState(at, rest, time, [request]), self._config))

    def _add_change(self, change: DecodingChange) -> None:
        if change.decoding == self._last_decoding:  # a picker that goes on with what it has is it
            self._num_changed += 1
            return
        self._due.append(ChangeWork(self._next_at, change))
        self._last_decoding = change.decoding

    @property
    def _next_at(self) -> int:
        """The frame in which the sound ends that was converted: the same whether the frames before
        it wait or have been heard."""
        return self._num_frames + self._frames.num_ready

    def _add_end(self) -> None:
        self._frames.push(self.input.end())
        self._note_warnings()
        self._closed = True
        if self._padded:
            self._frames.pad()
            frames = math.ceil((self._config.text_delay_s + TAIL_S) * self._config.frame_rate)
            self._frames.push(np.zeros(frames * self._config.frame_size, np.float32))

    def take(self, num_frames: int) -> Sequence[NDArray[np.float32]]:
        """The samples of the next frames, in pieces [S] that nobody may write into."""
        self._num_frames += num_frames
        return self._frames.take(num_frames)

    def begin(self, token: int, logprob: float) -> None:
        """Take what the model said before the first frame."""
        self._give(self._emitter.push(token, logprob, latest=math.inf))

    def accept(
        self,
        tokens: Sequence[int],
        logprobs: Sequence[float],
        levels: Sequence[float],
        pauses: Sequence[Sequence[float]] | None,
    ) -> None:
        """Take what the model said after the frames taken last.

        Args:
            tokens: [T] one for each frame; the one before any frame is taken by `begin`.
            logprobs: [T] theirs.
            levels: [T] loudness of the frames, dBFS.
            pauses: [T][E] where the model has pause heads.
        """
        pad_id, tracker, builder = self._pad_id, self._tracker, self._emitter.builder
        for i, token in enumerate(tokens):
            level = levels[i]
            self._levels.append(level)
            if level >= HEARD_DB:
                self._num_loud += 1
            heads = None if pauses is None else pauses[i]
            pause = None if heads is None else heads[min(PAUSE_HEAD, len(heads) - 1)]
            if token == pad_id and builder.pass_pad():  # nine frames in ten
                tracker.add(False, level, pause)
                if self._tells_each_frame or self._warnings or self._late:
                    self._tell_frame(level, heads, (), False)
            else:
                self._hear(token, logprobs[i], level, heads, pause)
        if tracker.due_in <= 0:
            self._decide()
        self._note_heard()
        if self.on_change is not None:
            self.on_change()

    def _note_heard(self) -> None:
        # Only after the events are queued: a client that reads `heard_s` first and the events then
        # has every event of that sound.
        now = self._now
        if now > self.heard_s:
            self.heard_s = now

    @property
    def may_go_on(self) -> bool:
        """Whether more may be pending now, without anybody giving anything."""
        frames = self._frames
        return (
            frames.num_samples >= frames.frame_size
            or bool(self._inbox or self._due)
            or self._closed
            or self.work is not None
        )

    def _hear(
        self,
        token: int,
        logprob: float,
        level: float,
        heads: Sequence[float] | None,
        pause: float | None,
    ) -> None:
        """Take what was said after one frame."""
        emitter = self._emitter
        latest = self._latest
        words = emitter.push(token, logprob, latest=latest)
        if words:
            self._give(words)
        is_text = self._vocabulary.is_text(token)
        partial = emitter.partial(latest=latest) if self._wants_partial else None
        if self._options.partials and is_text and partial is not None:
            self.events.append(partial)
        self._tracker.add(is_text, level, pause)
        if self._tells_each_frame or self._warnings or self._late:
            self._tell_frame(level, heads, words, partial is not None)

    def _tell_frame(
        self, level: float, heads: Sequence[float] | None, words: Sequence[Word], word_open: bool
    ) -> None:
        """Say what else there is to say after a frame."""
        now = self._now
        if now <= self.input.start_s:
            return  # this is the silence that is put before the sound
        # What begins at the end of this frame may not have been pushed yet: it is told after the
        # next one, whether it was or not.
        while self._warnings and self._warnings[0].time < now:
            self._warn(self._warnings.popleft())
        if self._options.pauses and heads is not None:
            self.events.append(Pause(now, tuple(heads), self._channel))
        if self._endpointer is not None:
            if now > self._turn_time:  # otherwise a finalize has reported a later time
                self._turn_time = now
            words = [*self._late, *words]
            self.events += self._endpointer.push(self._turn_time, heads, level, words, word_open)
        self._late = []

    def _decide(self) -> None:
        action = self._tracker.decide(word_open=not self._emitter.is_idle, seconds=self._now)
        if action is not None:
            self.work = (
                TruncateWork(action) if isinstance(action, Truncate) else RedecodeWork(action)
            )

    @property
    def _input_s(self) -> float:
        """Where the sound ends that was converted."""
        end_s = self.input.end_s
        return self.input.duration if end_s is None else min(self.input.duration, end_s)

    @property
    def _now(self) -> float:
        """Seconds of sound of which the model has spoken."""
        heard = self._emitter.builder.num_tokens - 1
        now = heard * self._frame_s - self._prefix_s + self.input.start_s
        return min(now, self._input_s) if self._closed else now

    @property
    def _latest(self) -> float:
        """Where a word may end: the text of the last ones may lag past the end of the sound."""
        return self._input_s if self._closed else math.inf

    def _give(self, words: list[Word]) -> list[Word]:
        """Say these words."""
        for word in words:
            self.events.append(word)
            self.events.append(WordEnd(word.end, self._channel))
            self._tracker.word(word.text, word.start)
        return words

    def _warn(self, warning: StreamWarning) -> None:
        self._warned_at = max(self._warned_at, warning.time)
        self.events.append(replace(warning, time=self._warned_at, channel=self._channel))

    def _warn_wordless(self, loud_s: float) -> None:
        if not self.input.checks:
            return
        self._warn(
            StreamWarning(
                "no_words",
                f"no word was heard in {loud_s:.1f} seconds of sound: look whether somebody speaks "
                "there, in a language of the model, and whether the sound is at the rate that it "
                "says",
                max(0.0, self._now),
            )
        )

    # The driver's hand: what work tells when it is done.

    def fork(self) -> WordBuilder:
        """A builder that stands where the session's words do."""
        return self._emitter.builder.fork()

    def truncated(self, action: Truncate) -> None:
        """The decoder has forgotten what it was to forget."""
        self._tracker.done(action, action.frames)
        self.work = None

    def redecoded(self, action: Redecode, tokens: Tokens) -> None:
        """The decoder has listened again, and said this to the last frames.

        What had been given out stands: it is not given out again.
        """
        self.work = None
        self._warn(StreamWarning(action.kind, action.message, max(0.0, self._now)))
        self._late += self._give(self._emitter.redecoded(*tokens))
        self._tracker.done(action, len(tokens[0]))
        if self.on_change is not None:
            self.on_change()

    def finalized(self, work: FinalizeWork) -> None:
        """The words until then are known, and the slot is back where it stood."""
        self.work = None
        self._due.popleft()
        time = work.time
        words, open_word = work.result(self._levels)
        words, open_word = self._emitter.finalized(words, open_word, latest=work.state.time)
        self._give(words)
        if self._endpointer is not None:
            self._turn_time = max(self._turn_time, time)
            self.events += self._endpointer.finalized(time, words)
        for request in work.state.requests:
            self.events.append(Finalized(time, open_word, request.tag, self._channel))
        self._num_answered += 1
        if self.on_change is not None:
            self.on_change()

    def decoding_changed(self, work: ChangeWork) -> None:
        """From here on tokens are picked otherwise."""
        self.work = None
        self._due.popleft()
        self._num_changed += 1
        self.decoding = work.state.decoding

    # The driver's hand: the end.

    def finish(self) -> None:
        """Give out the last word and `End`: all frames have been heard."""
        if not self.has_ended:
            self._end(is_cut=False)

    def _end(self, is_cut: bool) -> None:
        words = [*self._late, *self._give(self._emitter.finish(latest=self._latest))]
        while self._warnings:
            self._warn(self._warnings.popleft())
        loud_s = self._num_loud * self._frame_s
        if loud_s >= _WORDLESS_S and self._emitter.is_fresh and not is_cut:
            self._warn_wordless(loud_s)
        if self._endpointer is not None:
            if words:
                self.events += self._endpointer.finalized(self._now, words)
            self.events += self._endpointer.finish(max(0.0, self._now))
        self.events.append(End(self.duration))
        self.has_ended = True

    def cut(self) -> None:
        """End at once: what waits to be heard is dropped; the open word and `End` come out."""
        self.is_closing = self._closed = self._cut = True
        self._inbox.clear()
        self._frames.clear()
        self._due.clear()
        self.work = None
        if not self.has_ended:
            self._end(is_cut=True)

    def fail(self, error: Exception) -> None:
        """Nothing more will come: the events until now can be fetched, then `error` is raised."""
        if self.has_ended:
            return
        self.is_closing = self._closed = True
        with suppress(BaseException):  # what was heard is not lost
            self._give(self._emitter.finish(latest=self._latest))
        self._trace, self.has_ended = error.__traceback__, True
        self.failure = error  # from here on the client may be told

    def released(self) -> None:
        """Its slot is free again."""
        self.done = True
        if self.on_change is not None:
            self.on_change()

    # Saving and going on.

    def save(self, num_given: int) -> dict[str, Any]:
        """All that it remembers but its slot, in plain values, arrays and bytes (see
        `pack_stream`); no `work` may be left.

        Args:
            num_given: pieces of sound and requests that waited when it was asked for.
        """
        self.check_alive()
        self._convert(MAX_INT, num_given)  # the queue bounds it
        state = _SessionState(
            config=self._config,
            channel=self._channel,
            padded=self._padded,
            prompted=self._prompted,
            input=self.input.save(),
            waiting=self._frames.peek(),
            emitter=self._emitter.save(),
            tracker=self._tracker.save(),
            endpointer=None if self._endpointer is None else self._endpointer.save(),
            due=[_due_state(one) for one in self._due],
            decoding=self.decoding,
            num_frames=self._num_frames,
            levels=list(self._levels),
            num_loud=self._num_loud,
            turn_time=self._turn_time,
            warned_at=self._warned_at,
            late=self._late,
            warnings=list(self._warnings),
            closed=self._closed,
            events=[event_to_dict(event) for event in list(self.events)],
        )
        return to_plain(state)

    def restore(self, saved: Any) -> None:
        """Go on where `save` was called; on a fresh session for the same model.

        What it hears (format, channel, start and end, checks) stays as it was. Turns are taken up
        where they were if both sessions tell them.

        Raises:
            StreamError: the state is of another model, or damaged.
        """
        state = from_plain(_SessionState, saved, what="the saved stream", error=StreamError)
        try:
            self._restore(state)
            self._note_heard()
        except (ValueError, TypeError, ArithmeticError, KikuError) as error:
            if isinstance(error, StreamError):
                raise
            raise StreamError(
                f"the saved stream is damaged ({error}); open a fresh stream"
            ) from error

    def _restore(self, state: _SessionState) -> None:
        if state.config != self._config:
            raise StreamError(
                "the stream was saved with another model: load the one that it was saved with"
            )
        if state.channel != self._channel:
            raise StreamError(
                f"the stream was saved for channel {state.channel}, this one hears {self._channel}"
            )
        if not 0 <= state.num_frames <= MAX_STREAM_FRAMES or state.waiting.ndim != 1:
            raise ValueError("frames that cannot be")
        self._padded, self._prompted = state.padded, state.prompted
        self._prefix_s = self._own_prefix_s
        self.input = AudioInput.restore(state.input)
        self._emitter = self._new_emitter()  # words' times begin where the saved sound does
        self._frames.clear()
        self._frames.push(state.waiting)
        self._emitter.restore(state.emitter)
        self._tracker.restore(state.tracker)
        if self._endpointer is not None and state.endpointer is not None:
            self._endpointer.restore(state.endpointer)
        self.decoding = self._last_decoding = state.decoding
        self._restore_due(state)
        self._num_frames = state.num_frames
        if not 0 <= state.num_loud <= state.num_frames:
            raise ValueError("more loud frames than frames")
        self._levels, self._num_loud = deque(state.levels, _LEVELS), state.num_loud
        self._turn_time, self._warned_at = state.turn_time, state.warned_at
        self._late, self._warnings = state.late, deque(state.warnings)
        self._closed = self.is_closing = state.closed
        self._pushed_s = self._converted_s = self.input.duration
        self.events = deque(map(event_from_dict, state.events))

    def _restore_due(self, state: _SessionState) -> None:
        last = state.num_frames
        for one in state.due:
            if not last <= one.at <= state.num_frames + self._frames.num_ready:
                raise ValueError("a request where no sound is")
            last = one.at
            if one.change is not None:
                self._due.append(ChangeWork(last, self.new_change(one.change.decoding)))
                self._last_decoding = one.change.decoding
                self._num_changes += 1
            elif one.finalize is not None:
                if one.finalize.rest.ndim != 1 or not one.finalize.requests:
                    raise ValueError("a finalize without sound or request")
                self._due.append(FinalizeWork(one.finalize, self._config))
                self._num_requests += 1


def _due_state(work: FinalizeWork | ChangeWork) -> _DueState:
    if isinstance(work, FinalizeWork):
        return _DueState(work.state, None)
    return _DueState(None, work.state)
