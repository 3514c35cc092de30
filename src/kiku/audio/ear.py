"""One sound as it comes, in any form -> mono float32 samples at one rate, without a seam.

Keeps the time of the sound exactly: gaps that the caller declares, changes of rate, halves of
samples between two chunks. Does not read clocks, files or sockets, and does not know frames.
"""

import json
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from kiku.audio.complaints import QUIET_S, Complaint, Judge
from kiku.audio.opus import OPUS_RATE, OpusDecoder, num_samples_of
from kiku.audio.raw import (
    Mono,
    encoding_of,
    from_array,
    from_bytes,
    from_decoder,
    num_channels_of,
)
from kiku.audio.resample import Resampler, checked_rate
from kiku.errors import AudioError

MIN_EAR_RATE, MAX_EAR_RATE = 8_000, 192_000
_MAX_GAP_S = 3_600
# Declared gaps are counted in units that add up exactly, far below a sample.
_UNITS_PER_S = 2**40
_LAYOUT = 1  # of what `save` gives

Bytes = bytes | bytearray | memoryview


class Ear:
    """Hears one sound in chunks of any length; any cut of it gives the same samples.

    Errors are raised for what cannot be sound, before anything of the chunk is taken, and the ear
    goes on as if the chunk had not come. What can be heard all the same is complained of
    (`complaints`). Samples come out some milliseconds after they went in, as `Resampler` says.
    """

    def __init__(self, sample_rate: int) -> None:
        """An ear that has heard nothing.

        Args:
            sample_rate: samples a second of what comes out, 1,000 to 768,000.

        Raises:
            AudioError: a rate outside this range.
        """
        self.sample_rate = checked_rate(sample_rate)
        self._resampler = Resampler(sample_rate, sample_rate)
        self._rate: int | None = None  # of the last sound, declared gaps aside
        self._duration = Fraction(0)
        self._owed = Fraction(0)  # seconds that became no whole sample yet
        self._num_given = 0
        self._ended = False
        # Bytes of a sample whose rest has not come yet, and how they are written.
        self._begun = b""
        self._begun_as = ("", 0)
        self._opus: OpusDecoder | None = None
        self._damaged_at: Fraction | None = None
        self._judge = Judge()

    @property
    def duration(self) -> float:
        """Seconds of sound and declared gaps so far; exact, however long and at whatever rates."""
        return float(self._duration)

    def hear(
        self,
        samples: npt.ArrayLike | Bytes,
        *,
        rate: int | None = None,
        encoding: str | None = None,
        channel: int | None = None,
        channels: int = 1,
        channels_axis: int | None = None,
    ) -> npt.NDArray[np.float32]:
        """Take the next chunk and give what can be said of the output by now.

        Args:
            samples: an array as `as_mono` takes it, in which NaN and infinity become silence; or
                bytes, interleaved, which may be cut anywhere; or one packet of Opus.
            rate: samples a second, 8,000 to 192,000, or `sample_rate`. None: `sample_rate`; 8,000
                for mu-law and A-law; Opus is always at 48,000.
            encoding: of bytes: "s16le" (None means this), "s32le", "f32le", "mulaw", "alaw" or
                "opus".
            channel: which channel to hear, from 0; None hears the mean of all.
            channels: how many there are, when `samples` are bytes.
            channels_axis: where they are in an array, as for `as_mono`.

        Returns:
            [S] float32 at `sample_rate`, owned by the caller; often empty at first.

        Raises:
            AudioError: a dtype, shape, rate, encoding or channel that cannot be; floats that reach
                beyond 64; after `flush`. Nothing is taken.
        """
        self._check_open()
        data = _bytes_of(samples)
        if data is None:
            if encoding is not None:
                raise AudioError(
                    f"encoding={encoding!r} was given with an array: it says how bytes are written"
                )
            rate = _ear_rate(self.sample_rate if rate is None else rate, self.sample_rate)
            mono = from_array(cast("npt.ArrayLike", samples), channel, channels_axis)
            begun, begun_as = b"", ("", 0)
        elif encoding == "opus":
            return self._hear_opus(data, rate, channel, channels)
        else:
            how = encoding_of(encoding or "s16le")
            rate = _ear_rate(
                (how.rate or self.sample_rate) if rate is None else rate, self.sample_rate
            )
            begun_as = (how.name, num_channels_of(channels))
            if begun_as == self._begun_as:
                data = self._begun + data
            mono, begun = from_bytes(data, how, begun_as[1], channel)
        if mono.sound.size or begun:
            if self._begun and begun_as != self._begun_as:
                self._leave_begun()
            self._begun, self._begun_as = begun, begun_as
        return self._hear(mono, rate)

    def silence(self, seconds: float) -> npt.NDArray[np.float32]:
        """Take a gap: sound that was lost, or that nobody sent.

        Gaps add up exactly: a thousand of 20.1 ms are as long as one of 20.1 s. They are not
        complained of.

        Args:
            seconds: 0 to 3,600.

        Returns:
            As `hear` does.

        Raises:
            AudioError: a length that cannot be; after `flush`.
        """
        self._check_open()
        if not 0 <= seconds <= _MAX_GAP_S:
            raise AudioError(
                f"a gap of {seconds} seconds cannot be: give 0 to {_MAX_GAP_S}, "
                "and a longer one in parts"
            )
        return self._pass(Fraction(round(Fraction(float(seconds)) * _UNITS_PER_S), _UNITS_PER_S))

    def flush(self) -> npt.NDArray[np.float32]:
        """End the sound and give the rest of it, [S] float32; a second call gives nothing.

        All that was given is then as long as `duration`, within one sample.
        """
        if self._ended:
            return np.zeros(0, np.float32)
        self._ended = True
        if self._begun:
            self._leave_begun()
        self._judge.end(self._duration)
        return self._end_rate()

    def tail(self) -> npt.NDArray[np.float32]:
        """What `flush` would give now, [S] float32, without an end: the ear goes on as if it had
        not been asked."""
        if self._ended:
            return np.zeros(0, np.float32)
        return self._fitted(self._resampler.copy().flush())

    def complaints(self) -> list[Complaint]:
        """What was found wrong with the sound since the last call."""
        return self._judge.complaints()

    def save(self) -> dict[str, npt.NDArray[Any]]:
        """All that is remembered, as arrays of plain numbers (`numpy.savez` takes them).

        An ear that `restore` makes of them, in this process or another, gives the samples that
        this one would give, within 1e-6 (1e-5 for rates with no simple ratio to `sample_rate`).
        """
        kept, num_given = self._resampler.save()
        judged, arrays = self._judge.save()
        packets = [] if self._opus is None else self._opus.packets
        damaged_at = self._damaged_at
        about = {
            "layout": _LAYOUT,
            "sample_rate": self.sample_rate,
            "rate_in": self._resampler.rate_in,
            "num_resampled": num_given,
            "rate": self._rate,
            "duration": self._duration.as_integer_ratio(),
            "owed": self._owed.as_integer_ratio(),
            "num_given": self._num_given,
            "ended": self._ended,
            "begun": list(self._begun),
            "begun_as": self._begun_as,
            "opus": None if self._opus is None else [len(packet) for packet in packets],
            "damaged_at": None if damaged_at is None else damaged_at.as_integer_ratio(),
            "judged": judged,
        }
        return arrays | {
            "about": np.frombuffer(json.dumps(about).encode(), np.uint8).copy(),
            "kept": kept,
            "packets": np.frombuffer(b"".join(packets), np.uint8).copy(),
        }

    @classmethod
    def restore(cls, saved: Mapping[str, npt.NDArray[Any]]) -> "Ear":
        """The ear of which `save` gave these arrays.

        Raises:
            AudioError: they are of something else, or damaged.
        """
        try:
            arrays = {name: np.asarray(saved[name]) for name in saved}
            about = json.loads(arrays["about"].tobytes())
            if about["layout"] != _LAYOUT:
                raise ValueError(f"layout {about['layout']}")
            return cls._restored(about, arrays)
        except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
            raise AudioError(
                f"this is not an ear that can be restored ({error!r}): give what Ear.save gave"
            ) from None

    @classmethod
    def _restored(cls, about: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> "Ear":
        ear = cls(about["sample_rate"])
        ear._resampler = Resampler.restore(
            about["rate_in"], ear.sample_rate, arrays["kept"], about["num_resampled"]
        )
        ear._rate, ear._num_given, ear._ended = about["rate"], about["num_given"], about["ended"]
        ear._duration, ear._owed = Fraction(*about["duration"]), Fraction(*about["owed"])
        ear._begun = bytes(about["begun"])
        name, channels = about["begun_as"]
        ear._begun_as = (name, channels)
        if about["opus"] is not None:
            cuts = np.cumsum(about["opus"])[:-1].astype(int)
            packets = np.split(arrays["packets"], cuts) if about["opus"] else []
            ear._opus = OpusDecoder([packet.tobytes() for packet in packets])
        if about["damaged_at"] is not None:
            ear._damaged_at = Fraction(*about["damaged_at"])
        ear._judge = Judge.restore(about["judged"], arrays)
        return ear

    def _hear_opus(
        self, packet: bytes, rate: int | None, channel: int | None, channels: int
    ) -> npt.NDArray[np.float32]:
        if rate not in (None, OPUS_RATE) or channel not in (None, 0) or channels != 1:
            raise AudioError(
                f"Opus comes with rate={rate}, channel={channel}, channels={channels}: "
                "leave them out, it is always heard as one channel at 48000 Hz"
            )
        if not packet:
            return np.zeros(0, np.float32)
        if self._begun:
            self._leave_begun()
        if self._opus is None:
            self._opus = OpusDecoder()
        sound = self._opus.decode(packet)
        if sound is not None:
            return self._hear(from_decoder(sound), OPUS_RATE)
        gap = Fraction(num_samples_of(packet), OPUS_RATE)
        self._damaged(
            f"a packet of {len(packet)} bytes is not Opus and became {float(gap):g} s of silence: "
            "give whole packets, without their container"
        )
        return self._pass(gap)

    def _hear(self, mono: Mono, rate: int) -> npt.NDArray[np.float32]:
        """Judge and resample."""
        if not mono.sound.size:
            return mono.sound
        rest = np.zeros(0, np.float32)
        if rate != self._resampler.rate_in:
            rest = self._end_rate()
            self._resampler = Resampler(rate, self.sample_rate)
        if self._rate not in (None, rate):
            self._judge.end(self._duration)
            self._judge.complain(
                "rate_changed",
                f"the sound changed from {self._rate} to {rate} samples a second: "
                "check that both are right, and better keep one rate",
                self._duration,
            )
        self._rate = rate
        self._judge.hear(mono.sound, mono.flags, rate, self._duration)
        self._duration += Fraction(mono.sound.size, rate)
        given = self._resampler.push(mono.sound)
        self._num_given += given.size
        return np.concatenate([rest, given])

    def _pass(self, gap: Fraction) -> npt.NDArray[np.float32]:
        """Let `gap` seconds of silence go by."""
        self._duration += gap
        self._owed += gap
        rate = self._resampler.rate_in
        num_samples = max(0, _rounded(self._owed * rate))
        self._owed -= Fraction(num_samples, rate)
        parts = [np.zeros(0, np.float32)]
        for first in range(0, num_samples, rate):
            zeros = np.zeros(min(rate, num_samples - first), np.float32)
            parts.append(self._resampler.push(zeros))
        given = np.concatenate(parts)
        self._num_given += given.size
        return given

    def _end_rate(self) -> npt.NDArray[np.float32]:
        """The rest of the sound at the present rate."""
        rest = self._fitted(self._resampler.flush())
        self._num_given += rest.size
        self._owed = self._duration - Fraction(self._num_given, self.sample_rate)
        return rest

    def _fitted(self, rest: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """`rest`, at most a sample or two longer or shorter, so that all that was given is as long
        as what was heard: roundings do not add up."""
        size = max(0, _rounded(self._duration * self.sample_rate) - self._num_given)
        last = rest[-1:] if rest.size else np.zeros(1, np.float32)
        return np.concatenate([rest[:size], np.repeat(last, max(0, size - rest.size))])

    def _leave_begun(self) -> None:
        self._damaged(
            f"{len(self._begun)} bytes of a sample whose rest never came were left out: "
            "give all bytes of a sound with one encoding and number of channels"
        )
        self._begun = b""

    def _damaged(self, message: str) -> None:
        """Complain, unless there was damage just before."""
        if self._damaged_at is None or self._duration - self._damaged_at > QUIET_S:
            self._judge.complain("damaged", message, self._duration)
        self._damaged_at = self._duration

    def _check_open(self) -> None:
        if self._ended:
            raise AudioError("sound came after flush had ended it: make another ear")


def _bytes_of(samples: Any) -> bytes | None:
    """The bytes in `samples`; None for everything else."""
    if not isinstance(samples, bytes | bytearray | memoryview):
        return None
    return bytes(cast("bytes", samples))


def _ear_rate(rate: Any, own: int) -> int:
    # What is no number at all, or not whole, is for `checked_rate` to tell.
    whole_rate = rate if isinstance(rate, int) else checked_rate(rate)
    if whole_rate != own and not MIN_EAR_RATE <= whole_rate <= MAX_EAR_RATE:
        raise AudioError(
            f"a sample rate of {rate} Hz is outside {MIN_EAR_RATE} to {MAX_EAR_RATE} Hz: "
            "give the rate in samples a second, such as 16000"
        )
    return checked_rate(whole_rate)


def _rounded(number: Fraction) -> int:
    return math.floor(number + Fraction(1, 2))
