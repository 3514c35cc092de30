"""Attention over rings against numpy in float64, and the rows of a block against single rows."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from tests.kernels.graphs import Operator

Floats = NDArray[np.float32]
Stored = NDArray[Any]
NAMES: dict[type[np.generic], str] = {
    np.float32: "Attention", np.float16: "AttentionHalf", np.int8: "AttentionBytes",
}  # fmt: skip
ALL = pytest.mark.parametrize("stored", NAMES)
SCALE = 4  # bytes behind the numbers of a row of int8


@functools.cache
def _operator(stored: type[np.generic], heads: int, window: int, threads: int = 1) -> Operator:
    ins = [
        np.float32, stored, stored, np.int32, np.int32, np.int64, np.float32, np.float32,
    ]  # fmt: skip
    return Operator(
        NAMES[stored], ins, [np.float32, stored, stored],
        threads=threads, num_heads=heads, window=window,
    )  # fmt: skip


def _angles(positions: NDArray[np.int64], dim: int) -> NDArray[np.float64]:
    return positions[:, None] * 100.0 ** (-np.arange(dim // 2) / (dim // 2))


def _rotated(x: Floats, positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """[rows, heads, dim], by the angles of the positions."""
    angles = _angles(positions, x.shape[-1])[:, None]
    even, odd = x[..., 0::2].astype(np.float64), x[..., 1::2].astype(np.float64)
    y = np.empty(x.shape)
    y[..., 0::2] = even * np.cos(angles) - odd * np.sin(angles)
    y[..., 1::2] = even * np.sin(angles) + odd * np.cos(angles)
    return y


def _numbers(rows: Stored) -> NDArray[np.float64]:
    """What rows of a ring stand for: those of int8 have a scale behind them."""
    if rows.dtype != np.int8:
        return rows.astype(np.float64)
    scales = np.ascontiguousarray(rows[..., -SCALE:]).view(np.float32)
    return rows[..., :-SCALE] * scales.astype(np.float64)


def _narrowed(rows: Floats) -> Stored:
    """Rows as int8, a scale behind each, the greatest being 127."""
    scales = np.abs(rows).max(axis=-1, keepdims=True) / np.float32(127)
    return np.concatenate([np.rint(rows / scales).astype(np.int8), scales.view(np.int8)], axis=-1)


def _attended(
    queries: NDArray[np.float64], keys: Stored, values: Stored, first: int, window: int
) -> NDArray[np.float64]:
    """Rows [rows, heads, dim] from position `first` on, over one slot's rings [heads, P, dim]."""
    y = np.empty(queries.shape)
    for row, query in enumerate(queries):
        seen = np.arange(max(0, first + row - window + 1), first + row + 1) % keys.shape[1]
        scores = np.einsum("hd,hpd->hp", query, _numbers(keys[:, seen]))
        scores /= np.sqrt(query.shape[-1])
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        y[row] = np.einsum("hp,hpd->hd", weights, _numbers(values[:, seen]))
    return y


@dataclass
class Streams:
    """Slots with their rings and positions; `feed` gives each some rows."""

    stored: type[np.generic]
    slots: int
    heads: int
    dim: int
    window: int
    capacity: int
    threads: int = 1

    def __post_init__(self) -> None:
        # what was never written is never read
        self.keys, self.values = self.rings(np.nan), self.rings(np.nan)
        self.positions = np.zeros(self.slots, np.int64)

    def rings(self, number: float) -> Stored:
        """Of one number only."""
        shape = (self.slots, self.heads, self.capacity, self.dim)
        if self.stored is not np.int8:
            return np.full(shape, number, self.stored)
        scales = np.full((*shape[:-1], 1), number, np.float32).view(np.int8)
        return np.concatenate([np.ones(shape, np.int8), scales], axis=-1)

    @property
    def operator(self) -> Operator:
        return _operator(self.stored, self.heads, self.window, self.threads)

    def inputs(self, rows: Sequence[Floats], order: Sequence[int]) -> list[NDArray[Any]]:
        """Rows [count, 3, heads, dim] of every slot, packed slot after slot in this order."""
        width = 3 * self.heads * self.dim
        counts = np.array([len(some) for some in rows], np.int32)
        firsts = np.zeros(self.slots, np.int32)
        firsts[list(order)] = np.cumsum([0, *counts[list(order)]])[:-1]
        fused = np.concatenate([rows[slot].reshape(len(rows[slot]), width) for slot in order])
        positions = np.concatenate(
            [self.positions[slot] + np.arange(len(rows[slot])) for slot in order]
        )
        angles = _angles(positions, self.dim)
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        return [
            fused, self.keys, self.values, counts, firsts, self.positions.copy(), cos, sin,
        ]  # fmt: skip

    def feed(self, rows: Sequence[Floats], order: Sequence[int] | None = None) -> list[Floats]:
        """What each slot's rows give, [count, heads, dim]."""
        order = order or range(self.slots)
        inputs = self.inputs(rows, order)
        y, self.keys, self.values = self.operator(*inputs)
        self.positions += inputs[3]
        y = y.reshape(len(y), self.heads, self.dim)
        return [y[first : first + count] for first, count in zip(inputs[4], inputs[3], strict=True)]


def _rows(seed: int, count: int, heads: int, dim: int) -> Floats:
    return np.random.default_rng(seed).normal(0, 1, (count, 3, heads, dim)).astype(np.float32)


def _check(streams: Streams, rows: Sequence[Floats], order: Sequence[int] | None = None) -> None:
    """Feeds the rows and compares what comes with numpy, and the rings with what they were."""
    before = streams.keys.copy(), streams.values.copy(), streams.positions.copy()
    heard = streams.feed(rows, order)
    bits = {np.float32: 1e-6, np.float16: 2.0**-11, np.int8: 0}[streams.stored]
    for slot, some in enumerate(rows):
        first = int(before[2][slot])
        positions = first + np.arange(len(some))
        places = positions % streams.capacity
        others = np.setdiff1d(np.arange(streams.capacity), places)
        for old, new in zip(before, (streams.keys, streams.values), strict=False):
            np.testing.assert_array_equal(new[slot][:, others], old[slot][:, others])
        if len(some) == 0:
            continue
        keys, values = streams.keys[slot], streams.values[slot]
        wanted = _rotated(some[:, 1], positions).swapaxes(0, 1)
        new = some[:, 2].swapaxes(0, 1)
        if streams.stored is np.int8:  # half a step of the greatest number's
            steps = np.abs(wanted).max(axis=-1, keepdims=True) / 127
            assert (np.abs(_numbers(keys[:, places]) - wanted) <= 0.5001 * steps + 1e-6).all()
            np.testing.assert_array_equal(values[:, places], _narrowed(new))
        else:
            np.testing.assert_allclose(keys[:, places], wanted, rtol=1.01 * bits, atol=1e-6)
            np.testing.assert_array_equal(values[:, places], new.astype(streams.stored))
        queries = _rotated(some[:, 0], positions)
        np.testing.assert_allclose(
            heard[slot],
            _attended(queries, keys, values, first, streams.window),
            rtol=2e-6, atol=2e-6,
        )  # fmt: skip


@ALL
@pytest.mark.parametrize("dim", [2, 6, 8, 16, 24, 32, 40, 64, 102, 128, 256])
@pytest.mark.parametrize("window", [1, 7, 16, 41])
def test_attention_is_that_of_numpy(stored: type[np.generic], dim: int, window: int) -> None:
    """Rings without room to spare: not full, just full, and around several times."""
    streams = Streams(stored, 1, 2, dim, window, window + 4)
    for call in range(window + 4):
        count = (1, 5, 2, 3, 4)[call % 5]
        _check(streams, [_rows(call, count, 2, dim)])


@ALL
@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("slack", [0, 1, 13])
def test_slots_of_every_count_in_every_order(
    stored: type[np.generic], threads: int, slack: int
) -> None:
    streams = Streams(stored, 5, 3, 32, 20, 20 - 1 + 16 + slack, threads)
    random = np.random.default_rng(slack)
    for call in range(12):
        counts = random.choice([0, 0, 1, 2, 3, 7, 16], 5)
        rows = [_rows(100 * call + slot, n, 3, 32) for slot, n in enumerate(counts)]
        _check(streams, rows, [int(slot) for slot in random.permutation(5)])


@ALL
@pytest.mark.parametrize(("dim", "window"), [(128, 100), (64, 750), (24, 70), (16, 5)])
def test_a_row_is_the_same_alone_and_in_a_block(
    stored: type[np.generic], dim: int, window: int
) -> None:
    """Bit for bit, for blocks of 1 to 16, wherever the window begins in the ring."""
    rows = _rows(0, window + 137, 2, dim)
    single = Streams(stored, 1, 2, dim, window, window)
    alone = np.concatenate([single.feed([row[None]])[0] for row in rows])
    block = Streams(stored, 2, 2, dim, window, window + 18, threads=2)
    at, size = 0, 0
    while at < len(rows):
        size = size % 16 + 1 if at >= window else 16
        some = rows[at : at + size]
        heard = block.feed([some[:0], some] if size % 2 else [some[::-1], some])[1]
        np.testing.assert_array_equal(heard, alone[at : at + size])
        at += size
    assert at > window


def test_many_threads_give_the_same_bits() -> None:
    rows = [_rows(slot, 16, 8, 128) for slot in range(6)]
    heard: list[Floats] = []
    for threads in (1, 2, 8):
        streams = Streams(np.float32, 6, 8, 128, 300, 320, threads)
        streams.keys = np.random.default_rng(1).normal(0, 1, streams.keys.shape).astype(np.float32)
        streams.values = streams.keys[:, :, ::-1].copy()
        streams.positions += 1000
        heard.append(np.concatenate(streams.feed(rows)))
    np.testing.assert_array_equal(heard[0], heard[1])
    np.testing.assert_array_equal(heard[0], heard[2])


@ALL
def test_rings_are_written_in_place(stored: type[np.generic]) -> None:
    """Where outputs are the memory of the inputs, only the new rows' places change."""
    apart, streams = (Streams(stored, 3, 2, 16, 9, 12) for _ in range(2))
    keys, values = (
        onnxruntime.OrtValue.ortvalue_from_numpy(ring) for ring in (streams.keys, streams.values)
    )
    for call in range(8):
        rows = [_rows(call * 3 + slot, (call + slot) % 4, 2, 16) for slot in range(3)]
        wanted = apart.feed(rows, [2, 0, 1])
        inputs = streams.inputs(rows, [2, 0, 1])
        binding = streams.operator.session.io_binding()
        for name, array in zip(streams.operator.ins, inputs, strict=True):
            binding.bind_cpu_input(name, array)
        binding.bind_output("out0")
        for name, out, ring in (("in1", "out1", keys), ("in2", "out2", values)):
            binding.bind_ortvalue_input(name, ring)
            binding.bind_ortvalue_output(out, ring)
        streams.operator.session.run_with_iobinding(binding)
        streams.positions += inputs[3]
        y: Floats = binding.get_outputs()[0].numpy().reshape(-1, 2, 16)
        np.testing.assert_array_equal(y, np.concatenate([wanted[i] for i in (2, 0, 1)]))
        np.testing.assert_array_equal(keys.numpy(), apart.keys)
        np.testing.assert_array_equal(values.numpy(), apart.values)


def test_inputs_elsewhere_stay_as_they_were() -> None:
    streams = Streams(np.float32, 2, 1, 8, 4, 6)
    inputs = streams.inputs([_rows(0, 2, 1, 8), _rows(1, 1, 1, 8)], [0, 1])
    before = [array.copy() for array in inputs]
    streams.operator(*inputs)
    for old, new in zip(before, inputs, strict=True):
        np.testing.assert_array_equal(old, new)


@ALL
def test_no_rows_change_nothing(stored: type[np.generic]) -> None:
    streams = Streams(stored, 2, 2, 8, 4, 6)
    streams.keys = streams.rings(3)
    (first, second) = streams.feed([_rows(0, 0, 2, 8)] * 2)
    assert first.shape == second.shape == (0, 2, 8)
    np.testing.assert_array_equal(streams.keys, streams.rings(3))


@pytest.mark.parametrize(("stored", "most"), [(np.float16, 2e-3), (np.int8, 3e-2)])
def test_fewer_bits_are_near_float32(stored: type[np.generic], most: float) -> None:
    whole, rounded = (Streams(one, 1, 4, 64, 200, 220) for one in (np.float32, stored))
    for call in range(30):
        rows = [_rows(call, 9, 4, 64)]
        (wanted,), (seen,) = whole.feed(rows), rounded.feed(rows)
        np.testing.assert_allclose(seen, wanted, atol=most)


def test_int8_has_no_infinities_and_all_of_none_or_nothing() -> None:
    streams = Streams(np.int8, 1, 1, 8, 4, 16)
    rows = np.zeros((5, 3, 1, 8), np.float32)
    rows[0, 2, 0, :3] = [np.inf, -1e38, 32752]
    rows[1, 2, 0, :2] = [1e-38, -3e-39]  # too small to be told from 0
    rows[4, 2, 0, :2] = [1e-38, -3e-31]
    rows[2, 2, 0, :2] = [np.nan, 5]
    rows[3, 2, 0, :2] = [1e-29, -5e-30]
    streams.feed([rows[:1]])
    streams.feed([rows[1:]])
    greatest, tiny, none, small, less = _numbers(streams.values[0, 0, :5])
    np.testing.assert_allclose(greatest[:3], [65504, -65504, 32752], rtol=0.01)
    assert not tiny.any()
    assert not less.any()
    assert not streams.keys[0, 0, :5].any(), "zeros of the scale 0"
    assert np.isnan(none).all()
    np.testing.assert_allclose(small[:2], [1e-29, -5e-30], rtol=0.01)
    assert not streams.values[0, 0, 2, :8].any(), "the same bytes on every processor"


def test_float16_has_no_infinities() -> None:
    streams = Streams(np.float16, 1, 1, 8, 4, 4)
    rows = np.zeros((1, 3, 1, 8), np.float32)
    rows[0, 1:, 0] = [1e6, -1e6, np.inf, -np.inf, 65504, 65519, 1e-7, np.nan]
    rows[0, 1, 0] = [1e6, 0, -np.inf, 0, 3e38, 0, -65519, 0]  # the rotation by 0 keeps zeros
    (heard,) = streams.feed([rows])
    np.testing.assert_array_equal(streams.keys[0, 0, 0][[0, 4, 6]], [65504, 65504, -65504])
    wanted = np.array([65504, -65504, 65504, -65504, 65504, 65504, 1e-7, np.nan], np.float16)
    np.testing.assert_array_equal(streams.values[0, 0, 0], wanted)
    assert not np.isinf(heard).any()


def test_great_and_tiny_scores() -> None:
    """A softmax that is one at its greatest score, and one over denormals."""
    for size in (1e4, 1e-20, 1e-38):
        streams = Streams(np.float32, 1, 2, 16, 20, 24)
        for call in range(8):
            rows = _rows(call, 5, 2, 16)
            rows[:, :2] *= np.float32(size)
            (heard,) = streams.feed([rows])
            queries = _rotated(rows[:, 0], 5 * call + np.arange(5))
            wanted = _attended(queries, streams.keys[0], streams.values[0], 5 * call, 20)
            if size < 1:
                np.testing.assert_allclose(heard, wanted, atol=2e-6)
            else:  # float32 knows such scores to some units, where most weights are 0 or 1
                assert np.mean(np.abs(heard - wanted) < 1e-3) > 0.9


@ALL
@pytest.mark.parametrize("part", [0, 1, 2])
def test_what_is_no_number_stays_in_its_slot_and_head(stored: type[np.generic], part: int) -> None:
    """And in the rows that see it: those before are as if it had not been."""
    rows = [_rows(slot, 16, 3, 32) for slot in range(3)]
    clean = Streams(stored, 3, 3, 32, 6, 21).feed(rows)
    rows[1][5, part, 2, 4] = np.nan
    heard = Streams(stored, 3, 3, 32, 6, 21).feed(rows)
    struck = np.zeros((16, 3), bool)
    struck[5 : 6 if part == 0 else 11, 2] = True
    np.testing.assert_array_equal(np.isnan(heard[1]).any(axis=2), struck)
    np.testing.assert_array_equal(heard[1][~struck], clean[1][~struck])
    np.testing.assert_array_equal(heard[0], clean[0])
    np.testing.assert_array_equal(heard[2], clean[2])


@ALL
def test_places_out_of_the_window_are_not_read(stored: type[np.generic]) -> None:
    """The ring has slack: what a rewound stream left there is not seen."""
    rows = _rows(0, 30, 2, 16)
    clean, dirty = (Streams(stored, 1, 2, 16, 8, 40) for _ in range(2))
    for streams in (clean, dirty):
        streams.feed([rows[:10]])
    nan, inf, zero = (streams.rings(number)[0] for number in (np.nan, np.inf, 0))
    dirty.keys[0, :, 10:], dirty.values[0, :, 10:] = nan[:, 10:], inf[:, 10:]
    clean.keys[0, :, 10:], clean.values[0, :, 10:] = zero[:, 10:], zero[:, 10:]
    dirty.keys[0, :, :3], dirty.values[0, :, :3] = inf[:, :3], nan[:, :3]
    np.testing.assert_array_equal(dirty.feed([rows[10:26]])[0], clean.feed([rows[10:26]])[0])


def _wrong(index: int, value: Any) -> Any:
    def change(inputs: list[NDArray[Any]]) -> None:
        inputs[index] = value(inputs[index])

    return change


WRONG = {
    "query, key and value": _wrong(0, lambda x: x[:, :-2].copy()),
    r"\[rows, 3 \* num_heads": _wrong(0, lambda x: x[None]),
    r"\[slots, num_heads": _wrong(1, lambda x: x[:, :1].copy()),
    r"keys must be \[slots": _wrong(1, lambda x: x[0]),
    "shape of the keys": _wrong(2, lambda x: x[:, :, :-1].copy()),
    "shape of the keys ": _wrong(2, lambda x: x[0]),
    "counts must be int32": _wrong(3, lambda x: x[:-1].copy()),
    "count of rows is negative": _wrong(3, lambda x: np.array([-1, 5], np.int32)),
    "add up": _wrong(3, lambda x: np.array([0, 2], np.int32)),
    "firsts must be": _wrong(4, lambda x: x[:, None]),
    "outside": _wrong(4, lambda x: np.array([-1, 2], np.int32)),
    "outside of the rows": _wrong(4, lambda x: np.array([2**31 - 1, 2], np.int32)),
    "the same row": _wrong(4, lambda x: np.array([1, 2], np.int32)),
    "positions must be": _wrong(5, lambda x: np.zeros(3, np.int64)),
    "position is negative": _wrong(5, lambda x: np.array([0, -1], np.int64)),
    "far too great": _wrong(5, lambda x: np.array([2**63 - 1, 0], np.int64)),
    "cosines": _wrong(6, lambda x: x[1:].copy()),
    "sines": _wrong(7, lambda x: x[:, :1].copy()),
}


@ALL
@pytest.mark.parametrize("message", WRONG)
def test_wrong_inputs_are_refused(stored: type[np.generic], message: str) -> None:
    streams = Streams(stored, 2, 2, 8, 4, 6)
    inputs = streams.inputs([_rows(0, 2, 2, 8), _rows(1, 2, 2, 8)], [0, 1])
    streams.operator(*inputs)
    WRONG[message](inputs)
    with pytest.raises(Exception, match=f"kiku Attention.*{message.strip()}"):
        streams.operator(*inputs)


@ALL
def test_rings_without_room_are_refused(stored: type[np.generic]) -> None:
    streams = Streams(stored, 1, 2, 8, 4, 6)
    streams.feed([_rows(0, 3, 2, 8)])
    with pytest.raises(Exception, match="rings are too small"):
        streams.feed([_rows(0, 4, 2, 8)])


@ALL
@pytest.mark.parametrize("dim", [0, 3, 258])
def test_heads_of_a_wrong_width_are_refused(stored: type[np.generic], dim: int) -> None:
    streams = Streams(stored, 1, 2, dim, 4, 6)
    angles = np.zeros((1, dim // 2), np.float32)
    inputs = streams.inputs([np.zeros((1, 3, 2, dim), np.float32)], [0])
    with pytest.raises(Exception, match="width of a head"):
        streams.operator(*inputs[:6], angles, angles)


@pytest.mark.parametrize(("heads", "window"), [(0, 4), (-1, 4), (2, 0), (2, -3), (2**40, 4)])
def test_wrong_attributes_are_refused(heads: int, window: int) -> None:
    with pytest.raises(Exception, match="must be 1 or more"):
        _operator(np.float32, heads, window)


@ALL
def test_slots_without_rows_may_hold_anything(stored: type[np.generic]) -> None:
    streams = Streams(stored, 2, 2, 8, 4, 6)
    inputs = streams.inputs([_rows(0, 2, 2, 8), _rows(1, 0, 2, 8)], [0, 1])
    wanted = streams.operator(*inputs)
    inputs[4][1], inputs[5][1] = -7, -7
    for old, new in zip(wanted, streams.operator(*inputs), strict=True):
        np.testing.assert_array_equal(old, new)
