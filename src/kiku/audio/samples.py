"""Whole arrays -> mono float32 samples; pieces of any length -> chunks of equal length.

Does not know files, nor how samples are written (`formats`).
"""

import math
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from io import BytesIO
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from kiku.audio.checks import OnWarning
from kiku.audio.chunk import Chunk
from kiku.audio.formats import (
    array_of,
    check_finite,
    checked_peak,
    simple,
    time_first,
    whole,
)
from kiku.audio.frames import FrameQueue
from kiku.audio.input import AudioInput
from kiku.audio.mix import mixed
from kiku.audio.resample import checked_rate
from kiku.errors import AudioError, InputError
from kiku.serial import plain_number


def as_mono(
    samples: npt.ArrayLike,
    *,
    channels_axis: int | None = None,
    first_sample: int = 0,
    rate: int = 24_000,
) -> npt.NDArray[np.float32]:
    """Mono samples in [-1, 1] from an array of any usual kind.

    Integers are divided by their full scale; floats are taken as they are (a recording may peak a
    little above 1: it is not clipped). Several channels become one by their mean, or by the loudest
    of them while they cancel each other.

    Args:
        samples: [S], [S, C] or [C, S] of uint8, int16, int32, float16, float32 or float64; a list
            or a tensor in main memory will do.
        channels_axis: the axis of the channels in an array of two axes. None: the shorter axis, if
            it is at most 8 and the other is longer than 8; anything else is refused rather than
            guessed.
        first_sample: the place of `samples[0]` in the whole sound, for the message about a bad
            sample.
        rate: samples a second of `samples`, for pieces of 50 ms, in which channels are compared.

    Returns:
        [S] float32; a new array unless `samples` was [S] float32 already.

    Raises:
        AudioError: a dtype or shape that is not sound, NaN or infinity (the message says at which
            sample), floats that reach beyond 64 (they are integer values).
    """
    planes = simple(time_first(array_of(samples), channels_axis))
    check_finite(planes, first_sample)
    if planes.dtype.kind == "f":
        checked_peak(planes)
    return mixed(planes, rate)


def array_chunks(
    samples: npt.ArrayLike, rate: int, *, channels_axis: int | None = None
) -> Iterator[Chunk]:
    """Cut an array into chunks of a second for `AudioInput.feed`; the channels are not mixed.

    Args:
        samples: as for `as_mono`.
        rate: samples a second of `samples`.
        channels_axis: as for `as_mono`.

    Raises:
        AudioError: at the call, for a rate, dtype or shape that cannot be, or no samples at all.
    """
    array = time_first(array_of(samples), channels_axis)
    if array.size == 0:
        raise AudioError("the array contains no samples: there is nothing to transcribe")
    return _parts(array, checked_rate(rate))


def source_of(source: Any) -> Any:
    """The recording in a row of a dataset: a path, an open file, or a mapping with "array" and
    "sampling_rate". A source that is no row is returned as it is.

    Args:
        source: a row of datasets: {"array" or "raw", "sampling_rate"}, {"bytes"}, {"path"} or both
            of these.

    Raises:
        InputError: a mapping that is none of these.
    """
    if not isinstance(source, Mapping):
        return source
    row = cast("Mapping[str, Any]", source)
    for name in ("array", "raw"):
        if row.get(name) is not None:
            return {"array": row[name], "sampling_rate": row.get("sampling_rate")}
    data, path = row.get("bytes"), row.get("path")
    if isinstance(data, bytes | bytearray):
        file = BytesIO(data)
        if path is not None:
            file.name = str(path)  # for messages
        return file
    if path is not None and data is None:
        return path
    raise InputError(
        f"a mapping must be a recording, as {{'array': samples, 'sampling_rate': rate}}, "
        f"{{'path': name}} or {{'bytes': those of a file}}; this one has "
        f"{', '.join(map(repr, row)) or 'nothing'}"
    )


def is_decoder(source: Any) -> bool:
    """Whether the source is a decoder, such as torchcodec's `AudioDecoder`, which rows of datasets
    hold from version 4 on."""
    return callable(getattr(source, "get_all_samples", None))


def decoded(source: Any) -> dict[str, Any]:
    """The samples of a decoder (see `is_decoder`), as a row with "array" and "sampling_rate"."""
    found = source.get_all_samples()
    planes = np.asarray(found.data)  # [C, S]
    is_mono = planes.ndim == 2 and planes.shape[0] == 1
    return {"array": planes[0] if is_mono else planes, "sampling_rate": found.sample_rate}


def samples_of(source: Any, rate: int | None) -> tuple[Any, int] | None:
    """The samples of a source that is no file, and their rate; None for a file.

    Args:
        source: what `source_of` gives: an array or a tensor; `(rate, array)`, as Gradio gives it;
            or a mapping with "array" and "sampling_rate".
        rate: the rate that the caller gave; None where the caller gave none.

    Raises:
        InputError: there is no rate, or two different ones, or the source can be neither samples
            nor a file.
    """
    own_rate: int | None = None
    if isinstance(source, Mapping):
        source = cast("Mapping[str, Any]", source)
        own_rate, samples = source["sampling_rate"], source["array"]
    elif is_rated(source):
        own_rate, samples = source
    elif isinstance(source, list | tuple):
        refuse_backwards(source)
        raise InputError(
            "a list of numbers is not accepted as sound: give np.array(samples, np.float32) with "
            "its rate=..., or a list of recordings"
        )
    elif is_file(source):
        return None
    elif hasattr(source, "__array__"):
        samples = source
    else:
        hint = "these bytes as io.BytesIO(...), " if isinstance(source, bytes | bytearray) else ""
        raise InputError(
            f"sound cannot be read from a {type(source).__name__}: give {hint}a path, '-', a file "
            "opened with 'rb', an array of samples with its rate=..., or a row of a dataset"
        )
    if own_rate is not None and rate is not None and own_rate != rate:
        raise InputError(
            f"the samples have {own_rate} Hz of their own, but rate={rate} was given: leave rate "
            "out"
        )
    if (known := rate if own_rate is None else own_rate) is None:
        raise InputError("the rate of the samples is missing: give it, such as rate=16000")
    return samples, known


def is_file(source: Any) -> bool:
    """Whether the source, as `source_of` gives it, is a path or an open file."""
    return isinstance(source, str | os.PathLike) or callable(getattr(source, "read", None))


def is_rated(source: Any) -> bool:
    """Whether the source is `(rate, array)`."""
    if not isinstance(source, tuple):
        return False
    pair = cast("tuple[Any, ...]", source)
    return len(pair) == 2 and hasattr(pair[1], "__array__") and _is_rate(pair[0])


def refuse_backwards(source: Any) -> None:
    """Raise InputError for `(array, rate)`, the order of soundfile and librosa."""
    if isinstance(source, tuple) and is_rated(pair := cast("tuple[Any, ...]", source)[::-1]):
        raise InputError(
            "(samples, rate) is in the wrong order: write (rate, samples), or samples with "
            f"rate={pair[0]}"
        )


def _is_rate(number: Any) -> bool:
    if np.ndim(number):
        return False
    rate = plain_number(number)
    return isinstance(rate, float) or whole(rate) > 0  # what is not whole is for `checked_rate`


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
    queue = FrameQueue(chunk_size)
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
            queue.push(piece)
            while queue.num_ready:
                yield np.concatenate(queue.take(1))
    if queue.num_samples:
        yield queue.rest()
    if error is not None:
        raise error


def fed(
    audio: AudioInput, chunks: Iterable[Chunk], on_warning: OnWarning | None = None
) -> Generator[npt.NDArray[np.float32], None, None]:
    """The output of `audio` for all of `chunks`, to its end.

    An AudioError of `chunks` is raised after all samples before it have been given out.

    Args:
        audio: an input that was not fed before.
        chunks: the sound.
        on_warning: called with each warning of `audio`; None drops them.
    """
    error: AudioError | None = None
    try:
        for chunk in chunks:
            yield audio.feed(chunk)
    except AudioError as raised:
        error = raised
    yield audio.end()
    if on_warning is not None:
        for warning in audio.warnings():
            on_warning(warning)
    if error is not None:
        raise error


def _parts(array: npt.NDArray[np.generic], rate: int) -> Iterator[Chunk]:
    """An array [S] or [S, C], second by second; AudioError for values not finite or too large."""
    num_channels = 1 if array.ndim == 1 else array.shape[1]
    for first in range(0, len(array), rate):
        part = simple(array[first : first + rate])
        check_finite(part, first)
        peak = checked_peak(part) if part.dtype.kind == "f" else None
        yield Chunk(part, rate, len(part), num_channels, None, peak)
