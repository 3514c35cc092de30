# pyright: basic
# What torch gives is only partly typed.
"""Matrices in blocks of 8 or 4 bits, as ONNX Runtime's MatMulNBits reads them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kiku.errors import ConfigError

_KV8 = "_kv8"

PRECISIONS = ("float32", "int8", "int4", f"int8{_KV8}", f"int4{_KV8}")
"""What the weights of the matrix products can be kept in. With `_kv8` the operators of
`kiku-kernels` keep the decoder's keys and values in 8 bits, too."""

_CHUNK_NUMBERS = 1 << 22  # numbers that are worked on at once: some tens of megabytes with copies

# A 4-bit block's scale is tried at these parts of the one that reaches its largest number; the
# least squared error wins. Clipping the largest a little leaves finer steps for all the others.
_TRIED_4_BIT = (1.0, 0.92, 0.85)

# A block whose scale is smaller counts as one of zeros, as in the kernels: 1 / scale would become
# infinite in float32, and so small a number changes no product.
_LEAST_SCALE = np.float32(2.0**-120)


@dataclass(frozen=True, slots=True)
class Blocks:
    """A matrix [N, K] in blocks along K, each with its own scale; zero lies in the middle.

    Attributes:
        packed: uint8 [N, blocks, bytes of one block]; of 4-bit numbers the even ones lie low.
        scales: float32 [N, blocks].
    """

    packed: NDArray[np.uint8]
    scales: NDArray[np.float32]
    bits: int
    block_size: int

    def restored(self, width: int) -> NDArray[np.float32]:
        """What the blocks stand for: float32 [N, width]."""
        numbers = self.packed
        if self.bits == 4:
            numbers = np.stack([numbers & 15, numbers >> 4], axis=-1).reshape(
                *numbers.shape[:2], self.block_size
            )
        middle = 1 << (self.bits - 1)
        values = (numbers.astype(np.float32) - middle) * self.scales[..., None]
        return values.reshape(len(values), -1)[:, :width]


def check_precision(precision: str) -> None:
    """Refuse a precision that there is not.

    Raises:
        ConfigError: none of `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")


def precision_of_weights(precision: str) -> str:
    """The same without what is said of keys: "int8_kv8" -> "int8"."""
    return precision.removesuffix(_KV8)


def dtype_of_keys(precision: str) -> type[np.generic]:
    """In what the operators of `kiku-kernels` keep the decoder's keys and values."""
    if precision.endswith(_KV8):
        return np.int8
    return np.float32 if precision == "float32" else np.float16


def quantise(matrix: NDArray[np.float32], bits: int, block_size: int) -> Blocks:
    """The nearest blocks of `bits` to a matrix [N, K], symmetric about zero."""
    N, K = matrix.shape
    num_blocks = -(-K // block_size)
    packed = np.empty((N, num_blocks, block_size * bits // 8), np.uint8)
    scales = np.empty((N, num_blocks), np.float32)
    rows = max(1, _CHUNK_NUMBERS // (num_blocks * block_size))

    def work(first: int) -> None:
        part = slice(first, min(first + rows, N))
        padded = matrix[part]
        if K % block_size:
            padded = np.pad(padded, ((0, 0), (0, num_blocks * block_size - K)))
        blocks = padded.reshape(-1, num_blocks, block_size)
        if bits == 8:
            packed[part], scales[part] = _in_8_bits(blocks)
        else:
            packed[part], scales[part] = _in_4_bits(blocks)

    with ThreadPoolExecutor(2) as pool:  # numpy lets go of the interpreter in long loops
        list(pool.map(work, range(0, N, rows)))
    return Blocks(packed, scales, bits, block_size)


def _in_8_bits(blocks: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """[N, blocks, size] -> the same in uint8 with 128 for zero, and scales [N, blocks]."""
    scales = np.maximum(blocks.max(-1), -blocks.min(-1)) / np.float32(127)
    scales[scales < _LEAST_SCALE] = 1
    steps = blocks * (np.float32(1) / scales)[..., None]
    np.rint(steps, out=steps)
    steps += 128
    return steps.astype(np.uint8), scales


def _in_4_bits(blocks: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """[N, blocks, size] -> pairs in bytes, and scales [N, blocks].

    There is one more step below zero than above, so the scale's sign is chosen to give it to the
    side that reaches farther.
    """
    most, least = blocks.max(-1), blocks.min(-1)
    reach = np.where(most > -least, most, least) / np.float32(-8)
    reach[np.abs(reach) < _LEAST_SCALE] = 1
    best = np.full(reach.shape, np.nan, np.float32)
    scales = np.empty_like(reach)
    steps = np.empty(blocks.shape, np.uint8)
    for part in _TRIED_4_BIT:
        scale = reach * np.float32(part)
        tried = blocks * (np.float32(1) / scale)[..., None]
        np.rint(tried, out=tried)
        np.clip(tried, -8, 7, out=tried)
        with np.errstate(over="ignore"):
            error = np.square(tried * scale[..., None] - blocks).sum(-1)
        # Not `error < best`: the first scale is taken even where the error is infinite (of enormous
        # numbers) or not a number, so that every block is written.
        better = ~(error >= best)
        best[better], scales[better] = error[better], scale[better]
        steps[better] = (tried[better] + 8).astype(np.uint8)
    low, high = steps[..., 0::2], steps[..., 1::2] * np.uint8(16)
    return np.bitwise_or(low, high), scales


def quantise_rows(table: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """An embedding table [rows, D] with one scale for each row: uint8 [rows, D], [rows, 1]."""
    packed, scales = _in_8_bits(table[:, None, :])
    return packed[:, 0], scales
