"""Elu against numpy."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.kernels.graphs import Operator


def _elu(x: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.where(x > 0, x, np.expm1(np.minimum(x.astype(np.float64), 0)))


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 16, 31, 16384, 16385, 100_003])
def test_elu_is_that_of_numpy(count: int, threads: int) -> None:
    x = np.random.default_rng(count).normal(0, 3, count).astype(np.float32)
    (y,) = Operator("Elu", [np.float32], [np.float32], threads=threads)(x)
    np.testing.assert_allclose(y, _elu(x), rtol=3e-7)


def test_elu_of_what_is_at_the_edge() -> None:
    x = np.array(
        [0, -0.0, 1e-40, -1e-40, -1e-20, -1e-7, -87, -88, -1000, -np.inf, np.inf, np.nan, 3e38],
        np.float32,
    )
    (y,) = Operator("Elu", [np.float32], [np.float32])(x)
    np.testing.assert_allclose(y, _elu(x), rtol=3e-7, atol=1e-38)


def test_elu_keeps_the_shape() -> None:
    x = -np.ones((2, 3, 0, 4), np.float32)
    assert Operator("Elu", [np.float32], [np.float32])(x)[0].shape == x.shape
