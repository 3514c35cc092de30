"""How the sound that is pushed to one input is written: arrays and bytes -> checked chunks.

Knows how a caller described the sound. Does not know what came before a chunk, nor how it is
decoded (`chunk_decoder`).
"""

import sys
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from kiku.audio.chunk import Chunk
from kiku.audio.formats import (
    ENCODINGS,
    MAX_FLOAT,
    array_of,
    checked_peak,
    simple,
    time_first,
    whole,
    width_of,
)
from kiku.audio.opus import OPUS_RATE, num_samples_of
from kiku.audio.resample import checked_rate
from kiku.errors import AudioError
from kiku.options import MAX_INPUT_RATE, MIN_INPUT_RATE, AudioFormat, Encoding

Bytes = bytes | bytearray | memoryview

# The encoding of a memoryview's samples, by the letter of its format.
_VIEWS: dict[str, Encoding] = {"h": "s16le", "i": "s32le", "f": "f32le"}

_FLOAT32 = np.dtype(np.float32)


class InputFormat:
    """Makes chunks of the sound that is pushed to one input. It never changes, so any thread may
    use it."""

    def __init__(
        self, sample_rate: int, format: AudioFormat, channel: int | Literal["mix"]
    ) -> None:
        """Settle how the sound is written.

        Args:
            sample_rate: samples a second of the model.
            format: how the caller described the sound.
            channel: which channel the input takes, from 0; "mix" takes all.

        Raises:
            AudioError: a rate that cannot be.
        """
        own_rate = ENCODINGS[format.encoding].rate if format.encoding else None
        self.default_rate = checked_input_rate(
            format.sample_rate or own_rate or sample_rate, sample_rate
        )
        """Samples a second of sound that is pushed without a rate."""
        self._sample_rate, self._format = sample_rate, format
        self._channel = None if channel == "mix" else channel

    def chunk(self, samples: npt.ArrayLike | Bytes, rate: int | None) -> Chunk:
        """A chunk that holds a copy of the samples; see `AudioInput.check`."""
        rate = self.default_rate if rate is None else checked_input_rate(rate, self._sample_rate)
        # This is by far the most frequent case, so it comes first and is handled by itself.
        if type(samples) is np.ndarray and samples.dtype == _FLOAT32 and samples.ndim == 1:
            if self._channel:
                self.check_channel(1)
            data = samples.copy()
            peak = 0.0
            if data.size:
                high, low = data.item(data.argmax()), data.item(data.argmin())
                peak = high if high >= -low else -low
                if not peak <= MAX_FLOAT:
                    peak = checked_peak(data)
            return Chunk(data, rate, data.size, 1, None, peak)
        if isinstance(samples, memoryview):
            return self._checked_view(cast("memoryview[Any]", samples), rate)
        if isinstance(samples, bytes | bytearray):
            return self._checked_bytes(bytes(samples), rate, self._format.encoding)
        return self._checked_array(samples, rate)

    def check_channel(self, num_channels: int) -> None:
        """Raise AudioError if a sound with `num_channels` lacks the channel that is taken."""
        if self._channel is not None and self._channel >= num_channels:
            there = "is 1 channel" if num_channels == 1 else f"are {num_channels} channels"
            raise AudioError(
                f"channel {self._channel} was asked for, but there {there}: "
                "count them from 0, or take the mean of all with 'mix'"
            )

    def _checked_array(self, samples: npt.ArrayLike, rate: int) -> Chunk:
        array = time_first(array_of(samples, copy=True), self._format.channels_axis)
        data = simple(array)
        num_channels = 1 if data.ndim == 1 else data.shape[1]
        self.check_channel(num_channels)
        peak = checked_peak(data) if data.dtype == _FLOAT32 else None
        return Chunk(data, rate, len(data), num_channels, None, peak)

    def _checked_view(self, view: "memoryview[Any]", rate: int) -> Chunk:
        """A chunk of a memoryview: of bytes, or of samples in the view's own format, which are
        interleaved as in bytes, or have an axis for the channels as in arrays."""
        own, declared = view.format.lstrip("@=<"), self._format.encoding
        if own in "Bc" or (own == "b" and declared is not None):
            return self._checked_bytes(bytes(view), rate, declared)
        name = _VIEWS.get(own)
        if name is None or declared not in (None, name) or sys.byteorder != "little":
            raise AudioError(
                f"a memoryview of format {view.format!r} is not {declared or 'sound'}: give one of "
                "'h' (int16), 'i' (int32) or 'f' (float32), or of bytes in the stream's encoding"
            )
        samples = np.asarray(view)
        if view.ndim > 1:
            return self._checked_array(samples, rate)
        if samples.dtype == _FLOAT32:
            checked_peak(samples)
        return self._checked_bytes(bytes(view), rate, name)

    def _checked_bytes(self, data: bytes, rate: int, encoding: Encoding | None) -> Chunk:
        name, num_channels = encoding or "s16le", self._format.channels
        self.check_channel(num_channels)
        if name == "opus":
            if rate != OPUS_RATE:
                raise AudioError(f"Opus always has {OPUS_RATE} Hz: leave the rate of {rate} Hz out")
            return Chunk(data, rate, num_samples_of(data) or min(1, len(data)), 1, name)
        # A part of a sample counts as one, so that bytes are never taken for no sound at all.
        num_samples = -(-len(data) // width_of(name, num_channels))
        return Chunk(data, rate, num_samples, num_channels, name)


def checked_input_rate(rate: Any, own_rate: int) -> int:
    """`rate` as a plain number. AudioError if it is not whole, or if it is outside 8,000 to
    192,000 Hz and is not `own_rate`, the model's."""
    if rate.__class__ is int and MIN_INPUT_RATE <= rate <= MAX_INPUT_RATE:
        return rate
    # `checked_rate` raises if it is no number, or not whole.
    whole_rate = rate if isinstance(rate, int) else checked_rate(rate)
    if whole_rate != own_rate and not MIN_INPUT_RATE <= whole_rate <= MAX_INPUT_RATE:
        raise AudioError(
            f"a sample rate of {rate} Hz is outside {MIN_INPUT_RATE} to {MAX_INPUT_RATE} Hz: "
            "give the rate in samples a second, such as 16000"
        )
    return checked_rate(whole_rate)


def checked_channel(channel: Any) -> int | Literal["mix"]:
    """`channel` itself, as a plain number or "mix"; AudioError for anything else."""
    if channel == "mix" or (whole(channel) >= 0 and not isinstance(channel, bool)):
        return "mix" if channel == "mix" else whole(channel)
    raise AudioError(
        f"{channel!r} is not a channel: give a number from 0, or 'mix' for the mean of all (for "
        "each by itself, make an input for each)"
    )
