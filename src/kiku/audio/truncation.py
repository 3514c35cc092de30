"""Whether a recording holds as much as its header says.

FFmpeg hides most truncations: it takes a wav's length from the size of the file, and ends quietly
where the bytes end. So the length is looked up where it is reliable; mp3, ogg and raw aac state
none that is exact.
"""

import struct

from av.audio.stream import AudioStream

from kiku.audio.source import Reader

# What headers may be wrong by without anything missing.
_TOLERANCE_S = 0.02
_FILM_TOLERANCE_S = 0.5
# Some programs count the header of a wav with its data.
_WAV_TOLERANCE_SIZE = 64
# Programs that write a wav into a pipe put a length from here on, as they do not know the true one.
_UNKNOWN_WAV_SIZE = 0x7FFF_0000
# Formats whose own header counts the samples.
_COUNTED_FORMATS = frozenset({"flac", "aiff", "au"})


def whole_length_s(
    format_name: str,
    track: AudioStream,
    reader: Reader,
    stated_s: float | None,
    *,
    end_s: float,
    file_end_s: float,
) -> float | None:
    """How long the recording should be, in seconds, if less than that was in it; None if it is
    whole.

    Args:
        format_name: the container's format, "wav", "flac", "mov", "matroska" ...
        track: the audio track, read to its end.
        reader: the bytes of the recording.
        stated_s: what the container gave as the duration when it was opened.
        end_s: where the sound ended.
        file_end_s: where the last packet of any track ended.
    """
    if format_name == "wav":
        return _wav_length_s(reader, stated_s)
    if format_name == "mov" and _index_end(track) > reader.num_bytes:
        return max(stated_s or 0.0, end_s)
    if stated_s is None:
        return None
    if format_name in _COUNTED_FORMATS and end_s < stated_s - _TOLERANCE_S:
        return stated_s
    if (
        format_name == "matroska"
        and _has_matroska_duration(reader.head)
        and max(end_s, file_end_s) < stated_s - _FILM_TOLERANCE_S
    ):
        return stated_s
    return None


def _wav_length_s(reader: Reader, stated_s: float | None) -> float | None:
    """What the `data` chunk should last, in seconds, if the file ends before it does."""
    head = reader.head
    if head[:4] != b"RIFF":
        return None
    offset, byte_rate = 12, 0
    while offset + 8 <= len(head):
        name = head[offset : offset + 4]
        size: int = struct.unpack_from("<I", head, offset + 4)[0]
        offset += 8
        if name == b"fmt " and offset + 12 <= len(head):
            byte_rate = struct.unpack_from("<I", head, offset + 8)[0]
        if name == b"data":
            num_missing = offset + size - reader.num_bytes
            tolerance = max(_WAV_TOLERANCE_SIZE, byte_rate * _TOLERANCE_S)
            if not 0 < size < _UNKNOWN_WAV_SIZE or num_missing <= tolerance:
                return None
            # Some writers of compressed sound leave the byte rate at 0.
            return size / byte_rate if byte_rate else stated_s or 0.0
        offset += size + size % 2
    return None


def _index_end(track: AudioStream) -> int:
    """The byte behind the last sample that an mp4's index names."""
    entries = track.index_entries
    if not len(entries):
        return 0
    last = entries[len(entries) - 1]
    return last.pos + last.size


def _has_matroska_duration(head: bytes) -> bool:
    """Whether the header holds the element Duration; without it FFmpeg only estimates."""
    return b"\x44\x89\x84" in head or b"\x44\x89\x88" in head
