"""Small recordings that tests send as they are."""

import io
from fractions import Fraction
from typing import Any

import av
import numpy as np

OPUS_RATE = 48_000


def opus(planes: np.ndarray) -> bytes:
    """[S], [S, 2] or [S, 3] float32 at 48 kHz, as a file; several one behind the other are one,
    too."""
    layout = "mono" if planes.ndim == 1 else {2: "stereo", 3: "3.0"}[planes.shape[1]]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="ogg") as out:
        track = out.add_stream("libopus", rate=OPUS_RATE, layout=layout)
        interleaved = np.ascontiguousarray(planes, np.float32).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, "flt", layout)
        frame.sample_rate = OPUS_RATE
        out.mux([*track.encode(frame), *track.encode(None)])
    return buffer.getvalue()


def silence(seconds: float, num_channels: int = 1) -> np.ndarray:
    """At 48 kHz."""
    size = round(seconds * OPUS_RATE)
    return np.zeros(size if num_channels == 1 else (size, num_channels), np.float32)


def g711(samples: np.ndarray, name: str, rate: int) -> bytes:
    """[S] int16 as telephone sound, by FFmpeg's encoder `pcm_mulaw` or `pcm_alaw`."""
    encoder: Any = av.CodecContext.create(name, "w")
    encoder.sample_rate, encoder.layout, encoder.format = rate, "mono", "s16"
    encoder.time_base = Fraction(1, rate)
    frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
    frame.sample_rate = rate
    return b"".join(bytes(one) for one in encoder.encode(frame))
