"""What is wrong with sound that can be heard all the same: clipped, silent, at a wrong rate ...

Sound is judged in whole seconds counted from its first sample, so how it is cut into chunks changes
nothing. What lasts is said once; it is said again when it has been away for a while. Does not know
how the sound came, nor how it is resampled.
"""

from collections import deque
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from kiku.audio.pitch import Pitch

# What is known of a sample besides its value, as bits.
LOUD, BROKEN = 1, 2  # at full scale; was not a number

# Nobody who waits so long without asking wants to hear the oldest.
_MAX_WAITING = 1_000
# After so many seconds without it, the same complaint is news again.
QUIET_S = 10
# Flat tops: at least so many samples in a row at full scale, and so large a share of a second.
_MIN_RUN, _MAX_CLIPPED = 3, 1e-3
# Root mean square of what counts as silence, -70 dBFS, and of what ends it, -60 dBFS.
_SILENCE, _NO_SILENCE, _SILENT_S = 10**-3.5, 1e-3, 10
# A mean so far from zero, and so large beside the sound itself, for so many seconds.
_OFFSET, _OFFSET_SHARE, _OFFSET_S = 0.05, 0.25, 3


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something about the sound that whoever sends it should know; it is listened to all the same.

    Attributes:
        kind: "clipped", "silent", "offset", "not_finite", "wrong_rate", "rate_changed" or
            "damaged".
        message: one sentence: what was heard and what to do.
        at: seconds from the beginning of the sound to where it was noticed.
    """

    kind: str
    message: str
    at: float


class Judge:
    """Listens to one sound, second by second, and collects complaints."""

    def __init__(self) -> None:
        """Nothing heard yet."""
        self._waiting: deque[Complaint] = deque(maxlen=_MAX_WAITING)
        self._quiet: dict[str, int] = {}  # kinds that were said, and seconds until they are news
        self._num_silent = 0  # seconds of silence in a row
        self._num_offset = 0  # seconds off zero in a row, negative when the mean is
        self._pitch = Pitch()
        self._rate_judged = False  # a wrong rate is said once for each rate
        self._rate = 0
        self._sound: list[npt.NDArray[np.float32]] = []  # the second that is being filled
        self._flags: list[npt.NDArray[np.uint8]] = []
        self._num_filled: int = 0

    def complain(self, kind: str, message: str, at: Fraction) -> None:
        """Keep a complaint until it is asked for."""
        self._waiting.append(Complaint(kind, message, float(at)))

    def complaints(self) -> list[Complaint]:
        """What was found since the last call, in order."""
        found = list(self._waiting)
        self._waiting.clear()
        return found

    def hear(
        self,
        sound: npt.NDArray[np.float32],
        flags: npt.NDArray[np.uint8],
        rate: int,
        begin: Fraction,
    ) -> None:
        """The next samples, [S], with what else is known of each ([S] bits of `LOUD`, `BROKEN`).

        Args:
            sound: finite, at `rate`.
            flags: one for each sample.
            rate: samples a second; where it changes, `end` comes first.
            begin: seconds from the beginning of the sound to the first of them.
        """
        if rate != self._rate:
            self._rate, self._rate_judged, self._pitch = rate, False, Pitch()
        first = 0
        while first < sound.size:
            last = min(sound.size, first + rate - self._num_filled)
            self._sound.append(sound[first:last].copy())
            self._flags.append(flags[first:last].copy())
            self._num_filled += last - first
            if self._num_filled == rate:
                self._judge_second(begin + Fraction(last, rate))
            first = last

    def end(self, at: Fraction) -> None:
        """No more sound at this rate: judge what a part of a second tells."""
        if self._num_filled:
            self._take_second(at)

    def save(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """All that is remembered, for `restore`: what JSON holds, and arrays."""
        about = {
            "waiting": [asdict(complaint) for complaint in self._waiting],
            "quiet": self._quiet,
            "num_silent": self._num_silent,
            "num_offset": self._num_offset,
            "rate_judged": self._rate_judged,
            "rate": self._rate,
        }
        arrays = {
            "second": np.concatenate([np.zeros(0, np.float32), *self._sound]),
            "flags": np.concatenate([np.zeros(0, np.uint8), *self._flags]),
            "pitch": self._pitch.save(),
        }
        return about, arrays

    @classmethod
    def restore(cls, about: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> "Judge":
        """A judge that goes on from what `save` gave."""
        judge = cls()
        judge._waiting.extend(Complaint(**complaint) for complaint in about["waiting"])
        judge._quiet = dict(about["quiet"])
        judge._num_silent, judge._num_offset = about["num_silent"], about["num_offset"]
        judge._rate_judged, judge._rate = about["rate_judged"], about["rate"]
        judge._sound = [arrays["second"].astype(np.float32)]
        judge._flags = [arrays["flags"].astype(np.uint8)]
        judge._num_filled = len(judge._sound[0])
        judge._pitch.restore(arrays["pitch"])
        return judge

    def _take_second(self, at: Fraction) -> npt.NDArray[np.float32]:
        """The second that was filled; what is known of its samples is judged."""
        sound, flags = np.concatenate(self._sound), np.concatenate(self._flags)
        self._sound, self._flags, self._num_filled = [], [], 0
        num_broken = int(np.count_nonzero(flags & BROKEN))
        self._found(
            "not_finite",
            num_broken > 0,
            f"{num_broken} samples of a second are NaN or infinite and were replaced by silence: "
            "look for the step before that makes them",
            at,
        )
        share = _num_in_runs(flags & LOUD != 0) / sound.size
        self._found(
            "clipped",
            share > _MAX_CLIPPED,
            f"{share:.1%} of the samples of a second are cut off at full scale: "
            "turn the recording level down",
            at,
        )
        return sound

    def _judge_second(self, at: Fraction) -> None:
        sound = self._take_second(at)
        mean = float(sound.mean(dtype=np.float64))
        spread = float(sound.std(dtype=np.float64))
        self._judge_silence(spread, at)
        self._judge_offset(mean, spread, at)
        pitch = self._pitch.hear(sound, self._rate)
        if pitch and not self._rate_judged:
            self._rate_judged = True
            self.complain(
                "wrong_rate",
                f"voices are heard at {pitch:.0f} Hz where people speak at 85 to 320 Hz: the sound "
                f"is probably not at {self._rate} samples a second, so check its rate",
                at,
            )

    def _judge_silence(self, spread: float, at: Fraction) -> None:
        said = self._num_silent >= _SILENT_S
        if spread >= (_NO_SILENCE if said else _SILENCE):
            self._num_silent = 0
            return
        self._num_silent += 1
        if self._num_silent == _SILENT_S:
            self.complain(
                "silent",
                f"nothing was heard for {_SILENT_S} seconds: check that the microphone is on "
                "and is the right one",
                at,
            )

    def _judge_offset(self, mean: float, spread: float, at: Fraction) -> None:
        said = abs(self._num_offset) >= _OFFSET_S
        away = abs(mean) > (_OFFSET / 2 if said else max(_OFFSET, _OFFSET_SHARE * spread))
        side = 1 if mean > 0 else -1
        if not away:
            self._num_offset = 0
        elif self._num_offset * side < 0:
            self._num_offset = side
        else:
            self._num_offset += side
            if abs(self._num_offset) == _OFFSET_S:
                self.complain(
                    "offset",
                    f"the samples lie around {mean:+.2f} and not around 0: "
                    "remove the DC offset of the recording device",
                    at,
                )

    def _found(self, kind: str, found: bool, message: str, at: Fraction) -> None:
        """Say it if it is news."""
        if found:
            if kind not in self._quiet:
                self.complain(kind, message, at)
            self._quiet[kind] = QUIET_S
        elif kind in self._quiet:
            self._quiet[kind] -= 1
            if self._quiet[kind] == 0:
                del self._quiet[kind]


def _num_in_runs(loud: npt.NDArray[np.bool_]) -> int:
    """How many are in runs of at least `_MIN_RUN`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], loud, [False]]).astype(np.int8)))
    lengths = edges[1::2] - edges[::2]
    return int(lengths[lengths >= _MIN_RUN].sum())
