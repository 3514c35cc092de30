"""Sessions in a folder: for several processes of one machine, or of several that share a disk.

    FOLDER/NAME/index       generation, when it expires, and which file holds which value
    FOLDER/NAME/12f-3       a value
    FOLDER/.locks/ab        held while a session whose name begins with ab is read or written

A write makes new files, then puts a new index in the place of the old one, then removes files that
are left over: whenever the process is killed, the old index or the new one is there, with all its
files.
"""

import errno
import os
import re
import shutil
import stat
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from kiku.errors import ConfigError
from kiku.serve.session_store import (
    MAX_VALUE_BYTES,
    Claim,
    Outcome,
    StoreDown,
    Write,
    next_generation,
)
from kiku.writing import in_place_of, reason_of

_INDEX = "index"
_LOCK_S = 2.0
"""Seconds to wait for a lock, which other processes hold for milliseconds."""

_NAME = re.compile(r"[0-9a-f]{40}")
_FILE = re.compile(r"[0-9a-f]{1,32}-[0-9]{1,9}")


_NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EFBIG})
"""Errors of opening what is not there, or is no file that was written here. All others, as of a
disk that is gone, may pass."""


class _Index(msgspec.Struct, forbid_unknown_fields=True):
    generation: int
    expires: float
    files: dict[str, str] = {}
    """The file of each value."""
    num_files: int = 0
    """Number of files that this generation ever made."""


_DECODE = msgspec.json.Decoder(_Index).decode
_ENCODE = msgspec.json.Encoder().encode


class FolderStore:
    """A `SessionStore` of files that only their owner may read."""

    def __init__(self, folder: Path) -> None:
        """Use a folder that exists or can be made. Raises ConfigError if it cannot be used."""
        self._folder, self._locks = folder, folder / ".locks"
        try:
            folder.mkdir(0o700, parents=True, exist_ok=True)
            self._locks.mkdir(0o700, exist_ok=True)
            with self._locked("00"):
                pass
        except (OSError, StoreDown) as error:
            raise ConfigError(
                f"sessions cannot be stored in {folder} ({error}): give --session-store a folder "
                "that kiku may write to"
            ) from error

    def begin(self, name: str, ttl_s: float) -> int:
        """See `SessionStore`."""
        with self._locked(name):
            old = self._read_index(name)
            index = _Index(next_generation(0 if old is None else old.generation), _until(ttl_s))
            self._forget(name)
            (self._folder / name).mkdir(0o700)
            self._write_index(name, index)
            return index.generation

    def claim(self, name: str, ttl_s: float) -> Claim | None:
        """See `SessionStore`."""
        with self._locked(name):
            index = self._read_index(name)
            if index is None or not index.files or index.expires < time.time():
                return None
            values = {value: self._read(name, file) for value, file in index.files.items()}
            claimed = _Index(next_generation(index.generation), _until(ttl_s), index.files)
            self._write_index(name, claimed)
            return Claim(claimed.generation, values)

    def write(self, writes: Sequence[Write]) -> list[Outcome]:
        """See `SessionStore`."""
        return [self._write(one) for one in writes]

    def _write(self, write: Write) -> Outcome:
        with self._locked(write.name):
            index = self._read_index(write.name)
            if index is None:
                return Outcome.UNKNOWN
            if index.generation != write.generation:
                return Outcome.TAKEN
            files, left = dict(index.files), [index.files.get(one) for one in write.drop]
            for value in write.drop:
                files.pop(value, None)
            for value, data in write.values.items():
                index.num_files += 1
                file = f"{write.generation:x}-{index.num_files}"
                _write_private(self._folder / write.name / file, data)
                left.append(files.get(value))
                files[value] = file
            index.files, index.expires = files, _until(write.ttl_s)
            self._write_index(write.name, index)
            for file in left:
                if file is not None:
                    with suppress(OSError):
                        (self._folder / write.name / file).unlink()
            return Outcome.KEPT

    def remove(self, name: str, generation: int, ttl_s: float) -> None:
        """See `SessionStore`."""
        with self._locked(name):
            index = self._read_index(name)
            if index is not None and index.generation == generation:
                self._write_index(name, _Index(next_generation(generation), _until(ttl_s)))
                for file in index.files.values():
                    (self._folder / name / file).unlink(missing_ok=True)

    def sweep(self, ttl_s: float) -> None:
        """See `SessionStore`."""
        with _errors_as_store_down():
            names = [one.name for one in self._folder.iterdir() if _NAME.fullmatch(one.name)]
        for name in names:
            with suppress(StoreDown), self._locked(name):
                if self._is_over(name, ttl_s):
                    self._forget(name)

    def _is_over(self, name: str, ttl_s: float) -> bool:
        try:
            index = self._read_index(name)
        except OSError:
            index = None
        if index is not None:
            return index.expires < time.time()
        # Torn by a crash, or of another version: then the folder, which every write of a session
        # changes, shows the time of the last write.
        return (self._folder / name).lstat().st_mtime + ttl_s < time.time()

    def close(self) -> None:
        """See `SessionStore`."""

    # Files.

    @contextmanager
    def _locked(self, name: str) -> Generator[None]:
        with _errors_as_store_down():
            path = self._locks / name[:2]
            if path.is_symlink():  # it would be written through
                raise OSError(f"the lock {path} is a link")
            lock = FileLock(path, timeout=_LOCK_S, mode=0o600)
            with lock:
                yield

    def _read_index(self, name: str) -> _Index | None:
        """The index of a session; None if there is none, or it is damaged. A session with a damaged
        index is begun again by its next write, and keeps no other from being written."""
        try:
            index = _DECODE(_read_private(self._folder / name / _INDEX))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        except OSError as error:
            if error.errno in _NO_FILE:
                return None
            raise
        if not all(map(_FILE.fullmatch, index.files.values())) or abs(index.generation) > 2**60:
            return None
        return index

    def _write_index(self, name: str, index: _Index) -> None:
        with in_place_of(self._folder / name / _INDEX) as beside:
            _write_private(beside, _ENCODE(index))

    def _read(self, name: str, file: str) -> bytes:
        try:
            return _read_private(self._folder / name / file)
        except FileNotFoundError:
            return b""  # the reader of the values misses it

    def _forget(self, name: str) -> None:
        path = self._folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _errors_as_store_down() -> Generator[None]:
    """Raise errors of files as StoreDown."""
    try:
        yield
    except Timeout as error:
        raise StoreDown("another process has held a session's lock for too long") from error
    except OSError as error:
        raise StoreDown(f"files cannot be read or written: {reason_of(error)}") from error


def _until(ttl_s: float) -> float:
    return time.time() + ttl_s


_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)


def _write_private(path: Path, data: bytes) -> None:
    """Write a new file that nobody else may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _NO_LINK, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _read_private(path: Path) -> bytes:
    # A pipe that nobody writes to would be waited for.
    descriptor = os.open(path, os.O_RDONLY | _NO_LINK | _NO_WAIT)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EISDIR, "it is not a file", str(path))
        if found.st_size > MAX_VALUE_BYTES:
            raise OSError(errno.EFBIG, "it is larger than a session can be", str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)
