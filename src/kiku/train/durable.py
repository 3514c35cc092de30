"""Files that survive a kill and a power cut: written beside, brought to the disk, then renamed."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from kiku.errors import TrainingError
from kiku.writing import in_place_of, reason_of


@contextmanager
def durable(path: Path) -> Generator[Path]:
    """The name of a new file beside `path`, which takes its place when the block has ended well and
    its contents have reached the disk.

    Raises:
        TrainingError: it cannot be written, as on a full disk; what was at `path` is still there.
    """
    try:
        with in_place_of(path) as beside:
            yield beside
            _to_disk(beside)
        _to_disk(path.parent)
    except SafetensorError as error:
        raise _refused(path, str(error)) from error
    except OSError as error:
        raise _refused(path, reason_of(error)) from error


def _refused(path: Path, why: str) -> TrainingError:
    return TrainingError(
        f"{path} cannot be written ({why}): make room or give another folder, and run it again; "
        "what was finished before is kept"
    )


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
