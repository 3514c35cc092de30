"""Where the bytes of a recording come from: a path, standard input or an open file.

Knows the operating system's errors and turns them into kiku's. Does not know what the bytes mean.
"""

import io
import os
import re
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from kiku.errors import AudioError

# Bytes of a recording's beginning that are kept, so that its header can be read afterwards.
HEAD_SIZE = 65_536

_PEEK_SIZE = 4_096

# Bytes of a recording's end that are kept if it cannot go back.
_TAIL_SIZE = 65_536

# How deep files may be wrapped in one another: a temporary file, its buffer, its descriptor.
_MOST_LAYERS = 8

# A scheme of at least two letters: a single letter is a drive of Windows.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?=[^/])")

FileSource = str | os.PathLike[str] | BinaryIO


class Reader:
    """A binary file for the demuxer; remembers the file's first bytes and how far it was read.

    The recording begins where the file stood when it was handed over; offsets count from there.
    """

    def __init__(self, file: BinaryIO, label: str, suffix: str = "") -> None:
        """Prepare to read `file`; `label` is its name in messages, `suffix` (".wav") hints at its
        format."""
        self.label = label
        # The demuxer gets no real name: with one, some formats would open files on their own.
        self.name = f"sound{suffix}"
        self.head = b""
        self.untagged = b""  # the head without the tag before it, which may hold a large picture
        self.failure: Exception | None = None
        """The error because of which bytes could not be read, such as a disk's."""
        self.interruption: BaseException | None = None
        """The exception that interrupted a read of the demuxer, as Ctrl-C does. Never reset."""
        self._file = file
        self._peeked = b""
        self._tail = b""
        self._furthest = 0
        self._position = 0
        self._size: int | None = None
        self._start = 0
        try:
            self._seekable = bool(getattr(file, "seekable", lambda: False)())
            if self._seekable:
                self._start = file.tell()
                self._size = file.seek(0, os.SEEK_END) - self._start
                file.seek(self._start)
        except ValueError as error:
            raise AudioError(f"{label} cannot be read ({error}): open it again") from None
        except OSError:
            # Some devices show only at the first seek that they cannot seek.
            self._seekable = False
        if self._start > 0 and self._size is not None and self._size <= 0:
            raise AudioError(
                f"{label} was already read to its end: file.seek(0) goes back to its beginning"
            )
        # A pipe is read as its bytes come: `read` would wait until its whole buffer is full.
        self._read = file.read if self._seekable else getattr(file, "read1", file.read)

    @property
    def num_bytes(self) -> int:
        """The size of the recording in bytes; of a pipe, the number of bytes so far."""
        return self._furthest if self._size is None else self._size

    def seekable(self) -> bool:
        """Whether the reader can go back: files can, pipes cannot."""
        return self._seekable

    def read(self, num_bytes: int) -> bytes:
        """The next bytes, at most `num_bytes`; none at the end, or if the disk fails.

        Raises:
            AudioError: the file does not give bytes.
        """
        try:
            data: object = self._peeked[:num_bytes] or self._read(num_bytes)
            self._peeked = self._peeked[num_bytes:]
        except OSError as error:
            # This counts as the end, so that everything before it is decoded; the caller checks
            # `failure` afterwards.
            self.failure = error
            data = b""
        # More bytes than asked for would be written past the demuxer's buffer.
        if not isinstance(data, bytes) or len(data) > num_bytes:
            raise AudioError(
                f"{self.label} does not give bytes when it is read: open it in blocking binary "
                "mode, 'rb'"
            )
        self._keep(data)
        self._position += len(data)
        if self._position > self._furthest:
            self._tail = (self._tail + data[self._furthest - self._position :])[-_TAIL_SIZE:]
            self._furthest = self._position
        return data

    def end(self, num_bytes: int) -> bytes:
        """The last bytes, at most `num_bytes`, after everything was read; of a pipe, those that
        were kept.

        A file is left at its end.
        """
        if not self._seekable:
            return self._tail[-num_bytes:]
        self.seek(-num_bytes, os.SEEK_END)
        data = b""
        while len(data) < num_bytes and (part := self.read(num_bytes - len(data))):
            data += part
        return data

    def raise_interruption(self) -> None:
        """Raise the exception that interrupted a read of the demuxer, if there was one."""
        if self.interruption is not None:
            raise self.interruption

    def peek(self, num_bytes: int) -> bytes:
        """The first bytes, at most `num_bytes`, before any are read; `read` gives them again."""
        data = b""
        while len(data) < num_bytes and (part := self.read(_PEEK_SIZE)):
            data += part
        if self._seekable:
            self.rewind()
        else:
            self._peeked, self._position = data, 0
        return data[:num_bytes]

    def _keep(self, data: bytes) -> None:
        """Keep the beginning of the recording, and the beginning of what follows a tag there."""
        position = self._position
        if position <= len(self.head) < HEAD_SIZE:
            self.head = (self.head + data[len(self.head) - position :])[:HEAD_SIZE]
        first = position - tag_size(self.head)
        if first <= len(self.untagged) < HEAD_SIZE:
            self.untagged = (self.untagged + data[len(self.untagged) - first :])[:HEAD_SIZE]

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to `offset` bytes from the beginning (or as `whence` says); returns the new offset.

        A damaged recording may send its demuxer far beyond the end, to an offset that no file
        system allows; then the new offset is the end.
        """
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.num_bytes}[whence]
        place = min(max(0, base + offset), self.num_bytes)
        self._position = self._file.seek(self._start + place) - self._start
        return self._position

    def tell(self) -> int:
        """The offset of the next byte."""
        return self._position

    def rewind(self) -> None:
        """Put the file back to where it stood when it was handed over, if it can go back."""
        if self._seekable:
            self.seek(0)


def tag_size(head: bytes) -> int:
    """Size in bytes of the ID3 tag at the beginning of a recording; 0 if there is none."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size + (10 if head[5] & 0x10 else 0)


@contextmanager
def open_source(source: FileSource) -> Generator[Reader, None, None]:
    """Open a recording for reading. A path is closed at the end, a file of the caller stays open.

    Args:
        source: a path, "-" for standard input, or a file open for reading bytes.

    Raises:
        AudioError: no such file, a folder, no permission, or not something to read from.
    """
    if isinstance(source, str | os.PathLike):
        if os.fspath(source) == "-":
            if sys.stdin is None:
                raise AudioError("standard input is closed: name a file instead of -")
            yield Reader(sys.stdin.buffer, "standard input")
        else:
            if source == "":  # as a Path, this is the current folder
                raise AudioError("'' is not a file name: give the path of a recording")
            _refuse_address(str(source))
            with _open_path(Path(source)) as file:
                yield Reader(file, str(source), Path(source).suffix)
    elif callable(getattr(source, "read", None)):
        yield Reader(source, str(getattr(source, "name", "the open file")))
    else:
        raise AudioError(
            f"sound cannot be read from a {type(source).__name__}: "
            "give a path, '-' or a file opened with 'rb' (arrays are for Recognizer.transcribe)"
        )


def read_twice(sources: Sequence[Any]) -> tuple[int, int] | None:
    """The indices of two sources that are one open file; None if there are no such two.

    They would take the sound from each other, as an open file is read from where it stands. Two
    files that wrap one file, or have one descriptor, are one. A path is opened for each source.
    """
    seen: dict[object, tuple[int, Any]] = {}  # with the file, as the next could get its `id`
    for i, source in enumerate(sources):
        file = _innermost(source)
        if file is None:
            continue
        key: object = id(file)
        if isinstance(file, io.FileIO) and not file.closed:
            key = ("descriptor", file.fileno())
        if key in seen:
            return seen[key][0], i
        seen[key] = i, file
    return None


def _innermost(source: Any) -> Any:
    """The file that is read in the end if an open source is read; None for a path, or no file."""
    file = source
    if isinstance(source, str | os.PathLike):
        file = getattr(sys.stdin, "buffer", None) if os.fspath(source) == "-" else None
    inner, layers = file, 0
    while callable(getattr(inner, "read", None)) and layers < _MOST_LAYERS:
        file, inner, layers = inner, _inner_of(inner), layers + 1
    return file if layers else None


def _inner_of(file: Any) -> Any:
    """The file that a buffer or a temporary file wraps; None if it wraps none."""
    with suppress(ValueError):  # of a buffer from which it was taken
        return getattr(file, "raw", None) or getattr(file, "file", None)
    return None


def _refuse_address(name: str) -> None:
    """Raise AudioError for an address, as nothing is fetched, unless it is the name of a file."""
    found = _ADDRESS.match(name)
    if found is not None and not os.path.lexists(name):
        # A Path has folded the "//" into one "/".
        address = f"{found[1]}://{name[found.end() :]}"
        raise AudioError(
            f"{address} is an address, and kiku does not download from addresses: download it "
            "first, and give the path of the file"
        )


def _open_path(path: Path) -> BinaryIO:
    try:
        if path.is_dir():
            raise AudioError(f"{path} is a folder: name the recordings in it")
        return path.open("rb")
    except FileNotFoundError:
        raise AudioError(
            f"{path}: no such file: check the name; kiku looked in {path.absolute().parent}"
        ) from None
    except PermissionError:
        raise AudioError(f"there is no permission to read {path}: check its permissions") from None
    except (OSError, ValueError) as error:
        raise AudioError(
            f"{path} cannot be opened ({error}): check its name and its disk"
        ) from None
