"""Whether a recording holds as much sound as its header states.

FFmpeg hides most truncations: it computes the length of a wav from the size of the file, and ends
quietly where the bytes end. So the length is read where it is reliable: in bytes, in packets or in
seconds. Raw streams (adts, mp2, mp3 without a count, ac3, amr) and MPEG's transport and program
streams state no length; there a last packet that is cut in two shows the truncation. An ogg marks
its last page (`ogg`), and a nut ends in an index. What a browser records (webm) states no length
either; there the last block shows it (`matroska`).

A cut recording is not noticed in formats that state no length (ircam, alp, roq, gxf, spdif), in an
swf that is compressed or has no size, and in most formats of games (brstm, hca ...), as there were
no such recordings to try.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from av.audio.stream import AudioStream

from kiku.audio.matroska import has_duration, is_cut
from kiku.audio.packets import stated_size
from kiku.audio.source import Reader

# Seconds by which headers may be wrong although nothing is missing.
_TOLERANCE_S = 0.02
_FILM_TOLERANCE_S = 0.5
_MP3_TOLERANCE = 2  # packets: some programs count the header as one, and the last may be padding
# Some programs count the header of a wav with its data.
_WAV_TOLERANCE_SIZE = 64
# Programs that write into a pipe do not know the length. They state one that is at least this ...
_UNKNOWN_SIZE = 0x7FFF_0000
# ... or a large round one: at least this, and a multiple of one of these.
_MIN_ROUND_SIZE, _ROUND_SIZES = 0x2000_0000, (1_000_000, 0x10_0000)
# Formats whose own header counts the samples, exactly.
_COUNTED_FORMATS = frozenset(
    {"flac", "aiff", "au", "wv", "tta", "ape", "tak", "mpc", "mpc8", "nistsphere"}
    | {"argo_asf", "apm", "kvag", "svag", "vag", "msf"}
)
# Formats that state no length of the whole, but whose last packet FFmpeg marks if it is too short.
_SHORT_FORMATS = frozenset({"voc", "ast", "smjpeg"})
# Formats whose own header states the length of the film.
_FILM_FORMATS = frozenset({"matroska", "flv", "rm", "mxf"})
# The size that FFmpeg puts into an swf without a picture, or one that it writes into a pipe.
_SWF_UNKNOWN_SIZE = 100 * 1024 * 1024
_VBRI_OFFSET = 36
# Of a transport stream: possible sizes of a packet in bytes, the first byte of each packet, and how
# many packets are checked.
_TS_SIZES, _TS_MARK, _TS_MARKS = (188, 192, 204), 0x47, 8
_NUT_MAGIC, _NUT_INDEX = b"nut/multimedia container\0", bytes.fromhex("4e58dd672f23e64e")
# Of a nut: the last version that always has an index, and the largest size of an index in bytes.
_NUT_VERSION, _NUT_INDEX_SIZE = 3, 1 << 24
# Of a program stream: the bytes before each packet, the byte that follows them in headers of packs
# and at the end, and how many bytes at the end are searched.
_PACKET, _PACK, _PACK_END, _PACKETS_SIZE = b"\0\0\1", b"\xba", b"\xb9", 1 << 17
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


@dataclass(frozen=True, slots=True)
class Heard:
    """The facts about a recording that was read to its end."""

    stated_s: float | None
    """Duration that the container stated when it was opened, in seconds."""
    end_s: float
    """Second at which the sound ended."""
    file_end_s: float
    """Second at which the last packet of any track ended."""
    num_packets: int
    """Packets of the audio track."""
    last_packet: bytes = b""
    """The last packet of the audio track."""
    is_last_short: bool = False
    """Whether FFmpeg found that the last packet has fewer bytes than its header states."""
    start_s: float = 0.0
    """Timestamp at which the recording begins, in seconds."""
    last_place: int | None = None
    """Offset of the last packet of the audio track, as PyAV tells it."""


class _Data(NamedTuple):
    """Where the sound of a recording lies according to its header, in bytes."""

    first: int
    size: int
    byte_rate: int = 0


def whole_length_s(
    format_name: str, track: AudioStream, reader: Reader, heard: Heard
) -> float | None:
    """The length that the recording should have, in seconds, if it has less (0 where that length is
    unknown); None if it is whole.

    Args:
        format_name: the container's format, "wav", "flac", "mov", "matroska" ...
        track: the audio track, read to its end.
        reader: the bytes of the recording.
        heard: the facts about it.
    """
    stated_s, end_s = heard.stated_s, heard.end_s
    if format_name in _DATA:
        return _length_of_data(_DATA[format_name](reader.head), reader, heard)
    if format_name == "mp3" and (count := _mp3_count(reader.untagged)):
        return _mp3_length_s(count, heard.num_packets)
    if _is_cut_in_two(format_name, reader, heard):
        return 0.0
    if format_name == "mov" and _index_end(track) > reader.num_bytes:
        return max(stated_s or 0.0, end_s)
    place, size = heard.last_place, len(heard.last_packet)
    is_cut_there = format_name == "matroska" and place is not None and is_cut(reader, place, size)
    if format_name == "matroska" and not (stated_s and has_duration(reader.head)):
        return 0.0 if is_cut_there else None
    if stated_s is None:
        return None
    if format_name in _COUNTED_FORMATS and end_s < stated_s - _TOLERANCE_S:
        return None if _is_placeholder(round(stated_s * track.rate), 1) else stated_s
    if format_name == "matroska":
        stated_s -= max(0.0, heard.start_s)  # it counts from 0, wherever its tracks begin
        if is_cut_there and end_s < stated_s:
            return stated_s
    film_end_s = max(end_s, heard.file_end_s)
    if format_name in _FILM_FORMATS and film_end_s < stated_s - _FILM_TOLERANCE_S:
        return stated_s
    return None


def _length_of_data(data: _Data | None, reader: Reader, heard: Heard) -> float | None:
    """Seconds that the data should last, if the file ends before they do; otherwise None."""
    if data is None:
        return None
    tolerance = max(_WAV_TOLERANCE_SIZE, data.byte_rate * _TOLERANCE_S)
    if data.first + data.size - reader.num_bytes <= tolerance:
        return None
    if _is_placeholder(data.size, data.byte_rate):
        return None
    # Some writers of compressed sound leave the byte rate at 0.
    return data.size / data.byte_rate if data.byte_rate else heard.stated_s or 0.0


def _is_placeholder(size: int, byte_rate: int) -> bool:
    """Whether a size, in bytes or samples, comes from a program that did not know the true one."""
    if not 0 < size < _UNKNOWN_SIZE and size < 2**32:
        return True
    is_round = any(size % one == 0 for one in _ROUND_SIZES)
    return (size >= _MIN_ROUND_SIZE and is_round) or size >= 2**62


def _wav_data(head: bytes) -> _Data | None:
    size_64, byte_rate = 0, 0
    if head[:4] not in (b"RIFF", b"RF64", b"BW64"):
        return None
    for name, first, size in _chunks(head, 12, "<4sI"):
        if name == b"ds64" and first + 16 <= len(head):
            size_64 = struct.unpack_from("<Q", head, first + 8)[0]
        if name == b"fmt " and first + 12 <= len(head):
            byte_rate = struct.unpack_from("<I", head, first + 8)[0]
        if name == b"data":
            return _Data(first, size_64 if size == 0xFFFF_FFFF and size_64 else size, byte_rate)
    return None


def _avi_data(head: bytes) -> _Data | None:
    """The whole first RIFF chunk: the index is at its end, so a missing end is noticed."""
    if head[:4] != b"RIFF" or len(head) < 8:
        return None
    return _Data(8, struct.unpack_from("<I", head, 4)[0])


def _caf_data(head: bytes) -> _Data | None:
    if head[:4] != b"caff":
        return None
    return next(
        (_Data(at, size) for name, at, size in _chunks(head, 8, ">4sQ") if name == b"data"), None
    )


def _w64_data(head: bytes) -> _Data | None:
    """The data of a w64. Names have 16 bytes there, sizes include name and size themselves, and
    chunks are padded to a multiple of 8."""
    offset, byte_rate = 40, 0
    while head[:4] == b"riff" and offset + 24 <= len(head):
        name, size = struct.unpack_from("<4s12xQ", head, offset)
        if name == b"fmt " and offset + 36 <= len(head):
            byte_rate = struct.unpack_from("<I", head, offset + 32)[0]
        if name == b"data":
            return _Data(offset + 24, max(0, size - 24), byte_rate)
        offset += max(24, (size + 7) // 8 * 8)
    return None


def _asf_data(head: bytes) -> _Data | None:
    """The whole file, whose size is in its header (0 in broadcasts)."""
    place = head.find(_ASF_PROPERTIES)
    if place < 0 or len(head) < place + 48:
        return None
    return _Data(0, struct.unpack_from("<Q", head, place + 40)[0])


def _iff_data(head: bytes) -> _Data | None:
    """The whole file: an 8svx, or DSD in a dff, whose sizes have 64 bits."""
    layouts = {b"FORM": ">I", b"FRM8": ">Q"}
    if head[:4] not in layouts or len(head) < 12:
        return None
    layout = layouts[head[:4]]
    return _Data(4 + struct.calcsize(layout), struct.unpack_from(layout, head, 4)[0])


def _dsf_data(head: bytes) -> _Data | None:
    """The whole file."""
    if head[:4] != b"DSD " or len(head) < 20:
        return None
    return _Data(0, struct.unpack_from("<Q", head, 12)[0])


def _sox_data(head: bytes) -> _Data | None:
    order = {b".SoX": "<", b"XoS.": ">"}.get(head[:4])
    if order is None or len(head) < 28:
        return None
    first, num_samples, rate, num_channels = struct.unpack_from(f"{order}IQdI", head, 4)
    byte_rate = int(min(max(rate, 0.0), 1e9)) * num_channels * 4
    return _Data(4 + first, num_samples * 4, byte_rate)


def _mmf_data(head: bytes) -> _Data | None:
    """The file without its first 8 bytes; its size is 0 where it was written into a pipe."""
    if head[:4] != b"MMMD" or len(head) < 8:
        return None
    return _Data(8, struct.unpack_from(">I", head, 4)[0])


def _swf_data(head: bytes) -> _Data | None:
    """The whole file; None if it is compressed, as it states the size before the compression."""
    if head[:3] != b"FWS" or len(head) < 8:
        return None
    size = struct.unpack_from("<I", head, 4)[0]
    return None if size == _SWF_UNKNOWN_SIZE else _Data(0, size)


def _adx_data(head: bytes) -> _Data | None:
    """The blocks of all samples that the header counts; 0 where it was written into a pipe."""
    if head[:1] != b"\x80" or len(head) < 16:
        return None
    offset, block_size, bits, num_channels, rate, num_samples = struct.unpack_from(
        ">2xHxBBBII", head
    )
    num_block_samples = max(0, block_size - 2) * 8 // bits if bits else 0
    if not num_block_samples:
        return None
    num_blocks = -(-num_samples // num_block_samples)
    byte_rate = rate * num_channels * block_size // num_block_samples
    return _Data(4 + offset, num_blocks * num_channels * block_size, byte_rate)


def _wsaud_data(head: bytes) -> _Data | None:
    return _Data(12, struct.unpack_from("<2xI", head)[0]) if len(head) >= 12 else None


_DATA = {
    "asf": _asf_data, "wav": _wav_data, "avi": _avi_data, "caf": _caf_data, "w64": _w64_data,
    "iff": _iff_data, "dsf": _dsf_data, "sox": _sox_data, "mmf": _mmf_data, "swf": _swf_data,
    "adx": _adx_data, "wsaud": _wsaud_data,
}  # fmt: skip


def _chunks(head: bytes, offset: int, layout: str) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte and size of the chunks of a header, as far as the header was kept."""
    while offset + struct.calcsize(layout) <= len(head):
        name, size = struct.unpack_from(layout, head, offset)
        offset += struct.calcsize(layout)
        yield name, offset, size
        offset += size + (size % 2 if layout[0] == "<" else 0)


class _Mp3(NamedTuple):
    """The count of packets that the first packet of an mp3 states (Xing, Info or VBRI)."""

    num_packets: int
    packet_s: float


def _mp3_length_s(count: _Mp3, num_packets: int) -> float | None:
    if num_packets >= count.num_packets - _MP3_TOLERANCE:
        return None
    return count.num_packets * count.packet_s


def _mp3_count(head: bytes) -> _Mp3 | None:
    """The number of packets of an mp3, as its first packet states it, and their length."""
    for first in range(min(len(head), 4_096)):
        if head[first] != 0xFF or len(head) < first + 200 or head[first + 1] & 0xE6 != 0xE2:
            continue
        version, rate_code = head[first + 1] >> 3 & 3, head[first + 2] >> 2 & 3
        count = _counted(head, first)
        if count and version != 1 and rate_code != 3:
            rate = (44_100, 48_000, 32_000)[rate_code] >> {3: 0, 2: 1, 0: 2}[version]
            return _Mp3(count, (1_152 if version == 3 else 576) / rate)
    return None


def _counted(head: bytes, first: int) -> int:
    """The number of packets that the header at `first` states; 0 if it states none."""
    is_mono, is_version_1 = head[first + 3] >> 6 == 3, head[first + 1] >> 3 & 3 == 3
    side = (17 if is_mono else 32) if is_version_1 else (9 if is_mono else 17)
    place = first + 4 + side
    name, flags = struct.unpack_from(">4sI", head, place)
    if name in (b"Xing", b"Info") and flags & 1:
        return struct.unpack_from(">I", head, place + 8)[0]
    if head[first + _VBRI_OFFSET : first + _VBRI_OFFSET + 4] == b"VBRI":
        return struct.unpack_from(">I", head, first + _VBRI_OFFSET + 14)[0]
    return 0


def _is_cut_in_two(format_name: str, reader: Reader, heard: Heard) -> bool:
    """Whether the last packet is cut in two, in a format that states no length. A cut that happens
    to lie between two packets cannot be noticed."""
    if format_name in _CUT:
        return _CUT[format_name](reader)
    if format_name == "amr":
        format_name = "amrwb" if reader.head.startswith(b"#!AMR-WB") else "amrnb"
    size = stated_size(format_name, heard.last_packet)
    is_short = size is not None and len(heard.last_packet) < size
    return is_short or (heard.is_last_short and format_name in _SHORT_FORMATS)


def _is_cut_ts(reader: Reader) -> bool:
    """Whether a transport stream ends with a part of a packet."""
    head, tail = reader.head, reader.end(max(_TS_SIZES))
    for size in _TS_SIZES:
        for first in range(min(size, len(head))):
            marks = head[first : first + size * _TS_MARKS : size]
            if len(marks) > 1 and marks == bytes([_TS_MARK]) * len(marks):
                # On a Blu-ray each packet has four bytes before its mark, so the last one has 188
                # bytes from its mark on.
                rest = (reader.num_bytes - first) % size
                whole = (0, 188) if size == 192 else (0,)
                return rest not in whole and rest <= len(tail) and tail[-rest] == _TS_MARK
    return False


def _is_cut_ps(reader: Reader) -> bool:
    """Whether the last packet of a program stream states more bytes than there are. (DVDs are split
    on purpose, but between two packets.)"""
    tail = reader.end(_PACKETS_SIZE)
    first, seen = tail.find(_PACKET), set[int]()
    while first >= 0:
        place, num_packets = first, 0
        while place < len(tail) and place not in seen:
            if not tail.startswith(_PACKET[: len(tail) - place], place):
                break
            seen.add(place)
            place += _packet_size(tail[place : place + 14])
            num_packets += 1
        # Such bytes may occur within a packet by chance, but hardly twice.
        if place >= len(tail) and num_packets > 1:
            return place > len(tail)
        first = tail.find(_PACKET, first + 1)
    return False


def _packet_size(head: bytes) -> int:
    """Size in bytes of a packet, or of a pack's header, in a program stream, by its first 14."""
    if head[3:4] == _PACK_END:
        return 4
    if head[3:4] != _PACK:
        return 6 + int.from_bytes(head[4:6], "big")
    is_mpeg_1 = head[4:5] and head[4] >> 4 == 2
    return 12 if is_mpeg_1 else 14 + (head[13] & 7 if len(head) > 13 else 0)


def _is_cut_nut(reader: Reader) -> bool:
    """Whether a nut lacks the index at its end. FFmpeg writes one, also into pipes, unless told not
    to; a nut of a later version may state that it has none."""
    magic = len(_NUT_MAGIC)
    place = magic + 8  # the version follows the size of the header, which has seven bits in a byte
    while reader.head[place : place + 1] > b"\x7f":
        place += 1
    version, end = reader.head[place + 1 : place + 2], reader.end(12)
    if not reader.head.startswith(_NUT_MAGIC) or len(end) < 12 or version > bytes([_NUT_VERSION]):
        return False
    size = struct.unpack_from(">Q", end)[0]
    if not 12 < size < min(reader.num_bytes, _NUT_INDEX_SIZE):
        return True
    index = reader.end(size)
    return len(index) == size and not index.startswith(_NUT_INDEX)


_CUT = {"mpegts": _is_cut_ts, "mpeg": _is_cut_ps, "nut": _is_cut_nut}


def _index_end(track: AudioStream) -> int:
    """The offset of the byte after the last sample in an mp4's index."""
    entries = track.index_entries
    if not len(entries):
        return 0
    last = entries[len(entries) - 1]
    return last.pos + last.size
