"""Folders and files wherever fsspec can reach them: this machine, s3://, gs://, memory://.

fsspec is an extra, imported when it is wanted.
"""

import importlib
import os
from typing import Any

from kiku.errors import MissingExtra


def place_of(path: str) -> tuple[Any, str]:
    """The file system of a path, and what the path is called there; local ones are absolute.

    Raises:
        MissingExtra: fsspec is not installed, or what it needs for this kind of place.
    """
    fsspec = _fsspec()
    try:
        if is_local(path):
            return fsspec.filesystem("file"), os.path.abspath(path.removeprefix("file://"))
        return fsspec.core.url_to_fs(path)
    except ImportError as error:  # s3fs, gcsfs: whose name stands in what fsspec says
        raise MissingExtra(f"{path} ({error})", "fleet") from error


def is_local(path: str) -> bool:
    """Whether a path is of this machine: it names no other place."""
    return "://" not in path or path.startswith("file://")


def name_in(files: Any, path: str) -> str:
    """What a path of a file system is called from outside: "s3://bucket/talk.mp3"."""
    name = str(files.unstrip_protocol(path))
    return path if is_local(name) else name


def join(folder: str, *names: str) -> str:
    """A path below a folder."""
    return "/".join([folder.rstrip("/"), *names])


MARKS = "*?["
"""Of patterns. They may stand in names, too: `rename` and `remove` take each as a name."""


def rename(files: Any, old: str, new: str) -> None:
    """Let a file have another name, in the place of what had it: at once where the place can."""
    spec, asyn = (importlib.import_module(f"fsspec.{name}") for name in ("spec", "asyn"))
    by_copy = type(files).mv is spec.AbstractFileSystem.mv
    if not by_copy and not isinstance(files, asyn.AsyncFileSystem):
        files.mv(old, new)
        return
    # What stores have of `mv` looks for files that a name fits as a pattern; lists are no patterns.
    files.copy([old], [new])
    remove(files, old)


def remove(files: Any, path: str) -> None:
    """Remove one file."""
    try:
        files.rm_file(path)
    except NotImplementedError:  # some places have only this, which takes no patterns there
        files.rm(path)


def _fsspec() -> Any:
    try:
        return importlib.import_module("fsspec")
    except ImportError as error:
        raise MissingExtra("kiku.fleet", "fleet") from error
