"""When somebody begins to speak, has probably finished, speaks on after all, and has finished.

Told from the pause heads of the model where it has them, else from how long nothing was heard; and
from the text in both cases. Pure: frames in, events out; no sound, no clock, no input, no output.

A turn begins with text and nothing else: noises and clicks, which the heads and the energy take for
speech, begin none. It ends when the evidence for a pause has stood long enough and the text of all
that was said before the pause has come, which is up to the model's delay later; whoever forces the
text out says so with `finalized` and need not wait. Where the text looks unfinished
(`kiku.text.unfinished`) the wait is longer. Every wait has a bound: `TurnPolicy.longest_s`.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kiku.config import MAX_STREAM_FRAMES
from kiku.errors import ConfigError, InputError, StreamError
from kiku.options import TurnPolicy
from kiku.serial import from_plain, to_plain
from kiku.text.turn_events import TurnEnd, TurnEndEager, TurnEvent, TurnResumed, TurnStart
from kiku.text.unfinished import unfinished
from kiku.text.words import Word

_SLACK_FRAMES = 2
"""Frames by which text may come later than the delay says: a word is decided by the frame after
it, and a marker may stand before the next."""

_ROUNDING_S = 1e-6
"""By which sums of times may be off."""

_WORDS_READ = 40
"""How many of the last words tell whether a turn is unfinished."""


@dataclass(slots=True)
class _Memory:
    """All that an `Endpointer` remembers, in plain values."""

    num_frames: int = 0
    time: float = 0.0
    """Heard so far."""
    event_time: float = 0.0
    """Of the last start or end; the next start is not before it."""
    noise_db: float | None = None
    sound_at: float = 0.0
    """The later of two: the end of the last frame that was not quiet, and the time of which the
    latest text speaks."""
    text_at: float = 0.0
    """When text last came."""
    complete_to: float = -1.0
    """Up to where text was forced out."""
    eager_signal: float = 0.0
    signal: float = 0.0
    """Evidence for an eager end, and for an end: from 0 to 1."""
    eager_since: float | None = None
    since: float | None = None
    """From when that evidence has been enough."""
    pause_at: float = 0.0
    """Where in the sound the pause began, if there is one."""
    in_turn: bool = False
    is_eager: bool = False
    """An eager end was told and not taken back."""
    word_open: bool = False
    words: tuple[Word, ...] = ()
    """The last of this turn; filled in only where it is saved."""


class Endpointer:
    """Finds the turns of one stream, frame by frame.

    Events come in the order `(start (eager resumed)* eager? end)*`, with times that never decrease.
    """

    def __init__(
        self,
        policy: TurnPolicy,
        *,
        frame_rate: float,
        delay_s: float,
        channel: int | None = None,
    ) -> None:
        """Stand before the first frame of a stream.

        Args:
            policy: when a pause is an end.
            frame_rate: frames per second.
            delay_s: seconds by which text lags sound.
            channel: which channel of the sound the turns are of; None where all are mixed.

        Raises:
            ConfigError: a rate or a delay that cannot be.
        """
        if not (0 < frame_rate < math.inf and 0 <= delay_s < math.inf):
            raise ConfigError(
                f"frame_rate must be above 0 and delay_s at least 0, not {frame_rate} and {delay_s}"
            )
        self._policy = policy
        self._frame_s = 1 / frame_rate
        self._delay_s = delay_s
        self._channel = channel
        self._rise_db = policy.rise_db_s * self._frame_s
        self._weight = 1 - 0.5 ** (self._frame_s / policy.half_life_s)
        self._memory = _Memory()
        self._words: deque[Word] = deque(maxlen=_WORDS_READ)
        self._patience: float | None = None  # what `_patience_s` gave of these words

    @property
    def in_turn(self) -> bool:
        """Whether a turn has started and not ended."""
        return self._memory.in_turn

    @property
    def words(self) -> tuple[Word, ...]:
        """The last words of this turn, as many as tell whether it is unfinished; between turns,
        those of the last one."""
        return tuple(self._words)

    @property
    def wants_text(self) -> bool:
        """Whether there seems to be a pause in a turn, and the text of what was said before it has
        not all come: who can force text out and then calls `finalized` has the end sooner."""
        memory = self._memory
        return memory.in_turn and memory.eager_since is not None and not self._text_is_complete()

    def push(
        self,
        time: float,
        pauses: Sequence[float] | None,
        level_db: float,
        words: Sequence[Word] = (),
        word_open: bool = False,
    ) -> list[TurnEvent]:
        """What the next frame tells of turns: most often nothing.

        Args:
            time: seconds of the source that were heard, the end of this frame, as words count
                them. Below 0 it counts as 0: that is the silence which some models are given
                before the sound.
            pauses: [H] what the pause heads say, from 0 to 1; None where the model has none.
            level_db: energy of the frame's sound, dBFS.
            words: decided in this frame, in order.
            word_open: whether pieces of a word have come that is not decided yet
                (`WordBuilder.partial`).

        Raises:
            InputError: a time that is not finite or lies before the last one.
        """
        self._advance(time)
        memory = self._memory
        memory.num_frames += 1
        # Text comes in few frames, and most are of no turn: they cost a few comparisons.
        events: list[TurnEvent] = []
        if words or (word_open and not memory.word_open):
            events = self._read(words)
        memory.word_open = word_open
        self._hear(level_db)
        if pauses is not None and len(pauses):
            self._heed(pauses)
        else:
            self._wait()
        if memory.in_turn:
            events += self._decide()
        return events

    def finalized(self, time: float, words: Sequence[Word] = ()) -> list[TurnEvent]:
        """Take note that the text of all sound up to `time` is there, since it was forced out.

        Args:
            time: seconds of the source.
            words: those that came with it and were not pushed.

        Raises:
            InputError: a time that is not finite.
        """
        if not math.isfinite(time):
            raise InputError(f"text cannot be complete up to {time} s; give a second of the source")
        self._advance(max(time, self._memory.time))
        self._memory.complete_to = time
        self._memory.word_open = False
        events = self._read(words) if words else []
        return events + self._decide() if self._memory.in_turn else events

    def finish(self, time: float) -> list[TurnEvent]:
        """The stream ends at `time`, and an open turn with it.

        Raises:
            InputError: a time that is not finite.
        """
        self._advance(max(time, self._memory.time))
        return [self._end(1.0)] if self._memory.in_turn else []

    def save(self) -> dict[str, Any]:
        """All that is remembered, in values for JSON."""
        return to_plain(replace(self._memory, words=tuple(self._words)))

    def restore(self, values: Mapping[str, Any]) -> None:
        """Go on exactly where `save` was called, with the same policy, rate and delay.

        Raises:
            StreamError: not something that `save` gave.
        """
        memory = from_plain(_Memory, values, what="the saved turns", error=StreamError)
        marks = (memory.event_time, memory.sound_at, memory.text_at, memory.complete_to)
        since = [at for at in (memory.eager_since, memory.since) if at is not None]
        if not (
            0 <= memory.num_frames <= MAX_STREAM_FRAMES
            and memory.event_time >= 0
            and max(*marks, memory.pause_at, *since) <= memory.time
            and (memory.in_turn or not memory.is_eager)
        ):
            raise StreamError(
                "the saved turns cannot be read: their times do not fit one another "
                f"({replace(memory, words=())}); open a fresh stream"
            )
        self._words, memory.words = deque(memory.words, _WORDS_READ), ()
        self._memory, self._patience = memory, None

    def _advance(self, time: float) -> None:
        memory = self._memory
        if memory.time <= time < math.inf:  # `memory.time` is never below 0
            memory.time = float(time)
        elif not math.isfinite(time) or memory.time > 0:
            raise InputError(
                f"frames come in order: {time} s cannot follow {memory.time} s; give the end of "
                "each frame in the source"
            )

    def _read(self, words: Sequence[Word]) -> list[TurnEvent]:
        """Take what text came, words or a beginning: it begins a turn, or takes an eager end
        back."""
        memory = self._memory
        spoken_at = memory.time - self._delay_s
        if words:  # that were forced out speak of later sound
            spoken_at = max(spoken_at, min(words[-1].end, memory.time))
        events: list[TurnEvent] = []
        if memory.is_eager:
            events.append(self._resume())
        if not memory.in_turn:
            start = words[0].start if words else spoken_at
            memory.event_time = max(memory.event_time, min(start, memory.time))
            memory.in_turn = True
            self._words.clear()
            events.append(TurnStart(memory.event_time, self._channel))
        self._words += words
        self._patience = None
        memory.text_at = memory.time
        # What was spoken there was no pause, whatever the heads and the energy said.
        memory.sound_at = max(memory.sound_at, spoken_at)
        if memory.eager_since is not None:
            memory.eager_since = max(memory.eager_since, spoken_at)
        if memory.since is not None:
            memory.since = max(memory.since, spoken_at)
        return events

    def _hear(self, level_db: float) -> None:
        """Follow the noise, which is what the quietest frames have, and note what is louder."""
        memory = self._memory
        quiet_db, noise_db = self._policy.quiet_db, memory.noise_db
        level_db = level_db if level_db > quiet_db else quiet_db  # in this order: NaN is quiet
        if noise_db is not None:
            noise_db += self._rise_db
        if noise_db is None or level_db < noise_db:
            noise_db = level_db
        memory.noise_db = noise_db
        if level_db > noise_db + self._policy.margin_db:
            memory.sound_at = memory.time

    def _heed(self, pauses: Sequence[float]) -> None:
        """Evidence from the heads."""
        memory, policy = self._memory, self._policy
        if memory.num_frames <= policy.ignored_frames:
            return
        on, off, weight, last = policy.on, policy.off, self._weight, len(pauses) - 1
        # A pause of 3 s is one of 2 s as well. Where the maximum is NaN, nothing is known anew.
        eager, signal = memory.eager_signal, memory.signal
        eager_head, head = policy.eager_head, policy.head
        now = float(max(pauses[eager_head if eager_head < last else last :]))
        if now == now:
            memory.eager_signal = eager = eager + weight * (now - eager)
        if head != eager_head:
            now = float(max(pauses[head if head < last else last :]))
        if now == now:
            memory.signal = signal = signal + weight * (now - signal)
        if signal < off:
            memory.since = None
        elif signal > on and memory.since is None:
            memory.since = memory.time
        if eager < off:
            memory.eager_since = None
            return
        if eager > on and memory.eager_since is None:
            memory.eager_since = memory.time
        if memory.eager_since is not None:
            # The heads take a while to be sure; where it is quiet, the energy knows since when.
            memory.pause_at = min(memory.eager_since, memory.sound_at)

    def _wait(self) -> None:
        """Evidence from quiet, and from the absence of text where it is never quiet."""
        memory, policy = self._memory, self._policy
        time = memory.time
        memory.pause_at = memory.sound_at
        if time - memory.text_at >= policy.text_silence_s:
            memory.signal = memory.eager_signal = 1.0
            memory.pause_at = min(memory.sound_at, memory.text_at - self._delay_s)
            is_eager = is_end = True
        else:
            quiet_s, silence_s = time - memory.sound_at, policy.silence_s
            is_eager, is_end = quiet_s >= policy.eager_silence_s, quiet_s >= silence_s
            memory.signal = memory.eager_signal = 1.0 if is_end else quiet_s / silence_s
        if not is_eager:
            memory.eager_since = None
        elif memory.eager_since is None:
            memory.eager_since = time
        if not is_end:
            memory.since = None
        elif memory.since is None:
            memory.since = time

    def _text_is_complete(self) -> bool:
        """Whether all text of the sound before the pause has come."""
        memory = self._memory
        late = memory.pause_at + self._delay_s + _SLACK_FRAMES * self._frame_s
        return memory.pause_at <= memory.complete_to or memory.time >= late - _ROUNDING_S

    def _decide(self) -> list[TurnEvent]:
        """What the evidence means for the turn that is open."""
        memory, policy = self._memory, self._policy
        time, since, eager_since = memory.time, memory.since, memory.eager_since
        if time >= memory.text_at + policy.longest_s:
            return [self._end(memory.signal)]
        if eager_since is None and memory.is_eager:
            return [self._resume()]
        is_end = since is not None and time >= since + policy.hold_s - _ROUNDING_S
        is_new = eager_since is not None and not memory.is_eager
        if not (is_end or is_new) or memory.word_open or not self._text_is_complete():
            return []
        # Where the text looks unfinished, the pause must be a long one.
        if time < memory.pause_at + self._patience_s() - _ROUNDING_S:
            return []
        if is_end:
            return [self._end(memory.signal)]
        memory.is_eager = True
        return [TurnEndEager(time, memory.eager_signal, self._channel)]

    def _patience_s(self) -> float:
        """How long a pause the text asks for; worked out once for the same words."""
        if self._patience is None:
            found = unfinished([word.text for word in self._words])
            waits = {None: 0.0, "number": self._policy.number_s, "word": self._policy.word_s}
            self._patience = waits[found]
        return self._patience

    def _resume(self) -> TurnResumed:
        self._memory.is_eager = False
        return TurnResumed(self._memory.time, self._channel)

    def _end(self, probability: float) -> TurnEnd:
        memory = self._memory
        memory.in_turn = memory.is_eager = False
        memory.event_time = memory.time
        return TurnEnd(memory.time, probability, self._channel)
