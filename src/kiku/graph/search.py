"""Codebooks as the operator `Search` of `kiku-kernels` reads them: also in 8 bits."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CODES, _WIDTH = 16, 64
"""Books are filled up to multiples of these."""

_MOST, _MOST_EXACT = 127, 1e18
"""Of a number in 8 bits; of a code's length, beyond which float32 could overflow."""

_LITTLE = 1e-34
"""More than all that float32 loses where numbers are too small for it."""


@dataclass(frozen=True, slots=True)
class CoarseBooks:
    """n codebooks of C codes in 8 bits, with how wrong a score is that is computed from them.

    Attributes:
        numbers: int8 [n, C', W], C and the codes' width filled up with zeros.
        table: float32 [n, 5, C'], for each code its scale; half its square; and what its score
            differs by at most from that in float32: for each unit of the row's length, for each
            unit of what rounding the row took away, and always.
    """

    numbers: NDArray[np.int8]
    table: NDArray[np.float32]


def coarse_books(books: NDArray[np.float32]) -> CoarseBooks:
    """[n, C, D] -> the same in 8 bits; a code that has no place there is always looked at."""
    n, C, D = books.shape
    filled = (n, -(-C // _CODES) * _CODES, -(-D // _WIDTH) * _WIDTH)
    numbers = np.zeros(filled, np.int8)
    table = np.zeros((n, 5, filled[1]), np.float32)
    table[:, 1] = np.inf  # what was filled up is infinitely far away
    for number, book in enumerate(books):
        steps, table[number, :, :C] = _coarse(book)
        numbers[number, :C, :D] = steps
    return CoarseBooks(numbers, table)


def half_squares(book: NDArray[np.float32]) -> NDArray[np.float32]:
    """|c|^2 / 2 of each code: [..., D] -> [...]"""
    with np.errstate(over="ignore"):
        return np.square(book).sum(-1, dtype=np.float32) / np.float32(2)


def _coarse(book: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """[C, D] -> steps [C, D], and the columns of the table [5, C]."""
    exact = book.astype(np.float64)
    length = np.sqrt(np.square(exact).sum(-1))
    is_good = length < _MOST_EXACT  # not where it is no number
    kept = np.where(is_good[:, None], exact, 0)
    scale = (np.abs(kept).max(-1) / _MOST).astype(np.float32)
    divisor = np.where(scale > 0, scale, 1).astype(np.float64)[:, None]
    steps = np.clip(np.rint(kept / divisor), -_MOST, _MOST)
    rounded = steps * scale.astype(np.float64)[:, None]
    error = np.sqrt(np.square(kept - rounded).sum(-1))
    longer = np.maximum(np.sqrt(np.square(rounded).sum(-1)), np.where(is_good, length, 0))
    half = half_squares(book)
    # A sum of D products in float32, in whatever order, is wrong by D steps of its last bit at
    # most, measured on the lengths; the rest is for the few operations around it.
    inexact = (book.shape[1] + 32) * 2.0**-24
    columns = [scale, half, error + inexact * longer, longer, inexact * half + _LITTLE]
    table = np.stack([np.asarray(column, np.float64) for column in columns])
    table[2:] *= 1.001  # so that rounding to float32, here and there, makes no bound too small
    table[2:, ~is_good] = [[np.inf], [0], [0]]
    return steps.astype(np.int8), table.astype(np.float32)
