"""What a caller gives as a recording -> its sound: files, samples, rows of datasets, decoders."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, BinaryIO, Protocol, cast

import numpy as np

from kiku.audio import (
    Chunk,
    array_chunks,
    decoded,
    duration_s,
    is_decoder,
    is_file,
    is_rated,
    read_file,
    read_twice,
    refuse_backwards,
    samples_of,
    source_of,
)
from kiku.audio.checks import OnWarning
from kiku.errors import InputError
from kiku.options import StreamOptions
from kiku.serial import shown
from kiku.transcription.sound import RecordingSound


class SampleArray(Protocol):
    """Samples in a numpy array, or in an object that converts to one: a tensor in main memory."""

    def __array__(self) -> Any:
        """The array."""
        ...


class RecordingDecoder(Protocol):
    """An object that decodes a recording on request, such as torchcodec's `AudioDecoder`."""

    def get_all_samples(self) -> Any:
        """Return an object with `data`, [C, S], and `sample_rate`."""
        ...


SourceSamples = SampleArray | tuple[int, SampleArray] | Mapping[str, Any] | RecordingDecoder
"""Samples, whose rate is a separate argument; or samples with their rate: `(rate, samples)`, a row
of a dataset, or a decoder."""

Source = str | os.PathLike[str] | BinaryIO | SourceSamples
"""A path, "-" for standard input, an open binary file, or samples."""


def recording_sound(
    source: Source, rate: int | None, options: StreamOptions, on_warning: OnWarning
) -> RecordingSound:
    """The sound of a recording within the bounds of `options`. None of it is read yet; errors in
    the sound are raised when it is read.

    Args:
        source: see `Source`.
        rate: samples a second, for samples that come without a rate.
        options: of the stream.
        on_warning: called with what is wrong with the sound as a whole.

    Raises:
        InputError: `source` is nothing that can be read.
    """
    if isinstance(source, int | float):  # the caller gave a list of numbers
        samples_of([source], rate)
    chunks, look_up_s = read_source(source, rate, options, on_warning)
    end_s = math.inf if options.end_s is None else options.end_s
    # Nothing after end_s is read anyway, so a longer recording is then no error.
    longest_s = math.inf if end_s <= options.max_duration_s else options.max_duration_s
    return RecordingSound(chunks, options.start_s, end_s, longest_s, look_up_s, on_warning)


def read_source(
    source: Source,
    rate: int | None,
    options: StreamOptions,
    on_warning: OnWarning | None = None,
) -> tuple[Iterator[Chunk], Callable[[], float | None]]:
    """The chunks of a recording, of which none is read yet, and a function that looks up how many
    seconds it says it has.

    Raises:
        InputError: `source` is nothing that can be read.
    """
    if is_decoder(source):
        return _decoded_chunks(source, rate), lambda: None
    known = source_of(source)
    samples = samples_of(known, rate)
    if samples is not None:
        axis = options.format.channels_axis
        return _array_chunks(*samples, axis), partial(_seconds_of, *samples, axis)
    chunks = read_file(known, on_warning=on_warning, track=options.track)
    return chunks, partial(duration_s, known, options.track)


def refuse_single(sources: Any) -> None:
    """Refuse a single recording in place of several: iterating over a name would give its
    letters."""
    refuse_backwards(sources)
    is_one = is_rated(sources) or is_decoder(sources) or is_file(sources)
    kind = cast("type[Any]", type(sources))
    if is_one or issubclass(kind, bytes | bytearray | Mapping) or hasattr(kind, "__array__"):
        raise InputError(
            f"this needs a list of recordings, not one {kind.__name__}: write "
            "transcription(source), or transcriptions([source])"
        )
    if not isinstance(sources, Iterable):
        raise InputError(f"this needs a list of recordings, not {shown(sources)}")


def refuse_other_than_lists(source: Any) -> None:
    """Refuse several recordings in anything but a list: an iterator could also be one of
    numbers."""
    refuse_backwards(source)
    kind = cast("type[Any]", type(source))
    is_one = isinstance(source, str | bytes | bytearray | memoryview | list | tuple | Mapping)
    if is_one or is_decoder(source) or is_file(source) or hasattr(source, "__array__"):
        return
    if isinstance(source, Iterable):
        raise InputError(
            f"a {kind.__name__} is not a recording; several recordings must be given as a list: "
            "write list(...) around it"
        )


def refuse_twice(sources: Sequence[Any]) -> None:
    """Refuse an open file that is listed twice, before any of it is read: each of the two
    recordings would hear what the other left."""
    files = [
        _path_of(cast("Mapping[str, Any]", one)) if isinstance(one, Mapping) else one
        for one in sources
    ]
    found = read_twice(files)
    if found is None:
        return
    first, second = found
    what = "standard input" if files[first] == "-" else "the same open file"
    raise InputError(
        f"{what} occurs twice in the list, as sources[{first}] and sources[{second}], but can be "
        "read only once: leave one of them out, or open the file again for it"
    )


def _path_of(row: Mapping[str, Any]) -> Any:
    """The path of a row that has neither samples nor bytes."""
    return row.get("path") if row.get("array") is None and row.get("bytes") is None else None


def refuse_rate_of_files(sources: Sequence[Source], rate: int | None) -> None:
    """Refuse a rate if every source is a file: files know their rate, and the caller probably meant
    bytes without a header. In a list that also has samples, it is the rate of the samples."""
    if rate is None or not sources or not all(map(_is_file, sources)):
        return
    raise InputError(
        f"rate={rate} is for samples, but files state their rate themselves: leave rate out; for "
        "bytes without a header write np.frombuffer(data, np.int16) with their rate=..."
    )


def _is_file(source: Source) -> bool:
    return not is_decoder(source) and is_file(source_of(source))


def _seconds_of(samples: Any, rate: int, channels_axis: int | None) -> float | None:
    try:
        shape = np.shape(samples)
        if channels_axis is not None and len(shape) == 2:
            return shape[1 - channels_axis % 2] / rate
        return max(shape, default=0) / rate
    except (TypeError, ValueError, ArithmeticError):  # reading them raises what is wrong
        return None


def _array_chunks(samples: Any, rate: int, channels_axis: int | None) -> Iterator[Chunk]:
    yield from array_chunks(samples, rate, channels_axis=channels_axis)


def _decoded_chunks(source: Any, rate: int | None) -> Iterator[Chunk]:
    samples = samples_of(decoded(source), rate)
    assert samples is not None
    yield from array_chunks(*samples)
