"""Recordings in formats that PyAV reads but does not write, made by hand."""

import struct


def ape(num_frames: int, frame_size: int, rate: int = 16_000) -> bytes:
    """Monkey's Audio 3.99, mono: frames that say of themselves that they are silent, which takes no
    coding."""
    # The checksum's highest bit says that flags follow; "1" is silence; then the range coder.
    frame = struct.pack("<III", 0x8000_0000, 1, 0)
    offsets = [76 + 4 * num_frames + i * len(frame) for i in range(num_frames)]
    descriptor = struct.pack(
        "<4sHHIIIIIII16x", b"MAC ", 3_990, 0, 52, 24, 4 * num_frames, 0, 12 * num_frames, 0, 0
    )
    header = struct.pack("<HHIIIHHI", 1_000, 0, frame_size, frame_size, num_frames, 16, 1, rate)
    return (
        b"".join((descriptor, header, struct.pack(f"<{num_frames}I", *offsets)))
        + frame * num_frames
    )


def tak(num_frames: int, rate: int = 8_000) -> bytes:
    """TAK, mono, 16 bits: frames of 15 samples, each of which says that it is the last, as less
    than 16 samples are written as they are."""
    fields = ((2, 6), (2, 4), (1, 4), (15 * num_frames, 35), (0, 3), (rate - 6_000, 18), (8, 5))
    info = (*fields, (0, 4), (0, 1))
    head = _bits(info)
    parts = [b"tBaK\x01\x0d\0\0", head, _crc24(head), bytes(4)]
    sound = struct.pack("<15h", *(1_000 * (i % 3) for i in range(15)))
    for number in range(num_frames):
        head = _bits(((0xA0FF, 16), (3, 3), (number, 21), (14, 14), (0, 2), *info, (0, 8)))
        parts += [head, _crc24(head), sound, _crc24(sound)]
    return b"".join(parts)


def amr_wide(num_frames: int) -> bytes:
    """AMR-WB at 12.65 kbit/s, frames of 20 ms."""
    return b"#!AMR-WB\n" + (b"\x14" + bytes(32)) * num_frames


def sphere(num_samples: int, rate: int = 16_000) -> bytes:
    """NIST's SPHERE, as corpora of speech have it: 16 bits, mono."""
    lines = (
        "NIST_1A", "   1024", "channel_count -i 1", f"sample_count -i {num_samples}",
        f"sample_rate -i {rate}", "sample_n_bytes -i 2", "sample_byte_format -s2 01",
        "sample_sig_bits -i 16", "sample_coding -s3 pcm", "end_head",
    )  # fmt: skip
    head = "".join(f"{line}\n" for line in lines).encode()
    return head.ljust(1_024, b" ") + struct.pack("<2h", 3_000, -3_000) * (num_samples // 2)


def musepack(num_packets: int) -> bytes:
    """Musepack SV8, 44.1 kHz, stereo: packets of one silent frame of 1,152 samples."""
    head = b"\x08" + _sizes(num_packets * 1_152) + b"\0" + b"\x05\x18"
    head = _packet(b"SH", struct.pack(">I", 1) + head)
    return b"MPCK" + head + _packet(b"AP", b"\x1c") * num_packets + _packet(b"SE", b"")


def dsd(num_blocks: int) -> bytes:
    """DSF: one bit a sample, 2.8224 MHz, mono."""
    data = bytes([0x69] * 4_096) * num_blocks
    format_ = struct.pack(
        "<4sQIIIIIIQII", b"fmt ", 52, 1, 0, 1, 1, 2_822_400, 1, 8 * len(data), 4_096, 0
    )
    size = 28 + len(format_) + 12 + len(data)
    head = struct.pack("<4sQQQ", b"DSD ", 28, size, 0)
    return head + format_ + struct.pack("<4sQ", b"data", 12 + len(data)) + data


def svx(num_samples: int, rate: int = 16_000) -> bytes:
    """IFF 8SVX: 8 bits, mono."""
    voice = struct.pack(">4sIIIIHBBI", b"VHDR", 20, num_samples, 0, 0, rate, 1, 0, 0x1_0000)
    body = struct.pack(">4sI", b"BODY", num_samples) + b"\x20\xe0" * (num_samples // 2)
    inner = b"8SVX" + voice + body
    return struct.pack(">4sI", b"FORM", len(inner)) + inner


def playstation(kind: str, num_blocks: int, rate: int = 16_000) -> bytes:
    """ADPCM of a PlayStation, mono, blocks of 16 bytes with 28 samples: "vag", "svag" or "msf"."""
    size = 16 * num_blocks
    heads = {
        "vag": (b"VAGp" + struct.pack(">4I", 0x20, 0, size, rate), 0x30),
        "svag": (b"Svag" + struct.pack("<4I", size, rate, 1, 16), 0x800),
        "msf": (b"MSFC" + struct.pack(">4I", 3, 1, size, rate), 0x40),
    }
    head, head_size = heads[kind]
    return head.ljust(head_size, b"\0") + (b"\x02\0" + b"\x12\x34" * 7) * num_blocks


def _packet(name: bytes, data: bytes) -> bytes:
    """Of a Musepack; its size counts name and size."""
    return name + _sizes(len(data) + 3) + data


def _sizes(number: int) -> bytes:
    """A number, seven bits in a byte."""
    parts = [number & 0x7F]
    while number := number >> 7:
        parts.append(0x80 | number & 0x7F)
    return bytes(reversed(parts))


def _bits(fields: tuple[tuple[int, int], ...]) -> bytes:
    """Values of so many bits each, the lowest bit first."""
    number = place = 0
    for value, width in fields:
        number |= value << place
        place += width
    return number.to_bytes(place // 8, "little")


def _crc24(data: bytes) -> bytes:
    """That of OpenPGP."""
    crc = 0xB7_04CE
    for byte in data:
        crc ^= byte << 16
        for _ in range(8):
            crc = crc << 1 ^ (0x186_4CFB if crc & 0x80_0000 else 0)
    return crc.to_bytes(3, "little")
