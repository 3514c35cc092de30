"""Keeps the decoder of a stream working for hours: policies decide when it forgets old context and
when it decodes the last seconds again.

A decoder reads its own text, so one mistake may have effects for as long as the decoder remembers
it: published models have been seen to freeze, or to repeat a word, after some minutes. Policies are
small and can be replaced: any object with `decide` is one. They are asked at fixed frames of the
stream and never in between, so what they decide does not depend on how the sound was cut.
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
"""Policies are asked once in this many frames."""

_LOOK_BACK = 256
"""The last frames of which policies see speech and text: 20 s."""

_WORDS_BACK = 64
"""The last words that policies see."""

_QUIETEST_DB = -60.0
"""dBFS; a quieter frame is no speech, however low the noise floor is."""

_ABOVE_FLOOR_DB = 9.0
"""Decibels above the noise floor from which on a frame may be speech."""


@dataclass(frozen=True, slots=True)
class Truncate:
    """A policy's decision that the decoder forgets all but the last `frames` frames."""

    frames: int


@dataclass(frozen=True, slots=True)
class Redecode:
    """A policy's decision that the decoder forgets everything and decodes the last `frames` frames
    again."""

    frames: int
    kind: str
    """The kind of the warning that the stream gives, such as "frozen"."""
    message: str
    """The text of that warning."""


@dataclass(frozen=True, slots=True)
class StreamStats:
    """The facts about a stream that a policy decides by."""

    frame_rate: float
    delay_s: float
    """Seconds by which text lags sound."""
    window: int
    """Frames that the decoder can see."""
    age: int
    """Frames that the decoder has read since it was opened, truncated or made to decode again, with
    the frames that it kept then; they may be more than its window."""
    num_frames: int
    """Frames that the stream has heard so far."""
    speech: Sequence[bool]
    """Whether somebody seems to speak in each of the last frames, the newest last."""
    texts: Sequence[bool]
    """Whether each of the last frames gave text, the newest last."""
    word_open: bool
    """Whether a word is open or announced."""
    words: Sequence[tuple[str, float]]
    """The last words that were given out, with their starts in seconds, the newest last."""
    seconds: float
    """The second of the sound up to which the model has spoken."""
    num_redecodes: int
    """How often the decoder was made to decode again since the stream last gave a new word by
    itself."""
    last_redecode: int | None
    """The frame at which the decoder was last made to decode again; None if it never was."""


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
    """Truncates the decoder's context at a pause, and in mid-speech only if no pause comes.

    With these numbers the gaps in a third party's transcript of a ten-minute meeting disappeared:
    from 60 % of the window on at a pause, at the latest 2 s before the window is full. The last
    seconds are kept, so a word that is being spoken is not lost.
    """

    soft: float = 0.6
    """Share of the window, up to 1, from which on the context is truncated at the next pause."""
    spare_s: float = 2.0
    """Seconds before the window is full at which the context is truncated without a pause."""
    pause_s: float = 0.5
    """Seconds without text and without speech that count as a pause."""
    keep_s: float = 2.0
    """Seconds of context that are kept, at most two fifths of the window. The decoder reads them
    again, and other streams wait meanwhile. On recordings of people the demo model made as many
    errors with one second as with two or four."""

    def __post_init__(self) -> None:
        """Raise ConfigError for numbers that cannot be."""
        _check(self, ("soft", "spare_s", "pause_s", "keep_s"))

    def decide(self, stats: StreamStats) -> Truncate | None:
        """See `RecoveryPolicy.decide`."""
        soft = self.soft * stats.window
        if stats.age < soft:
            return None
        # The policy is not asked again before CHECK_FRAMES more have passed.
        hard = max(soft, stats.window - self.spare_s * stats.frame_rate - CHECK_FRAMES)
        quiet = round(self.pause_s * stats.frame_rate)
        pause = not (stats.word_open or any(stats.texts[-quiet:]) or any(stats.speech[-quiet:]))
        if not pause and stats.age < hard:
            return None
        # Most of a short window must become free, or it would be full again at once.
        return Truncate(min(round(self.keep_s * stats.frame_rate), int(0.4 * stats.window)))


@dataclass(frozen=True, slots=True)
class StallPolicy:
    """Makes the decoder decode again if there is speech and no text.

    Speech for which the model knows no words looks the same. So each time that decoding again did
    not help, the policy waits twice as long before the next time.
    """

    after_s: float = 5.0
    """Seconds without text after which the policy acts."""
    share: float = 0.6
    """Share of these seconds that must be speech, up to 1."""
    most_s: float = 8.0
    """Seconds of sound that are decoded again at most."""

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
        # The text of the newest sound cannot have come yet, so only older frames are judged. With a
        # delay of many seconds no frame is old enough and still remembered: nothing is decided.
        delay = round(stats.delay_s * stats.frame_rate)
        heard = stats.speech[-frames - delay : -delay or None]
        if sum(heard) < self.share * frames:
            return None
        silent = next((i for i, text in enumerate(reversed(stats.texts)) if text), len(stats.texts))
        back = min(silent + delay, round(self.most_s * stats.frame_rate))
        return Redecode(
            back,
            "frozen",
            f"{silent / stats.frame_rate:.1f} s of speech gave no words: the decoder's memory was "
            f"cleared, and the last {back / stats.frame_rate:.1f} s are decoded again",
        )


@dataclass(frozen=True, slots=True)
class LoopPolicy:
    """Makes the decoder decode again if it repeats the same words faster than anybody says them."""

    repeats: int = 8
    """Times that one word must come. A phrase of several words must fill at least as many words
    and come at least three times."""
    longest: int = 4
    """Words of the longest phrase whose repetition is found."""
    gap_s: float = 0.5
    """Seconds between the starts of two words; words further apart are no loop."""

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
                    f"{said!r} was repeated {needed // length} times without a pause: the "
                    "decoder's memory was cleared, and the last second is decoded again",
                )
        return None


POLICIES: tuple[RecoveryPolicy, ...] = (LoopPolicy(), StallPolicy(), ContextPolicy())
"""The policies of a stream whose options name none."""


@dataclass(slots=True)
class _TrackerState:
    """All that a tracker remembers between frames. The lists are filled in only to be saved."""

    age: int = 0
    num_frames: int = 0
    floor_db: float = 0.0
    texts: list[bool] = field(default_factory=list[bool])
    speech: list[bool] = field(default_factory=list[bool])
    words: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    num_redecodes: int = 0
    last_redecode: int | None = None


class RecoveryTracker:
    """Remembers what the policies of one stream want to know, and asks them when it is time."""

    def __init__(
        self, recovery: Recovery | None, *, frame_rate: float, delay_s: float, window: int
    ) -> None:
        """Stand before the first frame. With `recovery` None no policy is ever asked."""
        policies = () if recovery is None else recovery.policies
        self._policies = POLICIES if policies is None else tuple(policies)
        self._frame_rate, self._delay_s, self._window = frame_rate, delay_s, window
        self._rise_db = 2.0 / frame_rate
        self._state = _TrackerState()
        self._texts: deque[bool] = deque(maxlen=_LOOK_BACK)
        self._speech: deque[bool] = deque(maxlen=_LOOK_BACK)
        self._words: deque[tuple[str, float]] = deque(maxlen=_WORDS_BACK)
        self.due_in = CHECK_FRAMES if self._policies else MAX_INT
        """Frames that may be heard until `decide` must be called."""

    def add(self, is_text: bool, level_db: float, pause: float | None) -> None:
        """Take a frame: whether it gave text, its loudness in dBFS, and the probability of a pause
        (None without pause heads)."""
        state = self._state
        state.num_frames += 1
        state.age += 1
        self.due_in -= 1
        # The noise floor rises to a new noise within some seconds, and falls at once.
        floor = state.floor_db + self._rise_db
        if level_db < floor:
            floor = level_db
        state.floor_db = floor
        loud = level_db > floor + _ABOVE_FLOOR_DB and level_db > _QUIETEST_DB
        self._speech.append(loud and (pause is None or pause < 0.5))
        self._texts.append(is_text)

    def word(self, text: str, start: float) -> None:
        """Note a word that was given out, and its start in seconds."""
        state = self._state
        self._words.append((text, start))
        last = state.last_redecode
        if last is None or state.num_frames - last > self._frame_rate:
            state.num_redecodes = 0

    def decide(self, *, word_open: bool, seconds: float) -> Truncate | Redecode | None:
        """The decision of the first policy that has one; None if no policy has."""
        state = self._state
        self._set_due()
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
                    f"{type(policy).__name__} decided {action!r}; a recovery policy must return a "
                    "Truncate, a Redecode or None"
                )
            return action
        return None

    def _set_due(self) -> None:
        if self._policies:
            self.due_in = CHECK_FRAMES - self._state.num_frames % CHECK_FRAMES

    def done(self, action: Truncate | Redecode, frames: int) -> None:
        """Note that `action` has been done, and how many frames the decoder kept."""
        state = self._state
        state.age = min(frames, HISTORY_FRAMES, state.num_frames)
        if isinstance(action, Redecode):
            state.num_redecodes += 1
            state.last_redecode = state.num_frames
            if action.kind == "loop":
                self._words.clear()  # otherwise the same loop would be found again

    def save(self) -> dict[str, Any]:
        """All that the tracker remembers, in plain values."""
        self._state.texts, self._state.speech = list(self._texts), list(self._speech)
        self._state.words = list(self._words)
        return to_plain(self._state)

    def restore(self, saved: Any) -> None:
        """Go on where `save` was called.

        Raises:
            StreamError: `saved` is not what `save` returned.
        """
        state = from_plain(_TrackerState, saved, what="the saved stream", error=StreamError)
        last = state.last_redecode
        if not 0 <= state.age <= state.num_frames or not 0 <= (last or 0) <= state.num_frames:
            raise StreamError(
                "the saved stream is damaged: it counts frames that it has not processed"
            )
        if state.num_redecodes < 0:
            raise StreamError(
                "the saved stream is damaged: it has a negative count of frames to decode again"
            )
        self._state = state
        self._texts = deque(state.texts, _LOOK_BACK)
        self._speech = deque(state.speech, _LOOK_BACK)
        self._words = deque(state.words, _WORDS_BACK)
        self._set_due()
