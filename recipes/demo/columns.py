"""What the decoder is to write in each frame, and what its pause heads are to say."""

from collections.abc import Sequence

import numpy as np

from recipes.demo.bank import Place
from recipes.demo.mix import FRAME_RATE

PAD, WORD_START = 3, 0
PAUSES_S = (0.5, 1.0, 2.0, 3.0)
"""Of the four pause heads."""
SPEAKING = 1
UNKNOWN = -100
"""Target of a frame that teaches nothing."""


def text_column(
    words: Sequence[tuple[float, Sequence[int]]], num_frames: int, delay_s: float
) -> np.ndarray:
    """Text tokens of every frame.

    A word that begins at s puts its pieces in a queue in frame `floor((s + delay_s) * 12.5)`; each
    frame takes one piece from the queue. Before the first piece stands the word-start marker,
    unless that frame holds a piece already.

    Args:
        words: start in seconds and pieces, by start.
        num_frames: T; pieces that fall behind it are lost.
        delay_s: seconds by which text lags sound.

    Returns:
        int64 [T]
    """
    column = np.full(num_frames, PAD, np.int64)
    queue: list[int] = []
    arrivals = [(int((start + delay_s) * FRAME_RATE), pieces) for start, pieces in words]
    coming = 0
    for frame in range(num_frames):
        while coming < len(arrivals) and arrivals[coming][0] <= frame:
            queue.extend(arrivals[coming][1])
            coming += 1
        if queue:
            if frame and column[frame - 1] == PAD:
                column[frame - 1] = WORD_START
            column[frame] = queue.pop(0)
    return column


def pause_targets(voices: Sequence[tuple[float, float]], num_frames: int) -> np.ndarray:
    """Classes of the four pause heads at every position.

    Position t has heard the sound up to t / 12.5 s. Class 0: a pause that lasts at least 0.5, 1, 2,
    3 s, from the end of the voice before it to the beginning of the next. Class 1: somebody speaks.
    Classes 2 to 5: a shorter pause, by how many quarters of that length it lasts.

    Args:
        voices: when somebody speaks, in seconds, by start.
        num_frames: T.

    Returns:
        int64 [T, 4]; UNKNOWN where the recording ends before the length of the pause is known.
    """
    targets = np.zeros((num_frames, len(PAUSES_S)), np.int64)
    end_s = num_frames / FRAME_RATE
    bounds: list[tuple[float, float, bool]] = []
    silent_from = -10.0  # nobody knows of a voice before the recording: it begins in a long pause
    for start, end in voices:
        if start > silent_from:
            bounds.append((silent_from, start, True))
        silent_from = max(silent_from, end)
    bounds.append((silent_from, end_s, False))
    frames = np.arange(num_frames) / FRAME_RATE
    targets[:] = SPEAKING
    for first, last, closed in bounds:
        inside = (frames >= first) & (frames < last)
        for head, length in enumerate(PAUSES_S):
            lasts = last - first
            if lasts >= length:
                targets[inside, head] = 0
            elif closed:
                targets[inside, head] = 2 + min(3, int(4 * lasts / length))
            else:
                targets[inside, head] = UNKNOWN
    return targets


def words_of(
    places: Sequence[Place], pieces: Sequence[Sequence[int]]
) -> list[tuple[float, Sequence[int]]]:
    """Start and pieces of each place, by start; `pieces` by the word's index."""
    return sorted(
        ((place.start_s, pieces[place.word]) for place in places), key=lambda pair: pair[0]
    )
