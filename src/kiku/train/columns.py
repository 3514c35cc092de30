"""Targets in each frame: the decoder's text token, and the classes of its pause heads.

Knows times and ids; does not know sound, files or networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kiku.config import PAD_ID, WORD_START_ID, ModelConfig

NOTHING = -1
"""Id for no text token or no code: its embedding is zero; as a target it is ignored."""

UNKNOWN = -100
"""Class of a pause head where the target is unknown: it is ignored."""

PAUSES_S = (0.5, 1.0, 2.0, 3.0)
"""Seconds of pause that each of the four pause heads of the published 1B detects."""

SPEAKING = 1

_ROUNDING = 1e-6
"""Fraction of a frame: sums of decimal seconds may end just before the frame that they mean."""

Lead = Literal["zero", "pad"]
"""Text in the frames before the delay: zero embeddings, which are ignored as targets, or PAD."""

TimedPieces = tuple[float, Sequence[int]]
"""Seconds at which a word begins, and its tokens."""


@dataclass(frozen=True, slots=True)
class TextLayout:
    """How words are laid out over frames."""

    frame_rate: float
    delay_s: float
    """Seconds by which text lags sound."""
    lead: Lead = "zero"
    pad_id: int = PAD_ID
    word_start_id: int = WORD_START_ID

    @classmethod
    def of(cls, config: ModelConfig, *, delay_s: float | None, lead: Lead) -> "TextLayout":
        """The layout of a model; `delay_s` is another delay that it should learn, or None."""
        delay = config.text_delay_s if delay_s is None else delay_s
        return cls(config.frame_rate, delay, lead, config.pad_id, config.word_start_id)

    def frame_of(self, start_s: float) -> int:
        """The frame in which the first piece of a word may stand."""
        return floor((start_s + self.delay_s) * self.frame_rate + _ROUNDING)

    @property
    def lead_frames(self) -> int:
        """Number of frames before the first that may hold text."""
        return self.frame_of(0.0)


def text_column(
    words: Sequence[TimedPieces], num_frames: int, layout: TextLayout
) -> NDArray[np.int64]:
    """Text tokens of every frame, as Kyutai's models were trained.

    A word that begins at s puts its pieces in a queue in frame `floor((s + delay) * frame_rate)`;
    each frame takes one piece from the queue. The frame before the first piece gets the word-start
    marker, unless it holds a piece already.

    Args:
        words: start in seconds and pieces, sorted by start.
        num_frames: T; pieces after it are lost (`frames_for` gives the number that is needed).
        layout: the delay, and the ids.

    Returns:
        int64 [T]
    """
    column = np.full(num_frames, layout.pad_id, np.int64)
    queue: list[int] = []
    arrivals = [(layout.frame_of(start), pieces) for start, pieces in words]
    coming = 0
    for frame in range(num_frames):
        while coming < len(arrivals) and arrivals[coming][0] <= frame:
            queue.extend(arrivals[coming][1])
            coming += 1
        if queue:
            if frame and column[frame - 1] == layout.pad_id:
                column[frame - 1] = layout.word_start_id
            column[frame] = queue.pop(0)
    if layout.lead == "zero":
        column[: layout.lead_frames] = NOTHING
    return column


def frames_for(words: Sequence[TimedPieces], layout: TextLayout) -> int:
    """How many frames hold all pieces of `words` and one PAD, which ends the last word."""
    free = 0
    for start, pieces in words:
        free = max(free, layout.frame_of(start)) + len(pieces)
    return free + 1


def pause_targets(
    voices: Sequence[tuple[float, float]], num_frames: int, frame_rate: float
) -> NDArray[np.int64]:
    """Classes of the four pause heads at every position.

    At position t the model has heard the sound up to `t / frame_rate` s. Class 0 is a pause of at
    least 0.5, 1, 2 or 3 s (by head), from the end of the voice before it to the beginning of the
    next. Class 1: somebody speaks. Classes 2 to 5: a shorter pause, by how many quarters of that
    length it lasts.

    Args:
        voices: start and end of each time that somebody speaks, in seconds, sorted by start.
        num_frames: T.
        frame_rate: frames a second.

    Returns:
        int64 [T, 4]; UNKNOWN where the recording ends before the length of the pause is known.
    """
    targets = np.zeros((num_frames, len(PAUSES_S)), np.int64)
    end_s = num_frames / frame_rate
    bounds: list[tuple[float, float, bool]] = []
    silent_from = -10.0  # no voice is known before the recording: it begins in a long pause
    for start, end in voices:
        if start > silent_from:
            bounds.append((silent_from, start, True))
        silent_from = max(silent_from, end)
    bounds.append((silent_from, end_s, False))
    frames = np.arange(num_frames) / frame_rate
    targets[:] = SPEAKING
    for first, last, closed in bounds:
        inside = (frames >= first) & (frames < last)
        for head, length in enumerate(PAUSES_S):
            targets[inside, head] = _pause_class(last - first, length, closed=closed)
    return targets


def _pause_class(lasts: float, length: float, *, closed: bool) -> int:
    if lasts >= length:
        return 0
    return 2 + min(3, int(4 * lasts / length)) if closed else UNKNOWN
