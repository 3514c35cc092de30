"""The elements of a Matroska or WebM recording: whether it states a length, and whether it is cut.

What a browser records states neither a length nor the size of its clusters. But each block states
its size, so a recording that ends within a block, or within any element after it, was cut off.
Knows elements (RFC 8794); does not know what they hold.
"""

from kiku.audio.source import Reader

_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_BLOCK_GROUP = 0xA0
_MASTERS = frozenset({_SEGMENT, _CLUSTER, _BLOCK_GROUP})
# The first bytes of a block: a simple one, and one in a group.
_BLOCKS = b"\xa3\xa1"
_MAX_ID_SIZE, _MAX_SIZE_SIZE = 4, 8
# Most bytes at the end that are looked at. They hold what follows the last sound, such as pictures.
_END_SIZE = 1 << 24


def has_duration(head: bytes) -> bool:
    """Whether the header holds the element Duration; without it FFmpeg only estimates."""
    return b"\x44\x89\x84" in head or b"\x44\x89\x88" in head


def is_cut(reader: Reader, place: int, packet_size: int) -> bool:
    """Whether the recording ends within an element.

    Args:
        reader: the recording, read to its end.
        place: the first byte of the content of the last block with sound, as PyAV tells it.
        packet_size: bytes of the packet in it, or of the last of them.
    """
    before = 1 + _MAX_SIZE_SIZE
    end = reader.end(min(reader.num_bytes - place + before, _END_SIZE))
    first = len(end) - (reader.num_bytes - place)
    if first < before:
        return False
    size = _block_size(end[first - before : first], packet_size)
    return size is not None and not _ends_well(end, first + size)


def _block_size(before: bytes, least: int) -> int | None:
    """The size of a block's content, which stands in the bytes before it; None if it does not."""
    for width in range(1, _MAX_SIZE_SIZE + 1):
        if before[-width - 1] in _BLOCKS and _width(before[-width]) == width:
            size = _number(before[-width:])
            if size >= least:
                return size
    return None


def _ends_well(data: bytes, place: int) -> bool:
    """Whether `data` ends where an element ends; `place` is the beginning of one. True also where
    something else than an element follows."""
    while place < len(data):
        width = _width(data[place])
        if width > _MAX_ID_SIZE:
            return True
        name = int.from_bytes(data[place : place + width], "big")
        place += width
        if place >= len(data):
            return False
        width = _width(data[place])
        if width > _MAX_SIZE_SIZE:
            return True
        number = data[place : place + width]
        place += width
        if _number(number) < (1 << 7 * width) - 1:
            place += _number(number)
        elif name not in _MASTERS:  # of unknown size, which only these may have
            return True
    return place == len(data)


def _width(first: int) -> int:
    """Bytes of a number, by its first byte; 9 where none begins so."""
    return 9 - first.bit_length()


def _number(data: bytes) -> int:
    """A number without the bit that marks its width."""
    return int.from_bytes(data, "big") & ((1 << 7 * len(data)) - 1)
