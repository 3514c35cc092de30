"""Files that survive a kill and a power cut, and folders that one process at a time writes into.

A file is written under another name next to its place, flushed to the disk, then renamed.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from kiku.errors import TrainingError
from kiku.writing import in_place_of, reason_of


@contextmanager
def durable(path: Path) -> Generator[Path]:
    """The path of a new file that replaces `path` after the block.

    It replaces `path` only if the block ends without an error and its contents are on the disk.

    Raises:
        TrainingError: it cannot be written, as on a full disk; `path` is left as it was.
    """
    try:
        with in_place_of(path) as beside:
            yield beside
            _to_disk(beside)
        _to_disk(path.parent)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{path} cannot be written ({reason_of(error)}): make room or give another folder, and "
            "run it again; what was finished before is kept"
        ) from error


@contextmanager
def locked_folder(folder: Path) -> Generator[None]:
    """Make a folder, and lock it against other processes while the block runs.

    Raises:
        TrainingError: another process has locked it, or the folder cannot be made.
    """
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise TrainingError(
            f"another run writes to {folder}: wait for it, or name another folder"
        ) from None
    except OSError as error:
        raise TrainingError(f"{folder} cannot be made ({reason_of(error)})") from error
    try:
        yield
    finally:
        lock.release()


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
