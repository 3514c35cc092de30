"""One process at a time: a lock on a file, which ends with the process that holds it."""

import errno
import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from kiku.errors import CheckpointError

_POLL_S = 0.1
_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Generator[None]:
    """Hold the lock for as long as the block runs. The file is there only meanwhile.

    Args:
        path: of the lock file; its folder exists.
        waiting: called once if another process (or thread) holds it. What it raises ends the wait.

    Raises:
        CheckpointError: the disk cannot lock files.
        OSError: the file cannot be made.
    """
    told = False
    while (descriptor := _try(path)) is None:
        if not told:
            waiting()
            told = True
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        _leave(path, descriptor)


def _try(path: Path) -> int | None:
    """The locked file, or None if somebody else holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if _lock(descriptor) and _is_still(path, descriptor):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise CheckpointError(
            f"this disk cannot lock files ({error.strerror or error}); set KIKU_CACHE to a folder "
            "on another one"
        ) from error
    return True


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the file that was locked is the one that others would lock: its last holder took it
    away.
    """
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _leave(path: Path, descriptor: int) -> None:
    if sys.platform != "win32":  # which lets nobody take away what is open
        with suppress(OSError):
            path.unlink()
    os.close(descriptor)
    if sys.platform == "win32":
        with suppress(OSError):
            path.unlink()
