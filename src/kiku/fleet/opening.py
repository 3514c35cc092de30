"""Open recordings for a recognizer.

Files of this machine are given by their paths. Recordings in stores are opened a little ahead: a
store takes a while to answer, and the slots should not wait for it.
"""

import io
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from kiku.errors import AudioError, InputError
from kiku.fleet.places import file_system_of, is_local_place
from kiku.fleet.sources import Item

if TYPE_CHECKING:
    from kiku.transcription.sources import Source

_AHEAD = 8
"""Recordings that are opened before their turn."""


@contextmanager
def open_items(items: Sequence[Item]) -> "Generator[list[Source]]":
    """The sources that a recognizer gets for these recordings; they are closed at the end.

    At first only the first recordings that are in a store are opened.
    """
    with ThreadPoolExecutor(_AHEAD, "kiku-opening") as pool:
        remote = _Queue(pool, [item.path for item in items if not is_local_place(item.path)])
        sources: list[Source] = [
            item.path if is_local_place(item.path) else remote.next() for item in items
        ]
        try:
            remote.begin()
            yield sources
        finally:
            remote.close()


class _Queue:
    """Recordings in stores, in the order in which they will be read."""

    def __init__(self, pool: ThreadPoolExecutor, paths: Sequence[str]) -> None:
        self.pool = pool
        self._files = [_Stored(path, self) for path in paths]
        self._given = self._begun = 0
        self.lock = threading.Lock()
        """Is held while a recording begins to be opened, which any reader may ask for."""

    def next(self) -> Any:
        """The next recording."""
        self._given += 1
        return self._files[self._given - 1]

    def begin(self) -> None:
        """Begin to open the first recordings."""
        for _ in range(_AHEAD):
            self.open_next()

    def open_next(self) -> None:
        """Begin to open one more, because one has been asked for."""
        while True:
            with self.lock:
                if self._begun == len(self._files):
                    return
                self._begun += 1
                file = self._files[self._begun - 1]
            if file.begin():
                return

    def close(self) -> None:
        """Close all recordings; no more are opened."""
        self._begun = len(self._files)
        for file in self._files:
            file.close()


class _Stored(io.RawIOBase):
    """A recording in a store: opened by another thread, read like any file."""

    def __init__(self, path: str, queue: _Queue) -> None:
        self.name = path
        self._queue = queue
        self._opening: Future[Any] | None = None
        self._file: Any = None
        self._is_asked = False

    def begin(self) -> bool:
        """Begin to open it in another thread; False if that has begun."""
        with self._queue.lock:
            if self._opening is not None:
                return False
            self._opening = self._queue.pool.submit(_open, self.name)
            return True

    def _opened(self) -> Any:
        if self._file is None:
            self.begin()  # if it is read out of order
            if not self._is_asked:
                self._is_asked = True
                self._queue.open_next()  # also if this one cannot be opened
            assert self._opening is not None
            self._file = self._opening.result()
        return self._file

    def seekable(self) -> bool:
        return bool(self._opened().seekable())

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._opened().tell())

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._opened().seek(offset, whence))

    def read(self, size: int = -1) -> bytes:
        try:
            return cast("bytes", self._opened().read(size))
        except (OSError, AudioError):
            raise
        except Exception as error:  # the store's own package may raise anything
            raise OSError(str(error)) from error

    def close(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None and not opening.cancel() and opening.exception() is None:
            opening.result().close()
        super().close()


def _open(path: str) -> Any:
    """An open file whose first bytes have arrived."""
    try:
        files, name = file_system_of(path)
        file = files.open(name, "rb")
        file.read(1)
        file.seek(0)
        return file
    except InputError as error:  # its message names the path
        raise AudioError(str(error)) from error
    except Exception as error:
        raise AudioError(f"{path}: cannot be opened ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return "no such file" if isinstance(error, FileNotFoundError) else str(error)
