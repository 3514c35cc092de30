"""Embed against numpy."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.kernels.graphs import Operator


def _embed(ids: NDArray[np.int64], table: NDArray[np.uint8], scales: NDArray[np.float32]) -> object:
    (y,) = Operator("Embed", [np.int64, np.uint8, np.float32], [np.float32], threads=2)(
        ids, table, scales
    )
    return y


@pytest.mark.parametrize("width", [1, 7, 32, 33, 64, 256, 2048])
@pytest.mark.parametrize(("rows", "each"), [(0, 3), (1, 1), (1, 33), (5, 33), (70, 5)])
def test_rows_of_the_table_are_summed(rows: int, each: int, width: int) -> None:
    generator = np.random.default_rng(width + rows)
    table = generator.integers(0, 256, (50, width)).astype(np.uint8)
    scales = generator.normal(0, 1, (50, 1)).astype(np.float32)
    ids = generator.integers(0, 50, (rows, each))
    wide = (table.astype(np.float64) - 128) * scales
    np.testing.assert_allclose(_embed(ids, table, scales), wide[ids].sum(1), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("wrong", [-1, 50, 2**40])
def test_an_id_outside_the_table_is_an_error(wrong: int) -> None:
    table, scales = np.zeros((50, 8), np.uint8), np.ones((50, 1), np.float32)
    with pytest.raises(Exception, match="no row of the table"):
        _embed(np.array([[0, wrong]]), table, scales)


def test_a_scale_too_few_is_an_error() -> None:
    table, scales = np.zeros((50, 8), np.uint8), np.ones((49, 1), np.float32)
    with pytest.raises(Exception, match="one scale for each row"):
        _embed(np.array([[0, 1]]), table, scales)
