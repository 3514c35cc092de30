"""Matrices in blocks, laid out as kiku's own products read them."""

import numpy as np
from numpy.typing import NDArray

from kiku.graph.quantise import Blocks

GROUP = 64
"""Columns of a result that lie together."""


def tiles(blocks: Blocks) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Blocks [N, blocks, bytes] in groups of 64 columns, 4 bytes of each in turn.

    The last group is filled with columns whose scale is 0. The packed bytes of ONNX Runtime's
    MatMulNBits are the same transposed: `tiles` [G, blocks, bytes / 4, 64, 4] to
    [G, 64, blocks, bytes / 4, 4].

    Returns:
        tiles: uint8 [G, blocks, bytes of a block / 4, 64, 4].
        scales: float32 [G, blocks, 64].
    """
    N, num_blocks, num_bytes = blocks.packed.shape
    missing = -N % GROUP
    packed = np.pad(blocks.packed, ((0, missing), (0, 0), (0, 0)))
    scales = np.pad(blocks.scales, ((0, missing), (0, 0)))
    words = packed.reshape(-1, GROUP, num_blocks, num_bytes // 4, 4)
    by_group = scales.reshape(-1, GROUP, num_blocks)
    return (
        np.ascontiguousarray(words.transpose(0, 2, 3, 1, 4)),
        np.ascontiguousarray(by_group.transpose(0, 2, 1)),
    )
