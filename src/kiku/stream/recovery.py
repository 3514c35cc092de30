"""What keeps a stream well for hours: when its decoder is to forget what lies far back, and when it
has stopped listening.

A decoder reads its own text again, so what went wrong once may go wrong for as long as it is
remembered: published models have been seen to freeze, or to repeat a word, after some minutes.
Policies are small and can be replaced: anything with `decide` will do. They are asked at fixed
places of the stream and never in between, so what they decide does not depend on how the sound was
cut.
"""

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kiku.config import HISTORY_FRAMES
from kiku.errors import ConfigError, StreamError
from kiku.options import Recovery, RecoveryPolicy
from kiku.serial import MAX_INT, from_plain, to_plain

CHECK_FRAMES = 16
"""Policies are asked after every so many frames."""

_LOOK_BACK = 256
"""Frames that are remembered for the policies: 20 s."""

_WORDS_BACK = 64
"""Words that are remembered for the policies."""

_QUIETEST_DB = -60.0
"""Below this there is no speech, whatever the floor."""

_ABOVE_FLOOR_DB = 9.0
"""What is so much louder than the floor may be speech."""


@dataclass(frozen=True, slots=True)
class Truncate:
    """The decoder is to forget all but the last `frames` frames."""

    frames: int


@dataclass(frozen=True, slots=True)
class Redecode:
    """The decoder is to forget everything, and to decode the last `frames` frames once more."""

    frames: int
    kind: str
    """As the warning will have it."""
    message: str


@dataclass(frozen=True, slots=True)
class StreamStats:
    """What a policy sees of a stream."""

    frame_rate: float
    delay_s: float
    """By which text lags sound."""
    window: int
    """Frames that the decoder can see."""
    age: int
    """Frames since the decoder was opened, truncated or made to decode again, and those that it
    kept then; they may be more than its window."""
    num_frames: int
    """Heard by the stream so far."""
    speech: Sequence[bool]
    """Of the last frames, the newest last: whether somebody seems to speak."""
    texts: Sequence[bool]
    """Of the last frames, the newest last: whether they gave text."""
    word_open: bool
    words: Sequence[tuple[str, float]]
    """The last words given out and their starts, the newest last."""
    seconds: float
    """The stream's time."""
    num_redecodes: int
    """How often it was made to decode again since it last gave a new word by itself."""
    last_redecode: int | None
    """The frame at which it was last made to."""


_SHARES = ("soft", "share")


def _check(policy: object, names: Sequence[str]) -> None:
    for name in names:
        value = getattr(policy, name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        most = 1.0 if name in _SHARES else 1e6
        if not (is_number and 0 < value <= most):
            wanted = "above 0 and at most 1" if name in _SHARES else "a number above 0"
            raise ConfigError(f"{name} of {type(policy).__name__} must be {wanted}, not {value!r}")


@dataclass(frozen=True, slots=True)
class ContextPolicy:
    """Truncate the decoder's context at a pause, and in mid-speech only where no pause comes.

    The numbers are those with which a third party's ten-minute meeting lost its gaps: from 60 % of
    the window on at a pause, at the latest 2 s before the window is full. They keep what was said
    last, so a word that is being spoken is not lost.
    """

    soft: float = 0.6
    """Share of the window, up to 1: from there on the context is truncated at the next pause."""
    spare_s: float = 2.0
    """Seconds before the window is full at which it is truncated without a pause."""
    pause_s: float = 0.5
    """Seconds without text and speech that make a pause."""
    keep_s: float = 2.0
    """Seconds of context that are kept, at most two fifths of the window. They are read again, and
    other streams wait for it. On recordings of people the demo model made as many errors with one
    second as with two or four."""

    def __post_init__(self) -> None:
        """Raise ConfigError for numbers that cannot be."""
        _check(self, ("soft", "spare_s", "pause_s", "keep_s"))

    def decide(self, stats: StreamStats) -> Truncate | None:
        """See `RecoveryPolicy.decide`."""
        soft = self.soft * stats.window
        if stats.age < soft:
            return None
        # It is not asked again before so many frames have passed.
        hard = max(soft, stats.window - self.spare_s * stats.frame_rate - CHECK_FRAMES)
        quiet = round(self.pause_s * stats.frame_rate)
        pause = not (stats.word_open or any(stats.texts[-quiet:]) or any(stats.speech[-quiet:]))
        if not pause and stats.age < hard:
            return None
        # Most of a short window must become free, or it would be full again at once.
        return Truncate(min(round(self.keep_s * stats.frame_rate), int(0.4 * stats.window)))


@dataclass(frozen=True, slots=True)
class StallPolicy:
    """Decode again where there is speech and no text.

    Speech for which the model knows no words looks the same. So after each time that it did not
    help, the policy waits twice as long.
    """

    after_s: float = 5.0
    """Seconds without text after which it acts."""
    share: float = 0.6
    """Share of that time in which there must be speech, up to 1."""
    most_s: float = 8.0
    """Seconds that it goes back at most."""

    def __post_init__(self) -> None:
        """Raise ConfigError for numbers that cannot be."""
        _check(self, ("after_s", "share", "most_s"))

    def decide(self, stats: StreamStats) -> Redecode | None:
        """See `RecoveryPolicy.decide`."""
        frames = round(self.after_s * stats.frame_rate)
        if len(stats.texts) < frames or stats.word_open or any(stats.texts[-frames:]):
            return None
        patience_s = self.after_s * 2 ** min(stats.num_redecodes, 6)
        if stats.last_redecode is not None and (
            stats.num_frames - stats.last_redecode < patience_s * stats.frame_rate
        ):
            return None
        # The text of the newest sound cannot have come yet. So with a delay of many seconds nothing
        # is judged: no sound of which text is due is still known.
        delay = round(stats.delay_s * stats.frame_rate)
        heard = stats.speech[-frames - delay : -delay or None]
        if sum(heard) < self.share * frames:
            return None
        silent = next((i for i, text in enumerate(reversed(stats.texts)) if text), len(stats.texts))
        back = min(silent + delay, round(self.most_s * stats.frame_rate))
        return Redecode(
            back,
            "frozen",
            f"{silent / stats.frame_rate:.1f} s of speech gave no words: the decoder has forgotten "
            f"what was before and decodes the last {back / stats.frame_rate:.1f} s again",
        )


@dataclass(frozen=True, slots=True)
class LoopPolicy:
    """Decode again where the same words come over and over, faster than anybody says them."""

    repeats: int = 8
    """Of one word; phrases of up to `longest` words need as many words and three rounds at
    least."""
    longest: int = 4
    """Words in a phrase that is repeated."""
    gap_s: float = 0.5
    """Words further apart than this are not a loop."""

    def __post_init__(self) -> None:
        """Raise ConfigError for numbers that cannot be."""
        _check(self, ("gap_s",))
        for name, least in (("repeats", 3), ("longest", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(
                    f"{name} of LoopPolicy must be a whole number, at least {least}, not {value!r}"
                )

    def decide(self, stats: StreamStats) -> Redecode | None:
        """See `RecoveryPolicy.decide`."""
        words = stats.words
        if not words or stats.seconds - words[-1][1] > stats.delay_s + 2 * self.gap_s:
            return None
        for length in range(1, self.longest + 1):
            needed = max(self.repeats, 3 * length)
            last = words[-needed:]
            if len(last) < needed:
                break
            starts = [start for _, start in last]
            gaps = [late - early for early, late in itertools.pairwise(starts)]
            texts = [text for text, _ in last]
            if max(gaps) <= self.gap_s and texts[length:] == texts[:-length]:
                said = " ".join(texts[-length:])
                return Redecode(
                    round((stats.delay_s + 1.0) * stats.frame_rate),
                    "loop",
                    f"{said!r} was repeated {needed // length} times without a pause: the decoder "
                    "has forgotten what was before and decodes the last second again",
                )
        return None


POLICIES: tuple[RecoveryPolicy, ...] = (LoopPolicy(), StallPolicy(), ContextPolicy())
"""What is done where nothing else is said."""


@dataclass(slots=True)
class _TrackerState:
    """All that is remembered between frames."""

    age: int = 0
    num_frames: int = 0
    floor_db: float = 0.0
    texts: list[bool] = field(default_factory=list[bool])
    speech: list[bool] = field(default_factory=list[bool])
    words: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    num_redecodes: int = 0
    last_redecode: int | None = None


class RecoveryTracker:
    """What a stream remembers for its policies, and when it asks them."""

    def __init__(
        self, recovery: Recovery | None, *, frame_rate: float, delay_s: float, window: int
    ) -> None:
        """Before the first frame; None asks nobody."""
        policies = () if recovery is None else recovery.policies
        self._policies = POLICIES if policies is None else tuple(policies)
        self._frame_rate, self._delay_s, self._window = frame_rate, delay_s, window
        self._rise_db = 2.0 / frame_rate
        self._state = _TrackerState()
        self._texts: deque[bool] = deque(maxlen=_LOOK_BACK)
        self._speech: deque[bool] = deque(maxlen=_LOOK_BACK)
        self._words: deque[tuple[str, float]] = deque(maxlen=_WORDS_BACK)
        self.due_in = CHECK_FRAMES if self._policies else MAX_INT
        """Frames that may be heard before `decide` is to be called."""

    def add(self, is_text: bool, level_db: float, pause: float | None) -> None:
        """Take a frame: whether it gave text, its loudness, and what the pause heads say of it."""
        state = self._state
        state.num_frames += 1
        state.age += 1
        self.due_in -= 1
        # The floor follows noise that begins within some seconds, and falls at once.
        floor = state.floor_db + self._rise_db
        if level_db < floor:
            floor = level_db
        state.floor_db = floor
        loud = level_db > floor + _ABOVE_FLOOR_DB and level_db > _QUIETEST_DB
        self._speech.append(loud and (pause is None or pause < 0.5))
        self._texts.append(is_text)

    def word(self, text: str, start: float) -> None:
        """A word was given out."""
        state = self._state
        self._words.append((text, start))
        last = state.last_redecode
        if last is None or state.num_frames - last > self._frame_rate:
            state.num_redecodes = 0

    def decide(self, *, word_open: bool, seconds: float) -> Truncate | Redecode | None:
        """Ask the policies what is to be done now."""
        state = self._state
        self._count_anew()
        stats = StreamStats(
            self._frame_rate, self._delay_s, self._window, state.age, state.num_frames,
            list(self._speech), list(self._texts), word_open, list(self._words), seconds,
            state.num_redecodes, state.last_redecode,
        )  # fmt: skip
        for policy in self._policies:
            action = policy.decide(stats)
            if action is None:
                continue
            if not isinstance(action, Truncate | Redecode):
                raise StreamError(
                    f"{type(policy).__name__} decided {action!r}; a recovery policy gives a "
                    "Truncate, a Redecode or None"
                )
            return action
        return None

    def _count_anew(self) -> None:
        if self._policies:
            self.due_in = CHECK_FRAMES - self._state.num_frames % CHECK_FRAMES

    def done(self, action: Truncate | Redecode, frames: int) -> None:
        """What was decided has been done, with so many frames kept."""
        state = self._state
        state.age = min(frames, HISTORY_FRAMES, state.num_frames)
        if isinstance(action, Redecode):
            state.num_redecodes += 1
            state.last_redecode = state.num_frames
            if action.kind == "loop":
                self._words.clear()  # or the same loop would be seen again

    def save(self) -> dict[str, Any]:
        """All that it remembers, in plain values."""
        self._state.texts, self._state.speech = list(self._texts), list(self._speech)
        self._state.words = list(self._words)
        return to_plain(self._state)

    def restore(self, saved: Any) -> None:
        """Go on where `save` was called.

        Raises:
            StreamError: it is not what `save` gave.
        """
        state = from_plain(_TrackerState, saved, what="the saved stream", error=StreamError)
        last = state.last_redecode
        if not 0 <= state.age <= state.num_frames or not 0 <= (last or 0) <= state.num_frames:
            raise StreamError("the saved stream is damaged: it counts frames that it has not heard")
        if state.num_redecodes < 0:
            raise StreamError("the saved stream is damaged: it decoded again less than never")
        self._state = state
        self._texts = deque(state.texts, _LOOK_BACK)
        self._speech = deque(state.speech, _LOOK_BACK)
        self._words = deque(state.words, _WORDS_BACK)
        self._count_anew()
