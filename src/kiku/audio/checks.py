"""Faults of sound that can be transcribed all the same: it is clipped, silent, off zero ...

Whole seconds are checked, counted from the first sample, so the warnings do not depend on how the
sound is cut into chunks. A fault that lasts is reported once, and again if it returns after a
while. Does not know where the sound comes from, nor how it is resampled.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from kiku.audio.clock import SampleClock
from kiku.audio.formats import MAX_FLOAT, MAX_LOUD, Mono
from kiku.audio.pitch import FRAMES_PER_S, Pitch
from kiku.audio.power import energy

_MAX_WAITING = 1_000  # warnings kept until they are asked for; older ones are dropped
QUIET_S = 10
"""Seconds without a fault after which the same warning is given again if the fault returns."""
HEARD_DB = -50.0
"""dBFS below which words get lost (docs/live.md has the measurements)."""
# Clipping: this many samples in a row at full scale are counted; and the share of a second up to
# which such samples are not reported.
_MIN_RUN, _MAX_CLIPPED = 3, 1e-3
# Silence: root mean square below which it begins, -70 dBFS; at which it ends, once it was reported,
# -60 dBFS; seconds of silence after which it is reported.
_SILENCE, _NO_SILENCE, _SILENT_S = 10**-3.5, 1e-3, 10
# Quiet: root mean square below which a second is quiet; seconds of quiet after which it is reported
# at the beginning of the sound, and after a louder second, where it may be a pause.
_LOW, _LOW_S, _LOW_LATER_S = 10 ** (HEARD_DB / 20), 10, 60
# Offset: least distance of the mean from zero, absolute and as a share of the root mean square of
# the sound around its mean; seconds of it after which it is reported.
_OFFSET, _OFFSET_SHARE, _OFFSET_S = 0.05, 0.25, 3


@dataclass(frozen=True, slots=True)
class StreamWarning:
    """A fault of the sound that its sender should know of; the sound is transcribed all the same.

    Attributes:
        kind: "clipped", "silent", "quiet", "no_words", "offset", "inverted", "not_finite",
            "wrong_rate", "rate_changed", "damaged" or "times".
        message: one sentence: what was found and what to do.
        time: second of the sound at which the fault was noticed.
        channel: the channel that has the fault, where each is transcribed by itself.
    """

    kind: str
    message: str
    time: float
    channel: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; a channel only where there is one."""
        values = {"kind": self.kind, "message": self.message, "time": self.time}
        return values if self.channel is None else {**values, "channel": self.channel}


OnWarning = Callable[[StreamWarning], None]
"""Called with each warning about a recording."""


@dataclass(slots=True)
class SignalChecks:
    """Checks one sound, second by second, and collects warnings.

    The fields are its whole state, which `serial` writes and reads.
    """

    rate_check: bool = False
    """Whether the pitch of voices is followed, which shows a wrong rate and costs far more than all
    other checks."""
    waiting: list[StreamWarning] = field(default_factory=list[StreamWarning])
    quiet_s: dict[str, int] = field(default_factory=dict[str, int])
    """Seconds until a kind of warning may be reported again, by its name."""
    silent_s: int = 0
    """Seconds of silence in a row, until now."""
    low_s: int = 0
    """Seconds that were quiet but not silent, since the last second that was loud enough."""
    loudest: float = 0.0
    """Root mean square of the loudest of these quiet seconds."""
    was_loud: bool = False
    """Whether any second was loud enough."""
    num_seconds: int = 0
    """How many seconds' levels were checked."""
    offset_s: int = 0
    """Seconds in a row with an offset; negative when the mean is below zero."""
    rate: int = 0
    rate_told: bool = False
    """Whether it was reported that this rate is wrong; that happens once for each rate."""
    pitch: Pitch = field(default_factory=Pitch)

    num_samples: int = 0
    """Samples so far of the present second; all fields below are about this second too."""
    total: float = 0.0
    total_squares: float = 0.0
    num_bad: int = 0
    num_clipped: int = 0
    """Samples in runs at full scale that have ended."""
    num_run: int = 0
    """Samples of a run at full scale that may still go on."""
    sound: list[npt.NDArray[np.float32]] = field(default_factory=list[npt.NDArray[np.float32]])
    """Arrays [S], the samples of the second, kept only for the pitch."""

    def __post_init__(self) -> None:
        """Raise ValueError for impossible values."""
        size, peak = self.num_samples, 1.01 * MAX_FLOAT
        counts = (self.num_bad, self.num_clipped, self.num_run, size, self.silent_s, self.rate)
        seconds = (self.low_s, self.num_seconds, self.loudest)
        num_kept = sum(part.size for part in self.sound)
        if min(*seconds, *counts) < 0 or size > max(0, self.rate - 1) or max(counts[:3]) > size:
            raise ValueError("the counts of a second do not match each other")
        if abs(self.total) > peak * size or not 0 <= self.total_squares <= peak * peak * size:
            raise ValueError("the sums of a second do not match its samples")
        if any(part.ndim != 1 for part in self.sound) or num_kept != size * self.rate_check:
            raise ValueError("the samples of a second do not match their number")
        if any(not 0 < left <= QUIET_S for left in self.quiet_s.values()):
            raise ValueError(f"a warning can be repeated after 1 to {QUIET_S} seconds")
        if len(self.waiting) > _MAX_WAITING:
            raise ValueError(f"more than {_MAX_WAITING} warnings are waiting")

    def warn(self, kind: str, message: str, time: float) -> None:
        """Keep a warning until `warnings` is called."""
        self.waiting.append(StreamWarning(kind, message, time))
        del self.waiting[:-_MAX_WAITING]

    def warnings(self) -> list[StreamWarning]:
        """The warnings since the last call, in order."""
        found = list(self.waiting)
        self.waiting.clear()  # the list itself stays: `AudioInput` looks into it
        return found

    def feed_plain(self, sound: npt.NDArray[np.float32], rate: int) -> bool:
        """Check samples below full scale and return True, if no warning can follow from them, as is
        usual. Otherwise take nothing and return False; `feed` must take them then."""
        if self.num_samples + sound.size >= rate or rate != self.rate or self.num_run:
            return False
        if self.rate_check:
            return False
        self._add(sound)
        return True

    def feed(self, mono: Mono, clock: SampleClock) -> None:
        """Check the next samples.

        Args:
            mono: values up to 64; they are not kept.
            clock: the sound's clock, which stands at the first of these samples. Where its rate
                changes, `end` must be called first.
        """
        sound, loud, bad = mono
        if clock.rate != self.rate:
            self.rate, self.rate_told, self.pitch = clock.rate, False, Pitch()
        size, first = sound.size, 0
        while first < size:
            last = min(size, first + self.rate - self.num_samples)
            if self.rate_check:
                self.sound.append(sound[first:last].copy())
            self._add(sound[first:last])
            self._add_run(None if loud is None else loud[first:last])
            if bad is not None:
                self.num_bad += int(np.count_nonzero(bad[first:last]))
            if self.num_samples == self.rate:
                self._end_second(clock.seconds(last))
            first = last

    def end(self, time: float) -> None:
        """End the sound at this rate, at `time`: report what its last part of a second shows, and a
        wrong rate where there was too little voice to decide before."""
        if self.pitch.num_frames == FRAMES_PER_S * self.num_seconds:  # nothing was decided
            self._report_rate(self.pitch.end(), time)
        if self.num_samples:
            self._check_samples(time)
            if self.num_samples >= self.rate / 2:
                self._check_level(self._level(), time)
            self._begin_second()

    def close(self, time: float) -> None:
        """End the whole sound: also report a fault that is reported only after some seconds, if all
        of the sound had it."""
        self.end(time)
        if self.was_loud or not self.num_seconds:
            return
        if 0 < self.low_s < _LOW_S:
            self._warn_low(time)
        elif self.silent_s == self.num_seconds < _SILENT_S:
            self._warn_silent("in all of the sound", time)

    def _add(self, sound: npt.NDArray[np.float32]) -> None:
        """Add samples to the sums, in float64, whose rounding is too small to depend on the cut."""
        values = sound.astype(np.float64)
        size = values.size
        self.num_samples += size
        # For few values a product with ones is several times as fast as `sum` (see `energy`).
        self.total += float(values.dot(_ones(size)) if size <= 4_096 else values.sum())
        self.total_squares += energy(values)

    def _add_run(self, loud: npt.NDArray[np.bool_] | None) -> None:
        """Count samples in runs of at least `_MIN_RUN`; a run may go on in the next chunk."""
        if loud is None or not loud[0]:
            self._end_run()
        if loud is None:
            return
        edges = np.flatnonzero(np.diff(loud.view(np.int8), prepend=0, append=0))
        lengths = edges[1::2] - edges[::2]
        if not lengths.size:
            return
        lengths[0] += self.num_run  # 0, unless the first run goes on
        self.num_run = 0
        if loud[-1]:
            self.num_run, lengths = int(lengths[-1]), lengths[:-1]
        self.num_clipped += int(lengths[lengths >= _MIN_RUN].sum())

    def _end_run(self) -> None:
        self.num_clipped += self.num_run if self.num_run >= _MIN_RUN else 0
        self.num_run = 0

    def _check_samples(self, time: float) -> None:
        """Report faults of single samples: not finite, or clipped."""
        if self._is_news("not_finite", self.num_bad > 0):
            self.warn(
                "not_finite",
                f"{self.num_bad} samples of a second are NaN or infinite and were replaced by "
                f"silence, or are beyond {MAX_LOUD:g} times full scale and were clipped to that: "
                "check the step before that makes them",
                time,
            )
        self._end_run()
        share = self.num_clipped / self.num_samples
        if self._is_news("clipped", share > _MAX_CLIPPED):
            self.warn(
                "clipped",
                f"{share:.1%} of the samples of a second are clipped at full scale: turn the "
                "recording level down",
                time,
            )

    def _end_second(self, time: float) -> None:
        self._check_samples(time)
        spread = self._level()
        self._check_level(spread, time)
        self._check_offset(self.total / self.num_samples, spread, time)
        if self.rate_check:
            self._report_rate(self.pitch.feed(np.concatenate(self.sound), self.rate), time)
        self._begin_second()

    def _begin_second(self) -> None:
        self.num_samples = self.num_bad = self.num_clipped = self.num_run = 0
        self.total = self.total_squares = 0.0
        self.sound = []

    def _level(self) -> float:
        """Root mean square around the mean of the second's samples so far."""
        mean = self.total / self.num_samples
        return math.sqrt(max(0.0, self.total_squares / self.num_samples - mean * mean))

    def _check_level(self, level: float, time: float) -> None:
        """Count a second as silent, quiet or loud, and report silence or quiet that lasts."""
        self.num_seconds += 1
        reported = self.silent_s >= _SILENT_S
        if level < (_NO_SILENCE if reported else _SILENCE):
            self.silent_s += 1
            if self.silent_s == _SILENT_S:
                self._warn_silent(f"for {_SILENT_S} seconds", time)
            return
        self.silent_s = 0
        if level >= _LOW:
            self.low_s, self.loudest, self.was_loud = 0, 0.0, True
            return
        self.low_s += 1
        self.loudest = max(self.loudest, level)
        if self.low_s == (_LOW_LATER_S if self.was_loud else _LOW_S):
            self._warn_low(time)

    def _warn_silent(self, how_long: str, time: float) -> None:
        self.warn(
            "silent",
            f"there was nothing but silence {how_long}: check that the microphone is on and is the "
            "right one",
            time,
        )

    def _warn_low(self, time: float) -> None:
        self.warn(
            "quiet",
            f"the sound is so quiet ({20 * math.log10(self.loudest):.0f} dBFS at its loudest) "
            "that words may get lost: turn the recording level up",
            time,
        )

    def _check_offset(self, mean: float, spread: float, time: float) -> None:
        reported = abs(self.offset_s) >= _OFFSET_S
        away = abs(mean) > (_OFFSET / 2 if reported else max(_OFFSET, _OFFSET_SHARE * spread))
        side = 1 if mean > 0 else -1
        if not away:
            self.offset_s = 0
        elif self.offset_s * side < 0:
            self.offset_s = side
        else:
            self.offset_s += side
            if abs(self.offset_s) == _OFFSET_S:
                self.warn(
                    "offset",
                    f"the samples are centred on {mean:+.2f} instead of 0: remove the DC offset "
                    "of the recording device",
                    time,
                )

    def _report_rate(self, pitch: float, time: float) -> None:
        if pitch and not self.rate_told:
            self.rate_told = True
            self.warn(
                "wrong_rate",
                f"voices are at {pitch:.0f} Hz, but people speak at 85 to 320 Hz: the sound "
                f"probably does not have {self.rate} samples a second, so check its rate",
                time,
            )

    def _is_news(self, kind: str, found: bool) -> bool:
        """Whether to report a kind of fault; `found` says whether this second has it."""
        if found:
            news = kind not in self.quiet_s
            self.quiet_s[kind] = QUIET_S
            return news
        if kind in self.quiet_s:
            self.quiet_s[kind] -= 1
            if self.quiet_s[kind] == 0:
                del self.quiet_s[kind]
        return False


@lru_cache(maxsize=64)
def _ones(size: int) -> npt.NDArray[np.float64]:
    return np.ones(size)
