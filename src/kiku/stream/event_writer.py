"""The way out of a session: from the model's output for each frame to the client's events.

Runs in the driver's thread; the client's thread only takes events from the other end of their
deque.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from kiku.audio import HEARD_DB, StreamWarning
from kiku.stream.emitter import WordEmitter
from kiku.stream.events import End, Event, Finalized, Pause, WordEnd, event_from_dict
from kiku.stream.frame_source import FrameSource
from kiku.stream.recovery import RecoveryTracker, Redecode
from kiku.stream.session_setup import SessionSetup
from kiku.stream.session_state import SessionState
from kiku.stream.turn_tracker import TurnTracker
from kiku.stream.work import FinalizeWork, Tokens
from kiku.text import Timing, Word, WordBuilder

_LEVELS = 64
"""Frames whose loudness is kept for a finalize: 5 s."""

_WORDLESS_S = 1.0
"""Seconds of frames that were loud enough for speech: after as many without a word the end brings a
"no_words" warning."""

_PAUSE_HEAD = 2
"""The head of a pause of 2 s, which Kyutai's own services go by."""


class EventWriter:
    """Writes the events of one session: words, pauses, turns, warnings, and the end."""

    __slots__ = (
        "_setup", "_source", "_writes_each_frame", "emitter", "events", "heard_s", "levels",
        "num_loud", "tracker", "turns", "warned_at",
    )  # fmt: skip

    def __init__(self, setup: SessionSetup, source: FrameSource) -> None:
        """Stand before the first token.

        Args:
            setup: what the session is made of.
            source: gives the frames that the tokens are of; times and warnings are read from it.
        """
        config, options = setup.config, setup.options
        self._setup, self._source = setup, source
        self.events: deque[Event] = deque()
        """Events that were not fetched, the oldest first."""
        timing = Timing(
            config.frame_rate, config.text_delay_s, setup.prefix_s, offset_s=source.input.start_s
        )
        builder = WordBuilder(
            setup.vocabulary,
            timing,
            pad_id=config.pad_id,
            word_start_id=config.word_start_id,
            channel=setup.channel,
            calibration=options.calibration,
        )
        self.emitter = WordEmitter(builder)
        self.tracker = RecoveryTracker(
            options.recovery_policies,
            frame_rate=config.frame_rate,
            delay_s=config.text_delay_s,
            window=config.lm.transformer.window,
        )
        self.turns = TurnTracker(setup)
        self._writes_each_frame = self.turns.endpointer is not None or options.pauses
        self.levels: deque[float] = deque(maxlen=_LEVELS)
        """Loudness of the last frames that were heard, dBFS."""
        self.num_loud = 0
        """Frames that were heard and loud enough for words."""
        self.warned_at = 0.0
        """Time of the latest warning."""
        self.heard_s = 0.0
        """See `WordSession.heard_s`."""

    @property
    def now(self) -> float:
        """Second of the sound up to which the model has spoken."""
        setup, source = self._setup, self._source
        num_heard = self.emitter.builder.num_tokens - 1
        now = num_heard * setup.frame_s - setup.prefix_s + source.input.start_s
        return min(now, source.end_s) if source.closed else now

    @property
    def _latest(self) -> float:
        """Second at which a word may end at the latest: text lags, so that of the last words may
        come after the end of the sound."""
        return self._source.end_s if self._source.closed else math.inf

    def begin(self, token: int, logprob: float) -> None:
        """Take the token that the model gives before the first frame."""
        self._write_words(self.emitter.push(token, logprob, latest=math.inf))

    def accept(
        self,
        tokens: Sequence[int],
        logprobs: Sequence[float],
        levels: Sequence[float],
        pauses: Sequence[Sequence[float]] | None,
    ) -> None:
        """Take the model's output for the frames taken last; see `WordSession.accept`."""
        pad_id, tracker, builder = self._setup.config.pad_id, self.tracker, self.emitter.builder
        warnings, turns = self._source.warnings, self.turns
        for i, token in enumerate(tokens):
            level = levels[i]
            self.levels.append(level)
            if level >= HEARD_DB:
                self.num_loud += 1
            heads = None if pauses is None else pauses[i]
            pause = None if heads is None else heads[min(_PAUSE_HEAD, len(heads) - 1)]
            if token == pad_id and builder.pass_pad():  # nine frames in ten
                words, word_open = (), False
                tracker.add(False, level, pause)
            else:
                words, word_open = self._read(token, logprobs[i])
                tracker.add(self._setup.vocabulary.is_text(token), level, pause)
            if self._writes_each_frame or warnings or turns.late:
                self._write_frame(level, heads, words, word_open)

    def _read(self, token: int, logprob: float) -> tuple[Sequence[Word], bool]:
        """The words that a token ends, and whether one is open; both are written."""
        emitter, options, latest = self.emitter, self._setup.options, self._latest
        words = emitter.push(token, logprob, latest=latest)
        if words:
            self._write_words(words)
        if self.turns.endpointer is None and not options.partials:
            return words, False
        partial = emitter.partial(latest=latest)
        if partial is not None and options.partials and self._setup.vocabulary.is_text(token):
            self.events.append(partial)
        return words, partial is not None

    def _write_frame(
        self, level: float, heads: Sequence[float] | None, words: Sequence[Word], word_open: bool
    ) -> None:
        """Write the warnings, the pause and the turns that come after a frame."""
        now, warnings = self.now, self._source.warnings
        if now <= self._source.input.start_s:
            return  # this is the silence that is put before the sound
        # What begins at the end of this frame may not have been pushed yet: it is reported after
        # the next one, whether it was or not.
        while warnings and warnings[0].time < now:
            self._warn(warnings.popleft())
        if self._setup.options.pauses and heads is not None:
            self.events.append(Pause(now, tuple(heads), self._setup.channel))
        self.events += self.turns.push(now, heads, level, words, word_open)

    def _write_words(self, words: Sequence[Word]) -> None:
        for word in words:
            self.events.append(word)
            self.events.append(WordEnd(word.end, self._setup.channel))
            self.tracker.word(word.text, word.start)

    def _warn(self, warning: StreamWarning) -> None:
        self.warned_at = max(self.warned_at, warning.time)
        self.events.append(replace(warning, time=self.warned_at, channel=self._setup.channel))

    def note_heard(self) -> None:
        """Report the sound of the written events as heard."""
        # Only after the events are written: a client that reads `heard_s` first and the events then
        # has every event of that sound.
        now = self.now
        if now > self.heard_s:
            self.heard_s = now

    def redecoded(self, action: Redecode, tokens: Tokens) -> None:
        """Write what is new in the last frames after they were decoded again, and why they were."""
        self._warn(StreamWarning(action.kind, action.message, max(0.0, self.now)))
        words = self.emitter.redecoded(*tokens)
        self._write_words(words)
        self.turns.late += words
        self.tracker.done(action, len(tokens[0]))

    def finalized(self, work: FinalizeWork) -> None:
        """Write the words that a finalize found, and its answers."""
        words, open_word = work.result(self.levels)
        words, open_word = self.emitter.finalized(words, open_word, latest=work.state.time)
        self._write_words(words)
        self.events += self.turns.finalized(work.time, words)
        for request in work.state.requests:
            self.events.append(Finalized(work.time, open_word, request.tag, self._setup.channel))

    def finish_word(self) -> list[Word]:
        """Write the word that is open, if there is one."""
        words = self.emitter.finish(latest=self._latest)
        self._write_words(words)
        return words

    def finish(self, *, is_cut: bool) -> None:
        """Write the last word, all that waits, and `End`."""
        words = self.finish_word()
        warnings, input = self._source.warnings, self._source.input
        while warnings:
            self._warn(warnings.popleft())
        loud_s = self.num_loud * self._setup.frame_s
        if loud_s >= _WORDLESS_S and self.emitter.is_fresh and input.checks and not is_cut:
            self._warn(_no_words(loud_s, max(0.0, self.now)))
        self.events += self.turns.finish(self.now, words)
        self.events.append(End(self._source.duration))

    def restore(self, state: SessionState) -> None:
        """Go on where the state was saved; the source has been restored before."""
        self.emitter.restore(state.emitter)
        self.tracker.restore(state.tracker)
        self.turns.restore(state.endpointer, state.turn_time, state.late)
        self.levels.extend(state.levels)
        self.num_loud, self.warned_at = state.num_loud, state.warned_at
        self.events.extend(map(event_from_dict, state.events))
        self.note_heard()


def _no_words(loud_s: float, time: float) -> StreamWarning:
    return StreamWarning(
        "no_words",
        f"no word was recognised in {loud_s:.1f} seconds of sound: check that somebody speaks in "
        "it, in a language of the model, and that the sound has the sample rate that was declared",
        time,
    )
