"""Product against numpy: the numbers themselves, bit for bit."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, RuntimeException

from kiku.graph.quantise import Blocks, quantise
from kiku.graph.tiles import tiles_of
from tests.kernels.graphs import Operator

FORMS = [(8, 128), (8, 32), (4, 128), (4, 32)]
TINY = np.float32(2.0**-119)


@functools.cache
def product(columns: int, bits: int, block_size: int, threads: int = 1) -> Operator:
    return Operator(
        "Product", [np.float32, np.uint8, np.float32], [np.float32],
        threads=threads, N=columns, bits=bits, block_size=block_size,
    )  # fmt: skip


def run(x: NDArray[np.float32], blocks: Blocks, threads: int = 1) -> NDArray[np.float32]:
    one = product(len(blocks.packed), blocks.bits, blocks.block_size, threads)
    laid_out = tiles_of(blocks)
    return one(x, laid_out.numbers, laid_out.scales)[0]


def whole(blocks: Blocks) -> NDArray[np.int64]:
    """The whole numbers [N, blocks, block size] of a matrix."""
    same = replace(blocks, scales=np.ones_like(blocks.scales))
    width = blocks.scales.shape[1] * blocks.block_size
    return same.restored(width).astype(np.int64).reshape(*blocks.scales.shape, -1)


def rounded(x: NDArray[np.float32], size: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows [M, K] in blocks of whole numbers [M, blocks, size], and scales [M, blocks]."""
    x = np.pad(x, ((0, 0), (0, -x.shape[1] % size))).reshape(len(x), -(-x.shape[1] // size), size)
    good = np.all(np.isfinite(x), axis=-1)
    peak = np.where(good, np.abs(x).max(-1), 0).astype(np.float32)
    peak[peak < TINY] = 0
    steps = np.divide(np.float32(127), peak, out=np.zeros_like(peak), where=peak > 0)
    numbers = np.rint(np.where(good[..., None], x, 0) * steps[..., None]).astype(np.int64)
    return numbers, np.where(good, peak / np.float32(127), np.float32(np.nan))


def expected(x: NDArray[np.float32], blocks: Blocks) -> NDArray[np.float32]:
    """The same by numpy: a fused multiply-add is a float64 one that is rounded to float32.

    Its product is exact in float64, its sum rounds alike but for rare ties
    """
    numbers, scales = rounded(x, blocks.block_size)
    of_x, of_matrix = numbers.astype(np.float64), whole(blocks).astype(np.float64)
    sums = of_x.transpose(1, 0, 2) @ of_matrix.transpose(1, 2, 0)  # exact: whole and below 2^53
    y = np.zeros((len(x), len(blocks.packed)), np.float32)
    for b, sum_ in enumerate(sums):
        scale = blocks.scales[:, b] * scales[:, b, None]
        assert scale.dtype == np.float32
        y = (sum_ * scale + y).astype(np.float32)
    return y


def matrix(columns: int, width: int, bits: int, size: int, seed: int = 0) -> Blocks:
    numbers = np.random.default_rng(seed).normal(size=(columns, width)).astype(np.float32)
    return quantise(numbers, bits, size)


def rows(count: int, width: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


@pytest.mark.parametrize(("bits", "size"), FORMS)
@pytest.mark.parametrize("width", [1, 32, 33, 129, 300])
@pytest.mark.parametrize("columns", [1, 64, 65, 150])
def test_every_small_shape(bits: int, size: int, width: int, columns: int) -> None:
    blocks = matrix(columns, width, bits, size)
    x = rows(9, width)
    want = expected(x, blocks)
    for count in (1, 2, 3, 4, 5, 6, 7, 8, 9):
        np.testing.assert_array_equal(run(x[:count], blocks), want[:count])


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize(("bits", "size"), FORMS)
@pytest.mark.parametrize("count", [5, 33, 300])
def test_rows_and_threads_change_nothing(threads: int, bits: int, size: int, count: int) -> None:
    blocks = matrix(700, 513, bits, size)
    x = rows(count, 513)
    y = run(x, blocks, threads)
    np.testing.assert_array_equal(y, expected(x, blocks))
    for i in {0, count // 2, count - 1}:
        np.testing.assert_array_equal(run(x[i : i + 1], blocks)[0], y[i])


@pytest.mark.parametrize(("bits", "size"), FORMS)
def test_the_farthest_numbers(bits: int, size: int) -> None:
    # The largest sums of every sign: what would run over, does here.
    width = 3 * size
    signs = np.sign(rows(8, width))
    signs[0], signs[1] = 1, -1
    signs[2, ::2], signs[2, 1::2] = 1, -1
    blocks = matrix(66, width, bits, size)
    packed = np.random.default_rng(5).choice(np.array([0, 255], np.uint8), blocks.packed.shape)
    packed[0], packed[1], packed[2], packed[3] = 0, 255, 0x0F, 0xF0
    blocks = replace(blocks, packed=packed)
    np.testing.assert_array_equal(run(signs, blocks), expected(signs, blocks))


@pytest.mark.parametrize(("bits", "size"), FORMS)
def test_numbers_that_are_none_stay_in_their_row(bits: int, size: int) -> None:
    blocks = matrix(70, 260, bits, size)
    x = rows(8, 260)
    clean = run(x, blocks)
    x[1, 259], x[3, 0], x[4, 130], x[6, 17] = np.nan, np.inf, -np.inf, np.nan
    x[6, 18] = np.inf
    y = run(x, blocks)
    lost = [1, 3, 4, 6]
    assert np.isnan(y[lost]).all()
    kept = [0, 2, 5, 7]
    np.testing.assert_array_equal(y[kept], clean[kept])


@pytest.mark.parametrize(("bits", "size"), FORMS)
def test_numbers_near_nothing_and_near_infinity(bits: int, size: int) -> None:
    blocks = matrix(64, 256, bits, size)
    x = rows(7, 256)
    x /= np.abs(x).max(1, keepdims=True)
    factors = np.array([0, 1e-45, 1e-40, 0.9 * TINY, 4 * TINY, 1e-30, 3e36], np.float32)
    x *= factors[:, None]
    x[0] = -0.0
    y = run(x, blocks)
    np.testing.assert_array_equal(y, expected(x, blocks))
    assert not y[:4].any()
    assert y[4].any()
    assert np.isfinite(y).all()


def test_halves_are_rounded_to_even() -> None:
    x = np.zeros((1, 128), np.float32)
    x[0, :6] = 127, 0.5, 1.5, -0.5, -2.5, 3.5
    packed = np.full((1, 1, 128), 128, np.uint8)
    for i, want in enumerate((127, 0, 2, 0, -2, 4)):
        packed[:] = 128
        packed[0, 0, i] = 129
        blocks = Blocks(packed, np.ones((1, 1), np.float32), 8, 128)
        assert run(x, blocks)[0, 0] == want


@pytest.mark.parametrize("shape", [(0, 40), (2, 0, 40), (40,), (2, 3, 1, 40)])
def test_axes_before_the_last_are_rows(shape: tuple[int, ...]) -> None:
    blocks = matrix(9, 40, 8, 32)
    x = rows(1, int(np.prod(shape))).reshape(shape)
    y = run(x, blocks)
    assert y.shape == (*shape[:-1], 9)
    np.testing.assert_array_equal(y.reshape(-1, 9), expected(x.reshape(-1, 40), blocks))


def test_a_matrix_of_no_width_gives_zeros() -> None:
    (y,) = product(5, 8, 128)(
        np.zeros((3, 0), np.float32), np.zeros((1, 0, 32, 64, 4), np.uint8),
        np.zeros((1, 0, 64), np.float32),
    )  # fmt: skip
    np.testing.assert_array_equal(y, np.zeros((3, 5), np.float32))


def test_it_is_the_product_of_the_restored_matrix() -> None:
    blocks = matrix(100, 400, 8, 128)
    x = rows(20, 400)
    exact = x @ blocks.restored(400).T
    assert np.abs(run(x, blocks) - exact).max() < 0.02 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("x", "packed", "scales"),
    [
        ((2, 129), (2, 1, 32, 64, 4), (2, 1, 64)),
        ((2, 128), (1, 1, 32, 64, 4), (2, 1, 64)),
        ((2, 128), (2, 1, 16, 64, 4), (2, 1, 64)),
        ((2, 128), (2, 1, 32, 256), (2, 1, 64)),
        ((2, 128), (2, 1, 32, 64, 4), (2, 2, 64)),
        ((2, 128), (2, 1, 32, 64, 4), (2, 64)),
        ((), (2, 1, 32, 64, 4), (2, 1, 64)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    x: tuple[int, ...], packed: tuple[int, ...], scales: tuple[int, ...]
) -> None:
    with pytest.raises(Fail, match=r"Product: (the|x must)"):
        product(100, 8, 128)(
            np.zeros(x, np.float32), np.zeros(packed, np.uint8), np.zeros(scales, np.float32)
        )


@pytest.mark.parametrize(
    ("columns", "bits", "size", "what"),
    [(0, 8, 128, "N must"), (-3, 8, 128, "N must"), (9, 5, 128, "bits"), (9, 8, 64, "block_size")],
)
def test_attributes_that_cannot_be_are_refused(
    columns: int, bits: int, size: int, what: str
) -> None:
    with pytest.raises(RuntimeException, match=what):
        product(columns, bits, size)
