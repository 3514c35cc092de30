"""`AudioFormat`: how the sound that a client pushes is encoded."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from kiku.errors import ConfigError
from kiku.options.base import Options, check_one_of, check_whole
from kiku.serial import plain_numbers

Encoding = Literal["s16le", "s32le", "f32le", "mulaw", "alaw", "opus"]
"""How samples are encoded as bytes."""

MIN_INPUT_RATE, MAX_INPUT_RATE = 8_000, 192_000
"""Samples a second that pushed sound may have; the model's own rate is always accepted."""

MAX_CHANNELS = 64
"""Channels of one recording or stream at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioFormat(Options):
    """How the sound that will be pushed is encoded."""

    WHAT: ClassVar[str] = "the audio format"

    encoding: Encoding | None = None
    """How bytes hold samples; None is "s16le". Arrays need no encoding: they have a dtype. With
    "opus" each push is one packet, without a container."""
    sample_rate: int | None = None
    """Samples a second; None is the model's (24,000), 8,000 for mu-law and A-law, 48,000 for
    Opus. A push may name another. 8,000 to 192,000, or the model's own rate; this is checked when a
    stream is opened."""
    channels: int = 1
    """Number of channels, which are interleaved in bytes."""
    channels_axis: int | None = None
    """Which axis of arrays with two axes holds the channels; None guesses it from the shape, which
    needs more than eight samples."""

    def __post_init__(self) -> None:
        """Raise ConfigError for impossible values."""
        plain_numbers(self)
        check_one_of("encoding", self.encoding, [None, *get_args(Encoding)])
        check_whole("channels", self.channels, 1, MAX_CHANNELS)
        if self.sample_rate is not None:
            check_whole("sample_rate", self.sample_rate, 1)
        check_one_of("channels_axis", self.channels_axis, [None, 0, 1, -1, -2])
        if self.encoding == "opus" and self.sample_rate not in (None, 48_000):
            raise ConfigError(f"Opus always has 48000 Hz: leave sample_rate={self.sample_rate} out")
        if self.encoding == "opus" and self.channels != 1:
            raise ConfigError(f"Opus is used as one channel: leave channels={self.channels} out")
