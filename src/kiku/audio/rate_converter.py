"""Mono samples at any rates -> the part of them between start and end, at one rate.

The output is exactly as long as this part of the sound, whatever gaps and changes of rate it has.
Does not know channels or encodings (`chunk_decoder`).
"""

import numpy as np
import numpy.typing as npt

from kiku.audio.clock import ticks_of
from kiku.audio.formats import Mono
from kiku.audio.input_state import InputSettings, InputState, InputWarnings
from kiku.audio.resample import Resampler


class RateConverter:
    """Checks and resamples one sound. What it remembers is in `state`, except for the resampler."""

    def __init__(
        self,
        state: InputState,
        warnings: InputWarnings,
        settings: InputSettings,
        resampler: Resampler,
    ) -> None:
        """Prepare to go on from `state`.

        Args:
            state: what the input remembers of the sound.
            warnings: where a change of rate is reported.
            settings: those of the input.
            resampler: from the present rate to that of the settings.
        """
        self._state, self._warnings = state, warnings
        self.resampler = resampler
        """Converts from the present rate."""
        self._start, end_s = ticks_of(settings.start_s), settings.end_s
        self._end = None if end_s is None or end_s == np.inf else ticks_of(end_s)
        self.cuts = bool(self._start) or self._end is not None
        """Whether a part of the sound may be left out."""
        self._checks = settings.checks

    def resampler_at(self, rate: int) -> Resampler:
        """The present resampler, or a new one if `rate` is another; it is passed to `take`, and
        nothing is changed before. AudioError for an impossible rate."""
        present = self.resampler
        return present if rate == present.rate_in else Resampler(rate, present.rate_out)

    def take(self, mono: Mono, resampler: Resampler) -> npt.NDArray[np.float32]:
        """Check the next samples and resample those between start and end.

        Args:
            mono: the samples; there may be none.
            resampler: from the rate of these samples (`resampler_at`).

        Returns:
            [S] float32, the output that is known by now.
        """
        size = mono.sound.size
        if not size:
            return mono.sound
        state, times, rate, rest = self._state, self._state.times, resampler.rate_in, None
        if state.rate != rate:
            rest = self._change_rate(resampler)
        if self.cuts:
            first = min(size, max(0, times.taken.num_until(self._start)))
            end = size if self._end is None else times.taken.num_until(self._end)
            mono = mono.part(first, min(size, max(first, end)))
            times.taken.num_samples += first
            size -= first
        sound = mono.sound
        if self._checks:
            state.checks.feed(mono, times.taken)
        times.taken.num_samples += size
        times.kept.num_samples += sound.size
        given = sound if rate == resampler.rate_out else self.resampler.push(sound)
        times.num_given += given.size
        return given if rest is None or not rest.size else np.concatenate([rest, given])

    def gap(self, ticks: int) -> npt.NDArray[np.float32]:
        """Pass over a gap, and give as much silence as lies between start and end, [S] float32."""
        times, rate = self._state.times, self.resampler.rate_in
        num_samples = times.add_gap(ticks, self._start, self._end)
        if rate == self.resampler.rate_out:
            given = np.zeros(num_samples, np.float32)
        else:
            parts = [np.zeros(0, np.float32)]
            for first in range(0, num_samples, rate):
                zeros = np.zeros(min(rate, num_samples - first), np.float32)
                parts.append(self.resampler.push(zeros))
            given = np.concatenate(parts)
        times.num_given += given.size
        return given

    def end(self) -> npt.NDArray[np.float32]:
        """End the sound and give the rest of the output, [S] float32."""
        self._state.checks.close(self._warnings.checked_s)
        return self._end_rate()

    def tail(self) -> npt.NDArray[np.float32]:
        """What `end` would give now, [S] float32; nothing is changed."""
        return self._fitted(self.resampler.copy().end())

    def _change_rate(self, resampler: Resampler) -> npt.NDArray[np.float32] | None:
        """Go on with another resampler, or note the rate of the first sound; returns the rest of
        the output at the last rate."""
        state, rate, rest = self._state, resampler.rate_in, None
        if state.rate is not None:
            state.checks.end(self._warnings.checked_s)
            self._warnings.warn(
                "rate_changed",
                f"the sound changed from {state.rate} to {rate} samples a second: check that both "
                "rates are right",
                self._warnings.duration,
            )
        if resampler is not self.resampler:
            rest = self._end_rate()
            self.resampler = resampler
            state.times.change_rate(rate)
        state.rate = rate
        return rest

    def _end_rate(self) -> npt.NDArray[np.float32]:
        """The rest of the output at the present rate."""
        rest = self._fitted(self.resampler.end())
        self._state.times.end_rate(rest.size, self.resampler.rate_out)
        return rest

    def _fitted(self, rest: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """`rest`, made a sample or two longer or shorter, so that roundings do not add up."""
        size = self._state.times.num_missing(self.resampler.rate_out)
        if rest.size >= size:
            return rest[:size]
        last = rest[-1:] if rest.size else np.zeros(1, np.float32)
        return np.concatenate([rest, np.repeat(last, size - rest.size)])
