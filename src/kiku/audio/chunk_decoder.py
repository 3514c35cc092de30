"""Chunks as they were pushed -> mono samples, still at each chunk's own rate.

Joins samples that were cut in two between chunks of bytes, decodes byte encodings and Opus, and
takes one channel or mixes all. Does not know times or other rates (`rate_converter`).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from kiku.audio.chunk import Chunk
from kiku.audio.formats import ENCODINGS, FULL_SCALE, MAX_FLOAT, Mono, mono_of, peak_of, width_of
from kiku.audio.input_state import InputSettings, InputState, InputWarnings
from kiku.audio.mix import joined
from kiku.audio.opus import OPUS_RATE, OpusDecoder, num_samples_of


class ChunkDecoder:
    """Decodes the chunks of one sound. What it remembers is in `state`, except for Opus."""

    def __init__(
        self,
        state: InputState,
        warnings: InputWarnings,
        settings: InputSettings,
        opus: OpusDecoder | None,
    ) -> None:
        """Prepare to go on from `state`.

        Args:
            state: what the input remembers of the sound.
            warnings: where faults of the chunks are reported.
            settings: those of the input. With checks, samples at full scale are looked for, and
                channels that cancel each other are reported.
            opus: the decoder that has decoded the packets so far; None before the first packet.
        """
        self._state, self._warnings = state, warnings
        self._channel = None if settings.channel == "mix" else settings.channel
        self._checks, self._opus = settings.checks, opus

    @property
    def opus_packets(self) -> tuple[bytes, ...] | None:
        """The packets from which another decoder of Opus can go on; None before the first one."""
        return None if self._opus is None else tuple(self._opus.packets)

    def decode(self, chunk: Chunk) -> Mono | None:
        """Decode a chunk that is no gap.

        Returns:
            The samples; none where the bytes so far are less than one sample. None for a packet
            that is not Opus.

        Raises:
            AudioError: floats beyond 64 in a recording. Nothing is taken.
        """
        data = chunk.data
        if isinstance(data, bytes):
            return self._packet(data) if chunk.encoding == "opus" else self._bytes(chunk, data)
        assert data is not None, "a gap has no samples"
        mono = self._mono(data, chunk.rate, FULL_SCALE if self._checks else None, chunk.peak)
        self.drop_begun()
        return mono

    def drop_begun(self) -> None:
        """Drop the first bytes of a sample whose rest does not come, if there are any."""
        state = self._state
        if not state.begun:
            return
        self._warnings.damaged(
            f"{len(state.begun)} bytes of an incomplete sample were left out: give all bytes of a "
            "sound with one encoding and number of channels"
        )
        state.begun = b""

    def _packet(self, packet: bytes) -> Mono | None:
        self.drop_begun()
        if self._opus is None:
            self._opus = OpusDecoder()
        sound = self._opus.decode(packet)
        if sound is not None:
            return mono_of(sound, None, full_scale=FULL_SCALE if self._checks else None)
        num_samples = num_samples_of(packet)
        self._warnings.damaged(
            f"a packet of {len(packet)} bytes is not Opus and became {num_samples / OPUS_RATE:g} "
            "s of silence: give whole packets, without their container"
        )
        return None

    def _bytes(self, chunk: Chunk, data: bytes) -> Mono:
        state, name = self._state, chunk.encoding or "s16le"
        encoding, num_channels = ENCODINGS[name], chunk.num_channels
        goes_on = (state.begun_encoding, state.begun_channels) == (name, num_channels)
        if goes_on:
            data = state.begun + data
        width = width_of(name, num_channels)
        size = len(data) // width * width
        codes = np.frombuffer(data, encoding.dtype, size // width * num_channels)
        values = codes if encoding.decode is None else encoding.decode(codes)
        peak = None
        if values.dtype == np.float32:
            values, peak = _without_huge(values)
        if num_channels > 1:
            values = values.reshape(-1, num_channels)
        mono = self._mono(values, chunk.rate, encoding.full_scale if self._checks else None, peak)
        if not goes_on:
            self.drop_begun()
        state.begun, state.begun_encoding, state.begun_channels = data[size:], name, num_channels
        return mono

    def _mono(
        self,
        planes: npt.NDArray[Any],
        rate: int,
        full_scale: float | None,
        peak: float | None = None,
    ) -> Mono:
        """The channel that is taken, or the mix of all."""
        if self._channel is not None or planes.ndim == 1 or 1 in planes.shape or not planes.size:
            return mono_of(planes, self._channel, peak=peak, full_scale=full_scale)
        parts: list[Mono] = []
        num_samples = 0
        for mono, cancels in self._state.mix.pieces(planes, rate, peak=peak, full_scale=full_scale):
            parts.append(mono)
            num_samples += mono.sound.size
            if cancels and self._checks:
                self._warnings.warn(
                    "inverted",
                    "the channels cancel each other, because one of them is inverted: the "
                    "loudest one is used instead of their mean; check the wiring, or choose a "
                    "channel",
                    self._warnings.duration + num_samples / rate,
                )
        return joined(parts)


def _without_huge(
    values: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float32], float]:
    """Floats that came as bytes, with those beyond `MAX_FLOAT` replaced by infinity; and the
    largest distance from 0, NaN where some are not finite. An array with such values is refused.
    Bytes cannot be: they may be cut anywhere, and those before them have been taken already."""
    peak = peak_of(values)
    if peak <= MAX_FLOAT:
        return values, peak
    # NaN is not below the limit either, and becomes silence as well.
    return np.where(np.abs(values) <= MAX_FLOAT, values, np.float32(np.inf)), np.nan
