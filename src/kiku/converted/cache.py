"""Where converted models are kept, and under which names."""

import atexit
import glob
import os
import re
import secrets
import shutil
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kiku.checkpoint.hub import DEMO
from kiku.checkpoint.identity import digest_of, identity_of
from kiku.checkpoint.layout import find
from kiku.checkpoint.reading import read_config
from kiku.converted.lock import locked
from kiku.converted.manifest import MANIFEST, name_in, stated_in
from kiku.errors import CheckpointError, KikuError

PART = ".part"
"""The end of a folder's name while the model in it is being made."""

_GONE = ".gone"
_ENTRY = re.compile(r"(?P<name>.+)-(?P<precision>[a-z0-9_]+)-[0-9a-f]{12}(?P<part>\.part)?")


@dataclass(frozen=True, slots=True)
class Entry:
    """A folder of the cache."""

    folder: Path
    name: str
    """The name of the checkpoint, as far as a folder's name can hold it."""
    title: str
    """The name of the checkpoint, as the manifest states it."""
    precision: str
    is_whole: bool
    """Whether the model is complete; if not, a conversion was stopped here, or is going on."""
    num_bytes: int


class NoCache(CheckpointError):
    """There is no folder in which this process may keep converted models."""


def cache_folder() -> Path:
    """Where converted models are kept; it need not exist. `KIKU_CACHE` moves it.

    Raises:
        NoCache: there is no home folder, or `KIKU_CACHE` leads nowhere.
    """
    chosen = os.environ.get("KIKU_CACHE")
    try:
        if chosen:
            return Path(chosen).expanduser().absolute() / "onnx"
        return _caches().absolute() / "kiku" / "onnx"
    except (RuntimeError, OSError) as e:  # ~ without a home; a current folder that was removed
        if chosen:
            reason = str(e).rstrip(".")
            raise NoCache(
                f"KIKU_CACHE is {chosen}, which is not a folder that can be found ({reason}); set "
                "KIKU_CACHE to another folder"
            ) from e
        raise NoCache(
            "there is no home folder for converted models; set KIKU_CACHE to a folder"
        ) from e


def _caches() -> Path:
    """Where programs on this system keep data that can be made again."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # Its specification says to ignore a path that is not absolute.
    return chosen if chosen.is_absolute() else Path.home() / ".cache"


def is_in_cache(folder: Path) -> bool:
    """Whether a folder is one of the cache's own."""
    try:
        return folder.parent == cache_folder()
    except NoCache:
        return False


@cache
def temporary_folder() -> Path:
    """A folder for models where there is no cache; it is removed when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="kiku-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def entries() -> list[Entry]:
    """The entries of the cache, in the order of their names."""
    try:
        folders = sorted(path for path in cache_folder().iterdir() if path.is_dir())
    except (OSError, NoCache):
        return []
    matches = ((folder, _ENTRY.fullmatch(folder.name)) for folder in folders)
    return [
        Entry(
            folder,
            m["name"],
            name_in(folder / MANIFEST) or m["name"],
            m["precision"],
            m["part"] is None,
            _size_of(folder),
        )
        for folder, m in matches
        if m is not None
    ]


def entries_of(name: str, precision: str | None = None) -> list[Entry]:
    """The entries of one checkpoint, named as for `convert`, or the entry with that folder name.

    For the demo, and for a checkpoint in a folder, only entries that were made from its files:
    other checkpoints may have the same name.
    """
    title, identity = name_of(name), _identity_of(name)
    return [
        entry
        for entry in entries()
        if precision in (None, entry.precision)
        and (entry.folder.name == title or _is_of(entry, title, identity))
    ]


def _is_of(entry: Entry, title: str, identity: str | None) -> bool:
    stated = stated_in(entry.folder / MANIFEST)
    if stated is None:  # stopped early, or damaged: its folder's name is all that is known of it
        return entry.name == readable(title)
    if identity is None:
        return entry.title == title
    # The same files under two names that are alike in a folder's name share one conversion, which
    # has the title of the first.
    return entry.name == readable(title) and identity == stated[1]


def _identity_of(name: str) -> str | None:
    """The identity of the demo, or of a checkpoint in a folder, by its present files; None for
    others."""
    try:
        if name != DEMO and not Path(name).expanduser().is_dir():
            return None
        files = find(name)
        return identity_of(files, read_config(files))
    except (KikuError, OSError, RuntimeError):  # no checkpoint, or no home folder of that name
        return None


def remove(entry: Entry) -> None:
    """Take a folder out of the cache.

    Raises:
        CheckpointError: it is being made, or cannot be removed.
    """

    def refuse() -> None:
        raise CheckpointError(f"{entry.folder} is being made by another process; try later")

    try:
        with locked(lock_of(entry.folder.with_name(entry.folder.name.removesuffix(PART))), refuse):
            put_away(entry.folder)
    except OSError as e:
        raise CheckpointError(f"{entry.folder} cannot be removed: {e.strerror or e}") from e


def put_away(folder: Path) -> None:
    """Remove a folder, if it exists; half of it is never seen under its name. Of a link to a folder
    only the link is removed.
    """
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        # Not the number of the process, which may be used again (in a container it is always 1):
        # what a killed process left would be in the way.
        folder.replace(folder.with_name(f"{folder.name}{_GONE}-{secrets.token_hex(4)}"))
    for left in folder.parent.glob(f"{glob.escape(folder.name)}{_GONE}-*"):
        if left.is_symlink():
            left.unlink(missing_ok=True)
        else:
            shutil.rmtree(left, ignore_errors=True)


def lock_of(folder: Path) -> Path:
    """The file that a writer of `folder` locks; each folder has its own. It is never removed: a
    process that waits for a file must not see it replaced.

    It lies in `locks` next to the cache or, for a folder elsewhere, hidden next to that folder. So
    it is found from the folder alone: processes that share a volume may have different caches, and
    see the volume under different paths.
    """
    place = folder.parent.resolve()
    try:
        cache = cache_folder()
        if place == cache.resolve():
            return cache.with_name("locks") / f"{folder.name}.lock"
    except NoCache:
        pass
    return place / f".{folder.name}.kiku.lock"


def name_of(source: str | Path) -> str:
    """The public name of a checkpoint: for a folder the last part of its path, for others the name
    as given.
    """
    if str(source) == DEMO:
        return DEMO
    try:
        path = Path(source).expanduser()
        return path.resolve().name if path.is_dir() else str(source)
    except (OSError, RuntimeError):  # no home folder of that name, or no access
        return str(source)


def readable(name: str) -> str:
    """A name in characters that are safe in a file name."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip(".-")[:60] or "model"


def place_of(name: str, precision: str, identity: str, format: int) -> Path:
    """The folder of the cache for a checkpoint in one precision and format."""
    digest = digest_of([identity, precision, format])[:12]
    return cache_folder() / f"{readable(name)}-{precision}-{digest}"


def _size_of(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    except OSError:  # it is being removed meanwhile
        return 0
