"""What an `AudioInput` is made with and what it remembers, checked; both can be saved.

Does not know how sound is taken (`input`).
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from kiku.audio.checks import SignalChecks
from kiku.audio.formats import ENCODINGS, whole, width_of
from kiku.audio.mix import Mix
from kiku.audio.resample import ResamplerState, checked_rate
from kiku.audio.timeline import Timeline
from kiku.errors import AudioError
from kiku.options import MAX_INPUT_RATE, MIN_INPUT_RATE, AudioFormat


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
    """All that an `AudioInput` remembers and that is plain."""

    times: Timeline
    checks: SignalChecks
    rate: int | None = None
    """Sample rate of the last sound, declared gaps aside."""
    ended: bool = False
    begun: bytes = b""
    """First bytes of a sample whose rest has not come yet; the next two fields say how it is
    written."""
    begun_encoding: str = "s16le"
    begun_channels: int = 1
    damaged_s: float | None = None
    mix: Mix = field(default_factory=Mix)

    def __post_init__(self) -> None:
        """Raise ValueError for impossible values."""
        if self.begun_encoding not in ENCODINGS or not 1 <= self.begun_channels <= 64:
            raise ValueError(f"there is no encoding {self.begun_encoding!r} of such channels")
        if len(self.begun) >= width_of(self.begun_encoding, self.begun_channels):
            raise ValueError("the begun sample is a whole one")


@dataclass(frozen=True, slots=True)
class SavedInput:
    """What `AudioInput.save` gives, as plain values."""

    version: Literal[1]
    settings: InputSettings
    state: InputState
    resampler: ResamplerState
    opus: tuple[bytes, ...] | None


def checked_input_rate(rate: Any, own_rate: int) -> int:
    """`rate` as a plain number; AudioError when it is not whole, or outside 8,000 to 192,000 Hz and
    not `own_rate`, the model's."""
    if rate.__class__ is int and MIN_INPUT_RATE <= rate <= MAX_INPUT_RATE:
        return rate
    # `checked_rate` raises for what is no number at all, or not whole.
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
        f"channel {channel!r} cannot be taken: give a number from 0, or 'mix' for the mean of all "
        "(for each by itself, make an input for each)"
    )
