"""Small recordings that tests send as they are."""

import io

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
