"""Where converted models are kept, and under which names."""

import glob
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kiku.checkpoint.headers import read_header
from kiku.checkpoint.hub import DEMO, commit_of
from kiku.checkpoint.layout import Files
from kiku.checkpoint.lock import locked
from kiku.checkpoint.manifest import MANIFEST, digest_of, name_in, sha256_of
from kiku.config import ModelConfig
from kiku.errors import CheckpointError

PART = ".part"
"""What a folder's name ends with while it is in the making."""

_GONE = ".gone"
_ENTRY = re.compile(r"(?P<name>.+)-(?P<precision>[a-z0-9]+)-[0-9a-f]{12}(?P<part>\.part)?")

# Weights up to this size are read whole to tell them from others; of larger ones so many pieces.
_SMALL_FILE = 64 * 2**20
_NUM_PIECES, _PIECE_BYTES = 64, 16 * 1024


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


def cache_folder() -> Path:
    """Where converted models are kept; it need not exist. `KIKU_CACHE` moves it.

    Raises:
        CheckpointError: there is no home to keep it in.
    """
    if chosen := os.environ.get("KIKU_CACHE"):
        return Path(chosen).expanduser().absolute() / "onnx"
    try:
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as e:
        raise CheckpointError(
            "there is no home folder to keep converted models in; set KIKU_CACHE to a folder"
        ) from e
    return base / "kiku" / "onnx"


def entries() -> list[Entry]:
    """What is in the cache, by name."""
    try:
        folders = sorted(path for path in cache_folder().iterdir() if path.is_dir())
    except OSError:
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
    """Those of one checkpoint, named as for `convert`, or one by the name of its folder."""
    wanted = readable(name_of(name))
    return [
        entry
        for entry in entries()
        if wanted in (entry.name, entry.folder.name) and precision in (None, entry.precision)
    ]


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
    """Remove a folder, if it is there: nobody ever sees half of it under its name."""
    gone = folder.with_name(f"{folder.name}{_GONE}-{os.getpid()}")
    if folder.exists():
        folder.replace(gone)
    for left in (gone, *folder.parent.glob(f"{glob.escape(folder.name)}{_GONE}-*")):
        shutil.rmtree(left, ignore_errors=True)


def lock_of(folder: Path) -> Path:
    """The file that is locked by whoever writes `folder`."""
    return folder.with_name(folder.name + ".lock")


def name_of(source: str | Path) -> str:
    """What to call a checkpoint in public: a folder by the last part of its path, others as they
    are named.
    """
    if str(source) == DEMO:
        return DEMO
    path = Path(source).expanduser()
    return path.resolve().name if path.is_dir() else str(source)


def readable(name: str) -> str:
    """A name as a part of a file name."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip(".-")[:60] or "model"


def place_of(name: str, precision: str, identity: str, format: int) -> Path:
    """The folder of the cache for a checkpoint in one precision and format."""
    digest = digest_of([identity, precision, format])[:12]
    return cache_folder() / f"{readable(name)}-{precision}-{digest}"


def identity_of(files: Files, config: ModelConfig) -> str:
    """A digest that tells a checkpoint from any other, wherever it lies.

    Raises:
        CheckpointError: a file cannot be read.
    """
    try:
        described: dict[str, Any] = {
            "config": config.to_dict(),
            "vocabulary": files.vocabulary and sha256_of(files.vocabulary),
            "weights": [_weights(path) for path in files.weights],
        }
    except OSError as e:
        raise CheckpointError(f"{e.filename} cannot be read: {e.strerror or e}") from e
    return digest_of(described)


def _weights(path: Path) -> Mapping[str, Any]:
    """Small files by all that is in them. Big ones, which would take seconds, by their tensors'
    names and places, pieces of the numbers, and the time of the last change (or the commit).
    """
    size = path.stat().st_size
    if size <= _SMALL_FILE:
        return {"sha256": sha256_of(path)}
    header = {
        name: [stored.dtype, stored.shape, stored.start]
        for name, stored in read_header(path).items()
    }
    pieces: list[str] = []
    with path.open("rb") as file:
        for i in range(_NUM_PIECES):
            file.seek((size - _PIECE_BYTES) * i // (_NUM_PIECES - 1))
            pieces.append(file.read(_PIECE_BYTES).hex())
    when = commit_of(path) or path.stat().st_mtime_ns
    return {"header": header, "size": size, "pieces": digest_of(pieces), "when": when}


def _size_of(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    except OSError:  # somebody removes it meanwhile
        return 0
