"""One sound as it comes, in any form -> mono float32 samples at one rate, without a seam.

The only way in, for files as for streams. Keeps the time of the sound exactly: declared gaps,
changes of rate, halves of samples between two chunks. Does not read clocks, files or sockets, and
does not know frames.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from kiku.audio.checks import QUIET_S, SignalChecks, StreamWarning
from kiku.audio.chunk import Chunk
from kiku.audio.clock import TICKS_PER_S, SampleClock, ticks_of
from kiku.audio.formats import (
    ENCODINGS,
    FULL_SCALE,
    MAX_FLOAT,
    Mono,
    array_of,
    checked_peak,
    mono_of,
    peak_of,
    simple,
    time_first,
    width_of,
)
from kiku.audio.input_state import (
    InputSettings,
    InputState,
    SavedInput,
    checked_channel,
    checked_input_rate,
)
from kiku.audio.mix import joined
from kiku.audio.opus import OPUS_RATE, OpusDecoder, num_samples_of
from kiku.audio.resample import Resampler, checked_rate
from kiku.audio.timeline import Timeline
from kiku.errors import AudioError, StreamError
from kiku.options import AudioFormat, Encoding
from kiku.serial import from_plain, to_plain

# All that was given is as long as the sound, but for so many samples: a few from rounding.
_MAX_UNEVEN = 16

Bytes = bytes | bytearray | memoryview

# How the samples of a memoryview are written, by the letter of its format.
_VIEWS: dict[str, Encoding] = {"h": "s16le", "i": "s32le", "f": "f32le"}

_FLOAT32 = np.dtype(np.float32)
_DEFAULT_FORMAT = AudioFormat()


class AudioInput:
    """Takes one sound in chunks of any length and gives its samples; any cut gives the same.

    `check` makes a chunk of what a caller has, `feed` takes it. Errors are raised for what cannot
    be sound, before anything of it is taken, and the input goes on as if it had not come. What can
    be understood all the same becomes a warning (`warnings`). Samples come out some milliseconds
    after they went in, as `Resampler` says.
    """

    def __init__(
        self,
        sample_rate: int,
        format: AudioFormat = _DEFAULT_FORMAT,
        *,
        channel: int | Literal["mix"] = "mix",
        checks: bool = True,
        rate_check: bool = False,
        start_s: float = 0.0,
        end_s: float | None = None,
    ) -> None:
        """An input that has taken nothing.

        Args:
            sample_rate: samples a second of what comes out, 1,000 to 768,000.
            format: how what is pushed is written.
            channel: which channel to take, from 0; "mix" takes the mean of all.
            checks: whether to look for clipping, silence, an offset and what is not a number (which
                becomes silence in any case).
            rate_check: whether to look for a wrong rate by the pitch of voices, which costs more.
            start_s: what lies before is left out; the first sample that comes out is at this time.
            end_s: what lies from here on is left out; None takes all.

        Raises:
            AudioError: a rate, channel or time that cannot be.
        """
        self.sample_rate = checked_rate(sample_rate)
        self.format = format
        self.channel: int | Literal["mix"] = checked_channel(channel)
        self._channel = None if self.channel == "mix" else self.channel
        own_rate = ENCODINGS[format.encoding].rate if format.encoding else None
        self._default_rate = checked_input_rate(
            format.sample_rate or own_rate or self.sample_rate, self.sample_rate
        )
        end = math.inf if end_s is None else end_s
        if not (0 <= start_s < math.inf and start_s < end):
            raise AudioError(
                f"the sound from {start_s} to {end_s} seconds is none: give a start of at least 0 "
                "and an end behind it"
            )
        self._start = ticks_of(start_s)
        self._end = None if end == math.inf else ticks_of(end)
        self._cuts = bool(self._start) or self._end is not None
        self.start_s, self.end_s, self.checks = start_s, end_s, checks
        self._full_scale = FULL_SCALE if checks else None
        # At first no sound has any rate: a gap at the beginning is silence at the default one.
        rate = self._default_rate
        self._state = InputState(
            Timeline(SampleClock(rate), SampleClock(rate)), SignalChecks(rate_check=rate_check)
        )
        self._resampler = Resampler(rate, self.sample_rate)
        self._opus: OpusDecoder | None = None
        self._is_plain = False  # whether a chunk may go the short way
        self.untold: Sequence[StreamWarning] = self._state.checks.waiting
        """What `warnings` would give; to be looked at only."""

    def __repr__(self) -> str:
        """What it takes and how much it has taken."""
        encoding = self.format.encoding or "samples"
        return (
            f"<AudioInput {encoding} at {self._default_rate} Hz to {self.sample_rate} Hz, "
            f"{self.duration:.2f} s>"
        )

    @property
    def duration(self) -> float:
        """Seconds of sound and declared gaps that `feed` has taken, with what start and end leave
        out; exact, however long and at whatever rates."""
        return self._state.times.taken.seconds()

    def check(self, samples: npt.ArrayLike | Bytes, rate: int | None = None) -> Chunk:
        """A chunk for `feed`, or an error for what cannot be sound. Nothing is taken, so any thread
        may call it while another one feeds.

        Args:
            samples: an array [S], [S, C] or [C, S] of uint8, int16, int32, float16, float32 or
                float64, in which NaN and infinity will become silence; or bytes of the format's
                encoding, interleaved, which may be cut anywhere; or one packet of Opus. A
                memoryview of samples is taken by its own format and shape. Bytes are looked at
                by `feed` alone: in them floats beyond 64 count as infinite.
            rate: samples a second, 8,000 to 192,000, or `sample_rate`. None: the format's, or its
                encoding's own, or `sample_rate`.

        Returns:
            A copy of the samples, with what is known of them.

        Raises:
            AudioError: a dtype, shape or rate that cannot be, a channel that is not there, floats
                that reach beyond 64 in samples that are not bytes.
        """
        rate = self._default_rate if rate is None else checked_input_rate(rate, self.sample_rate)
        # By far the most frequent, and therefore first and by itself.
        if type(samples) is np.ndarray and samples.dtype == _FLOAT32 and samples.ndim == 1:
            if self._channel:
                self._check_channel(1)
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
            return self._checked_bytes(bytes(samples), rate, self.format.encoding)
        return self._checked_array(samples, rate)

    def _checked_array(self, samples: npt.ArrayLike, rate: int) -> Chunk:
        array = time_first(array_of(samples, copy=True), self.format.channels_axis)
        data = simple(array)
        num_channels = 1 if data.ndim == 1 else data.shape[1]
        self._check_channel(num_channels)
        peak = checked_peak(data) if data.dtype == _FLOAT32 else None
        return Chunk(data, rate, len(data), num_channels, None, peak)

    def feed(self, chunk: Chunk) -> npt.NDArray[np.float32]:
        """Take the next chunk and give what is known of the output by now.

        Args:
            chunk: from `check` of any input, from `gap_of`, or from `read_file`. Several inputs,
                each with a channel of its own, may be fed the same one.

        Returns:
            [S] float32 at `sample_rate`, often empty at first. It may be the chunk's own array,
            which other inputs may read too: it stays as it is, and nobody writes into it.

        Raises:
            AudioError: the chunk has not this input's channel, its rate cannot be, it is of a
                recording whose floats reach beyond 64; after `end`. Nothing is taken.
        """
        if self._is_plain and chunk.rate == self.sample_rate:
            given = self._feed_plain(chunk)
            if given is not None:
                return given
        given = self._feed(chunk)
        self._is_plain = self._stays_plain
        return given

    def _feed_plain(self, chunk: Chunk) -> npt.NDArray[np.float32] | None:
        """As `_feed`, of what most sound is: floats below full scale, not to be resampled nor cut;
        None for anything else."""
        data, peak = chunk.data, chunk.peak
        if data is None or isinstance(data, bytes) or peak is None or not peak < FULL_SCALE:
            return None
        if data.ndim != 1:
            return None
        state, size = self._state, data.size
        if self._full_scale is not None and not state.checks.feed_plain(data, chunk.rate):
            return None
        times = state.times
        times.taken.num_samples += size
        times.kept.num_samples += size
        times.num_given += size
        return data

    @property
    def _stays_plain(self) -> bool:
        """Whether `_feed_plain` may be tried until `_feed` is called again."""
        state = self._state
        whole = not (self._cuts or self._channel or state.begun or state.ended)
        return whole and state.rate == self._resampler.rate_in == self.sample_rate

    def _feed(self, chunk: Chunk) -> npt.NDArray[np.float32]:
        if self._state.ended:
            raise AudioError("sound came after its end: make another input")
        data = chunk.data
        if data is None:
            return self._feed_gap(chunk.num_samples * TICKS_PER_S // chunk.rate)
        if self._channel:
            self._check_channel(chunk.num_channels)
        if not chunk.num_samples:
            return np.zeros(0, np.float32)
        if isinstance(data, bytes):
            if chunk.encoding == "opus":
                return self._feed_opus(data)
            return self._feed_bytes(chunk, data)
        mono = self._mono(data, chunk.rate, self._full_scale, chunk.peak)
        resampler = self._resampler_at(chunk.rate)
        if self._state.begun:
            self._drop_begun()
        return self._take(mono, resampler)

    def end(self) -> npt.NDArray[np.float32]:
        """End the sound and give the rest of it, [S] float32; a second call gives nothing.

        All that was given is then as long as what was taken, within one sample.
        """
        state = self._state
        if state.ended:
            return np.zeros(0, np.float32)
        if state.begun:
            self._drop_begun()
        state.ended, self._is_plain = True, False
        state.checks.close(self._checked_s)
        return self._end_rate()

    def tail(self) -> npt.NDArray[np.float32]:
        """What `end` would give now, [S] float32; the input goes on as if nobody had asked."""
        if self._state.ended:
            return np.zeros(0, np.float32)
        return self._fitted(self._resampler.copy().end())

    def warnings(self) -> list[StreamWarning]:
        """What was found wrong with the sound since the last call; times count from its beginning,
        whatever `start_s` is."""
        return self._state.checks.warnings()

    def save(self) -> dict[str, Any]:
        """All that is remembered, in plain values and arrays (see `kiku.serial`).

        An input that `restore` makes of it, in this process or another, gives the samples that this
        one would give, within 1e-6 (1e-5 for rates with no simple ratio to `sample_rate`).
        """
        packets = None if self._opus is None else tuple(self._opus.packets)
        settings = InputSettings(
            self.sample_rate, self.format, self.channel, self.checks,
            self._state.checks.rate_check, self.start_s, self.end_s,
        )  # fmt: skip
        saved = SavedInput(1, settings, self._state, self._resampler.save(), packets)
        return to_plain(saved)

    @classmethod
    def restore(cls, saved: Any) -> "AudioInput":
        """The input of which `save` gave these values.

        Raises:
            StreamError: they are of something else, or damaged.
        """
        read = from_plain(SavedInput, saved, what="the saved sound", error=StreamError)
        try:
            return cls._restored(read)
        except (AudioError, ValueError) as error:
            raise StreamError(f"the saved sound cannot be restored: {error}") from error

    @classmethod
    def _restored(cls, saved: SavedInput) -> "AudioInput":
        settings, state = saved.settings, saved.state
        one = cls(**{field.name: getattr(settings, field.name) for field in fields(settings)})
        one._resampler = Resampler.restore(state.times.taken.rate, one.sample_rate, saved.resampler)
        if saved.opus is not None:
            one._opus = OpusDecoder(saved.opus)
        one._state = state
        one.untold = state.checks.waiting
        rest = one._resampler.copy().end()
        if abs(state.times.num_missing(one.sample_rate) - rest.size) > _MAX_UNEVEN:
            raise ValueError("what was given does not fit the length of the sound")
        if state.checks.rate_check != settings.rate_check:
            raise ValueError("there are checks that nobody asked for")
        return one

    def _check_channel(self, num_channels: int) -> None:
        if self._channel is not None and self._channel >= num_channels:
            raise AudioError(
                f"channel {self._channel} was asked for and there are {num_channels}: "
                "count them from 0, or take the mean of all with 'mix'"
            )

    def _checked_view(self, view: "memoryview[Any]", rate: int) -> Chunk:
        """Bytes, or samples of the view's own format: interleaved as bytes are, or with an axis
        for the channels as in arrays."""
        own, told = view.format.lstrip("@=<"), self.format.encoding
        if own in "Bc" or (own == "b" and told is not None):
            return self._checked_bytes(bytes(view), rate, told)
        name = _VIEWS.get(own)
        if name is None or told not in (None, name) or sys.byteorder != "little":
            raise AudioError(
                f"a memoryview of format {view.format!r} is not {told or 'sound'}: give one of "
                "'h' (int16), 'i' (int32) or 'f' (float32), or of bytes in the stream's encoding"
            )
        samples = np.asarray(view)
        if view.ndim > 1:
            return self._checked_array(samples, rate)
        if samples.dtype == _FLOAT32:
            checked_peak(samples)
        return self._checked_bytes(bytes(view), rate, name)

    def _checked_bytes(self, data: bytes, rate: int, encoding: Encoding | None) -> Chunk:
        name, num_channels = encoding or "s16le", self.format.channels
        self._check_channel(num_channels)
        if name == "opus":
            if rate != OPUS_RATE:
                raise AudioError(f"Opus is at {OPUS_RATE} Hz: leave the rate of {rate} Hz out")
            return Chunk(data, rate, num_samples_of(data) or min(1, len(data)), 1, name)
        # A part of a sample counts, so that no number of bytes is nothing.
        num_samples = -(-len(data) // width_of(name, num_channels))
        return Chunk(data, rate, num_samples, num_channels, name)

    def _mono(
        self,
        planes: npt.NDArray[Any],
        rate: int,
        full_scale: float | None,
        peak: float | None = None,
    ) -> Mono:
        """The channel that is asked for, or all of them mixed."""
        if self._channel is not None or planes.ndim == 1 or 1 in planes.shape or not planes.size:
            return mono_of(planes, self._channel, peak=peak, full_scale=full_scale)
        parts: list[Mono] = []
        num_samples = 0
        for mono, tells in self._state.mix.pieces(planes, rate, peak=peak, full_scale=full_scale):
            parts.append(mono)
            num_samples += mono.sound.size
            if tells and self._full_scale is not None:
                self._warn(
                    "inverted",
                    "the channels cancel each other, as one of them is inverted: the loudest is "
                    "heard instead of their mean; check the wiring, or choose a channel",
                    self.duration + num_samples / rate,
                )
        return joined(parts)

    def _feed_bytes(self, chunk: Chunk, data: bytes) -> npt.NDArray[np.float32]:
        state, name = self._state, chunk.encoding or "s16le"
        encoding, num_channels = ENCODINGS[name], chunk.num_channels
        begun_as = (state.begun_encoding, state.begun_channels)
        if state.begun and begun_as == (name, num_channels):
            data = state.begun + data
        width = width_of(name, num_channels)
        size = len(data) // width * width
        codes = np.frombuffer(data, encoding.dtype, size // width * num_channels)
        values = codes if encoding.decode is None else encoding.decode(codes)
        peak = None
        if values.dtype == _FLOAT32:
            values, peak = _without_huge(values)
        if num_channels > 1:
            values = values.reshape(-1, num_channels)
        full_scale = None if self._full_scale is None else encoding.full_scale
        mono = self._mono(values, chunk.rate, full_scale, peak)
        resampler = self._resampler_at(chunk.rate)
        if state.begun and begun_as != (name, num_channels):
            self._drop_begun()
        state.begun, state.begun_encoding, state.begun_channels = data[size:], name, num_channels
        return self._take(mono, resampler)

    def _feed_opus(self, packet: bytes) -> npt.NDArray[np.float32]:
        if self._state.begun:
            self._drop_begun()
        if self._opus is None:
            self._opus = OpusDecoder()
        sound = self._opus.decode(packet)
        if sound is not None:
            mono = mono_of(sound, None, full_scale=self._full_scale)
            return self._take(mono, self._resampler_at(OPUS_RATE))
        num_samples = num_samples_of(packet)
        self._damaged(
            f"a packet of {len(packet)} bytes is not Opus and became {num_samples / OPUS_RATE:g} s "
            "of silence: give whole packets, without their container"
        )
        return self._feed_gap(num_samples * TICKS_PER_S // OPUS_RATE)

    def _resampler_at(self, rate: int) -> Resampler:
        """The present resampler, or another where the rate changes; AudioError for a rate that
        cannot be."""
        present = self._resampler
        return present if rate == present.rate_in else Resampler(rate, self.sample_rate)

    def _take(self, mono: Mono, resampler: Resampler) -> npt.NDArray[np.float32]:
        """Look at the sound and resample what lies between start and end."""
        size = mono.sound.size
        if not size:
            return mono.sound
        state, times, rate, rest = self._state, self._state.times, resampler.rate_in, None
        if state.rate != rate:
            rest = self._change_rate(resampler)
        if self._cuts:
            first = min(size, max(0, times.taken.num_until(self._start)))
            end = size if self._end is None else times.taken.num_until(self._end)
            mono = mono.part(first, min(size, max(first, end)))
            times.taken.num_samples += first
            size -= first
        sound = mono.sound
        if self._full_scale is not None:
            state.checks.feed(mono, times.taken)
        times.taken.num_samples += size
        times.kept.num_samples += sound.size
        given = sound if rate == self.sample_rate else self._resampler.push(sound)
        times.num_given += given.size
        return given if rest is None or not rest.size else np.concatenate([rest, given])

    def _change_rate(self, resampler: Resampler) -> npt.NDArray[np.float32] | None:
        """Go on with another resampler, or take the first sound; what comes out by that."""
        state, rate, rest = self._state, resampler.rate_in, None
        if state.rate is not None:
            state.checks.end(self._checked_s)
            self._warn(
                "rate_changed",
                f"the sound changed from {state.rate} to {rate} samples a second: "
                "check that both are right, and better keep one rate",
                self.duration,
            )
        if resampler is not self._resampler:
            rest = self._end_rate()
            self._resampler = resampler
            state.times.change_rate(rate)
        state.rate = rate
        return rest

    def _feed_gap(self, ticks: int) -> npt.NDArray[np.float32]:
        """Let silence go by, as far as it lies between start and end."""
        times, rate = self._state.times, self._resampler.rate_in
        num_samples = times.add_gap(ticks, self._start, self._end)
        if rate == self.sample_rate:
            given = np.zeros(num_samples, np.float32)
        else:
            parts = [np.zeros(0, np.float32)]
            for first in range(0, num_samples, rate):
                zeros = np.zeros(min(rate, num_samples - first), np.float32)
                parts.append(self._resampler.push(zeros))
            given = np.concatenate(parts)
        times.num_given += given.size
        return given

    def _end_rate(self) -> npt.NDArray[np.float32]:
        """The rest of the sound at the present rate."""
        rest = self._fitted(self._resampler.end())
        self._state.times.end_rate(rest.size, self.sample_rate)
        return rest

    def _fitted(self, rest: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """`rest`, at most a sample or two longer or shorter, so that roundings do not add up."""
        size = self._state.times.num_missing(self.sample_rate)
        if rest.size >= size:
            return rest[:size]
        last = rest[-1:] if rest.size else np.zeros(1, np.float32)
        return np.concatenate([rest, np.repeat(last, size - rest.size)])

    def _drop_begun(self) -> None:
        state = self._state
        self._damaged(
            f"{len(state.begun)} bytes of a sample whose rest never came were left out: "
            "give all bytes of a sound with one encoding and number of channels"
        )
        state.begun = b""

    def _damaged(self, message: str) -> None:
        """Warn, unless there was damage just before."""
        state, now = self._state, self.duration
        if state.damaged_s is None or now - state.damaged_s > QUIET_S:
            self._warn("damaged", message, now)
        state.damaged_s = now

    @property
    def _checked_s(self) -> float:
        """Seconds up to which the sound was looked at: nobody hears what is wrong behind its
        end."""
        return self.duration if self.end_s is None else min(self.duration, self.end_s)

    def _warn(self, kind: str, message: str, time: float) -> None:
        """Warn of something at this time, unless it lies where nothing is looked at."""
        if self.end_s is None or time < self.end_s:
            self._state.checks.warn(kind, message, time)


def _without_huge(
    values: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float32], float]:
    """Floats as they lay in bytes, and how far from 0 they reach, NaN where some are not finite.
    What lies beyond `MAX_FLOAT` is infinite then. Of bytes nobody can refuse a few, as arrays are:
    they may be cut anywhere, and what came before them was taken."""
    peak = peak_of(values)
    if peak <= MAX_FLOAT:
        return values, peak
    # NaN is not within either, and becomes silence as well.
    return np.where(np.abs(values) <= MAX_FLOAT, values, np.float32(np.inf)), np.nan
