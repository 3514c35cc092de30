"""The formats of the sound of Wyoming's clients."""

from typing import Annotated, Literal

import msgspec

from kiku.options import MAX_CHANNELS, MAX_INPUT_RATE, MIN_INPUT_RATE, AudioFormat

_SIGNED = bytes(value ^ 0x80 for value in range(256))


class WyomingFormat(msgspec.Struct, frozen=True):
    """The format of sound, as in audio-start and audio-chunk; `width` is in bytes."""

    rate: Annotated[int, msgspec.Meta(ge=MIN_INPUT_RATE, le=MAX_INPUT_RATE)]
    width: Literal[1, 2, 3, 4]
    channels: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHANNELS)]

    def __str__(self) -> str:
        return f"{self.rate} Hz, {self.width} bytes, {self.channels} channels"

    @property
    def bytes_per_s(self) -> int:
        """Bytes in a second of the client's sound."""
        return self.rate * self.width * self.channels

    @property
    def audio_format(self) -> AudioFormat:
        """The format of the sound that `widened` returns."""
        encoding = "s16le" if self.width <= 2 else "s32le"
        return AudioFormat(encoding=encoding, sample_rate=self.rate, channels=self.channels)


def widened(sound: bytes, width: int) -> tuple[bytes, bytes]:
    """Widen samples of 1 and 3 bytes to 2 and 4; others stay. Returns them, and bytes left over."""
    if width == 1:  # unsigned, as in wav files
        wide = bytearray(2 * len(sound))
        wide[1::2] = sound.translate(_SIGNED)
        return bytes(wide), b""
    if width != 3:
        return sound, b""
    whole = len(sound) - len(sound) % 3
    wide = bytearray(whole // 3 * 4)
    for i in range(3):
        wide[i + 1 :: 4] = sound[i:whole:3]
    return bytes(wide), sound[whole:]
