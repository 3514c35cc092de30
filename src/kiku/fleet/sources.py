"""Sources that the caller names -> the recordings to transcribe, with their sizes.

No recording is opened.

Sources are files, folders (and all folders inside them), patterns, and manifests: files of JSON
lines with the path of a recording in each.
"""

import codecs
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Protocol, cast

from kiku.audio import ENDINGS
from kiku.errors import InputError, KikuError
from kiku.fleet.places import MARKS, file_system_of, is_local_place, place_name
from kiku.manifest_rows import SECONDS, BadRow, path_in, row_of, seconds_in, shown

_MANIFESTS = (".jsonl", ".ndjson")
_LISTS = (".csv", ".tsv", ".txt", ".json")
"""Files that may be lists of recordings, but no manifests."""
_LOOKED_AT = 4_096
"""Bytes at the beginning of such a file by which text is told from sound."""
_ASKED_AT_ONCE = 32
"""Sizes asked for at once: a store answers in about ten milliseconds, and there may be 100,000
recordings."""
_MOST = 1 << 63
"""Bytes; a size must be below this to fit into rows in Parquet."""


@dataclass(frozen=True, slots=True)
class Item:
    """One recording."""

    path: str
    """An absolute path, or an address: "s3://calls/2026/a.mp3"."""
    size: int | None
    """Bytes; None if the recording does not exist."""
    seconds: float | None = None
    """Length, if a manifest states it."""
    name: str = ""
    """Path relative to the folder that was named; its captions are named after it."""


class Rows(Protocol):
    """A collection of rows, such as a Ray Dataset."""

    def iter_rows(self) -> Iterable[Mapping[str, Any]]:
        """Rows like those of a manifest."""
        ...


Source = str | os.PathLike[str] | Mapping[str, Any]
Sources = Source | Iterable[Source] | Rows
"""A file, folder, pattern or manifest, or a row of a manifest; several of these; or a Ray Dataset
of rows of a manifest."""


def find_items(sources: Sources) -> list[Item]:
    """The recordings, each once, in the order in which they were named; those of a folder by name.

    Raises:
        InputError: a source leads to no recording, a manifest cannot be read, or a package that
            fsspec needs for a kind of place is not installed.
        MissingExtra: fsspec is not installed.
    """
    found: dict[str, Item] = {}
    rows: list[Item] = []
    for number, source in enumerate(_given(sources), 1):
        if isinstance(source, Mapping):
            try:
                rows.append(_of_row(_plain(cast("Mapping[str, Any]", source)), ""))
            except BadRow as error:
                raise InputError(f"row {number}: {error}") from error
            continue
        for item in _sized(rows):
            found.setdefault(item.path, item)
        rows = []
        for item in _lead_to(_path_of(source)):
            found.setdefault(item.path, item)
    for item in _sized(rows):
        found.setdefault(item.path, item)
    if not found:
        raise InputError("no recordings were named")
    return list(found.values())


def _given(sources: Sources) -> Iterable[Any]:
    """The sources one after the other."""
    given: Any = sources
    if isinstance(given, str | os.PathLike | Mapping):
        return [given]
    if callable(rows := getattr(given, "iter_rows", None)):
        return cast("Iterable[Any]", rows())
    # Iterating over a table (it has columns) gives names of columns; over bytes, numbers.
    is_table = hasattr(given, "columns") or isinstance(given, bytes | bytearray)
    if is_table or not isinstance(given, Iterable):
        raise InputError(
            f"sources must be paths, rows with a path, or a list of these, not {_kind(given)}; "
            'for a pandas frame give frame.to_dict("records")'
        )
    return cast("Iterable[Any]", given)


def _path_of(source: Any) -> str:
    path = _text_of(source)
    if not isinstance(path, str):
        raise InputError(f"a source must be a path or a row with a path, not {_kind(source)}")
    return path


def _text_of(value: Any) -> Any:
    return cast("Any", os.fspath(value)) if hasattr(value, "__fspath__") else value


def _kind(value: Any) -> str:
    return f"{type(value).__name__} ({' '.join(shown(value).split())})"


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row from a program, in the form of a manifest's row.

    Gaps, which tables fill with NaN, are left out; numbers and paths of other libraries become
    plain ones.
    """
    plain: dict[str, Any] = {}
    for name, value in row.items():
        value = _text_of(value)
        if getattr(value, "shape", None) == ():  # one of numpy's
            value = value.item()
        if not (isinstance(value, float) and math.isnan(value)):
            plain[name] = value
    return plain


def _lead_to(source: str) -> Iterable[Item]:
    """The recordings that one source leads to."""
    try:
        files, path = file_system_of(source)
        if _has_marks(path) and not files.exists(path):
            folder, pattern = _parted(files, path)
            return _listed(files, files.glob(pattern, detail=True), folder, source)
        if files.isdir(path):
            return _listed(files, files.find(path, detail=True), path, source)
        if not files.exists(path):
            raise InputError(f"{source}: no such file or folder; check the name")
        if path.lower().endswith(_MANIFESTS):
            return _sized(list(_in_manifest(files, path, source)))
        if path.lower().endswith(_LISTS):
            _refuse_text(files, path, source)
        size = int(files.info(path)["size"])
        return [Item(place_name(files, path), size, name=PurePosixPath(path).name)]
    except KikuError:
        raise
    except Exception as error:  # packages of stores often raise other errors than OSError
        raise InputError(f"{source}: cannot be read ({error})") from error


def _has_marks(text: str) -> bool:
    return any(mark in text for mark in MARKS)


def _parted(files: Any, path: str) -> tuple[str, str]:
    """The leading folder of a pattern, and the pattern.

    A folder that exists is taken literally, even if its name has marks of patterns, as in
    "calls [2026]/*.wav".
    """
    parts = path.split("/")
    for count, part in enumerate(parts):
        if _has_marks(part) and not files.exists("/".join(parts[: count + 1])):
            folder, rest = "/".join(parts[:count]), "/".join(parts[count:])
            named = "".join(f"[{one}]" if one in MARKS else one for one in folder)
            return folder, f"{named}/{rest}" if count else rest
    return path, path  # it was created just now


def _listed(
    files: Any, listing: Mapping[str, Mapping[str, Any]], folder: str, source: str
) -> list[Item]:
    items = [
        Item(place_name(files, path), int(info["size"]), name=_below(path, folder))
        for path, info in sorted(listing.items())
        if _is_recording(path) and _is_file(files, path, info)
    ]
    if not items:
        raise InputError(f"{source}: no audio or video files in it")
    return items


def _is_recording(path: str) -> bool:
    name = PurePosixPath(path)
    # Names that begin with a dot are files that systems leave behind, such as "._talk.mp3".
    return name.suffix.lower() in ENDINGS and not name.name.startswith(".")


def _is_file(files: Any, path: str, info: Mapping[str, Any]) -> bool:
    """Whether it is a file, or a link to one.

    Links to folders are not followed: they may form a cycle.
    """
    kind = info.get("type")
    return kind == "file" or (kind != "directory" and bool(files.isfile(path)))


def _below(path: str, folder: str) -> str:
    return path.removeprefix(folder).lstrip("/")


def _refuse_text(files: Any, path: str, source: str) -> None:
    """Raise InputError if the file is text: it would be one recording, of which nothing is read."""
    with files.open(path, "rb") as file:
        first = cast("bytes", file.read(_LOOKED_AT))
    try:  # the last character may be cut
        text = codecs.getincrementaldecoder("utf-8")().decode(first)
    except UnicodeDecodeError:
        return
    if text and all(one.isprintable() or one in "\t\r\n\ufeff" for one in text):
        raise InputError(
            f'{source} is text, not sound: a list of recordings has a line {{"path": "a.wav"}} for '
            "each, and is called *.jsonl"
        )


def _in_manifest(files: Any, path: str, source: str) -> Iterator[Item]:
    folder = place_name(files, str(PurePosixPath(path).parent))
    with files.open(path, "rb") as file:
        for number, line in enumerate(cast("Iterable[bytes]", file), 1):
            if not line.strip():
                continue
            where = f"{source}, line {number}"
            try:
                yield _of_row(row_of(line), folder)
            except BadRow as error:
                raise InputError(f"{where}: {error}") from error


def _of_row(row: Mapping[str, Any], folder: str) -> Item:
    """The recording of a manifest's row; raises BadRow."""
    path = path_in(row)
    _refuse_part(row, path)
    name = PurePosixPath(path).name
    if is_local_place(path) and not os.path.isabs(path.removeprefix("file://")):
        name = os.path.normpath(path)
        path = f"{folder.rstrip('/')}/{name}" if folder else os.path.abspath(path)
    if name.startswith(".."):
        name = PurePosixPath(name).name
    size = _size_in(row)
    return Item(path.removeprefix("file://"), size, seconds_in(row, *SECONDS), name)


def _size_in(row: Mapping[str, Any]) -> int | None:
    """The size that a row states, in bytes; raises BadRow."""
    size = row.get("size")
    if size is None:
        return None
    # In a table with gaps whole numbers are floats.
    is_whole = isinstance(size, int) or (isinstance(size, float) and size.is_integer())
    if not is_whole or isinstance(size, bool) or not 0 <= size < _MOST:
        raise BadRow(f'"size" must be a number of bytes, at least 0, not {shown(size)}')
    return int(size)


def _refuse_part(row: Mapping[str, Any], path: str) -> None:
    """Raise BadRow for a row of a part of a recording: result rows are of whole recordings."""
    start_s, end_s = seconds_in(row, "start") or 0.0, seconds_in(row, "end")
    if start_s or end_s is not None:
        until = "its end" if end_s is None else f"{end_s} s"
        raise BadRow(
            f"means a part of {path} (from {start_s} s to {until}), but here recordings are only "
            "transcribed whole: cut it into a file of its own, or leave start and end out to "
            "have all of it"
        )


def _sized(items: Sequence[Item]) -> list[Item]:
    """The recordings with their sizes; the store is asked for those that are missing."""
    asked = [item for item in items if item.size is None]
    if not asked:
        return list(items)
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        sizes = dict(zip((item.path for item in asked), pool.map(_size_of, asked), strict=True))
    return [replace(one, size=one.size or sizes.get(one.path)) for one in items]


def _size_of(item: Item) -> int | None:
    """The size in bytes; None if the recording does not exist: transcribing it then says why."""
    try:
        files, path = file_system_of(item.path)
        return int(files.info(path)["size"])
    except KikuError:
        raise
    except Exception:
        return None
