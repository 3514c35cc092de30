"""Sound from outside -> mono float32 samples at one rate: `AudioInput`, files, arrays, frames; and
small encoded files (`encode`)."""

from kiku.audio.channels import ChannelChanges
from kiku.audio.checks import HEARD_DB, SignalChecks, StreamWarning
from kiku.audio.chunk import Chunk, gap_of
from kiku.audio.endings import ENDINGS
from kiku.audio.files import duration_s, num_channels, read_chunks, read_file
from kiku.audio.frames import FrameQueue
from kiku.audio.input import AudioInput
from kiku.audio.power import energy
from kiku.audio.resample import Resampler
from kiku.audio.samples import (
    array_chunks,
    as_mono,
    decoded,
    fed,
    is_decoder,
    is_file,
    is_rated,
    refuse_backwards,
    samples_of,
    source_of,
)
from kiku.audio.source import read_twice

__all__ = [
    "ENDINGS",
    "HEARD_DB",
    "AudioInput",
    "ChannelChanges",
    "Chunk",
    "FrameQueue",
    "Resampler",
    "SignalChecks",
    "StreamWarning",
    "array_chunks",
    "as_mono",
    "decoded",
    "duration_s",
    "energy",
    "fed",
    "gap_of",
    "is_decoder",
    "is_file",
    "is_rated",
    "num_channels",
    "read_chunks",
    "read_file",
    "read_twice",
    "refuse_backwards",
    "samples_of",
    "source_of",
]
