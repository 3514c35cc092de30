"""Files that are written whole or not at all: a reader sees the old one or the new one.

Does not know what is in them, nor how to report that they cannot be written: that is an OSError.
"""

import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def in_place_of(path: Path) -> Generator[Path]:
    """The name of a new file beside `path`, which takes its place when the block has ended well.

    If the process is killed, the old file stays. A file that is mapped can be replaced. A link
    (folders of the hub's cache consist of links) is replaced and not written through. An error
    leaves nothing behind.
    """
    # Short, so that it fits where `path` does, and not to be guessed, so that nobody can put a link
    # there beforehand.
    beside = path.with_name(f".kiku-{secrets.token_hex(8)}")
    try:
        yield beside
        beside.replace(path)
    finally:
        # The error that is raised is that of the writing, even if clearing up fails too.
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write `text` to `path`, whose folder is there. A device or a pipe is written to.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    if is_device(path):
        _write(path, text, "w")
        return
    with in_place_of(path) as beside:
        _write(beside, text, "x")


def is_device(path: Path) -> bool:
    """Whether it is something like /dev/stdout, which cannot be replaced by a file."""
    # A path that cannot be checked (a name that is too long) is no device: writing to it then
    # raises the reason.
    with suppress(OSError):
        return path.exists() and not (path.is_file() or path.is_dir())
    return False


def reason_of(error: OSError) -> str:
    """The operating system's reason, in small letters, for use within a sentence."""
    return (error.strerror or str(error)).lower()


def _write(path: Path, text: str, mode: str) -> None:
    # A name in the text may hold what UTF-8 cannot encode; in JSON its escape is even right.
    with path.open(mode, encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        file.write(text)
