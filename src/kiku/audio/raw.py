"""Chunks as callers have them, arrays or bytes -> one channel of float32, and what is known of it.

Knows how samples are written and how channels lie beside one another. Does not know what came
before.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kiku.audio.complaints import BROKEN, LOUD
from kiku.audio.samples import as_channels
from kiku.audio.telephone import A_LAW_PEAK, MU_LAW_PEAK, TELEPHONE_RATE, a_law, mu_law
from kiku.errors import AudioError

# From here on a sample may have been cut off.
_FULL_SCALE = 0.999
_MAX_CHANNELS = 64


@dataclass(frozen=True, slots=True)
class Mono:
    """One channel: [S] finite float32, and for each sample the bits `LOUD` and `BROKEN`."""

    sound: npt.NDArray[np.float32]
    flags: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the samples of bytes are written, interleaved, and at which rate if nobody says it."""

    name: str
    dtype: str
    decode: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] = lambda codes: codes
    full_scale: float = _FULL_SCALE
    rate: int | None = None


_ENCODINGS = {
    encoding.name: encoding
    for encoding in (
        Encoding("s16le", "<i2"),
        Encoding("s32le", "<i4"),
        Encoding("f32le", "<f4"),
        Encoding("mulaw", "u1", mu_law, MU_LAW_PEAK, TELEPHONE_RATE),
        Encoding("alaw", "u1", a_law, A_LAW_PEAK, TELEPHONE_RATE),
    )
}


def encoding_of(name: str) -> Encoding:
    """The encoding of this name; AudioError where there is none."""
    if name not in _ENCODINGS:
        raise AudioError(
            f"encoding {name!r} is not known: give one of {', '.join(_ENCODINGS)} or opus"
        )
    return _ENCODINGS[name]


def num_channels_of(channels: int) -> int:
    """`channels` itself; AudioError when there cannot be so many."""
    num_channels = _whole(channels)
    if num_channels not in range(1, _MAX_CHANNELS + 1):
        raise AudioError(f"channels is {channels}: give a whole number from 1 to {_MAX_CHANNELS}")
    return num_channels


def from_array(samples: npt.ArrayLike, channel: int | None, channels_axis: int | None) -> Mono:
    """Channel number `channel` of an array, or the mean of all."""
    return _mixed(as_channels(samples, channels_axis=channels_axis), channel, _FULL_SCALE)


def from_bytes(
    data: bytes, encoding: Encoding, channels: int, channel: int | None
) -> tuple[Mono, bytes]:
    """Channel number `channel` of interleaved bytes, or the mean of all; and the bytes at the end
    that do not make a sample of every channel yet."""
    width = np.dtype(encoding.dtype).itemsize * channels
    size = len(data) // width * width
    codes = encoding.decode(np.frombuffer(data[:size], encoding.dtype)).reshape(-1, channels)
    planes = as_channels(codes, channels_axis=1)
    return _mixed(planes, channel, encoding.full_scale), data[size:]


def from_decoder(sound: npt.NDArray[np.float32]) -> Mono:
    """What a decoder gave, [S]."""
    return _mixed(sound[:, np.newaxis], None, _FULL_SCALE)


def _mixed(planes: npt.NDArray[np.float32], channel: int | None, full_scale: float) -> Mono:
    """[S, C] -> [S]; what is not a number becomes 0."""
    if channel is not None:
        number, num_channels = _whole(channel), planes.shape[1]
        if number not in range(num_channels):
            raise AudioError(
                f"channel {channel} was asked for and there are {num_channels}: "
                "count them from 0, or give None for the mean of all"
            )
        planes = planes[:, number : number + 1]
    finite = np.isfinite(planes)
    clean = np.where(finite, planes, np.float32(0))
    flags = np.where(finite.all(axis=1), 0, BROKEN).astype(np.uint8)
    flags |= np.where((np.abs(clean) >= full_scale).any(axis=1), LOUD, 0).astype(np.uint8)
    # Summed one by one, so that a sample does not depend on how many came with it.
    total = clean[:, 0].copy()
    for number in range(1, clean.shape[1]):
        total += clean[:, number]
    total /= np.float32(clean.shape[1])
    return Mono(total, flags)


def _whole(number: int) -> int:
    """A whole number; -1 for anything else."""
    try:
        return operator.index(number)
    except TypeError:
        return -1
