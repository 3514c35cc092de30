"""How samples are written and how channels lie side by side: arrays and bytes -> mono float32.

Knows dtypes, encodings and their pitfalls (integer values kept in floats, NaN, swapped axes). Does
not know what came before the samples.
"""

import operator
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kiku.audio.g711 import A_LAW_PEAK, G711_RATE, MU_LAW_PEAK, a_law, mu_law
from kiku.audio.opus import OPUS_RATE
from kiku.errors import AudioError
from kiku.serial import shown

# Full scale of the integer formats, and the value of silence in them, by the kind and the bytes of
# a sample (the name of a dtype takes long to compute).
_SCALES: dict[str, tuple[float, float]] = {
    "u1": (2.0**7, 128.0),
    "i2": (2.0**15, 0.0),
    "i4": (2.0**31, 0.0),
}
_FLOATS = ("f2", "f4", "f8")
# Kinds of dtypes that are no numbers: objects, texts, records, times.
_NO_NUMBERS = "OUSVMm"
MAX_FLOAT = 64.0
"""Largest float that is accepted as sound. A float recording may peak above 1, even several times;
values beyond this limit must have been integers."""
MAX_LOUD = 8.0
"""Floats beyond this are clipped to it. Mixes may peak at 1 to 4 times full scale, since nothing
limits floats. A sample 18 dB above full scale is broken: a click of ten samples at 64 made the demo
model write a word. (Integers kept in floats reach thousands: `MAX_FLOAT`.)"""
FULL_SCALE = 0.999
"""Distance from 0 from which on a sample counts as clipped."""
# At most this many channels are guessed from the shape.
_MAX_GUESSED_CHANNELS = 8


@dataclass(frozen=True, slots=True)
class ByteEncoding:
    """How interleaved samples are written as bytes, and the default rate of this encoding."""

    name: str
    dtype: str
    decode: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] | None = None
    full_scale: float = FULL_SCALE
    rate: int | None = None


ENCODINGS = {
    encoding.name: encoding
    for encoding in (
        ByteEncoding("s16le", "<i2"),
        ByteEncoding("s32le", "<i4"),
        ByteEncoding("f32le", "<f4"),
        ByteEncoding("mulaw", "u1", mu_law, MU_LAW_PEAK, G711_RATE),
        ByteEncoding("alaw", "u1", a_law, A_LAW_PEAK, G711_RATE),
        ByteEncoding("opus", "u1", rate=OPUS_RATE),  # whole packets, decoded by `opus`
    )
}


class Mono(NamedTuple):
    """The samples of one channel, and masks over them; a mask is None if all of it is False."""

    sound: npt.NDArray[np.float32]
    """[S], finite."""
    loud: npt.NDArray[np.bool_] | None = None
    """[S] whether the sample was at full scale in any of the channels."""
    bad: npt.NDArray[np.bool_] | None = None
    """[S] whether, in any of the channels, the sample was no number and became silence, or was
    beyond `MAX_LOUD` and was clipped to it."""

    def part(self, first: int, last: int) -> "Mono":
        """The samples from `first` up to `last`."""
        loud = None if self.loud is None else self.loud[first:last]
        bad = None if self.bad is None else self.bad[first:last]
        return Mono(self.sound[first:last], loud, bad)


def width_of(encoding: str, num_channels: int) -> int:
    """Bytes of one sample of all channels together."""
    return np.dtype(ENCODINGS[encoding].dtype).itemsize * num_channels


def array_of(samples: npt.ArrayLike, *, copy: bool = False) -> npt.NDArray[np.generic]:
    """`samples` as an array of a dtype that can be sound; a new array if `copy` is set."""
    try:
        array = np.asarray(samples)  # `np.array` would make tensors copy, of which they warn
        array = array.copy(order="K") if copy else array
    except Exception as error:  # tensors and others raise what they like
        raise AudioError(
            f"samples of type {type(samples).__name__} cannot be made an array: give a numpy "
            "array of numbers; of a tensor, tensor.detach().cpu().float().numpy()"
        ) from error
    kind = array.dtype.str[1:]
    if array.dtype.kind in _NO_NUMBERS:
        given: Any = samples
        is_one = given is None or isinstance(given, str | os.PathLike)
        what = shown(given) if is_one else f"{type(samples).__name__} of dtype {array.dtype}"
        raise AudioError(
            f"{what} contains no samples: give an array of float32 in [-1, 1] or of int16, or "
            "bytes (the path of a recording is for Recognizer.transcribe)"
        )
    if kind not in _SCALES and kind not in _FLOATS:
        raise AudioError(
            f"samples of dtype {array.dtype} are not supported: convert them to float32 in [-1, "
            "1] or to int16"
        )
    return array


def time_first(
    array: npt.NDArray[np.generic], channels_axis: int | None
) -> npt.NDArray[np.generic]:
    """A view of an array [S], [S, C] or [C, S] as [S] or [S, C].

    Raises:
        AudioError: another shape, no channel, or a shape that does not show which axis is which.
    """
    axis = _channels_axis(array.shape, channels_axis)
    return array.T if axis == 0 else array


def simple(array: npt.NDArray[np.generic]) -> npt.NDArray[Any]:
    """`array` itself where it holds integers or float32, otherwise its values as float32."""
    if array.dtype.kind != "f":
        return array
    # Values that float32 cannot hold become infinity.
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(np.float32, copy=False)


def peak_of(values: npt.NDArray[Any]) -> float:
    """The largest distance from 0, any shape; NaN where one is NaN."""
    if not values.size:
        return 0.0
    flat = values.ravel(order="K")
    # This is several times as fast as `max`; if there is NaN, both find it.
    high, low = flat.item(flat.argmax()), flat.item(flat.argmin())
    return float(high if high >= -low else -low)


def checked_peak(values: npt.NDArray[np.float32]) -> float:
    """`peak_of`, but NaN where any is NaN or infinite.

    Raises:
        AudioError: finite values lie beyond 64, so they were integers.
    """
    peak = peak_of(values)
    if peak <= MAX_FLOAT:
        return peak
    finite = np.isfinite(values)
    peak = float(np.abs(values[finite]).max(initial=0.0))
    if peak > MAX_FLOAT:
        raise AudioError(
            f"the samples reach {peak:g}, but floats must be in [-1, 1]: divide them by the full "
            "scale with which they were recorded, such as 32768"
        )
    return peak if finite.all() else np.nan


def check_finite(planes: npt.NDArray[Any], first_sample: int) -> None:
    """Raise AudioError if a sample of [S] or [S, C] is NaN or infinite; `first_sample` is the index
    of the first sample in the whole sound."""
    if planes.dtype.kind != "f":
        return
    finite = np.isfinite(planes)
    if not finite.all():
        whole = finite if finite.ndim == 1 else finite.all(axis=1)
        where = first_sample + int(np.flatnonzero(~whole)[0])
        raise AudioError(
            f"sample {where} is NaN or infinite: "
            "replace or cut out the samples that are not numbers"
        )


def mono_of(
    planes: npt.NDArray[Any],
    channel: int | None,
    *,
    peak: float | None = None,
    full_scale: float | None = FULL_SCALE,
) -> Mono:
    """One channel of [S] or [S, C] simple values, or the mean of all channels.

    Args:
        planes: the values, as `simple` gives them.
        channel: which channel, from 0; None is the mean.
        peak: largest distance of the values from 0; NaN if some are no numbers, None if unknown.
        full_scale: distance from 0 from which on a sample counts as clipped; None does not look for
            such samples.

    Returns:
        The channel. Where `planes` is [S] float32 without NaN and within `MAX_LOUD`, the sound is
        `planes` itself.

    Raises:
        AudioError: floats beyond 64.
    """
    if planes.ndim == 2 and (channel is not None or planes.shape[1] == 1):
        planes = planes[:, channel or 0]
    scale, silence = _SCALES.get(planes.dtype.str[1:], (1.0, 0.0))
    if planes.ndim == 2:
        # One channel after the other: everything below is several times as fast then.
        values = planes.T.astype(np.float32, order="C")  # [C, S]
    elif scale != 1.0:
        values = planes.astype(np.float32)
    else:
        values = np.ascontiguousarray(planes)
    if silence:
        values -= np.float32(silence)
    if scale != 1.0:
        # For int16 (the most frequent) the integers have the same peak, and half the bytes.
        looked_at = planes if planes.dtype.itemsize == 2 else values
        peak = peak_of(looked_at) / scale if full_scale is not None else 0.0
    elif peak is None:
        peak = checked_peak(values)
    bad = loud = None
    if not peak <= MAX_LOUD:  # NaN too
        finite = np.isfinite(values)
        bad = _in_any_channel(~(np.abs(values) <= MAX_LOUD))
        values = np.where(finite, values, np.float32(0)).clip(-MAX_LOUD, MAX_LOUD)
    if full_scale is not None and not peak < full_scale:
        loud = _in_any_channel(np.abs(values) >= full_scale * scale)
    if values.ndim == 1:
        if scale != 1.0:
            values *= np.float32(1 / scale)
        return Mono(values, loud, bad)
    # Channels are summed one by one, so that a sample does not depend on how many came with it.
    total = values[0]
    for number in range(1, len(values)):
        total += values[number]
    total /= np.float32(len(values) * scale)
    return Mono(total, loud, bad)


def scaled(planes: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """[S, C] simple values -> [C, S], where 1 is full scale, and NaN and infinity are 0."""
    scale, silence = _SCALES.get(planes.dtype.str[1:], (1.0, 0.0))
    values = planes.T.astype(np.float32, order="C")
    values -= np.float32(silence)
    values *= np.float32(1 / scale)
    return values if planes.dtype.kind != "f" else np.nan_to_num(values, posinf=0.0, neginf=0.0)


def _in_any_channel(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_] | None:
    if flags.ndim == 2:
        flags = np.logical_or.reduce(flags, axis=0)
    return flags if flags.any() else None


def _channels_axis(shape: tuple[int, ...], channels_axis: int | None) -> int | None:
    """The axis of the channels, 0 or 1; None for one axis. AudioError when it is not clear."""
    if len(shape) == 1:
        return None
    if len(shape) != 2:
        raise AudioError(
            f"samples of shape {list(shape)} are not one sound: give [S], or [S, C] with "
            "channels_axis=1"
        )
    if channels_axis is None:
        axis = 0 if shape[0] < shape[1] else 1
        if not shape[axis] <= _MAX_GUESSED_CHANNELS < shape[1 - axis]:
            raise AudioError(
                f"in samples of shape {list(shape)} it is not clear which axis is the channels: "
                "say so with StreamOptions(format=AudioFormat(channels_axis=0)) or "
                "channels_axis=1"
            )
    elif channels_axis in (0, 1, -1, -2):
        axis = channels_axis % 2
    else:
        raise AudioError(f"channels_axis is {channels_axis}: it must be 0 or 1")
    if shape[axis] == 0:
        raise AudioError(f"samples of shape {list(shape)} have no channel: give at least one")
    return axis


def whole(number: Any) -> int:
    """A whole number; -1 for anything else."""
    try:
        return operator.index(number)
    except TypeError:
        return -1
