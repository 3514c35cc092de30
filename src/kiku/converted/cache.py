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
"""What a folder's name ends with while it is in the making."""

_GONE = ".gone"
_ENTRY = re.compile(r"(?P<name>.+)-(?P<precision>[a-z0-9]+)-[0-9a-f]{12}(?P<part>\.part)?")


@dataclass(frozen=True, slots=True)
class Entry:
    """A folder of the cache."""

    folder: Path
    name: str
    """Of the checkpoint, as far as a folder's name can hold it."""
    title: str
    """Of the checkpoint, as its manifest says it."""
    precision: str
    is_whole: bool
    """False: a conversion was stopped here, or is going on."""
    num_bytes: int


class NoCache(CheckpointError):
    """There is no folder in which this process may keep converted models."""


def cache_folder() -> Path:
    """Where converted models are kept; it need not exist. `KIKU_CACHE` moves it.

    Raises:
        NoCache: there is no home to keep it in, or `KIKU_CACHE` leads nowhere.
    """
    chosen = os.environ.get("KIKU_CACHE")
    try:
        if chosen:
            return Path(chosen).expanduser().absolute() / "onnx"
        return _caches().absolute() / "kiku" / "onnx"
    except (RuntimeError, OSError) as e:  # of ~; of a folder that was removed under a process
        if chosen:
            reason = str(e).rstrip(".")
            raise NoCache(
                f"KIKU_CACHE is {chosen}, which leads nowhere ({reason}); set KIKU_CACHE to a "
                "folder that can be found"
            ) from e
        raise NoCache(
            "there is no home folder to keep converted models in; set KIKU_CACHE to a folder"
        ) from e


def _caches() -> Path:
    """Where this system's programs keep what can be made again."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # Whoever specified it asks for one that is no absolute path to be ignored.
    return chosen if chosen.is_absolute() else Path.home() / ".cache"


def is_in_cache(folder: Path) -> bool:
    """Whether a folder is one of the cache's own."""
    try:
        return folder.parent == cache_folder()
    except NoCache:
        return False


@cache
def temporary_folder() -> Path:
    """A folder for models that goes with this process; for where there is no cache."""
    folder = Path(tempfile.mkdtemp(prefix="kiku-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def entries() -> list[Entry]:
    """What is in the cache, by name."""
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
    """Those of one checkpoint, named as for `convert`, or one by the name of its folder.

    Of the demo, and of a checkpoint in a folder, those that were made of its files: others may be
    called alike.
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
    # The same files by a name that looks alike have one conversion, with the first one's title.
    return entry.name == readable(title) and identity == stated[1]


def _identity_of(name: str) -> str | None:
    """Of the demo, or of a checkpoint in a folder, as it is now; None for others."""
    try:
        if name != DEMO and not Path(name).expanduser().is_dir():
            return None
        files = find(name)
        return identity_of(files, read_config(files))
    except (KikuError, OSError, RuntimeError):  # no checkpoint, or nobody is at home there
        return None


def remove(entry: Entry) -> None:
    """Take a folder out of the cache.

    Raises:
        CheckpointError: it is in the making, or cannot be removed.
    """

    def refuse() -> None:
        raise CheckpointError(f"{entry.folder} is in the making by another process; try later")

    try:
        with locked(lock_of(entry.folder.with_name(entry.folder.name.removesuffix(PART))), refuse):
            put_away(entry.folder)
    except OSError as e:
        raise CheckpointError(f"{entry.folder} cannot be removed: {e.strerror or e}") from e


def put_away(folder: Path) -> None:
    """Remove a folder, if it is there: nobody ever sees half of it under its name. Of a link to a
    folder the link alone is removed.
    """
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        # Not the number of the process, which may come again (in a container it is always 1): what
        # one left that was killed would be in the way.
        folder.replace(folder.with_name(f"{folder.name}{_GONE}-{secrets.token_hex(4)}"))
    for left in folder.parent.glob(f"{glob.escape(folder.name)}{_GONE}-*"):
        if left.is_symlink():
            left.unlink(missing_ok=True)
        else:
            shutil.rmtree(left, ignore_errors=True)


def lock_of(folder: Path) -> Path:
    """The file that is locked by whoever writes `folder`; it is another one for each folder. It
    stays where it is: whoever waits for a file must not see it replaced.

    It lies in `locks` beside the cache, or, of a folder elsewhere, hidden beside that folder. So it
    is found from the folder alone: who shares a volume may have caches apart, and the volume under
    other paths.
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
    """What to call a checkpoint in public: a folder by the last part of its path, others as they
    are named.
    """
    if str(source) == DEMO:
        return DEMO
    try:
        path = Path(source).expanduser()
        return path.resolve().name if path.is_dir() else str(source)
    except (OSError, RuntimeError):  # nobody is at home there, or it may not be looked into
        return str(source)


def readable(name: str) -> str:
    """A name as a part of a file name."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip(".-")[:60] or "model"


def place_of(name: str, precision: str, identity: str, format: int) -> Path:
    """The folder of the cache for a checkpoint in one precision and format."""
    digest = digest_of([identity, precision, format])[:12]
    return cache_folder() / f"{readable(name)}-{precision}-{digest}"


def _size_of(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    except OSError:  # somebody removes it meanwhile
        return 0
