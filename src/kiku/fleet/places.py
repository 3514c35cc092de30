"""Folders and files wherever fsspec can reach them: this machine, s3://, gs://, memory://.

fsspec is an extra, imported only when it is needed.
"""

import importlib
import os
from typing import Any, cast

from kiku.errors import InputError, MissingExtra


def file_system_of(path: str) -> tuple[Any, str]:
    """The file system of a path, and the path's name there; local paths become absolute.

    Raises:
        InputError: the kind of place is unknown, or a package that fsspec needs for it is missing.
        MissingExtra: fsspec is not installed.
        Exception: the container of the place does not exist, such as the archive of "zip://".
    """
    fsspec = _fsspec()
    try:
        if is_local_place(path):
            return fsspec.filesystem("file"), os.path.abspath(path.removeprefix("file://"))
        return fsspec.core.url_to_fs(path)
    except ImportError as error:  # s3fs, gcsfs, adlfs: no extra of kiku installs them
        cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        package = (cause.name or "").partition(".")[0]
        how = f"run  pip install {package}" if package else "install it"
        raise InputError(
            f"{path} needs a package that is not installed ({error}): {how}"
        ) from error
    except ValueError as error:
        raise InputError(
            f"{path} is not a place that can be opened ({error}): check how it begins; places are "
            "s3://, gs://, abfs:// and whatever else fsspec knows"
        ) from error


def is_local_place(path: str) -> bool:
    """Whether a path is on this machine: it names no other place."""
    return "://" not in path or path.startswith("file://")


def place_name(files: Any, path: str) -> str:
    """The full address of a path of a file system: "s3://bucket/talk.mp3"."""
    name = str(files.unstrip_protocol(path))
    return path if is_local_place(name) else name


_BUCKETS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "obs", "cos"}
"""Places without folders. Making a folder there would make a bucket, which nobody wants if the name
was mistyped."""


def make_place(files: Any, path: str) -> None:
    """Make a folder unless it exists; files in a bucket need none."""
    kinds = [files.protocol] if isinstance(files.protocol, str) else files.protocol
    if not _BUCKETS.intersection(kinds):
        files.makedirs(path, exist_ok=True)


def join(folder: str, *names: str) -> str:
    """A path below a folder."""
    return "/".join([folder.rstrip("/"), *names])


MARKS = "*?["
"""Marks of patterns. Names may contain them, too: `rename` and `remove` take them literally."""


def rename(files: Any, old: str, new: str) -> None:
    """Rename a file, replacing a file of the new name; atomically if the place supports it."""
    spec, asyn = (importlib.import_module(f"fsspec.{name}") for name in ("spec", "asyn"))
    by_copy = cast("Any", type(files)).mv is spec.AbstractFileSystem.mv
    if not by_copy and not isinstance(files, asyn.AsyncFileSystem):
        files.mv(old, new)
        return
    # `mv` of stores takes a name for a pattern of files; `copy` does not do so with lists.
    files.copy([old], [new])
    remove_place(files, old)


def remove_place(files: Any, path: str) -> None:
    """Remove one file."""
    try:
        files.rm_file(path)
    except NotImplementedError:  # some places have only `rm`, which takes no patterns there
        files.rm(path)


def _fsspec() -> Any:
    try:
        return importlib.import_module("fsspec")
    except ImportError as error:
        raise MissingExtra("kiku.fleet", "fleet") from error
