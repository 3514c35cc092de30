"""Sound -> the bytes of a small file: for a page to play, and for training to hear what codecs
leave of speech."""

import io
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.error import FFmpegError
from numpy.typing import NDArray

Codec = Literal["opus", "mp3", "aac", "amr"]
"""Opus is what browsers and voice services send, AMR what mobile telephones do (8 kHz)."""


class _Encoder(NamedTuple):
    name: str
    """FFmpeg's."""
    container: str
    rates: tuple[int, ...]
    """Samples a second that the codec has, in rising order."""
    late: int = 0
    """Samples by which decoded sound is late and no container tells."""
    most_bits_per_s: int = 320_000
    """More are refused."""


_MPEG_RATES = (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_OPUS_RATES = (8000, 12_000, 16_000, 24_000, 48_000)
_ENCODERS: dict[Codec, _Encoder] = {
    "opus": _Encoder("libopus", "ogg", _OPUS_RATES, most_bits_per_s=256_000),
    "mp3": _Encoder("libmp3lame", "mp3", _MPEG_RATES),
    "aac": _Encoder("aac", "mp4", _MPEG_RATES),
    "amr": _Encoder("libopencore_amrnb", "amr", (8000,), late=40),
}


def can_encode(codec: Codec) -> bool:
    """Whether this build of FFmpeg has the encoder."""
    try:
        av.Codec(_ENCODERS[codec].name, "w")
    except UnknownCodecError:
        return False
    return True


def encodable_rate(codec: Codec, rate: int) -> int:
    """The lowest rate of the codec that is not below `rate`, or else its highest."""
    rates = _ENCODERS[codec].rates
    return next((one for one in rates if one >= rate), rates[-1])


def lateness(codec: Codec) -> int:
    """Samples, at the codec's rate, by which sound is late when such a file is decoded."""
    return _ENCODERS[codec].late


def encoded(samples: NDArray[np.float32], rate: int, codec: Codec, bits_per_s: int) -> bytes:
    """A file of one channel; empty bytes if this build of FFmpeg cannot write it.

    Args:
        samples: [S] in [-1, 1]; what is beyond is clipped.
        rate: of the samples, in Hz: one that `encodable_rate` gives.
        codec: how it is encoded.
        bits_per_s: the codec takes the nearest that it has.
    """
    encoder = _ENCODERS[codec]
    integers = (np.clip(samples, -1, 1) * 32767).astype("<i2")
    frame = av.AudioFrame.from_ndarray(integers[np.newaxis], format="s16", layout="mono")
    # Without a time the container would not be told how many samples the codec adds in front.
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    buffer = io.BytesIO()
    try:
        container: Any = av.open(buffer, "w", format=encoder.container)
        with container:
            stream = container.add_stream(encoder.name, rate=rate, layout="mono")
            stream.bit_rate = min(bits_per_s, encoder.most_bits_per_s)
            for packet in (*stream.encode(frame), *stream.encode(None)):
                container.mux(packet)
    except (FFmpegError, ValueError):  # it is not built in, or not for this rate
        return b""
    return buffer.getvalue()
