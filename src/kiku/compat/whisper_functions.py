"""The functions of faster-whisper that need no model: `decode_audio` and others.

Works with files and names of models, never with a model.
"""

import logging
import warnings
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import replace
from os import PathLike
from typing import Any, BinaryIO, Literal, overload

import numpy as np
from numpy.typing import NDArray

from kiku.audio import AudioInput, Chunk, StreamWarning, read_chunks, read_file
from kiku.checkpoint import DEMO, KNOWN_REPOS
from kiku.errors import InputError, TruncatedAudio

_logger = logging.getLogger(__name__)

Mono = NDArray[np.float32]

ABSENT = {
    "download_model": "a model is downloaded when WhisperModel(name) first loads it, or beforehand "
    "by the command  kiku models pull NAME",
}
"""Names that faster-whisper has and this module lacks, and what to do instead."""


@overload
def decode_audio(
    input_file: str | PathLike[str] | BinaryIO,
    sampling_rate: int = 16_000,
    split_stereo: Literal[False] = False,
) -> Mono: ...
@overload
def decode_audio(
    input_file: str | PathLike[str] | BinaryIO, sampling_rate: int, split_stereo: Literal[True]
) -> tuple[Mono, Mono]: ...
@overload
def decode_audio(
    input_file: str | PathLike[str] | BinaryIO,
    sampling_rate: int = 16_000,
    *,
    split_stereo: Literal[True],
) -> tuple[Mono, Mono]: ...
def decode_audio(
    input_file: str | PathLike[str] | BinaryIO,
    sampling_rate: int = 16_000,
    split_stereo: bool = False,
) -> Mono | tuple[Mono, Mono]:
    """The sound of a recording, as `WhisperModel.transcribe` takes it.

    Args:
        input_file: a path, or a file open for reading bytes.
        sampling_rate: samples a second of the result.
        split_stereo: give the first two channels separately; if there is one, both are the same.

    Returns:
        [S] float32 mono, or two such arrays. A recording that ends too early gives the samples that
        are there, and a warning.

    Raises:
        AudioError: the recording cannot be read, or the rate is invalid.
    """
    if not split_stereo:
        parts = read_chunks(input_file, sampling_rate, on_warning=_log)
        return _joined([*_to_its_end(parts)])
    sides = [AudioInput(sampling_rate, channel=number, checks=False) for number in (0, 1)]
    found: tuple[list[Mono], list[Mono]] = ([], [])
    with closing(read_file(input_file)) as chunks:
        for chunk in _to_its_end(map(_in_two_channels, chunks)):
            for side, kept in zip(sides, found, strict=True):
                kept.append(side.feed(chunk))
    left, right = (_joined([*kept, side.end()]) for side, kept in zip(sides, found, strict=True))
    return left, right


def format_timestamp(
    seconds: float, always_include_hours: bool = False, decimal_marker: str = "."
) -> str:
    """Seconds as `01:02.345`, with hours if there are some, or always.

    Raises:
        InputError: the time is below 0.
    """
    if not seconds >= 0:
        raise InputError(f"a time must be at least 0 seconds, not {seconds!r}")
    whole_minutes, left_ms = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(whole_minutes, 60)
    before = f"{hours:02d}:" if always_include_hours or hours else ""
    whole, ms = divmod(left_ms, 1000)
    return f"{before}{minutes:02d}:{whole:02d}{decimal_marker}{ms:03d}"


def available_models() -> list[str]:
    """The names that `WhisperModel` takes here; Whisper's own are not among them."""
    return [DEMO, *(one.repo_id for one in KNOWN_REPOS)]


def _in_two_channels(chunk: Chunk) -> Chunk:
    data: Any = chunk.data
    if data is None or chunk.num_channels > 1:
        return chunk
    mono = np.asarray(data).reshape(-1)
    return replace(chunk, data=np.stack([mono, mono], axis=1), num_channels=2)


def _to_its_end(parts: Iterable[Any]) -> Generator[Any, None, None]:
    """All of `parts`; if the recording ends too early, a warning says so."""
    try:
        yield from parts
    except TruncatedAudio as error:
        warnings.warn(str(error), stacklevel=3)  # the caller of `decode_audio`


def _log(warning: StreamWarning) -> None:
    _logger.warning("%s", warning.message)


def _joined(parts: Iterable[Mono]) -> Mono:
    return np.concatenate([np.zeros(0, np.float32), *parts])
