"""Targets of the demo model's decoder and pause heads: `kiku.train.columns` with its numbers."""

from collections.abc import Sequence

import numpy as np

from kiku.config import PAD_ID, WORD_START_ID
from kiku.train import columns
from kiku.train.columns import UNKNOWN, TextLayout
from recipes.demo.bank import WordSpan
from recipes.demo.mix import FRAME_RATE

__all__ = ["PAD", "UNKNOWN", "WORD_START", "pause_targets", "text_column", "words_of"]

PAD, WORD_START = PAD_ID, WORD_START_ID


def text_column(
    words: Sequence[tuple[float, Sequence[int]]], num_frames: int, delay_s: float
) -> np.ndarray:
    """Text tokens int64 [T] of every frame; PAD before the delay, which is a target as well."""
    return columns.text_column(words, num_frames, TextLayout(FRAME_RATE, delay_s, lead="pad"))


def pause_targets(voices: Sequence[tuple[float, float]], num_frames: int) -> np.ndarray:
    """Classes int64 [T, 4] of the four pause heads at every position."""
    return columns.pause_targets(voices, num_frames, FRAME_RATE)


def words_of(
    spans: Sequence[WordSpan], pieces: Sequence[Sequence[int]]
) -> list[tuple[float, Sequence[int]]]:
    """Start and pieces of each span, sorted by start; `pieces` is indexed by word."""
    return sorted(((span.start_s, pieces[span.word]) for span in spans), key=lambda pair: pair[0])
