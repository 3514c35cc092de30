"""What an `AudioInput` is made with and remembers, which can be saved; and how it warns.

Does not know how sound is taken (`input`).
"""

from dataclasses import dataclass, field
from typing import Literal

from kiku.audio.checks import QUIET_S, SignalChecks
from kiku.audio.formats import ENCODINGS, width_of
from kiku.audio.mix import Mix
from kiku.audio.resample import ResamplerState
from kiku.audio.timeline import Timeline
from kiku.options import AudioFormat


@dataclass(frozen=True, slots=True)
class InputSettings:
    """What an `AudioInput` is made with."""

    sample_rate: int
    format: AudioFormat
    channel: int | Literal["mix"]
    checks: bool
    rate_check: bool
    start_s: float
    end_s: float | None


@dataclass(slots=True)
class InputState:
    """All that an `AudioInput` remembers, except for its resampler and its decoder of Opus."""

    times: Timeline
    checks: SignalChecks
    rate: int | None = None
    """Sample rate of the last sound, declared gaps aside."""
    ended: bool = False
    begun: bytes = b""
    """First bytes of a sample whose rest has not come yet; the next two fields say how this sample
    is written."""
    begun_encoding: str = "s16le"
    begun_channels: int = 1
    damaged_s: float | None = None
    """Second at which the last damage was found."""
    mix: Mix = field(default_factory=Mix)

    def __post_init__(self) -> None:
        """Raise ValueError for impossible values."""
        if self.begun_encoding not in ENCODINGS or not 1 <= self.begun_channels <= 64:
            raise ValueError(f"there is no encoding {self.begun_encoding!r} with such channels")
        if len(self.begun) >= width_of(self.begun_encoding, self.begun_channels):
            raise ValueError("the incomplete sample is complete")


@dataclass(frozen=True, slots=True)
class SavedInput:
    """What `AudioInput.save` gives, as plain values."""

    version: Literal[1]
    settings: InputSettings
    state: InputState
    resampler: ResamplerState
    opus: tuple[bytes, ...] | None


class InputWarnings:
    """Warns of faults in one sound, unless they lie after its end, where nobody listens."""

    def __init__(self, state: InputState, end_s: float | None) -> None:
        """Keep the warnings in `state`; `end_s` is where the sound ends, None where it does not."""
        self._state, self._end_s = state, end_s

    @property
    def duration(self) -> float:
        """Seconds of sound and declared gaps so far; exact."""
        return self._state.times.taken.seconds()

    @property
    def checked_s(self) -> float:
        """Seconds up to which the sound was checked."""
        return self.duration if self._end_s is None else min(self.duration, self._end_s)

    def warn(self, kind: str, message: str, time: float) -> None:
        """Warn of a fault at `time`, in seconds from the beginning of the sound."""
        if self._end_s is None or time < self._end_s:
            self._state.checks.warn(kind, message, time)

    def damaged(self, message: str) -> None:
        """Warn of damage at the present place, unless there was some just before."""
        state, now = self._state, self.duration
        if state.damaged_s is None or now - state.damaged_s > QUIET_S:
            self.warn("damaged", message, now)
        state.damaged_s = now
