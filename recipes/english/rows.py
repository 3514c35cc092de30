"""Rows of sound, side by side in a batch."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from recipes.english.trunk import STATE

T = TypeVar("T")

TAIL = 15
"""States of silence after the last word (0.6 s): a network that cannot look ahead writes late."""
SECONDS = (0.4, 20.0)
"""Seconds of the shortest and the longest recording that is used."""


def with_tail(samples: np.ndarray) -> np.ndarray:
    """Samples [S] and the silence after them, in which the last word is written."""
    return np.concatenate([samples, np.zeros(TAIL * STATE, np.float32)])


def side_by_side(rows: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Samples [S] of several rows -> [B, S], padded with silence, and the states of each [B]."""
    lengths = [-(-len(row) // STATE) for row in rows]
    pcm = np.zeros((len(rows), max(lengths) * STATE), np.float32)
    for place, row in zip(pcm, rows, strict=True):
        place[: len(row)] = row
    return torch.from_numpy(pcm), torch.tensor(lengths)


def together(items: Sequence[T], sizes: Sequence[float], most: float) -> Iterator[list[T]]:
    """Groups of neighbours; in each, the longest size times the number is at most `most`."""
    some: list[T] = []
    longest = 0.0
    for item, size in zip(items, sizes, strict=True):
        longest = max(longest, size)
        if some and longest * (len(some) + 1) > most:
            yield some
            some, longest = [], size
        some.append(item)
    if some:
        yield some
