"""Files that are written whole or not at all: a reader sees the old file or the new one.

This module does not know what is in the files. If one cannot be written, it raises OSError.
"""

import os
import re
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def in_place_of(path: Path) -> Generator[Path]:
    """A new file next to `path`, which replaces it when the block ends without an error.

    If the process is killed, the old file stays. A file that is mapped into memory can be replaced.
    A link (folders of the hub's cache consist of links) is replaced, not followed. After an error
    the new file is removed.
    """
    # Short, so that it fits where `path` does. Random, so that nobody can put a link there first.
    beside = path.with_name(f".kiku-{secrets.token_hex(8)}")
    try:
        yield beside
        beside.replace(path)
    finally:
        # The error of the writing is raised, even if removing the file fails too.
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write `text` to `path`, whose folder exists. A device or a pipe is written to directly.

    Raises:
        OSError: the file cannot be written; no part of it is left.
    """
    if is_device(path):
        _write(path, text, "w")
        return
    with in_place_of(path) as beside:
        _write(beside, text, "x")


def is_device(path: Path) -> bool:
    """Whether `path` is something like /dev/stdout, which a file cannot replace."""
    # A path that cannot be checked (its name is too long) is no device; writing to it raises why.
    with suppress(OSError):
        return path.exists() and not (path.is_file() or path.is_dir())
    return False


def reason_of(error: Exception) -> str:
    """The operating system's reason in small letters, for use within a sentence.

    safetensors' own errors have its number in their text.
    """
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    number = re.search(r"\(os error (\d+)\)", str(error))
    return (os.strerror(int(number[1])) if number else str(error)).lower()


def _write(path: Path, text: str, mode: str) -> None:
    # A file's name in the text may hold what UTF-8 cannot encode; JSON even wants it escaped.
    with path.open(mode, encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        file.write(text)
