"""Lets one process at a time do something: a lock on a file, which ends with its process."""

import errno
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_POLL_S = 0.1


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Generator[None]:
    """Hold the lock while the block runs. The file stays; it is empty.

    Args:
        path: the path of the lock file; its folder is made.
        waiting: called once if another process (or thread) holds the lock. If it raises, there is
            no wait.

    Raises:
        OSError: the file cannot be made, or is a link.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():  # opening it would empty whatever it leads to
        raise OSError(
            errno.ELOOP, f"the lock {path} is a link, and kiku does not follow it; remove it"
        )
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire(poll_interval=_POLL_S)
    try:
        yield
    finally:
        lock.release()
