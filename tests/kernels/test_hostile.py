"""Operators that are given what does not fit: an error each, and the process lives."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.kernels.graphs import Operator

F, I32, I64, U8 = np.float32, np.int32, np.int64, np.uint8
H, D, P = 2, 8, 16


@pytest.fixture(scope="module")
def attention() -> Operator:
    return Operator(
        "Attention", [F, F, F, I32, I32, I64, F, F], [F, F, F], num_heads=H, window=P - 4
    )


def good() -> list[NDArray[Any]]:
    """Three rows: two of slot 0, one of slot 1."""
    ring = np.zeros((2, H, P, D), F)
    turns = np.zeros((3, D // 2), F)
    return [
        np.ones((3, 3 * H * D), F), ring, ring.copy(),
        np.array([2, 1], I32), np.array([0, 2], I32), np.array([5, 7], I64), turns, turns,
    ]  # fmt: skip


def test_what_fits_is_computed(attention: Operator) -> None:
    assert attention(*good())[0].shape == (3, H * D)


_WRONG: dict[str, tuple[int, NDArray[Any]]] = {
    "rows of another width": (0, np.ones((3, 3 * H * D + 1), F)),
    "rows without an axis": (0, np.ones((), F)),
    "more rows than are counted": (0, np.ones((4, 3 * H * D), F)),
    "fewer rows than are counted": (0, np.ones((2, 3 * H * D), F)),
    "keys of another number of heads": (1, np.zeros((2, H + 1, P, D), F)),
    "keys with an axis too few": (1, np.zeros((2, H, P * D), F)),
    "values of other slots than keys": (2, np.zeros((3, H, P, D), F)),
    "a ring shorter than the window": (1, np.zeros((2, H, 3, D), F)),
    "counts below zero": (3, np.array([4, -1], I32)),
    "counts of other slots": (3, np.array([2, 1, 0], I32)),
    "counts beyond all": (3, np.array([2**31 - 1, 2**31 - 1], I32)),
    "a first before the rows": (4, np.array([-1, 2], I32)),
    "a first behind the rows": (4, np.array([0, 3], I32)),
    "a first far behind": (4, np.array([2**31 - 1, 2], I32)),
    "a position below zero": (5, np.array([-1, 7], I64)),
    "angles of fewer rows": (6, np.zeros((2, D // 2), F)),
    "angles of another width": (7, np.zeros((3, D), F)),
}


@pytest.mark.parametrize("name", _WRONG)
def test_attention_refuses(attention: Operator, name: str) -> None:
    inputs = good()
    at, wrong = _WRONG[name]
    inputs[at] = wrong
    with pytest.raises(Exception, match="kiku Attention"):
        attention(*inputs)


@given(
    counts=st.lists(st.integers(-3, 2**31 - 1), min_size=2, max_size=2),
    firsts=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=2, max_size=2),
    positions=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=2),
)
@settings(max_examples=200, deadline=None)
def test_no_numbers_crash_attention(
    counts: list[int], firsts: list[int], positions: list[int]
) -> None:
    operator = Operator(
        "Attention", [F, F, F, I32, I32, I64, F, F], [F, F, F], num_heads=H, window=P - 4
    )
    inputs = good()
    inputs[3:6] = np.array(counts, I32), np.array(firsts, I32), np.array(positions, I64)
    problem = ""
    try:
        y, *_ = operator(*inputs)
    except Exception as error:  # ONNX Runtime's errors have no common base but this
        problem = str(error)
    assert "kiku Attention" in problem if problem else y.shape == (3, H * D)


@pytest.mark.parametrize(
    ("x", "tiles", "scales"),
    [
        ((3, 100), (1, 1, 32, 64, 4), (1, 1, 64)),  # too few blocks is 128: fits, K is 100
        ((3, 129), (1, 1, 32, 64, 4), (1, 1, 64)),
        ((3, 128), (1, 1, 31, 64, 4), (1, 1, 64)),
        ((3, 128), (1, 1, 32, 64, 4), (1, 1, 63)),
        ((3, 128), (0,), (0,)),
        ((), (1, 1, 32, 64, 4), (1, 1, 64)),
    ],
)
def test_product_computes_or_refuses(
    x: tuple[int, ...], tiles: tuple[int, ...], scales: tuple[int, ...]
) -> None:
    operator = Operator("Product", [F, U8, F], [F], N=64, bits=8, block_size=128)
    inputs = np.ones(x, F), np.full(tiles, 128, U8), np.ones(scales, F)
    if x == (3, 100):
        assert not operator(*inputs)[0].any()
    else:
        with pytest.raises(Exception, match="kiku Product"):
            operator(*inputs)


@pytest.mark.parametrize(
    "attributes",
    [
        {"N": 64, "bits": 7, "block_size": 128},
        {"N": 64, "bits": 8, "block_size": 100},
        {"N": 0, "bits": 8, "block_size": 128},
        {"N": -64, "bits": 8, "block_size": 128},
        {"bits": 8, "block_size": 128},
    ],
)
def test_product_refuses_attributes(attributes: dict[str, int]) -> None:
    with pytest.raises(Exception, match=r"Product|attribute"):
        Operator("Product", [F, U8, F], [F], **attributes)


def test_embed_of_nothing_ends() -> None:
    ids = np.zeros((2**20, 0), I64)
    (y,) = Operator("Embed", [I64, U8, F], [F])(ids, np.zeros((5, 0), U8), np.ones((5, 1), F))
    assert y.shape == (2**20, 0)
