"""Samples at one rate -> samples at another rate, as a stream.

Knows soxr and its limits. Does not know files, channels or frames.
"""

import math
import operator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soxr  # pyright: ignore[reportMissingTypeStubs]

from kiku.errors import AudioError
from kiku.serial import whole_number

MIN_RATE = 1_000
MAX_RATE = 768_000
# The filter looks back by this many samples of the lower rate, with a margin: as measured at rates
# from 8,000 to 192,000, samples further back than 135 change nothing.
_MEMORY = 192
# Samples of the lower rate that soxr may have taken without giving output; 1,608 were seen.
_MAX_LATE = 3_000
# Nothing louder than this is pushed (`formats.MAX_FLOAT`).
_MAX_VALUE = 64.0


@dataclass(frozen=True, slots=True)
class ResamplerState:
    """What `Resampler.restore` needs besides the rates."""

    kept: npt.NDArray[np.float32]
    """[S] the last samples of the input."""
    num_given: int
    """Samples of the output that were given since the first sample of `kept`."""


class Resampler:
    """A streaming change of sample rate: any cut of the sound into calls gives the same samples.

    The resampling filter is symmetric and its delay is removed, so sample `i` of the output is the
    moment `i / rate_out` of the input. Therefore output comes late, by up to 40 ms from rates of
    44,100 or more, 80 ms from 16,000 and 150 ms from 8,000 (to 24,000); `end` gives the last of it.
    With equal rates the samples pass through unchanged.

    A resampler can be copied and saved in the middle of a sound (soxr's own state cannot): it keeps
    the few samples that its filter still needs, and the copy filters them again. A copy gives the
    same samples within 1e-6, though perhaps one call sooner or later.
    """

    def __init__(self, rate_in: int, rate_out: int = 24_000) -> None:
        """Prepare for one sound.

        Args:
            rate_in: samples a second of the input, 1,000 to 768,000.
            rate_out: samples a second of the output, 1,000 to 768,000.

        Raises:
            AudioError: a rate outside this range.
        """
        self.rate_in = checked_rate(rate_in)
        self.rate_out = checked_rate(rate_out)
        self._soxr = (
            None
            if self.rate_in == self.rate_out
            else soxr.ResampleStream(self.rate_in, self.rate_out, 1, "float32", "VHQ")
        )
        # Samples of the two rates coincide every `_period_in` of the input, `_period_out` of the
        # output.
        common = math.gcd(self.rate_in, self.rate_out)
        self._period_in, self._period_out = self.rate_in // common, self.rate_out // common
        ratio = max(1.0, self.rate_in / self.rate_out)
        self._memory = math.ceil(_MEMORY * ratio)
        self._most_kept = self._period_in + self._memory + math.ceil(_MAX_LATE * ratio)
        self._forget()

    def _forget(self) -> None:
        """Return to the state before the first sample of a sound."""
        self._kept = np.zeros(0, np.float32)  # input, from a place where samples coincide
        self._num_given = 0  # output from that place on
        # In a copy: output that it has and the original has not given yet; and how many samples the
        # original has given that the copy does not have yet.
        self._ahead = np.zeros(0, np.float32)
        self._num_behind = 0

    @classmethod
    def restore(cls, rate_in: int, rate_out: int, state: ResamplerState) -> "Resampler":
        """A resampler that goes on where another one, with these rates, was when it was saved.

        Raises:
            AudioError: a rate out of range, or a state that is impossible with these rates.
        """
        resampler = cls(rate_in, rate_out)
        kept, num_given = checked_mono(state.kept), state.num_given
        most = 0 if resampler._soxr is None else resampler._most_kept
        if not (kept.size <= most and np.abs(kept).max(initial=0) <= _MAX_VALUE):
            raise AudioError(
                f"a resampler from {rate_in} to {rate_out} Hz keeps at most {most} samples up to "
                f"{_MAX_VALUE:g}, not these {kept.size}: give the state that save returned"
            )
        if not 0 <= num_given <= kept.size * rate_out // rate_in + 2:
            raise AudioError(
                f"{num_given} samples cannot have come from {kept.size}: give the state that save "
                "returned"
            )
        if resampler._soxr is not None:
            again = resampler._soxr.resample_chunk(kept)
            resampler._kept, resampler._num_given = kept.copy(), num_given
            resampler._ahead = again[num_given:]
            resampler._num_behind = max(0, num_given - again.size)
        return resampler

    def save(self) -> ResamplerState:
        """The state from which `restore` goes on."""
        return ResamplerState(self._kept.copy(), self._num_given)

    def copy(self) -> "Resampler":
        """Another resampler at the same place of the same sound."""
        return Resampler.restore(
            self.rate_in, self.rate_out, ResamplerState(self._kept, self._num_given)
        )

    def push(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Take the next samples, and give the output that is known by now.

        Args:
            samples: [S] mono float32 in [-1, 1] at `rate_in`, any S, finite.

        Returns:
            [S'] float32 at `rate_out`, never a view of `samples`; often empty at first.

        Raises:
            AudioError: not one axis, or not float32.
        """
        checked_mono(samples)
        if self._soxr is None:
            return samples.copy()
        given = self._given(self._soxr.resample_chunk(samples))
        self._num_given += given.size
        self._keep(samples)
        return given

    def _given(self, output: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """`output`, without samples that the original of this copy has given already, and with
        those that it has not given yet."""
        if self._num_behind:
            skipped = min(self._num_behind, output.size)
            self._num_behind -= skipped
            return output[skipped:].copy()
        if self._ahead.size:
            output = np.concatenate([self._ahead, output])
            self._ahead = np.zeros(0, np.float32)
        return output

    def _keep(self, samples: npt.NDArray[np.float32]) -> None:
        """Keep the input samples on which the rest of the output depends."""
        needed = self._num_given * self._period_in // self._period_out - self._memory
        num_periods = max(0, needed // self._period_in)
        first = num_periods * self._period_in
        if first >= self._kept.size:
            self._kept = samples[first - self._kept.size :].copy()
        else:
            self._kept = np.concatenate([self._kept[first:], samples])
        self._num_given -= num_periods * self._period_out

    def end(self) -> npt.NDArray[np.float32]:
        """End this sound and give the rest of it, [S'] float32; then a new sound may begin.

        Over a whole sound the output has `S * rate_out / rate_in` samples, within one.
        """
        if self._soxr is None:
            return np.zeros(0, np.float32)
        rest = self._given(self._soxr.resample_chunk(np.zeros(0, np.float32), last=True))
        self._soxr.clear()
        self._forget()
        return rest


def checked_rate(rate: float) -> int:
    """`rate` as a plain number, 44100.0 too; AudioError when it is not whole or outside 1,000 to
    768,000 Hz."""
    try:
        whole_rate = operator.index(whole_number(rate))
    except TypeError:
        raise AudioError(
            f"a sample rate of {rate!r} is not whole: give samples a second, such as 16000"
        ) from None
    if not MIN_RATE <= whole_rate <= MAX_RATE:
        raise AudioError(
            f"a sample rate of {rate} Hz is outside {MIN_RATE} to {MAX_RATE} Hz: "
            "give the rate in samples a second, such as 16000"
        )
    return whole_rate


def checked_mono(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """`samples` itself when it is [S] float32; AudioError otherwise."""
    if samples.ndim != 1 or samples.dtype != np.float32:
        raise AudioError(
            f"expected mono float32 samples [S], got {samples.dtype} {list(samples.shape)}: "
            "convert them with as_mono"
        )
    return samples
