"""Taps against numpy: causal convolutions whose products are there, and ELU."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.kernels.graphs import Operator

F = np.float32
Array = NDArray[np.float32]


def _elu(x: Array) -> NDArray[np.float64]:
    return np.where(x > 0, x, np.expm1(np.minimum(x.astype(np.float64), 0)))


def _pasts(past: Array, taps: int, dilation: int) -> list[Array]:
    """Of each tap but the last."""
    ends = np.cumsum([(taps - 1 - i) * dilation for i in range(taps - 1)])
    return np.split(past, ends[:-1], axis=1) if taps > 1 else []


def _wanted(
    products: Array, bias: Array, past: Array, beside: Array | None, taps: int, dilation: int
) -> tuple[Array, Array]:
    """The sums in the operator's order, and the new past."""
    length = products.shape[1]
    parts = np.split(products, taps, axis=2)
    total = parts[-1] + bias
    new: list[Array] = []
    for old, part in zip(_pasts(past, taps, dilation), parts, strict=False):
        both = np.concatenate([old, part], axis=1)
        total = total + both[:, :length]
        new.append(both[:, length:])
    return (
        total if beside is None else total + beside,
        np.concatenate(new, axis=1) if new else past,
    )


def _inputs(slots: int, length: int, channels: int, taps: int, dilation: int) -> list[Array]:
    random = np.random.default_rng(taps + 10 * length)
    shapes = [
        (slots, length, taps * channels), (channels,),
        (slots, taps * (taps - 1) // 2 * dilation, channels), (slots, length, channels),
    ]  # fmt: skip
    return [random.normal(0, 2, shape).astype(F) for shape in shapes]


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("taps", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("slots", "length", "channels", "dilation"), [
    (1, 1, 8, 1), (3, 2, 8, 1), (2, 5, 7, 3), (1, 9, 1, 2), (2, 40, 33, 1), (5, 700, 24, 2),
    (0, 3, 8, 1), (2, 0, 8, 2), (2, 3, 0, 1),
])  # fmt: skip
def test_sums_and_pasts_are_those_of_numpy(
    slots: int, length: int, channels: int, dilation: int, taps: int, threads: int
) -> None:
    inputs = _inputs(slots, length, channels, taps, dilation)
    operator = Operator(
        "Taps", [F] * 4, [F] * 3, threads=threads, taps=taps, dilation=dilation
    )  # fmt: skip
    sums, activated, past = operator(*inputs)
    wanted, new_past = _wanted(*inputs, taps, dilation)
    assert np.array_equal(sums, wanted)
    assert np.array_equal(past, new_past)
    np.testing.assert_allclose(activated, _elu(wanted), rtol=3e-7)


@pytest.mark.parametrize("taps", [2, 3, 5])
def test_rows_that_come_one_by_one_are_those_of_the_whole(taps: int) -> None:
    inputs = _inputs(2, 11, 20, taps, 2)
    operator = Operator("Taps", [F] * 4, [F] * 3, taps=taps, dilation=2)
    products, bias, past, beside = inputs
    whole = operator(*inputs)
    parts: list[list[Array]] = []
    for cut in ([0, 1], [1, 4], [4, 4], [4, 11]):
        rows = slice(*cut)
        *out, past = operator(products[:, rows], bias, past, beside[:, rows])
        parts.append(out)
    for i in range(2):
        assert np.array_equal(np.concatenate([part[i] for part in parts], axis=1), whole[i])
    assert np.array_equal(past, whole[2])


@pytest.mark.parametrize("leave_out", ["beside", "sums", "activated", "past"])
def test_what_nobody_wants_is_left_out(leave_out: str) -> None:
    taps = 1 if leave_out == "past" else 3
    products, bias, past, beside = _inputs(2, 6, 12, taps, 1)
    given: list[Array] = [products, bias, past, beside]
    names = {
        "beside": ([F, F, F, None], [F, F, F]), "sums": ([F] * 4, [None, F, F]),
        "activated": ([F] * 4, [F, None, F]), "past": ([F, F, None, F], [F, F, None]),
    }  # fmt: skip
    ins, outs = names[leave_out]
    operator = Operator("Taps", ins, outs, taps=taps, dilation=1)
    found = operator(*[one for one, kind in zip(given, ins, strict=True) if kind])
    sums, new_past = _wanted(
        products, bias, past, None if leave_out == "beside" else beside, taps, 1
    )  # fmt: skip
    wanted = [sums, _elu(sums), new_past]
    wanted = [one for one, kind in zip(wanted, outs, strict=True) if kind]
    for one, right in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, right, rtol=3e-7)


def test_elu_of_what_is_at_the_edge() -> None:
    x = np.array([1e-40, -1e-40, -1e-20, -1e-7, -87, -88, -1000, -np.inf, np.inf, np.nan, 3e38], F)
    operator = Operator("Taps", [F, F], [None, F], taps=1, dilation=1)
    (y,) = operator(x.reshape(1, -1, 1), np.zeros(1, F))
    np.testing.assert_allclose(y.reshape(-1), _elu(x), rtol=3e-7, atol=1e-38)


_WRONG: dict[str, tuple[int, NDArray[Any]]] = {
    "products of another width": (0, np.zeros((2, 4, 8 * 3 + 1), F)),
    "products with an axis too few": (0, np.zeros((2, 4), F)),
    "a bias with an axis too many": (1, np.zeros((1, 8), F)),
    "a bias of other channels": (1, np.zeros(7, F)),
    "a past of other slots": (2, np.zeros((1, 6, 8), F)),
    "a past of other taps": (2, np.zeros((2, 3, 8), F)),
    "a past with an axis too few": (2, np.zeros((12, 8), F)),
    "beside it another length": (3, np.zeros((2, 5, 8), F)),
}


@pytest.mark.parametrize("name", _WRONG)
def test_what_does_not_fit_is_refused(name: str) -> None:
    operator = Operator("Taps", [F] * 4, [F] * 3, taps=3, dilation=2)
    inputs: list[NDArray[Any]] = list(_inputs(2, 4, 8, 3, 2))
    assert operator(*inputs)[0].shape == (2, 4, 8)
    place, wrong = _WRONG[name]
    inputs[place] = wrong
    with pytest.raises(Exception, match=r"kiku Taps: .* must be"):
        operator(*inputs)


def test_several_taps_need_their_past() -> None:
    products, bias, _, _ = _inputs(1, 4, 8, 3, 1)
    with pytest.raises(Exception, match="several taps have a past"):
        Operator("Taps", [F, F], [F], taps=3, dilation=1)(products, bias)


@pytest.mark.parametrize(("taps", "dilation"), [(0, 1), (33, 1), (3, 0), (3, 1 << 40), (-1, -1)])
def test_attributes_that_make_no_sense_are_refused(taps: int, dilation: int) -> None:
    with pytest.raises(Exception, match=r"kiku Taps: (taps|dilation) must be"):
        Operator("Taps", [F, F], [F], taps=taps, dilation=dilation)
