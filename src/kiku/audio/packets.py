"""The length in bytes of a packet of coded sound, read from its first bytes.

A raw stream of such packets does not state how long it is. But a stream that was cut off ends in
the middle of a packet, unless the cut happens to lie between two packets. Knows ADTS, LATM, MPEG
audio, AC-3 and AMR; does not know files.
"""

import struct

# Kilobits a second by MPEG's version (1, or 2 and 2.5) and layer.
_RATES_1 = {
    1: (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    2: (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_RATES_2 = {
    1: (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    3: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SAMPLE_RATES = (44_100, 48_000, 32_000)
_AC3_RATES = (
    32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640,
)  # fmt: skip
# Bytes of a packet of AMR, narrow and wide, by its type: speech, comfort noise, nothing.
_AMR_SIZES = {**dict(enumerate((13, 14, 16, 18, 20, 21, 27, 32, 6))), 15: 1}
_AMR_WB_SIZES = {**dict(enumerate((18, 24, 33, 37, 41, 47, 51, 59, 61, 6))), 14: 1, 15: 1}


def stated_size(format_name: str, packet: bytes) -> int | None:
    """The number of bytes that a packet's header states; None where it has no such header, or the
    header states no number.

    Args:
        format_name: the format of the raw stream: "aac" (ADTS), "loas", "mp3" (of any layer),
            "ac3", "eac3", "amrnb" or "amrwb".
        packet: the packet, or its first bytes.
    """
    if format_name in _AMR:
        return _AMR[format_name].get(packet[0] >> 3 & 15) if packet else None
    read = _READERS.get(format_name)
    return None if read is None or len(packet) < 6 else read(packet)


def _adts(packet: bytes) -> int | None:
    if packet[0] != 0xFF or packet[1] & 0xF6 != 0xF0:
        return None
    return (packet[3] & 3) << 11 | packet[4] << 3 | packet[5] >> 5


def _loas(packet: bytes) -> int | None:
    if packet[0] != 0x56 or packet[1] & 0xE0 != 0xE0:
        return None
    return 3 + ((packet[1] & 0x1F) << 8 | packet[2])


def _mpeg_audio(packet: bytes) -> int | None:
    (header,) = struct.unpack_from(">I", packet)
    version, layer = header >> 19 & 3, 4 - (header >> 17 & 3)
    rate_code, speed_code = header >> 12 & 15, header >> 10 & 3
    if header >> 21 != 0x7FF or version == 1 or layer == 4 or speed_code == 3:
        return None
    if not 0 < rate_code < 15:  # 0 means a rate that the header does not state
        return None
    rates = _RATES_1 if version == 3 else _RATES_2
    bits, padding = 1_000 * rates[layer][rate_code - 1], header >> 9 & 1
    speed = _SAMPLE_RATES[speed_code] >> {3: 0, 2: 1, 0: 2}[version]
    if layer == 1:
        return (12 * bits // speed + padding) * 4
    slots = 72 if layer == 3 and version != 3 else 144
    return slots * bits // speed + padding


def _ac3(packet: bytes) -> int | None:
    if packet[:2] != b"\x0b\x77":
        return None
    if packet[5] >> 3 > 10:  # E-AC-3
        return 2 * (((packet[2] & 7) << 8 | packet[3]) + 1)
    speed_code, size_code = packet[4] >> 6, packet[4] & 0x3F
    if speed_code == 3 or size_code >= 2 * len(_AC3_RATES):
        return None
    kilobits, odd = _AC3_RATES[size_code >> 1], size_code & 1
    if speed_code == 1:  # 44.1 kHz: packets alternate between two sizes
        return 2 * (kilobits * 1_000 * 1_536 // 44_100 // 16 + odd)
    return kilobits * (4 if speed_code == 0 else 6)


_READERS = {"aac": _adts, "loas": _loas, "mp3": _mpeg_audio, "ac3": _ac3, "eac3": _ac3}
_AMR = {"amrnb": _AMR_SIZES, "amrwb": _AMR_WB_SIZES}
