"""Search: the codes that a search of the whole book in float32 gives, whatever the numbers are."""

import numpy as np
import pytest
from numpy.typing import NDArray

from kiku.graph.search import coarse_books, half_squares
from tests.kernels.graphs import Operator

Floats = NDArray[np.float32]


def _operator(threads: int = 1) -> Operator:
    return Operator(
        "Search", [np.float32, np.float32, np.int8, np.float32], [np.int64], threads=threads
    )


def _search(x: Floats, books: Floats, threads: int = 1) -> NDArray[np.int64]:
    coarse = coarse_books(books)
    (codes,) = _operator(threads)(x, books, coarse.numbers, coarse.table)
    return codes


def _dots(x: Floats, book: Floats) -> Floats:
    """x [D] . [C, D] in the order in which the operator adds: sixteen sums, fused."""
    C, D = book.shape
    filled = -(-D // 16) * 16
    left, right = np.zeros(filled, np.float32), np.zeros((C, filled), np.float32)
    left[:D], right[:, :D] = x, book
    sums = np.zeros((C, 16), np.float32)
    for at in range(0, filled, 16):
        # A product of two float32 is exact in 64 bits; in the 80 of a long double so is, nearly
        # always, its sum with a third, which is then rounded once.
        wide = left[at : at + 16].astype(np.float64) * right[:, at : at + 16]
        sums = (wide.astype(np.longdouble) + sums).astype(np.float32)
    for half in (8, 4, 2, 1):
        sums = sums[:, :half] + sums[:, half : 2 * half]
    return sums[:, 0]


def _expected(x: Floats, books: Floats) -> NDArray[np.int64]:
    x = x.copy()
    codes = np.zeros((len(x), len(books)), np.int64)
    for number, book in enumerate(books):
        half = half_squares(book)
        for row, left in enumerate(x):
            best = int(np.argmax(_dots(left, book) - half))
            codes[row, number] = best
            x[row] = left - book[best]
    return codes


def _normal(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("rows", [0, 1, 2, 15, 16, 17, 40])
def test_codes_are_those_of_the_whole_search(rows: int, threads: int) -> None:
    x, books = _normal(rows, rows, 96), _normal(1, 4, 1040, 96) * 0.5
    assert _search(x, books, threads).tolist() == _expected(x, books).tolist()


@pytest.mark.parametrize("codes", [1, 2, 15, 16, 17, 513])
@pytest.mark.parametrize("width", [1, 3, 16, 31, 64, 65, 129])
def test_all_shapes(codes: int, width: int) -> None:
    x, books = _normal(codes, 3, width), _normal(width, 3, codes, width)
    assert _search(x, books).tolist() == _expected(x, books).tolist()


@pytest.mark.parametrize("spread", [1e-2, 1e-3, 1e-5, 1e-7])
def test_codes_that_lie_close_together(spread: float) -> None:
    centres = _normal(0, 1, 8, 1, 128)
    books = (centres + spread * _normal(1, 3, 8, 64, 128)).astype(np.float32)
    books = books.reshape(3, 512, 128)
    x = (books[0, ::20] + spread * _normal(2, 26, 128)).astype(np.float32)
    assert _search(x, books).tolist() == _expected(x, books).tolist()


@pytest.mark.parametrize("scale_of_codes", [1e-30, 1e-20, 1e-10, 1.0, 1e10, 1e17])
@pytest.mark.parametrize("scale", [1e-40, 1e-25, 1e-16, 1e-3, 1e3, 1e14, 1e17])
def test_tiny_and_huge_numbers(scale: float, scale_of_codes: float) -> None:
    x = (_normal(0, 5, 40) * scale).astype(np.float32)
    books = (_normal(1, 2, 70, 40) * scale_of_codes).astype(np.float32)
    assert _search(x, books).tolist() == _expected(x, books).tolist()


@pytest.mark.parametrize("in_rows", [True, False])
def test_what_decides_is_lost_in_8_bits(in_rows: bool) -> None:
    # One side is whole numbers, and keeps all of them. On the other one number is so great that the
    # rest, which decides, is rounded to nothing.
    random = np.random.default_rng(0)

    def whole(*shape: int) -> Floats:
        numbers = random.choice([-127, 127], shape).astype(np.float32)
        numbers[..., 0], numbers[..., 1] = random.choice([126, 127], shape[:-1]), 0
        return numbers

    def lost(*shape: int) -> Floats:
        numbers = random.uniform(-0.5, 0.5, shape).astype(np.float32)
        numbers[..., 1] = 300
        return numbers

    x, books = (lost(20, 64), whole(1, 100, 64)) if in_rows else (whole(20, 64), lost(1, 100, 64))
    codes = _expected(x, books)
    assert len(set(codes.ravel().tolist())) > 5
    assert _search(x, books).tolist() == codes.tolist()


def test_of_equal_codes_the_first_is_taken() -> None:
    book = _normal(0, 1, 40, 64)
    books = np.concatenate([book, book, book[:, ::-1]], axis=1)
    x = _normal(1, 30, 64)
    codes = _search(x, books)
    assert codes.max() < 40
    assert codes.tolist() == _expected(x, books).tolist()
    assert not _search(np.zeros((3, 64), np.float32), np.ones((2, 33, 64), np.float32)).any()


def test_a_code_itself_is_found_and_leaves_nothing() -> None:
    books = _normal(0, 2, 300, 32)
    nearest_to_nothing = int(np.argmin(half_squares(books[1])))
    codes = _search(books[0, 100:120], books)
    assert codes.tolist() == [[code, nearest_to_nothing] for code in range(100, 120)]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("rows", [3, 20])
def test_what_is_no_number_stays_in_its_row(bad: float, rows: int) -> None:
    x, books = _normal(0, rows, 64), _normal(1, 3, 100, 64)
    expected = _search(x, books)
    x[1, 7] = bad
    codes = _search(x, books)
    assert (codes[1] >= 0).all()
    assert (codes[1] < 100).all()
    assert np.delete(codes, 1, axis=0).tolist() == np.delete(expected, 1, axis=0).tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
def test_a_code_that_is_no_number_is_not_taken(bad: float) -> None:
    x, books = _normal(0, 20, 64), _normal(1, 2, 100, 64)
    books[:, 11, 3] = bad
    rest = np.delete(books, 11, axis=1)
    codes = _expected(x, rest)
    assert _search(x, books).tolist() == np.where(codes >= 11, codes + 1, codes).tolist()


def test_a_row_alone_and_among_others() -> None:
    x, books = _normal(0, 33, 128), _normal(1, 5, 512, 128)
    together = _search(x, books, 2)
    alone = np.concatenate([_search(x[row : row + 1], books) for row in range(len(x))])
    assert together.tolist() == alone.tolist()


def test_inputs_of_another_shape_are_refused() -> None:
    x, books = _normal(0, 3, 64), _normal(1, 2, 20, 64)
    coarse = coarse_books(books)
    right = [x, books, coarse.numbers, coarse.table]
    wrong = [x[:, :63], books[:, :, :63], coarse.numbers[:, :16], coarse.table[:, :4]]
    for place, array in enumerate(wrong):
        inputs = [*right[:place], array, *right[place + 1 :]]
        with pytest.raises(Exception, match=r"kiku Search: .* must be"):
            _operator()(*inputs)
