"""How a stream is kept well for hours: when its decoder is to forget what lies far back, and when
it has stopped listening.

A decoder reads its own text again, so what went wrong once may go wrong for as long as it is
remembered: published models have been seen to freeze, or to repeat a word, after some minutes.
Policies are small and can be replaced: anything with `decide` will do. They are asked at fixed
places of the stream and never in between, so what they decide does not depend on how the sound was
cut.
"""

import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kiku.config import HISTORY_FRAMES
from kiku.errors import ConfigError

CHECK_FRAMES = 16
"""Policies are asked after every so many frames."""

_LOOK_BACK = 256
"""Frames that are remembered for the policies: 20 s."""

_QUIETEST_DB = -60.0
"""Below this there is no speech, whatever the floor."""


@dataclass(frozen=True, slots=True)
class Refresh:
    """The decoder is to forget all but the last `frames` frames."""

    frames: int


@dataclass(frozen=True, slots=True)
class Reread:
    """The decoder is to forget everything, and to listen to the last `frames` frames again."""

    frames: int
    kind: str
    """As the warning will have it."""
    message: str


@dataclass(frozen=True, slots=True)
class Look:
    """What a policy sees of a stream."""

    frame_rate: float
    delay_s: float
    """By which text lags sound."""
    window: int
    """Frames that the decoder can see."""
    age: int
    """Frames that it remembers, as far as they go beyond its window too: since it was opened,
    refreshed or made to read again, what it kept included."""
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
    num_rereads: int
    """How often it was made to read again since it last gave a new word by itself."""
    last_reread: int | None
    """The frame at which it was last made to."""


class Policy(Protocol):
    """Decides what is to be done with a stream's decoder."""

    def decide(self, look: Look) -> Refresh | Reread | None:
        """What is to be done now; None lets it go on."""
        ...


def _check(policy: object, names: Sequence[str]) -> None:
    for name in names:
        value = getattr(policy, name)
        if not 0 < value < 1e6:
            raise ConfigError(f"{name} of {type(policy).__name__} must be above 0, not {value}")


@dataclass(frozen=True, slots=True)
class RefreshPolicy:
    """Forget at a pause, and in mid-speech only where no pause comes.

    The numbers are those with which a third party's ten-minute meeting lost its gaps: from 60 % of
    the window on at a pause, at the latest 2 s before the window is full. They keep what was said
    last, so a word that is being spoken is not lost.
    """

    soft: float = 0.6
    """From this share of the window on it is done at the next pause."""
    spare_s: float = 2.0
    """So long before the window is full it is done anyhow."""
    pause_s: float = 0.5
    """Without text or speech for so long there is a pause."""
    keep_s: float = 2.0
    """What is kept; at most two fifths of the window. It is read again, for which others wait, and
    on people the demo made as many errors with one second as with two or four."""

    def __post_init__(self) -> None:
        _check(self, ("soft", "spare_s", "pause_s", "keep_s"))
        if self.soft > 1:
            raise ConfigError(f"soft is a share of the window, at most 1, not {self.soft}")

    def decide(self, look: Look) -> Refresh | None:
        """See `Policy.decide`."""
        soft = self.soft * look.window
        # It is not asked again before so many frames have passed.
        hard = max(soft, look.window - self.spare_s * look.frame_rate - CHECK_FRAMES)
        if look.age < soft:
            return None
        quiet = round(self.pause_s * look.frame_rate)
        pause = not (look.word_open or any(look.texts[-quiet:]) or any(look.speech[-quiet:]))
        if not pause and look.age < hard:
            return None
        # Most of a short window must become free, or it would be full again at once.
        return Refresh(min(round(self.keep_s * look.frame_rate), int(0.4 * look.window)))


@dataclass(frozen=True, slots=True)
class FrozenPolicy:
    """Listen again where there is speech and no text.

    Speech that the model knows no words for looks the same. So each time that it did not help, it
    waits twice as long.
    """

    after_s: float = 5.0
    """Of speech without text."""
    share: float = 0.6
    """Of this time there must be speech."""
    most_s: float = 8.0
    """So far it goes back at most."""

    def __post_init__(self) -> None:
        _check(self, ("after_s", "share", "most_s"))

    def decide(self, look: Look) -> Reread | None:
        """See `Policy.decide`."""
        patience_s = self.after_s * 2 ** min(look.num_rereads, 6)
        frames = round(self.after_s * look.frame_rate)
        if look.last_reread is not None and (
            look.num_frames - look.last_reread < patience_s * look.frame_rate
        ):
            return None
        if len(look.texts) < frames or look.word_open or any(look.texts[-frames:]):
            return None
        # The text of the newest sound cannot have come yet.
        delay = round(look.delay_s * look.frame_rate)
        heard = look.speech[-frames - delay : -delay or None]
        if sum(heard) < self.share * len(heard):
            return None
        silent = next((i for i, text in enumerate(reversed(look.texts)) if text), len(look.texts))
        back = min(silent + delay, round(self.most_s * look.frame_rate))
        return Reread(
            back,
            "frozen",
            f"{silent / look.frame_rate:.1f} s of speech gave no words: the decoder has forgotten "
            f"what was before and listens again to the last {back / look.frame_rate:.1f} s",
        )


@dataclass(frozen=True, slots=True)
class LoopPolicy:
    """Listen again where the same words come over and over, faster than anybody says them."""

    repeats: int = 8
    """Of one word; phrases of up to `longest` words need as many words and three rounds at
    least."""
    longest: int = 4
    """Words in a phrase that is repeated."""
    gap_s: float = 0.5
    """Words further apart than this are not a loop."""

    def __post_init__(self) -> None:
        if self.repeats < 3 or self.longest < 1 or not self.gap_s > 0:
            raise ConfigError(
                f"a loop needs repeats of at least 3, longest of at least 1 and gap_s above 0, "
                f"not {self}"
            )

    def decide(self, look: Look) -> Reread | None:
        """See `Policy.decide`."""
        for length in range(1, self.longest + 1):
            needed = max(self.repeats, 3 * length)
            last = look.words[-needed:]
            if len(last) < needed or look.seconds - last[-1][1] > look.delay_s + 2 * self.gap_s:
                continue
            starts = [start for _, start in last]
            gaps = [late - early for early, late in itertools.pairwise(starts)]
            texts = [text for text, _ in last]
            if max(gaps) <= self.gap_s and texts[length:] == texts[:-length]:
                said = " ".join(texts[-length:])
                return Reread(
                    round((look.delay_s + 1.0) * look.frame_rate),
                    "loop",
                    f"{said!r} was repeated {needed // length} times without a pause: the decoder "
                    "has forgotten what was before and listens again to the last second",
                )
        return None


@dataclass(frozen=True, slots=True)
class Care:
    """What is done to keep a stream well. The first policy that wants something has its way."""

    policies: Sequence[Policy] = (LoopPolicy(), FrozenPolicy(), RefreshPolicy())


NO_CARE = Care(())
"""The decoder's memory is left alone, whatever happens."""


class Carer:
    """What a stream remembers for its policies, and when it asks them."""

    def __init__(self, care: Care, *, frame_rate: float, delay_s: float, window: int) -> None:
        """Before the first frame."""
        self._care = care
        self._frame_rate, self._delay_s, self._window = frame_rate, delay_s, window
        self._age = 0
        self._num_frames = 0
        self._floor_db = 0.0
        self._texts: deque[bool] = deque(maxlen=_LOOK_BACK)
        self._speech: deque[bool] = deque(maxlen=_LOOK_BACK)
        self._words: deque[tuple[str, float]] = deque(maxlen=64)
        self._num_rereads = 0
        self._last_reread: int | None = None

    @property
    def frames_to_check(self) -> int | None:
        """How many frames may be heard before the policies are asked; None where there are
        none."""
        return CHECK_FRAMES - self._num_frames % CHECK_FRAMES if self._care.policies else None

    def hear(self, *, text: bool, level_db: float, pause: float | None) -> None:
        """Take a frame: whether it gave text, its loudness, and what the pause heads say of it."""
        self._num_frames += 1
        self._age += 1
        # The floor follows noise that begins within some seconds, and falls at once.
        self._floor_db = min(level_db, self._floor_db + 2.0 / self._frame_rate)
        loud = level_db > max(self._floor_db + 9.0, _QUIETEST_DB)
        self._speech.append(loud and (pause is None or pause < 0.5))
        self._texts.append(text)

    def told(self, word: str, start: float) -> None:
        """A word was given out."""
        self._words.append((word, start))
        if self._last_reread is None or self._num_frames - self._last_reread > self._frame_rate:
            self._num_rereads = 0

    def decide(self, *, word_open: bool, seconds: float) -> Refresh | Reread | None:
        """Ask the policies, if this is the place for it."""
        if not self._num_frames or self._num_frames % CHECK_FRAMES:
            return None
        look = Look(
            self._frame_rate, self._delay_s, self._window, self._age, self._num_frames,
            list(self._speech), list(self._texts), word_open, list(self._words), seconds,
            self._num_rereads, self._last_reread,
        )  # fmt: skip
        for policy in self._care.policies:
            if (action := policy.decide(look)) is not None:
                return action
        return None

    def done(self, action: Refresh | Reread, frames: int) -> None:
        """What was decided has been done, with so many frames kept."""
        self._age = min(frames, HISTORY_FRAMES, self._num_frames)
        if isinstance(action, Reread):
            self._num_rereads += 1
            self._last_reread = self._num_frames
            if action.kind == "loop":
                self._words.clear()  # or the same loop would be seen again

    def save(self) -> dict[str, Any]:
        """All that it remembers, in values for JSON."""
        return {
            "age": self._age,
            "num_frames": self._num_frames,
            "floor_db": self._floor_db,
            "texts": list(self._texts),
            "speech": list(self._speech),
            "words": [list(word) for word in self._words],
            "num_rereads": self._num_rereads,
            "last_reread": self._last_reread,
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on where `save` was called; KeyError, TypeError or ValueError if it is damaged."""
        self._age, self._num_frames = int(saved["age"]), int(saved["num_frames"])
        self._floor_db = float(saved["floor_db"])
        self._num_rereads = int(saved["num_rereads"])
        last = saved["last_reread"]
        self._last_reread = None if last is None else int(last)
        for kept, values in ((self._texts, saved["texts"]), (self._speech, saved["speech"])):
            kept.clear()
            kept.extend(map(bool, values))
        self._words.clear()
        self._words.extend((str(text), float(start)) for text, start in saved["words"])
