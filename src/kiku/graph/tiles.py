"""Blocks as the operators of `kiku-kernels` read them: tile by tile, from first byte to last."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kiku.graph.quantise import Blocks

GROUP = 64
"""Rows of the matrix, columns of the result, that lie side by side in a tile."""

_WORD = 4  # bytes of one row that lie together: 4 numbers of 8 bits, 8 of 4


@dataclass(frozen=True, slots=True)
class Tiles:
    """A matrix [N, K] in groups of 64 rows; the last group is filled up with rows of zeros.

    Attributes:
        numbers: uint8 [groups, blocks, words of a block, 64, 4]. It is `Blocks.packed` with its
            axes in another order, so ONNX Runtime's own operator can have it back.
        scales: float32 [groups, blocks, 64].
        rows: N.
    """

    numbers: NDArray[np.uint8]
    scales: NDArray[np.float32]
    rows: int

    @property
    def block_bytes(self) -> int:
        """Bytes of one block of one row."""
        return self.numbers.shape[2] * _WORD


def tiles_of(blocks: Blocks) -> Tiles:
    """Lay blocks out in tiles."""
    rows, num_blocks, block_bytes = blocks.packed.shape
    numbers, scales = blocks.packed, blocks.scales
    if missing := -rows % GROUP:
        zero = 128 if blocks.bits == 8 else 8 * 16 + 8
        numbers = np.pad(numbers, ((0, missing), (0, 0), (0, 0)), constant_values=zero)
        scales = np.pad(scales, ((0, missing), (0, 0)))
    words = numbers.reshape(-1, GROUP, num_blocks, block_bytes // _WORD, _WORD)
    return Tiles(
        np.ascontiguousarray(words.transpose(0, 2, 3, 1, 4)),
        np.ascontiguousarray(scales.reshape(-1, GROUP, num_blocks).transpose(0, 2, 1)),
        rows,
    )
