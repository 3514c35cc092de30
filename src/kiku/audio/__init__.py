"""Sound from outside -> mono float32 samples at one rate: files, arrays, resampler, framer."""

from kiku.audio.complaints import Complaint
from kiku.audio.ear import Ear
from kiku.audio.files import duration_s, read_chunks
from kiku.audio.framer import Framer
from kiku.audio.resample import Resampler
from kiku.audio.samples import as_mono, chunks_of

__all__ = [
    "Complaint",
    "Ear",
    "Framer",
    "Resampler",
    "as_mono",
    "chunks_of",
    "duration_s",
    "read_chunks",
]
