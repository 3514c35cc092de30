"""G.711, which phone networks send: bytes of mu-law or A-law -> float32 samples.

The two laws are computed from the standard (ITU-T G.711, tables 1 and 2): a sign, an exponent of
three bits and a mantissa of four. Does not know channels.
"""

import numpy as np
import numpy.typing as npt

G711_RATE = 8_000

# The loudest sample of either law. It counts as full scale, as no code is louder.
MU_LAW_PEAK = 32_124 / 32_768
A_LAW_PEAK = 32_256 / 32_768


def mu_law(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Samples in [-1, 1], [S] float32, from the bytes of mu-law (North America, Japan)."""
    return _MU_LAW[codes]


def a_law(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Samples in [-1, 1], [S] float32, from the bytes of A-law (everywhere else)."""
    return _A_LAW[codes]


def _mu_law_table() -> npt.NDArray[np.float32]:
    codes = ~np.arange(256, dtype=np.uint8)  # all bits are sent inverted
    exponent, mantissa = _parts(codes)
    # A bias of 33 steps makes every segment twice as wide as the one below it. Times 4, as the law
    # has 14 bits and samples have 16.
    levels = ((2 * mantissa + 33) << exponent) - 33
    return _signed(4 * levels, codes & 0x80 != 0)


def _a_law_table() -> npt.NDArray[np.float32]:
    codes = np.arange(256, dtype=np.uint8) ^ np.uint8(0x55)  # the even bits are sent inverted
    exponent, mantissa = _parts(codes)
    # The two lowest segments are equally wide.
    levels = np.where(
        exponent == 0, 2 * mantissa + 1, (2 * mantissa + 33) << np.maximum(exponent - 1, 0)
    )
    return _signed(8 * levels, codes & 0x80 == 0)


def _parts(codes: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """The exponent and the mantissa of every code."""
    return (codes >> 4 & 0x07).astype(np.int32), (codes & 0x0F).astype(np.int32)


def _signed(
    levels: npt.NDArray[np.int32], negative: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    return np.where(negative, -levels, levels).astype(np.float32) / np.float32(32_768)


_MU_LAW, _A_LAW = _mu_law_table(), _a_law_table()
