"""Tiles: where every number of a matrix lies."""

import numpy as np
import pytest

from kiku.graph.quantise import quantise
from kiku.graph.tiles import tiles_of


@pytest.mark.parametrize(("bits", "block_size"), [(8, 128), (8, 32), (4, 128), (4, 32)])
@pytest.mark.parametrize("columns", [1, 64, 65, 130])
def test_a_word_is_four_bytes_of_one_column(bits: int, block_size: int, columns: int) -> None:
    matrix = np.random.default_rng(0).normal(size=(columns, 300)).astype(np.float32)
    blocks = quantise(matrix, bits, block_size)
    laid_out = tiles_of(blocks)
    packed, scales = laid_out.numbers, laid_out.scales
    groups, num_blocks = -(-columns // 64), -(-300 // block_size)
    assert packed.shape == (groups, num_blocks, block_size * bits // 32, 64, 4)
    assert scales.shape == (groups, num_blocks, 64)
    for column in range(columns):
        group, place = divmod(column, 64)
        np.testing.assert_array_equal(
            packed[group, :, :, place].reshape(num_blocks, -1), blocks.packed[column]
        )
        np.testing.assert_array_equal(scales[group, :, place], blocks.scales[column])
    assert not scales.transpose(0, 2, 1).reshape(-1, num_blocks)[columns:].any()


def test_a_transposition_gives_what_onnx_runtime_reads() -> None:
    matrix = np.random.default_rng(0).normal(size=(128, 256)).astype(np.float32)
    blocks = quantise(matrix, 8, 128)
    laid_out = tiles_of(blocks)
    packed, scales = laid_out.numbers, laid_out.scales
    assert packed.flags.c_contiguous
    assert scales.flags.c_contiguous
    again = packed.transpose(0, 3, 1, 2, 4).reshape(blocks.packed.shape)
    np.testing.assert_array_equal(again, blocks.packed)
    np.testing.assert_array_equal(scales.transpose(0, 2, 1).reshape(128, 2), blocks.scales)
