"""Samples at one rate in, samples at another rate out, as a stream.

Knows soxr and its limits. Does not know files, channels or frames.
"""

import operator

import numpy as np
import numpy.typing as npt
import soxr  # pyright: ignore[reportMissingTypeStubs]

from kiku.errors import AudioError

MIN_RATE = 1_000
MAX_RATE = 768_000


class Resampler:
    """A streaming change of sample rate: any cut of the sound into calls gives the same samples.

    The resampling filter is symmetric and its delay is taken out, so sample `i` of the output is
    the moment `i / rate_out` of the input. Output comes some 20 ms late, therefore: `flush` gives
    the last of it. With equal rates the samples pass through unchanged.
    """

    def __init__(self, rate_in: int, rate_out: int = 24_000) -> None:
        """Prepare for one sound.

        Args:
            rate_in: samples a second of what will be pushed, 1,000 to 768,000.
            rate_out: samples a second of what comes out, 1,000 to 768,000.

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

    def push(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Take the next samples and give what can be said of the output by now.

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
        return self._soxr.resample_chunk(samples)

    def flush(self) -> npt.NDArray[np.float32]:
        """End this sound and give the rest of it, [S'] float32; the resampler is then as new.

        Over a whole sound the output has `S * rate_out / rate_in` samples, within one.
        """
        if self._soxr is None:
            return np.zeros(0, np.float32)
        rest = self._soxr.resample_chunk(np.zeros(0, np.float32), last=True)
        self._soxr.clear()
        return rest


def checked_rate(rate: int) -> int:
    """`rate` itself; AudioError when it is not whole or outside 1,000 to 768,000 Hz."""
    try:
        whole_rate = operator.index(rate)
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
