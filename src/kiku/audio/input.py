"""Chunks of one sound, in any form -> mono float32 samples at one rate, without a seam.

Files and streams both pass through here. The time of the sound is kept exactly, across declared
gaps, changes of rate, and samples that are cut in two between chunks. Does not read clocks, files
or sockets, and does not know frames.
"""

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kiku.audio.checks import SignalChecks, StreamWarning
from kiku.audio.chunk import Chunk
from kiku.audio.chunk_decoder import ChunkDecoder
from kiku.audio.clock import TICKS_PER_S, SampleClock
from kiku.audio.formats import FULL_SCALE
from kiku.audio.input_format import Bytes, InputFormat, checked_channel
from kiku.audio.input_state import InputSettings, InputState, InputWarnings, SavedInput
from kiku.audio.opus import OPUS_RATE, OpusDecoder, num_samples_of
from kiku.audio.rate_converter import RateConverter
from kiku.audio.resample import Resampler, checked_rate
from kiku.audio.timeline import Timeline
from kiku.errors import AudioError, StreamError
from kiku.options import AudioFormat
from kiku.serial import from_plain, to_plain

# The output may differ from the length of the sound by this many samples: a few from rounding.
_MAX_UNEVEN = 16

_DEFAULT_FORMAT = AudioFormat()


class AudioInput:
    """Converts one sound, in chunks of any length; however it is cut, the samples are the same.

    `check` makes a chunk of what a caller has, and `feed` converts it. What cannot be sound raises
    an error before anything of it is taken, and the input goes on as if it had not come. A fault
    of sound that can be used all the same becomes a warning (`warnings`). Samples come out some
    milliseconds after they went in, as `Resampler` says.
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
        """Prepare an input for the first chunk.

        Args:
            sample_rate: samples a second of what comes out, 1,000 to 768,000.
            format: how the pushed sound is written.
            channel: which channel to take, from 0; "mix" takes the mean of all.
            checks: whether to warn of clipping, silence, an offset and samples that are no numbers
                (which become silence in any case).
            rate_check: whether to look for a wrong rate by the pitch of voices, which costs more.
            start_s: the sound before this second is left out; the first sample that comes out is at
                this time.
            end_s: the sound from this second on is left out; None takes all.

        Raises:
            AudioError: a rate, channel or time that cannot be.
        """
        self.sample_rate = checked_rate(sample_rate)
        self.format = format
        self.channel: int | Literal["mix"] = checked_channel(channel)
        end = math.inf if end_s is None else end_s
        if not (0 <= start_s < math.inf and start_s < end):
            raise AudioError(
                f"a part from {start_s} to {end_s} seconds is not possible: give a start of at "
                "least 0 and an end after it"
            )
        self.start_s, self.end_s, self.checks = start_s, end_s, checks
        self._format = InputFormat(self.sample_rate, format, self.channel)
        # At first no sound has any rate: a gap at the beginning is silence at the default one.
        rate = self._format.default_rate
        state = InputState(
            Timeline(SampleClock(rate), SampleClock(rate)), SignalChecks(rate_check=rate_check)
        )
        self._go_on(state, Resampler(rate, self.sample_rate), None)

    def _go_on(self, state: InputState, resampler: Resampler, opus: OpusDecoder | None) -> None:
        """Make the parts that convert the sound, so that they go on from `state`."""
        settings, warnings = self._settings(state), InputWarnings(state, self.end_s)
        self._state = state
        self._decoder = ChunkDecoder(state, warnings, settings, opus)
        self._converter = RateConverter(state, warnings, settings, resampler)
        self._is_plain = False  # whether `_feed_plain` may be tried
        self.untold: Sequence[StreamWarning] = state.checks.waiting
        """The warnings that `warnings` would give now. Callers only read it."""

    def _settings(self, state: InputState) -> InputSettings:
        return InputSettings(
            self.sample_rate, self.format, self.channel, self.checks,
            state.checks.rate_check, self.start_s, self.end_s,
        )  # fmt: skip

    def __repr__(self) -> str:
        """The sound's encoding, its rates, and how much of it was taken."""
        encoding = self.format.encoding or "samples"
        return (
            f"<AudioInput {encoding} at {self._format.default_rate} Hz to {self.sample_rate} Hz, "
            f"{self.duration:.2f} s>"
        )

    @property
    def duration(self) -> float:
        """Seconds of sound and declared gaps that `feed` has taken, with what start and end leave
        out; exact, however long and at whatever rates."""
        return self._state.times.taken.seconds()

    def check(self, samples: npt.ArrayLike | Bytes, rate: int | None = None) -> Chunk:
        """Make a chunk for `feed`, or raise an error for what cannot be sound. The input is not
        changed, so any thread may call this while another one feeds.

        Args:
            samples: an array [S], [S, C] or [C, S] of uint8, int16, int32, float16, float32 or
                float64, in which NaN and infinity will become silence; or bytes of the format's
                encoding, interleaved, which may be cut anywhere; or one packet of Opus. A
                memoryview of samples is read by its own format and shape. Bytes are looked at
                by `feed` only: floats beyond 64 in them count as infinite.
            rate: samples a second, 8,000 to 192,000, or `sample_rate`. None: the format's, or its
                encoding's own, or `sample_rate`.

        Returns:
            A copy of the samples, with what is known of them.

        Raises:
            AudioError: a dtype, shape or rate that cannot be, a channel that is not there, floats
                that reach beyond 64 in samples that are not bytes.
        """
        return self._format.chunk(samples, rate)

    def feed(self, chunk: Chunk) -> npt.NDArray[np.float32]:
        """Take the next chunk, and give the output that is known by now.

        Args:
            chunk: from `check` of any input, from `gap_of`, or from `read_file`. Several inputs,
                each with a channel of its own, may be fed the same chunk.

        Returns:
            [S] float32 at `sample_rate`, often empty at first. It may be the chunk's own array,
            which other inputs may read too, so it must not be changed.

        Raises:
            AudioError: the chunk lacks this input's channel, has an impossible rate, or comes from
                a recording whose floats reach beyond 64; or `end` was called before. Nothing is
                taken.
        """
        if self._is_plain and chunk.rate == self.sample_rate:
            given = self._feed_plain(chunk)
            if given is not None:
                return given
        given = self._feed(chunk)
        self._is_plain = self._stays_plain
        return given

    def _feed_plain(self, chunk: Chunk) -> npt.NDArray[np.float32] | None:
        """A faster `_feed` for what most sound is: floats below full scale that are neither
        resampled nor cut. None for any other chunk, of which nothing is taken."""
        data, peak = chunk.data, chunk.peak
        if data is None or isinstance(data, bytes) or peak is None or not peak < FULL_SCALE:
            return None
        if data.ndim != 1:
            return None
        state, size = self._state, data.size
        if self.checks and not state.checks.feed_plain(data, chunk.rate):
            return None
        times = state.times
        times.taken.num_samples += size
        times.kept.num_samples += size
        times.num_given += size
        return data

    @property
    def _stays_plain(self) -> bool:
        """Whether `_feed_plain` may be tried for the next chunks, until `_feed` is called again."""
        state, converter = self._state, self._converter
        whole = not (converter.cuts or self.channel not in ("mix", 0) or state.begun or state.ended)
        return whole and state.rate == converter.resampler.rate_in == self.sample_rate

    def _feed(self, chunk: Chunk) -> npt.NDArray[np.float32]:
        if self._state.ended:
            raise AudioError("sound was given after its end: make another input")
        data, converter = chunk.data, self._converter
        if data is None:
            return converter.gap(chunk.num_samples * TICKS_PER_S // chunk.rate)
        if self.channel not in ("mix", 0):
            self._format.check_channel(chunk.num_channels)
        if not chunk.num_samples:
            return np.zeros(0, np.float32)
        resampler = converter.resampler_at(chunk.rate)
        mono = self._decoder.decode(chunk)
        if mono is not None:
            return converter.take(mono, resampler)
        # A packet that is not Opus becomes as much silence as its first bytes say.
        num_samples = num_samples_of(data) if isinstance(data, bytes) else 0
        return converter.gap(num_samples * TICKS_PER_S // OPUS_RATE)

    def end(self) -> npt.NDArray[np.float32]:
        """End the sound and give the rest of it, [S] float32; a second call gives nothing.

        The whole output is then as long as the sound that was taken, within one sample.
        """
        state = self._state
        if state.ended:
            return np.zeros(0, np.float32)
        self._decoder.drop_begun()
        state.ended, self._is_plain = True, False
        return self._converter.end()

    def tail(self) -> npt.NDArray[np.float32]:
        """What `end` would give now, [S] float32; the input is not changed."""
        if self._state.ended:
            return np.zeros(0, np.float32)
        return self._converter.tail()

    def warnings(self) -> list[StreamWarning]:
        """The faults that were found in the sound since the last call; their times count from the
        beginning of the sound, whatever `start_s` is."""
        return self._state.checks.warnings()

    def save(self) -> dict[str, Any]:
        """The input's whole state, in plain values and arrays (see `kiku.serial`).

        An input that `restore` makes from it, in this process or another, gives the samples that
        this one would give, within 1e-6 (1e-5 for rates with no simple ratio to `sample_rate`).
        """
        saved = SavedInput(
            1, self._settings(self._state), self._state,
            self._converter.resampler.save(), self._decoder.opus_packets,
        )  # fmt: skip
        return to_plain(saved)

    @classmethod
    def restore(cls, saved: Any) -> "AudioInput":
        """An input that goes on where `save` was called.

        Raises:
            StreamError: the values are not from `save`, or they are damaged.
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
        resampler = Resampler.restore(state.times.taken.rate, one.sample_rate, saved.resampler)
        one._go_on(state, resampler, None if saved.opus is None else OpusDecoder(saved.opus))
        rest = resampler.copy().end()
        if abs(state.times.num_missing(one.sample_rate) - rest.size) > _MAX_UNEVEN:
            raise ValueError("the counts do not match the length of the sound")
        if state.checks.rate_check != settings.rate_check:
            raise ValueError("it has checks that were not asked for")
        return one
