"""When somebody begins to speak, has probably finished, speaks on after all, and has finished.

Told from the pause heads of the model where it has them, else from how long nothing was heard; and
from the text in both cases. Pure: frames in, events out; no sound, no clock, no input, no output.

A turn begins with text and nothing else: noises and clicks, which the heads and the energy take for
speech, begin none. It ends when the evidence for a pause has stood long enough and the text of all
that was said before the pause has come, which is up to the model's delay later; whoever forces the
text out says so with `finalized` and need not wait. Where the text looks unfinished
(`kiku.text.guards`) the wait is longer. Every wait has a bound: `TurnPolicy.longest_s`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, cast

from kiku.errors import ConfigError, InputError
from kiku.text.guards import unfinished
from kiku.text.turn_policy import TurnPolicy
from kiku.text.words import Word

_SLACK_FRAMES = 2
"""Frames by which text may come later than the delay says: a word is decided by the frame after
it, and a marker may stand before the next."""

_ROUNDING_S = 1e-6
"""By which sums of times may be off."""

_WORDS_READ = 40
"""How many of the last words tell whether a turn is unfinished."""


@dataclass(frozen=True, slots=True)
class TurnFrame:
    """What was heard in one frame, and the text that came with it."""

    time: float
    """Seconds of the stream that were heard: the end of this frame. Below 0 it counts as 0: that is
    the silence which some models are given before the sound."""
    pauses: Sequence[float] | None
    """[H] what the pause heads say, from 0 to 1; None where the model has none."""
    level_db: float
    """Energy of the frame's sound, dBFS."""
    words: Sequence[Word] = ()
    """Decided in this frame, in order."""
    word_open: bool = False
    """Whether pieces of a word have come that is not decided yet (`WordBuilder.partial`)."""


@dataclass(frozen=True, slots=True)
class TurnStart:
    """Somebody speaks: the first word has begun. `time` is where in the sound, so it lies before
    what was heard when this is given out; but never before an earlier event."""

    time: float


@dataclass(frozen=True, slots=True)
class TurnEndEager:
    """The turn has probably ended, and all its text is there. A `TurnResumed` or the `TurnEnd`
    follows; if it is the end, then with exactly the text that is there now."""

    time: float
    """Seconds that had been heard."""
    probability: float
    """That this is a pause: what the head says; without heads, how much of the silence that makes
    an end was heard."""


@dataclass(frozen=True, slots=True)
class TurnResumed:
    """The last `TurnEndEager` was wrong: text came, or the pause is over."""

    time: float
    """Seconds that had been heard."""


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """The turn is over, and its text does not change any more. Not always is there a
    `TurnEndEager` before. The next event is a `TurnStart`."""

    time: float
    """Seconds that had been heard."""
    probability: float
    """As in `TurnEndEager`; 1 where the stream was closed."""


TurnEvent = TurnStart | TurnEndEager | TurnResumed | TurnEnd


@dataclass(slots=True)
class _Memory:
    """All that `Turns` remembers besides the words: plain values, so that they can be written
    down."""

    num_frames: int = 0
    time: float = 0.0
    """Heard so far."""
    event_time: float = 0.0
    """Of the last event."""
    noise_db: float | None = None
    sound_at: float = 0.0
    """Where it was last not quiet, or what the last text speaks of if that is later."""
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


class Turns:
    """Finds the turns of one stream, frame by frame.

    Events come in the order `(start (eager resumed)* eager? end)*`, with times that never decrease.
    """

    def __init__(self, policy: TurnPolicy, *, frame_rate: float, delay_s: float) -> None:
        """Stand before the first frame of a stream.

        Args:
            policy: when a pause is an end.
            frame_rate: frames per second.
            delay_s: seconds by which text lags sound.

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
        self._weight = 1 - 0.5 ** (self._frame_s / policy.half_life_s)
        self._memory = _Memory()
        self._words: list[Word] = []

    @property
    def in_turn(self) -> bool:
        """Whether a turn has started and not ended."""
        return self._memory.in_turn

    @property
    def words(self) -> tuple[Word, ...]:
        """The words of this turn so far; between turns, those of the last one."""
        return tuple(self._words)

    @property
    def wants_text(self) -> bool:
        """Whether there seems to be a pause in a turn, and the text of what was said before it has
        not all come: who can force text out and then calls `finalized` has the end sooner."""
        memory = self._memory
        return memory.in_turn and memory.eager_since is not None and not self._text_is_complete()

    def push(self, frame: TurnFrame) -> list[TurnEvent]:
        """Take the next frame; return what it tells, most often nothing.

        Raises:
            InputError: a time that is not finite or lies before the last one.
        """
        self._advance(frame.time)
        memory = self._memory
        memory.num_frames += 1
        opened = frame.word_open and (bool(frame.words) or not memory.word_open)
        memory.word_open = frame.word_open
        events = self._read(frame.words, opened=opened)
        self._hear(frame.level_db)
        if frame.pauses is not None and len(frame.pauses):
            self._heed(frame.pauses)
        else:
            self._wait()
        return events + self._decide()

    def finalized(self, time: float, words: Sequence[Word] = ()) -> list[TurnEvent]:
        """Take note that the text of all sound up to `time` is there, since it was forced out.

        Args:
            time: seconds of the stream.
            words: those that came with it and were not pushed.

        Raises:
            InputError: see `push`.
        """
        self._advance(max(time, self._memory.time))
        self._memory.complete_to = time
        self._memory.word_open = False
        return self._read(words, opened=False) + self._decide()

    def finish(self, time: float) -> list[TurnEvent]:
        """The stream ends at `time`, and an open turn with it.

        Raises:
            InputError: see `push`.
        """
        self._advance(max(time, self._memory.time))
        return [self._end(1.0)] if self._memory.in_turn else []

    def save(self) -> dict[str, Any]:
        """All that is remembered, as JSON can hold it."""
        words = [[w.text, w.start, w.end, w.probability] for w in self._words]
        return asdict(self._memory) | {"words": words}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on exactly where `save` was called, on turns of the same policy, rate and delay.

        Raises:
            InputError: not something that `save` gave.
        """
        names = {field.name for field in fields(_Memory)}
        if wrong := set(saved) ^ (names | {"words"}):
            raise InputError(
                "these are no saved turns of this version: they differ in "
                + ", ".join(sorted(wrong))
            )
        words = cast("Sequence[tuple[str, float, float, float]]", saved["words"])
        self._words = [Word(*word) for word in words]
        self._memory = _Memory(**{name: saved[name] for name in names})

    def _advance(self, time: float) -> None:
        memory = self._memory
        if not math.isfinite(time) or max(time, 0.0) < memory.time:
            raise InputError(f"frames come in order: {time} s cannot follow {memory.time} s")
        memory.time = max(float(time), 0.0)

    def _read(self, words: Sequence[Word], *, opened: bool) -> list[TurnEvent]:
        """Take what text came: it begins a turn, or takes an eager end back."""
        if not words and not opened:
            return []
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
            self._words = []
            events.append(TurnStart(memory.event_time))
        self._words += words
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
        memory, policy = self._memory, self._policy
        level = max(policy.quiet_db, level_db)  # in this order: NaN is quiet
        if memory.noise_db is None or level < memory.noise_db:
            memory.noise_db = level
        else:
            memory.noise_db = min(level, memory.noise_db + policy.rise_db_s * self._frame_s)
        if level > memory.noise_db + policy.margin_db:
            memory.sound_at = memory.time

    def _heed(self, pauses: Sequence[float]) -> None:
        """Evidence from the heads."""
        memory, policy = self._memory, self._policy
        if memory.num_frames <= policy.ignored_frames:
            return
        memory.eager_signal = self._smooth(memory.eager_signal, pauses, policy.eager_head)
        memory.signal = self._smooth(memory.signal, pauses, policy.head)
        memory.eager_since = self._held(memory.eager_since, memory.eager_signal)
        memory.since = self._held(memory.since, memory.signal)
        if memory.eager_since is not None:
            # The heads take a while to be sure; where it is quiet, the energy knows since when.
            memory.pause_at = min(memory.eager_since, memory.sound_at)

    def _smooth(self, before: float, pauses: Sequence[float], head: int) -> float:
        # A pause of 3 s is one of 2 s as well.
        now = max(float(pause) for pause in pauses[min(head, len(pauses) - 1) :])
        return before if math.isnan(now) else before + self._weight * (now - before)

    def _held(self, since: float | None, signal: float) -> float | None:
        if signal > self._policy.on:
            return self._from_now(since)
        return None if signal < self._policy.off else since

    def _from_now(self, since: float | None) -> float:
        return self._memory.time if since is None else since

    def _wait(self) -> None:
        """Evidence from quiet, and from the absence of text where it is never quiet."""
        memory, policy = self._memory, self._policy
        quiet_s, textless_s = memory.time - memory.sound_at, memory.time - memory.text_at
        by_text = textless_s >= policy.text_silence_s
        memory.signal = 1.0 if by_text else min(1.0, quiet_s / policy.silence_s)
        memory.eager_signal = memory.signal
        memory.pause_at = memory.sound_at
        if by_text:
            memory.pause_at = min(memory.pause_at, memory.text_at - self._delay_s)
        eager = by_text or quiet_s >= policy.eager_silence_s
        memory.eager_since = self._from_now(memory.eager_since) if eager else None
        end = by_text or quiet_s >= policy.silence_s
        memory.since = self._from_now(memory.since) if end else None

    def _text_is_complete(self) -> bool:
        """Whether all text of the sound before the pause has come."""
        memory = self._memory
        late = memory.pause_at + self._delay_s + _SLACK_FRAMES * self._frame_s
        return memory.pause_at <= memory.complete_to or memory.time >= late - _ROUNDING_S

    def _decide(self) -> list[TurnEvent]:
        memory, policy = self._memory, self._policy
        if not memory.in_turn:
            return []
        if memory.time >= memory.text_at + policy.longest_s:
            return [self._end(memory.signal)]
        if memory.eager_since is None and memory.is_eager:
            return [self._resume()]
        if memory.word_open or not self._text_is_complete():
            return []
        # Where the text looks unfinished, the pause must be a long one.
        if memory.time < memory.pause_at + self._patience_s() - _ROUNDING_S:
            return []
        if memory.since is not None and memory.time >= memory.since + policy.hold_s - _ROUNDING_S:
            return [self._end(memory.signal)]
        if memory.eager_since is not None and not memory.is_eager:
            memory.is_eager = True
            memory.event_time = memory.time
            return [TurnEndEager(memory.time, memory.eager_signal)]
        return []

    def _patience_s(self) -> float:
        """How long a pause the text asks for."""
        found = unfinished([word.text for word in self._words[-_WORDS_READ:]])
        if found is None:
            return 0.0
        return self._policy.number_s if found == "number" else self._policy.word_s

    def _resume(self) -> TurnResumed:
        self._memory.is_eager = False
        self._memory.event_time = self._memory.time
        return TurnResumed(self._memory.time)

    def _end(self, probability: float) -> TurnEnd:
        memory = self._memory
        memory.in_turn = memory.is_eager = False
        memory.event_time = memory.time
        return TurnEnd(memory.time, probability)
