"""The sound of Deepgram's clients -> pushes: raw samples, packets, or recordings. WAV headers
before raw samples are read, and not heard as sound."""

import struct
from dataclasses import dataclass, replace

from kiku.audio.formats import width_of
from kiku.audio.opus import OPUS_RATE, num_samples_of
from kiku.errors import ConfigError
from kiku.options import MAX_INPUT_RATE, MIN_INPUT_RATE, AudioFormat, Encoding, StreamOptions
from kiku.serve.protocols.interface import Action, Open, Push

_RIFF, _WAVE = b"RIFF", b"WAVE"
_MAX_HEADER = 2**16
"""Bytes within which the samples of a WAV file must begin; else it counts as none."""

_MOST = 2**32 - 1
"""Bytes that a header can state; samples that are longer go on to the end of their file."""

_EXTENSIBLE = 0xFFFE
_WAV_ENCODINGS: dict[tuple[int, int], Encoding] = {
    (1, 16): "s16le", (1, 32): "s32le", (3, 32): "f32le", (6, 8): "alaw", (7, 8): "mulaw",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class WavHeader:
    """What stands before the samples of a WAV file."""

    size: int
    """Bytes until the samples begin."""
    format: AudioFormat | None
    """The format of the samples; None if it cannot be read here."""


def wav_header(data: bytes) -> WavHeader | None:
    """The header with which `data` begins; None if there is none, or not all of it."""
    if not could_be_wav(data) or len(data) < 12:
        return None
    at, format = 12, None
    while at + 8 <= min(len(data), _MAX_HEADER):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8
        if name == b"data":
            return WavHeader(at, format)
        if name == b"fmt ":
            format = _format(data[at : at + min(size, 40)])
        at += size + size % 2
    return None


def written_header(format: AudioFormat, num_bytes: int) -> bytes:
    """The header that makes a WAV file of `num_bytes` bytes of samples in `format`."""
    kinds = {encoding: kind for kind, encoding in _WAV_ENCODINGS.items()}
    kind, bits = kinds[format.encoding or "s16le"]
    rate, channels = format.sample_rate or 8_000, format.channels
    width = channels * bits // 8
    fmt = struct.pack("<HHIIHHH", kind, channels, rate, rate * width, width, bits, 0)
    size = min(_MOST, 4 + 8 + len(fmt) + 8 + num_bytes)
    parts = [
        _RIFF, size.to_bytes(4, "little"), _WAVE,
        b"fmt ", len(fmt).to_bytes(4, "little"), fmt,
        b"data", min(_MOST, num_bytes).to_bytes(4, "little"),
    ]  # fmt: skip
    return b"".join(parts)


def could_be_wav(data: bytes) -> bool:
    """Whether `data` is the beginning of a WAV file, as far as it goes."""
    return _RIFF.startswith(data[:4]) and _WAVE.startswith(data[8:12])


def _format(chunk: bytes) -> AudioFormat | None:
    if len(chunk) < 16:
        return None
    kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if kind == _EXTENSIBLE and len(chunk) >= 26:
        kind = int.from_bytes(chunk[24:26], "little")
    encoding = _WAV_ENCODINGS.get((kind, bits))
    if encoding is None or not MIN_INPUT_RATE <= rate <= MAX_INPUT_RATE:
        return None
    try:
        return AudioFormat(encoding=encoding, sample_rate=rate, channels=channels)
    except ConfigError:
        return None


class SoundIntake:
    """Makes pushes of what a client sends.

    A WAV header at the beginning says how the samples are written, whatever the query says. One at
    the beginning of a later message is left out.
    """

    def __init__(self, options: StreamOptions, container: bool) -> None:
        """For a stream of `options`, whose sound comes as a recording if `container`."""
        self.initial_open = Open(options, container)
        self.num_channels = options.format.channels
        self._options, self._container = options, container
        self._num_taken = 0  # samples of Opus, or bytes
        self._has_headers = not container and options.format.encoding != "opus"
        self._begins, self._held = True, b""

    @property
    def has_come(self) -> bool:
        """Whether any sound was pushed."""
        return self._num_taken > 0

    @property
    def taken_s(self) -> float | None:
        """Seconds of sound that were pushed; None for a recording, which does not say."""
        if self._container:
            return None
        format = self._options.format
        if format.encoding == "opus":
            return self._num_taken / OPUS_RATE
        assert format.encoding is not None
        assert format.sample_rate is not None
        return self._num_taken / (width_of(format.encoding, format.channels) * format.sample_rate)

    def take(self, data: bytes) -> list[Action]:
        """Take the next message."""
        return self._counted(self._take(data))

    def _counted(self, actions: list[Action]) -> list[Action]:
        is_opus = self._options.format.encoding == "opus"
        for one in actions:
            if isinstance(one, Push) and isinstance(one.samples, bytes):
                data = one.samples
                self._num_taken += num_samples_of(data) if is_opus else len(data)
        return actions

    def _take(self, data: bytes) -> list[Action]:
        if not self._has_headers:
            return [Push(data)] if data else []
        if self._begins:
            return self._take_first(self._held + data)
        if data.startswith(_RIFF):
            header = wav_header(data)
            data = data if header is None else data[header.size :]
        return [Push(data)] if data else []

    def _take_first(self, data: bytes) -> list[Action]:
        header = wav_header(data)
        if header is None and could_be_wav(data) and len(data) < _MAX_HEADER:
            self._held = data  # the rest of the header may come
            return []
        self._begins, self._held = False, b""
        actions: list[Action] = []
        if header is not None:
            data = data[header.size :]
            if header.format is not None and header.format != self._options.format:
                self.num_channels = header.format.channels
                self._options = replace(self._options, format=header.format)
                actions.append(Open(self._options))
        return [*actions, Push(data)] if data else actions

    def rest(self) -> list[Action]:
        """Push what was held back, as no more of it comes."""
        data, self._held = self._held, b""
        self._begins = self._begins and not data
        return self._counted([Push(data)] if data else [])
