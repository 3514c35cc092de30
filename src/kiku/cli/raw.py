"""Samples without a header, as `arecord -t raw` gives them: a WAV header is put before them.

Knows how a WAV file begins; does not know what is done with the sound.
"""

import struct
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast

from kiku.audio.source import FileSource, open_source
from kiku.errors import ConfigError
from kiku.options import MAX_CHANNELS, MAX_INPUT_RATE, MIN_INPUT_RATE
from kiku.serial import number_in

_PCM, _FLOAT, _A_LAW, _MU_LAW = 1, 3, 6, 7
_ENCODINGS = {
    "s16le": (_PCM, 2),
    "s24le": (_PCM, 3),
    "s32le": (_PCM, 4),
    "f32le": (_FLOAT, 4),
    "alaw": (_A_LAW, 1),
    "mulaw": (_MU_LAW, 1),
}
"""Encoding -> its number in a WAV header, and bytes of a sample."""

_ANY_SIZE = 0xFFFFFFFF
"""The size in a WAV header which says that the file ends where its bytes end."""


@dataclass(frozen=True, slots=True)
class RawFormat:
    """How samples without a header are written."""

    encoding: str
    rate: int
    num_channels: int = 1

    @classmethod
    def parse(cls, text: str) -> "RawFormat":
        """Read a format such as "s16le,16000,1"; without the last number there is one channel.

        Raises:
            ConfigError: the text is no such format.
        """
        encoding, *counts = (part.strip().lower() for part in text.split(","))
        if encoding not in _ENCODINGS:
            raise ConfigError(
                f"{encoding!r} is not a known encoding; choose one of {', '.join(_ENCODINGS)}"
            )
        numbers = [number for number in map(number_in, counts) if number is not None]
        if len(counts) not in (1, 2) or len(numbers) < len(counts):
            raise ConfigError(
                f"{text!r} does not give encoding, rate and channels; write it as s16le,16000,1"
            )
        made = cls(encoding, *numbers)
        is_rate = MIN_INPUT_RATE <= made.rate <= MAX_INPUT_RATE
        if not (is_rate and 1 <= made.num_channels <= MAX_CHANNELS):
            raise ConfigError(
                f"{text!r} is not possible; the rate must be from {MIN_INPUT_RATE} to "
                f"{MAX_INPUT_RATE}, and the number of channels from 1 to {MAX_CHANNELS}"
            )
        return made

    def header(self) -> bytes:
        """The header of a WAV file of such samples, of any length."""
        tag, width = _ENCODINGS[self.encoding]
        frame = width * self.num_channels
        form = struct.pack(
            "<HHIIHH", tag, self.num_channels, self.rate, self.rate * frame, frame, 8 * width
        )
        return (
            struct.pack("<4sI8sI", b"RIFF", _ANY_SIZE, b"WAVEfmt ", len(form))
            + form
            + struct.pack("<4sI", b"data", _ANY_SIZE)
        )


class _Readable(Protocol):
    def read(self, num_bytes: int) -> bytes: ...


class _Headed:
    """A file with bytes put before it."""

    def __init__(self, head: bytes, file: _Readable, name: str) -> None:
        self._head, self._file, self.name = head, file, name

    def read(self, num_bytes: int) -> bytes:
        if self._head:
            part, self._head = self._head[:num_bytes], self._head[num_bytes:]
            return part
        return self._file.read(num_bytes)


@contextmanager
def opened(source: FileSource, raw: RawFormat | None) -> Generator[FileSource]:
    """The recording in a form that can be read: as it is, or with the header that it lacks.

    Raises:
        AudioError: there is no such file, or it may not be read.
    """
    if raw is None:
        yield source
        return
    with open_source(source) as reader:
        yield cast("BinaryIO", _Headed(raw.header(), reader, reader.label))
