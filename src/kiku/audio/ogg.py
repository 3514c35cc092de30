"""The links of an ogg recording: whole recordings, one after another in one file.

Internet radio begins a new link with every piece of music, and joined files have one link each.
FFmpeg gives up where a link has another codec or other channels than the link before, so each link
is handed to it as a recording of its own. Knows pages (RFC 3533); does not know codecs.
"""

import zlib
from collections.abc import Iterator

from kiku.audio.source import Reader

MAGIC = b"OggS"
"""Bytes that every page begins with."""

_HEADER_SIZE = 27
_FIRST_PAGE, _LAST_PAGE = 0x02, 0x04
_FLAGS, _GRANULE, _SERIAL, _NUM_SEGMENTS = 5, slice(6, 14), slice(14, 18), 26
_CHECKSUM = slice(22, 26)
_READ_SIZE = 16_384
# Every byte with its bits reversed: the checksum of pages uses the same polynomial as zlib, but
# takes the bits of a byte from the other end.
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class OggPages:
    """The pages of an ogg recording, one by one; other bytes between them are left out."""

    def __init__(self, reader: Reader) -> None:
        """Prepare to read pages from `reader`, which stands at its beginning."""
        self._reader = reader
        self._rest = b""
        self._next: bytes | None = None
        self.is_cut = False
        """Whether the bytes ended in the middle of a page."""

    def peek(self) -> bytes:
        """The next page, which is not taken; no bytes at the end."""
        if self._next is None:
            self._next = self._read()
        return self._next

    def take(self) -> bytes:
        """Take the next page; no bytes at the end."""
        page, self._next = self.peek(), None
        return page

    def _read(self) -> bytes:
        while True:
            found = self._rest.find(MAGIC)
            # The last bytes may be the beginning of a page.
            self._rest = self._rest[found if found >= 0 else max(0, len(self._rest) - 3) :]
            size = self._page_size() if found >= 0 else None
            if size is not None:
                page, self._rest = self._rest[:size], self._rest[size:]
                inner = page.find(MAGIC, 1)
                if inner < 0 or _is_whole(page):
                    return page
                # The page's end is missing, and bytes of the next page stand in its place.
                self._rest = page[inner:] + self._rest
                continue
            data = self._reader.read(_READ_SIZE)
            if not data:
                self.is_cut = found >= 0
                page, self._rest = self._rest if found >= 0 else b"", b""
                return page  # the demuxer may be able to use a part of a page
            self._rest += data

    def _page_size(self) -> int | None:
        """Size of the page at the beginning of the rest, in bytes; None if it is not all there."""
        if len(self._rest) < _HEADER_SIZE:
            return None
        size = _HEADER_SIZE + self._rest[_NUM_SEGMENTS]
        if len(self._rest) < size:
            return None
        size += sum(self._rest[_HEADER_SIZE:size])
        return size if len(self._rest) >= size else None


class OggLink:
    """One link, as a file for the demuxer that cannot go back."""

    def __init__(self, pages: OggPages, name: str) -> None:
        """Begin the link with the next of `pages`; `name` hints at the format."""
        self.name = name
        self._pages = pages
        self._waiting = b""
        self._begun = False
        self._open: set[bytes] = set()

    @property
    def is_ended(self) -> bool:
        """Whether every track of the link had its last page."""
        return not self._open

    def seekable(self) -> bool:
        """False: a link cannot go back."""
        return False

    def read(self, num_bytes: int) -> bytes:
        """The next bytes, at most `num_bytes`; none at the end of the link."""
        while not self._waiting:
            page = self._pages.peek()
            if not page or (self._begun and _begins_track(page)):
                return b""
            self._note(self._pages.take())
        data, self._waiting = self._waiting[:num_bytes], self._waiting[num_bytes:]
        return data

    def skip(self) -> None:
        """Skip the part of the link that was not read."""
        while self.read(_READ_SIZE):
            pass

    def _note(self, page: bytes) -> None:
        self._waiting = page
        if len(page) < _HEADER_SIZE:
            return
        # The first pages of all tracks stand together; after others, a first page begins a link.
        self._begun |= not _begins_track(page)
        if _begins_track(page):
            self._open.add(page[_SERIAL])
        if page[_FLAGS] & _LAST_PAGE and not self._pages.is_cut:
            self._open.discard(page[_SERIAL])


def ogg_links(reader: Reader) -> Iterator[OggLink]:
    """The links of a recording; each must be read before the next one is asked for."""
    pages = OggPages(reader)
    while pages.peek():
        link = OggLink(pages, reader.name)
        yield link
        link.skip()


def _is_whole(page: bytes) -> bool:
    """Whether the checksum of a page is right."""
    body = page[: _CHECKSUM.start] + bytes(4) + page[_CHECKSUM.stop :]
    mirrored = zlib.crc32(body.translate(_MIRRORED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int(f"{mirrored:032b}"[::-1], 2) == int.from_bytes(page[_CHECKSUM], "little")


def _begins_track(page: bytes) -> bool:
    """Whether a page is the first of its track: it says so, and its position is 0 too, since a flag
    alone may be damage."""
    return (
        len(page) >= _HEADER_SIZE and bool(page[_FLAGS] & _FIRST_PAGE) and not any(page[_GRANULE])
    )
