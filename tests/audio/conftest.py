"""Recordings made on the spot, in any container and codec that PyAV writes."""

import io
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

Record = Callable[..., bytes]

_CHANNELS = {"mono": 1, "stereo": 2, "5.1": 6, "7.1": 8, "hexadecagonal": 16}


@pytest.fixture
def tone() -> Callable[..., np.ndarray]:
    """`tone(rate, seconds, hertz=440)`: a sine of amplitude 0.3, float32 [S]."""

    def make(rate: int, seconds: float, hertz: float = 440.0) -> np.ndarray:
        time_s = np.arange(round(rate * seconds)) / rate
        return (0.3 * np.sin(2 * np.pi * hertz * time_s)).astype(np.float32)

    return make


@pytest.fixture
def record() -> Record:
    """`record(format, codec, samples, rate, ...)`: the bytes of a recording.

    The samples are floats, [S] for every channel alike or [C, S]. `folder` is
    for options that need a file to be written to.
    """

    def make(
        container: str,
        codec: str,
        samples: np.ndarray,
        rate: int,
        *,
        layout: str = "mono",
        sample_format: str | None = None,
        options: dict[str, str] | None = None,
        folder: Path | None = None,
    ) -> bytes:
        num_channels = _CHANNELS[layout]
        planes = np.broadcast_to(samples, (num_channels, samples.shape[-1]))
        # An index is moved to the front by reading the file again, which takes a path.
        out = io.BytesIO() if folder is None else folder / f"recording.{container}"
        with av.open(out, "w", format=container, container_options=options or {}) as file:
            track = file.add_stream(codec, rate=rate, layout=layout)
            if sample_format is not None:
                track.codec_context.format = sample_format
            for first in range(0, planes.shape[1], 4_800):
                part = np.ascontiguousarray(planes[:, first : first + 4_800].T, np.float32)
                # Packed, as PyAV fails on planes of eight channels.
                frame = av.AudioFrame.from_ndarray(part.reshape(1, -1), "flt", layout)
                frame.sample_rate = rate
                frame.pts = first
                file.mux(track.encode(frame))
            file.mux(track.encode(None))
        return out.getvalue() if isinstance(out, io.BytesIO) else out.read_bytes()

    return make


class Pipe(io.RawIOBase):
    """Bytes that come once, in small pieces, as from a pipe."""

    def __init__(self, data: bytes) -> None:
        """Give `data` and then the end."""
        super().__init__()
        self._data = io.BytesIO(data)
        self.num_given = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def readinto(self, buffer: memoryview) -> int:
        data = self._data.read(min(len(buffer), 1_000))
        buffer[: len(data)] = data
        self.num_given += len(data)
        return len(data)


@pytest.fixture
def pipe() -> type[Pipe]:
    """The class of a file that cannot seek: `pipe(data)`."""
    return Pipe
