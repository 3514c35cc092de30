"""Arrays as callers have them -> mono float32 samples.

Knows dtypes, channels and their pitfalls (integer values kept in floats, NaN, axes the other way
round). Does not know files.
"""

import math
from collections.abc import Generator, Iterator
from contextlib import closing

import numpy as np
import numpy.typing as npt

from kiku.audio.framer import Framer
from kiku.audio.resample import Resampler, checked_rate
from kiku.errors import AudioError

# Full scale of the integer formats, and the value of silence in them.
_SCALES: dict[str, tuple[float, float]] = {
    "uint8": (2.0**7, 128.0),
    "int16": (2.0**15, 0.0),
    "int32": (2.0**31, 0.0),
}
_FLOATS = ("float16", "float32", "float64")
# A float recording may peak above 1, even by some factor; beyond this the values were integers.
_MAX_FLOAT = 64.0
# More channels than this are not guessed from the shape.
_MAX_GUESSED_CHANNELS = 8


def as_mono(
    samples: npt.ArrayLike, *, channels_axis: int | None = None, first_sample: int = 0
) -> npt.NDArray[np.float32]:
    """Mono samples in [-1, 1] from an array of any usual kind.

    Integers are divided by their full scale; floats are taken as they are (a recording may peak a
    little above 1: it is not clipped). Several channels become one by their mean.

    Args:
        samples: [S], [S, C] or [C, S] of uint8, int16, int32, float16, float32 or float64; a list
            or a tensor in main memory will do.
        channels_axis: the axis of the channels in an array of two axes. None: the shorter axis, if
            it is at most 8 and the other is longer than 8; anything else is refused rather than
            guessed.
        first_sample: the place of `samples[0]` in the whole sound, for the message about a bad
            sample.

    Returns:
        [S] float32; a new array unless `samples` was [S] float32 already.

    Raises:
        AudioError: a dtype or shape that is not sound, NaN or infinity (the message says at which
            sample), floats that reach beyond 64 (they are integer values).
    """
    array = _as_array(samples)
    axis = _channels_axis(array.shape, channels_axis)
    floats = _as_float(array)
    if array.dtype.kind == "f":
        _check_floats(floats, axis, first_sample)
    return floats if axis is None else floats.mean(axis=axis, dtype=np.float32)


def as_channels(
    samples: npt.ArrayLike, *, channels_axis: int | None = None
) -> npt.NDArray[np.float32]:
    """The channels of an array of any usual kind, [S, C] float32; a mono array has one.

    As `as_mono`, but the channels stay apart and what is not a number stays in.

    Raises:
        AudioError: a dtype or shape that is not sound, finite floats that reach beyond 64.
    """
    array = _as_array(samples)
    axis = _channels_axis(array.shape, channels_axis)
    floats = _as_float(array)
    if array.dtype.kind == "f":
        _check_peak(floats[np.isfinite(floats)])
    return floats[:, np.newaxis] if axis is None else np.moveaxis(floats, axis, 1)


def chunks_of(
    samples: npt.ArrayLike,
    rate: int,
    sample_rate: int,
    *,
    chunk_s: float = 1.0,
    channels_axis: int | None = None,
) -> Iterator[npt.NDArray[np.float32]]:
    """An array with its rate -> resampled mono chunks, converted piece by piece.

    Args:
        samples: as for `as_mono`.
        rate: samples a second of `samples`.
        sample_rate: samples a second of what comes out.
        chunk_s: seconds in a chunk.
        channels_axis: as for `as_mono`.

    Returns:
        An iterator of [S] float32 chunks of `round(chunk_s * sample_rate)` samples, the last one
        shorter.

    Raises:
        AudioError: at the call, for rates, `chunk_s`, a dtype or shape that cannot be, or no
            samples at all; while iterating, for NaN, infinity or values out of range.
    """
    array = _as_array(samples)
    axis = _channels_axis(array.shape, channels_axis)
    if array.size == 0:
        raise AudioError("the array holds no samples: there is nothing to transcribe")
    if axis is not None:
        array = np.moveaxis(array, axis, 1)  # [S, C]
    chunk_size = chunk_size_of(sample_rate, chunk_s)
    return even_chunks(_resampled(array, Resampler(rate, sample_rate)), chunk_size)


def chunk_size_of(sample_rate: int, chunk_s: float) -> int:
    """Samples in a chunk of `chunk_s` seconds, at least 1; AudioError for an impossible length."""
    rate = checked_rate(sample_rate)
    if not 0 < chunk_s < math.inf:
        raise AudioError(f"chunk_s is {chunk_s}: give a length above 0 seconds, such as 1.0")
    return max(1, round(chunk_s * rate))


def even_chunks(
    pieces: Generator[npt.NDArray[np.float32], None, None], chunk_size: int
) -> Iterator[npt.NDArray[np.float32]]:
    """The samples of `pieces` in chunks of `chunk_size`, the last one shorter.

    An AudioError of `pieces` is raised after all samples before it have been given out.
    """
    framer = Framer(chunk_size)
    error: AudioError | None = None
    with closing(pieces):
        while error is None:
            try:
                piece = next(pieces)
            except StopIteration:
                break
            except AudioError as raised:
                error = raised
                break
            framer.push(piece)
            while framer.num_ready:
                yield framer.take(1)[0]
    if num_left := framer.num_left:
        framer.pad()
        yield framer.take(1)[0, :num_left]
    if error is not None:
        raise error


def _resampled(
    array: npt.NDArray[np.generic], resampler: Resampler
) -> Generator[npt.NDArray[np.float32], None, None]:
    step = resampler.rate_in
    for first in range(0, array.shape[0], step):
        part = array[first : first + step]
        yield resampler.push(
            as_mono(part, channels_axis=1 if part.ndim == 2 else None, first_sample=first)
        )
    yield resampler.flush()


def _as_array(samples: npt.ArrayLike) -> npt.NDArray[np.generic]:
    """The array behind `samples`, of a dtype that can be sound."""
    try:
        array = np.asarray(samples)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AudioError(
            f"samples of type {type(samples).__name__} do not make an array ({error}): "
            "give a numpy array [S] or a tensor in main memory without gradient"
        ) from None
    if array.dtype.name not in _SCALES and array.dtype.name not in _FLOATS:
        raise AudioError(
            f"samples of dtype {array.dtype} are not understood: "
            "convert them to float32 in [-1, 1] or to int16"
        )
    return array


def _as_float(array: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    scale = _SCALES.get(array.dtype.name)
    if scale is None:
        # What float32 cannot hold becomes infinite or NaN, and is refused by the caller.
        with np.errstate(over="ignore", invalid="ignore"):
            return array.astype(np.float32, copy=False)
    full_scale, silence = scale
    return (array.astype(np.float32) - np.float32(silence)) / np.float32(full_scale)


def _check_floats(floats: npt.NDArray[np.float32], axis: int | None, first_sample: int) -> None:
    """Refuse NaN, infinity and integer values in [S], [S, C] or [C, S] floats."""
    finite = np.isfinite(floats)
    if not finite.all():
        whole = finite if axis is None else finite.all(axis=axis)
        where = int(np.flatnonzero(~whole)[0])
        raise AudioError(
            f"sample {first_sample + where} is NaN or infinite: "
            "replace or cut out the samples that are not numbers"
        )
    _check_peak(floats)


def _check_peak(floats: npt.NDArray[np.float32]) -> None:
    """Refuse integer values in finite floats of any shape."""
    peak = float(np.abs(floats).max(initial=0.0))
    if peak > _MAX_FLOAT:
        raise AudioError(
            f"the samples reach {peak:g} where floats are expected in [-1, 1]: "
            "divide them by the full scale they were recorded with, such as 32768"
        )


def _channels_axis(shape: tuple[int, ...], channels_axis: int | None) -> int | None:
    """The axis of the channels, 0 or 1; None for one axis. AudioError when it is not clear."""
    if len(shape) == 1:
        return None
    if len(shape) != 2:
        raise AudioError(
            f"samples of shape {list(shape)} are not one sound: "
            "give [S], or [S, C] with channels_axis=1"
        )
    if channels_axis is None:
        axis = 0 if shape[0] < shape[1] else 1
        if not shape[axis] <= _MAX_GUESSED_CHANNELS < shape[1 - axis]:
            raise AudioError(
                f"in samples of shape {list(shape)} the channels cannot be told from time: "
                "pass channels_axis=0 or channels_axis=1"
            )
    elif channels_axis in (0, 1, -1, -2):
        axis = channels_axis % 2
    else:
        raise AudioError(f"channels_axis is {channels_axis}: it must be 0 or 1")
    if shape[axis] == 0:
        raise AudioError(f"samples of shape {list(shape)} have no channel: give at least one")
    return axis
