"""Finds the turns of a speaker: where one starts, has probably ended, resumes, and has ended.

The evidence is the model's pause heads, or the length of the silence if it has none; and the text
in both cases. Pure: frames in, events out; no sound, no clock, no input, no output.

Only text starts a turn: noises and clicks, which the heads and the energy take for speech, do not.
A turn ends when the evidence for a pause has lasted long enough, and the text of everything before
the pause has come, which is up to the model's delay later. A caller that forces the text out calls
`finalized`, and the end does not wait for the delay. If the text looks unfinished
(`kiku.text.unfinished`), the wait is longer. Every wait has a bound: `TurnPolicy.longest_s`.
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
"""Frames by which text may come later than the model's delay: a word is decided by the frame after
it, and there may be a marker before the next word."""

_ROUNDING_S = 1e-6
"""Seconds by which sums of times may be wrong through rounding."""

_WORDS_READ = 40
"""How many of the last words are read to decide whether a turn is unfinished."""


@dataclass(slots=True)
class _Memory:
    """The whole state of an `Endpointer`, in plain values."""

    num_frames: int = 0
    time: float = 0.0
    """Seconds of the source that were heard."""
    event_time: float = 0.0
    """Time of the last start or end; the next start is not before it."""
    noise_db: float | None = None
    """Level of the noise, dBFS; None before the first frame."""
    sound_at: float = 0.0
    """The later of two times: the end of the last frame that was not quiet, and the place in the
    sound of the latest text."""
    text_at: float = 0.0
    """Time at which text last came."""
    complete_to: float = -1.0
    """Second up to which all text was forced out."""
    eager_signal: float = 0.0
    """Evidence for an eager end, from 0 to 1."""
    signal: float = 0.0
    """Evidence for an end, from 0 to 1."""
    eager_since: float | None = None
    """Time since which the evidence for an eager end has been strong enough; None if it is not."""
    since: float | None = None
    """Time since which the evidence for an end has been strong enough; None if it is not."""
    pause_at: float = 0.0
    """Second of the source at which the pause began, if there is one."""
    in_turn: bool = False
    is_eager: bool = False
    """Whether an eager end was given out and has not been taken back."""
    word_open: bool = False
    words: tuple[Word, ...] = ()
    """The last words of this turn; only set where the state is saved."""


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
        """Prepare for the first frame of a stream.

        Args:
            policy: which pauses end a turn.
            frame_rate: frames per second.
            delay_s: seconds by which text lags sound.
            channel: the channel of the sound that has the turns; None where all are mixed.

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
        self._patience: float | None = None  # the result of `_patience_s` for these words

    @property
    def in_turn(self) -> bool:
        """Whether a turn has started and not ended."""
        return self._memory.in_turn

    @property
    def words(self) -> tuple[Word, ...]:
        """The last words of this turn, up to the number that decides whether it is unfinished;
        between turns, the last words of the turn before."""
        return tuple(self._words)

    @property
    def wants_text(self) -> bool:
        """Whether there seems to be a pause in a turn, and the text from before the pause is not
        complete. A caller that forces the text out and then calls `finalized` gets the end sooner.
        """
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
        """Take the next frame; returns the events that follow from it, most often none.

        Args:
            time: the end of this frame in seconds of the source, as for words. A time below 0
                counts as 0: it belongs to the silence that some models get before the sound.
            pauses: [H] outputs of the pause heads, from 0 to 1; None where the model has none.
            level_db: energy of the frame's sound, dBFS.
            words: the words that were decided in this frame, in order.
            word_open: whether there are pieces of a word that is not decided yet
                (`WordBuilder.partial`).

        Raises:
            InputError: a time that is not finite or lies before the last one.
        """
        self._advance(time)
        memory = self._memory
        memory.num_frames += 1
        # Text comes in few frames, and most frames belong to no turn: these cost a few comparisons.
        events: list[TurnEvent] = []
        if words or (word_open and not memory.word_open):
            events = self._take_text(words)
        memory.word_open = word_open
        self._follow_noise(level_db)
        if pauses is not None and len(pauses):
            self._weigh_heads(pauses)
        else:
            self._weigh_silence()
        if memory.in_turn:
            events += self._decide()
        return events

    def finalized(self, time: float, words: Sequence[Word] = ()) -> list[TurnEvent]:
        """Take note that the text of all sound up to `time` was forced out.

        Args:
            time: second of the source.
            words: the words that came out by that and were not pushed.

        Raises:
            InputError: a time that is not finite.
        """
        if not math.isfinite(time):
            raise InputError(f"text cannot be complete until {time} s; give a second of the source")
        self._advance(max(time, self._memory.time))
        self._memory.complete_to = time
        self._memory.word_open = False
        events = self._take_text(words) if words else []
        return events + self._decide() if self._memory.in_turn else events

    def finish(self, time: float) -> list[TurnEvent]:
        """End the stream at `time`, and an open turn with it.

        Raises:
            InputError: a time that is not finite.
        """
        self._advance(max(time, self._memory.time))
        return [self._end(1.0)] if self._memory.in_turn else []

    def save(self) -> dict[str, Any]:
        """The whole state, in values for JSON."""
        return to_plain(replace(self._memory, words=tuple(self._words)))

    def restore(self, values: Mapping[str, Any]) -> None:
        """Go on exactly where `save` was called, with the same policy, rate and delay.

        Raises:
            StreamError: the values are not from `save`.
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
                "the saved turns cannot be read: their times do not match each other "
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
                f"frames must come in order, but {time} s follows {memory.time} s; give the end "
                "of each frame in the source"
            )

    def _take_text(self, words: Sequence[Word]) -> list[TurnEvent]:
        """Take text that came, words or the beginning of one. It starts a turn, or takes an eager
        end back."""
        memory = self._memory
        spoken_at = memory.time - self._delay_s
        if words:  # words that were forced out belong to later sound
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
        # Where a word was spoken, there was no pause, whatever the heads and the energy showed.
        memory.sound_at = max(memory.sound_at, spoken_at)
        if memory.eager_since is not None:
            memory.eager_since = max(memory.eager_since, spoken_at)
        if memory.since is not None:
            memory.since = max(memory.since, spoken_at)
        return events

    def _follow_noise(self, level_db: float) -> None:
        """Follow the level of the noise, which is that of the quietest frames, and note when a
        frame is louder."""
        memory = self._memory
        quiet_db, noise_db = self._policy.quiet_db, memory.noise_db
        level_db = level_db if level_db > quiet_db else quiet_db  # so that NaN counts as quiet
        if noise_db is not None:
            noise_db += self._rise_db
        if noise_db is None or level_db < noise_db:
            noise_db = level_db
        memory.noise_db = noise_db
        if level_db > noise_db + self._policy.margin_db:
            memory.sound_at = memory.time

    def _weigh_heads(self, pauses: Sequence[float]) -> None:
        """Update the evidence from the pause heads."""
        memory, policy = self._memory, self._policy
        if memory.num_frames <= policy.ignored_frames:
            return
        on, off, weight, last = policy.on, policy.off, self._weight, len(pauses) - 1
        # A pause of 3 s is one of 2 s as well. If the maximum is NaN, the evidence stays as it is.
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
            # The heads need a while; where it is quiet, the energy shows when the pause began.
            memory.pause_at = min(memory.eager_since, memory.sound_at)

    def _weigh_silence(self) -> None:
        """Update the evidence from silence, and from the absence of text if it is never quiet."""
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
        """The events that follow from the evidence for the turn that is open."""
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
        # If the text looks unfinished, the pause must be longer.
        if time < memory.pause_at + self._patience_s() - _ROUNDING_S:
            return []
        if is_end:
            return [self._end(memory.signal)]
        memory.is_eager = True
        return [TurnEndEager(time, memory.eager_signal, self._channel)]

    def _patience_s(self) -> float:
        """Seconds that a pause must last because of the text; computed once for the same words."""
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
