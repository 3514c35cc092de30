"""Blocks of 8 and 4 bits: how near they are, and that ONNX Runtime reads them as we do."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.errors import ConfigError
from kiku.graph import check_precision
from kiku.graph.layers import QuantScheme, block_size_for, linear
from kiku.graph.quantise import quantise, quantise_rows
from kiku.graph.writer import GraphWriter


def matrix(rows: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9), width=st.integers(1, 70), bits=st.sampled_from([8, 4]),
    size=st.sampled_from([16, 32]), scale=st.sampled_from([0.0, 1e-6, 1.0, 1e4]),
)  # fmt: skip
def test_every_number_is_within_a_step_of_its_own(
    rows: int, width: int, bits: int, size: int, scale: float
) -> None:
    original = matrix(rows, width) * np.float32(scale)
    blocks = quantise(original, bits, size)
    restored = blocks.restored(width)
    steps = np.repeat(np.abs(blocks.scales), size, axis=1)[:, :width]
    # Half a step, but for the few that the best scale of a 4-bit block cuts off.
    allowed = 0.5 if bits == 8 else 1.7
    assert np.all(np.abs(restored - original) <= allowed * steps * 1.001 + 1e-12)


def test_more_bits_are_nearer_and_smaller_blocks_too() -> None:
    original = matrix(64, 512)
    errors = [
        float(np.square(quantise(original, bits, size).restored(512) - original).mean())
        for bits, size in ((4, 128), (4, 32), (8, 128), (8, 32))
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 0.02
    assert errors[2] < 1e-4


def test_the_best_of_several_scales_beats_the_widest() -> None:
    original = matrix(64, 512)
    blocks = original.reshape(64, -1, 128)
    reach = np.abs(blocks).max(-1, keepdims=True) / 8
    plain = np.clip(np.rint(blocks / reach), -8, 7) * reach
    ours = quantise(original, 4, 128).restored(512).reshape(blocks.shape)
    assert np.square(ours - blocks).mean() < 0.97 * np.square(plain - blocks).mean()


@pytest.mark.parametrize("bits", [32, 8, 4])
@pytest.mark.parametrize(("rows", "width"), [(48, 256), (40, 96), (33, 50)])
def test_the_runtime_multiplies_what_the_blocks_stand_for(
    tmp_path: Path, bits: int, rows: int, width: int
) -> None:
    original = matrix(rows, width)
    with GraphWriter(tmp_path, "product") as writer:
        x = writer.input("x", np.float32, ["R", width])
        out = linear(writer, x, "matrix", original, QuantScheme(bits))
        writer.output(out, "y", np.float32, ["R", rows])
        writer.finish()
    session = onnxruntime.InferenceSession(str(tmp_path / "product.onnx"))
    given_x = matrix(5, width, seed=1)
    (product,) = session.run(None, {"x": given_x})
    if bits < 32:
        original = quantise(original, bits, block_size_for(width)).restored(width)
    wanted = given_x @ original.T
    # 8-bit products round x too: by 1/254 of each block's largest number.
    tolerance = 1e-5 if bits == 32 else 2e-2
    assert np.abs(product - wanted).max() < tolerance * np.abs(wanted).max()


def test_rows_of_a_table_have_a_scale_each() -> None:
    table = matrix(5, 64) * np.array([[1e-3], [1], [10], [0], [1]], np.float32)
    packed, scales = quantise_rows(table)
    restored = (packed.astype(np.float32) - 128) * scales
    assert np.all(np.abs(restored - table) <= 0.51 * np.abs(table).max(1, keepdims=True) / 127)


def _after_junk(original: np.ndarray, bits: int, size: int) -> np.ndarray:
    """What blocks stand for that were made in memory which held other numbers before."""
    shapes = (original.size, original.size // 2, original.size // size)
    junk = [np.full(shape, 12345.678, np.float32) for shape in shapes]
    del junk
    return quantise(original, bits, size).restored(original.shape[1])


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("size", [32, 128])
@pytest.mark.parametrize("value", [1e-45, 1e-40, 2e-38, -2e-38, 1e-37])
def test_blocks_of_tiny_numbers_are_zeros(value: float, bits: int, size: int) -> None:
    original = matrix(64, 256)
    blocks = original.reshape(64, -1, size)
    blocks[::2] = value
    blocks[::2, :, 0] = 0
    restored = _after_junk(original, bits, size)
    assert not restored[::2].any()
    assert np.array_equal(restored[1::2], quantise(original[1::2], bits, size).restored(256))


@pytest.mark.parametrize("bits", [8, 4])
def test_blocks_of_enormous_numbers_are_within_a_step(bits: int) -> None:
    original = matrix(64, 256) * np.float32(1e30)  # their squares are infinite
    restored = _after_junk(original, bits, 32)
    steps = np.repeat(np.abs(quantise(original, bits, 32).scales), 32, axis=1)
    assert np.all(np.abs(restored - original) <= 1.001 * steps)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("bits", [8, 4])
def test_what_is_not_a_number_stays_so(bits: int) -> None:
    original = matrix(64, 256)
    original[::2, ::32] = np.nan
    restored = _after_junk(original, bits, 32)
    assert np.isnan(restored[::2]).all()
    assert np.isfinite(restored[1::2]).all()


def test_a_precision_that_there_is_not_is_told() -> None:
    with pytest.raises(ConfigError, match="float32, int8, int4, int8_kv8, int4_kv8, not 'int3'"):
        check_precision("int3")
