"""Raw Opus packets, as networks carry them -> mono float32 samples at 48,000 Hz.

Knows PyAV's decoder and the head of a packet (RFC 6716, section 3). Does not know containers
(`files`), nor which packets were lost on the way.
"""

from collections import deque
from collections.abc import Sequence
from typing import Protocol, cast

import av
import numpy as np
import numpy.typing as npt
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.error import FFmpegError

from kiku.errors import AudioError

OPUS_RATE = 48_000
# A packet holds at most 120 ms.
_MAX_SAMPLES = 5_760
# Packets of this many samples are kept. A decoder forgets the distant past: after one second it
# gives the same samples, to the bit, as a decoder that has decoded everything. Twice that is kept.
_MEMORY = 2 * OPUS_RATE


class _Decoder(Protocol):
    """The part of PyAV's codec context that is used; its own annotation is incomplete."""

    def decode(self, packet: object) -> list[AudioFrame]: ...


class OpusDecoder:
    """The decoder of one sound. Every packet depends on those before it, so the last packets are
    kept, and another decoder can be made from them."""

    def __init__(self, packets: Sequence[bytes] = ()) -> None:
        """Decode `packets`: none, or those from the property `packets`; AudioError for others."""
        context = AudioCodecContext.create("libopus", "r")
        context.sample_rate = OPUS_RATE
        context.layout = "mono"  # the decoder mixes stereo packets down
        self._decoder = cast("_Decoder", context)
        self._kept: deque[tuple[bytes, int]] = deque()
        self._num_kept = 0
        num_samples = [num_samples_of(packet) for packet in packets]
        if sum(num_samples) > _MEMORY + _MAX_SAMPLES or not all(num_samples):
            raise AudioError(
                "these are not the packets of Opus that a decoder keeps: give its packets"
            )
        for packet in packets:
            self.decode(packet)

    @property
    def packets(self) -> list[bytes]:
        """The packets of the last two seconds; a decoder made from them goes on from here."""
        return [packet for packet, _ in self._kept]

    def decode(self, packet: bytes) -> npt.NDArray[np.float32] | None:
        """Decode the next packet: [S] float32 at 48,000 Hz, or None if it is damaged."""
        frames: list[AudioFrame] = []
        num_samples = num_samples_of(packet)
        if num_samples:
            try:
                frames = self._decoder.decode(av.Packet(packet))
            except (FFmpegError, ValueError):
                num_samples = 0
        if not num_samples or not frames:
            return None
        self._remember(packet, num_samples)
        sound = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
        return sound.astype(np.float32) / np.float32(32_768)  # the decoder gives int16

    def _remember(self, packet: bytes, num_samples: int) -> None:
        self._kept.append((packet, num_samples))
        self._num_kept += num_samples
        while self._num_kept - self._kept[0][1] >= _MEMORY:
            self._num_kept -= self._kept.popleft()[1]


def num_samples_of(packet: bytes) -> int:
    """The number of samples at 48,000 Hz that a packet states; 0 where it states none."""
    if not packet:
        return 0
    head = packet[0]
    config, code = head >> 3, head & 0x03
    if config < 12:
        size = (480, 960, 1_920, 2_880)[config & 0x03]
    elif config < 16:
        size = (480, 960)[config & 0x01]
    else:
        size = (120, 240, 480, 960)[config & 0x03]
    counted = packet[1] & 0x3F if len(packet) > 1 else 0
    num_frames = (1, 2, 2, counted)[code]
    return size * num_frames if size * num_frames <= _MAX_SAMPLES else 0
