"""The folder of a batch's results: what is finished, and rows written in parts.

    part-00000-5f3a91c2.jsonl    rows, or .parquet
    captions/calls/a.mp3.srt     captions, if they are asked for
    options/5c0d7c41a9e2.json    the settings and options of rows with this digest

A part is written under another name and then renamed, so that it is whole or does not exist. Only
the rows themselves say which recordings are finished. If a recording was transcribed again, its
rows in the later part count; the old ones are removed only after these are written, so that there
are rows at all times. A row has the name of its captions, so that those of another recording do not
replace them. Only the process that started the batch writes.
"""

import contextlib
import io
import json
import os
import re
import secrets
import threading
import unicodedata
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from kiku.errors import KikuError, OutputError
from kiku.fleet import parquet
from kiku.fleet.places import file_system_of, is_local_place, join, make_place, remove_place, rename
from kiku.fleet.rows import Key, ResultRow, captions_of, key_in, plain
from kiku.fleet.settings import BatchRequest

ROW_FORMATS = ("jsonl", "parquet")
CAPTIONS = ("srt", "vtt", "txt", "tsv")

_PART = re.compile(r"part-(\d+)-[0-9a-f]{8}\.(jsonl|parquet)$")
MOST_ROWS = 1_000
"""Rows in one part at most."""
EVERY_S = 30.0
"""Seconds that rows wait at most before a part is written."""


class RowStore:
    """The results of one batch.

    If it writes, a folder on this machine is locked until the store is closed or its context ends.
    """

    def __init__(
        self, folder: str, formats: Sequence[str] = ("jsonl",), *, writing: bool = True
    ) -> None:
        """Make the folder, unless it exists.

        Args:
            folder: wherever fsspec can write.
            formats: "jsonl" or "parquet" for the rows, and captions as well: "srt", "vtt", ...
            writing: False only reads: nothing is made or locked. A file in the folder's place is
                refused all the same.

        Raises:
            InputError: the kind of place is unknown, or a package for it is not installed.
            OutputError: it cannot be made, or another run writes into it.
            MissingExtra: a package for this format is not installed.
        """
        kinds = [name for name in formats if name in ROW_FORMATS]
        self._kind = kinds[0] if kinds else "jsonl"
        self._captions = [name for name in formats if name in CAPTIONS]
        if self._kind == "parquet":
            parquet.need()
        self._folder, self._is_local = folder, is_local_place(folder)
        with self._translate_errors("reached"):
            self._files, self._folder = file_system_of(folder)
        self._lock: FileLock | None = None
        self._closed = threading.Event()
        self._clock: threading.Thread | None = None
        self._ignores_case = False
        self._writing = writing
        if writing:
            with self._translate_errors("made"):
                make_place(self._files, self._folder)
            if self._is_local:
                self._hold(folder)
        elif self._is_local and os.path.exists(self._folder) and not os.path.isdir(self._folder):
            raise OutputError(f"{folder} is a file: name another folder")
        try:
            self._number = 1 + max((_number_of(one) for one in self._parts()), default=-1)
        except KikuError:
            self.close()
            raise
        self._rows: list[ResultRow] = []
        self._part_of: dict[Key, str] = {}
        """The last part that has rows of a recording."""
        self._old = defaultdict[str, set[Key]](set)
        """By part: recordings that have rows in a later part."""
        self._broken: set[str] = set()
        """Recordings (paths) that failed at some time: they may have captions of a part of them."""
        self._captions_of: dict[str, Key] = {}
        """By name of captions: the recording they belong to, the last that was transcribed."""
        self._busy = threading.RLock()
        """Is held while rows or parts change: the clock's thread writes parts, too."""
        self._is_late = False
        """Whether the clock's thread could not write."""

    def _hold(self, folder: str) -> None:
        lock = FileLock(join(self._folder, ".lock"), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise OutputError(
                f"another run writes to {folder}: wait for it, or name another folder"
            ) from None
        except OSError as error:
            raise OutputError(f"the folder {folder} is not writable ({error})") from error
        self._lock = lock
        self._ignores_case = os.path.exists(join(self._folder, ".LOCK"))

    @property
    def has_captions(self) -> bool:
        """Whether captions are written as well as rows."""
        return bool(self._captions)

    def owner_of(self, name: str) -> Key | None:
        """The recording of an earlier run whose captions have this name, as `finished` found it."""
        return self._captions_of.get(self.normalised_name(name))

    def normalised_name(self, name: str) -> str:
        """A name of captions in the form for comparisons: equal for names of the same file here."""
        name = plain(name)
        return unicodedata.normalize("NFC", name).casefold() if self._ignores_case else name

    # Reading results.

    def finished(self, request: BatchRequest) -> dict[Key, bool]:
        """Recordings transcribed with this request, and whether each was transcribed whole.

        If a recording has rows in several parts, its last rows count: a run that transcribed it
        again was killed before it could remove the old rows.
        """
        model, digest = plain(request.settings.model), request.digest
        found: dict[Key, bool] = {}
        self._part_of.clear()
        self._old.clear()
        self._captions_of.clear()
        for part in self._parts():
            here: dict[Key, bool] = {}
            for row in self._heads(part):
                key = key_in(row)
                here[key] = here.get(key, True) and row["problem"] is None
                if row["problem"] is not None:
                    self._broken.add(key.path)
                if row.get("captions") is not None:
                    self._captions_of[self.normalised_name(row["captions"])] = key
            self._count(part, here)
            for key, whole in here.items():
                if (key.model, key.options) == (model, digest):
                    found[key] = whole
        return found

    def _count(self, part: str, keys: Iterable[Key]) -> None:
        """Note that the rows of these recordings in `part` count, not those in parts before it."""
        for key in keys:
            before = self._part_of.get(key, part)
            if before != part:
                self._old[before].add(key)
            self._part_of[key] = part

    def rows(self) -> Iterator[ResultRow]:
        """All rows, in the order of the parts."""
        for part in self._parts():
            yield from self._read(part)

    def _parts(self) -> list[str]:
        with self._translate_errors("listed"):
            self._files.invalidate_cache()
            if not self._files.exists(self._folder):
                return []
            names = [str(name) for name in self._files.ls(self._folder, detail=False)]
        return sorted(filter(_PART.search, names), key=lambda name: (_number_of(name), name))

    def _heads(self, part: str) -> Iterator[ResultRow]:
        """The rows of a part, at least the columns that identify their recordings."""
        if part.endswith(".parquet"):
            with self._translate_errors("read", part), self._files.open(part, "rb") as file:
                yield from parquet.read_parquet(file, [*Key._fields, "problem", "captions"])
        else:
            yield from self._read(part)

    def _read(self, part: str) -> Iterator[ResultRow]:
        if part.endswith(".parquet"):
            with self._translate_errors("read", part), self._files.open(part, "rb") as file:
                yield from parquet.read_parquet(file)
            return
        with self._translate_errors("read", part), self._files.open(part, "rb") as file:
            for number, line in enumerate(file, 1):
                yield _row_in(line, f"{part}, line {number}")

    # Writing results.

    def begin(self, request: BatchRequest) -> None:
        """Write the settings and options with which the following rows are transcribed.

        Raises:
            OutputError: it cannot be written.
        """
        text = json.dumps(request.identity, indent=2, ensure_ascii=False) + "\n"
        self._write(join(self._folder, "options", f"{request.digest}.json"), _bytes_of(text))

    def add(self, name: str, rows: Sequence[ResultRow], *, each: bool = False) -> None:
        """Add the rows of one recording; its captions are written before its rows.

        Args:
            name: name of its captions.
            rows: rows of all its channels.
            each: whether its channels were transcribed separately.

        Raises:
            OutputError: something cannot be written; what was written before is still there.
        """
        for ending in self._captions:
            self._add_captions(name, rows, ending, each=each)
        has_some = rows[0]["problem"] is None or any(row["words"] for row in rows)
        called = name if self._captions and has_some else None
        with self._busy:
            self._rows += [{**row, "captions": called} for row in rows]
            if self._is_late or len(self._rows) >= MOST_ROWS:
                self.flush()
        if self._clock is None:
            self._clock = threading.Thread(target=self._keep_time, name="kiku-rows", daemon=True)
            self._clock.start()

    def _keep_time(self) -> None:
        """Write the rows that wait, however long the next recording takes."""
        while not self._closed.wait(EVERY_S):
            try:
                self.flush()
            except Exception:  # the rows stay; the next recording tries again, and raises
                self._is_late = True

    def _add_captions(
        self, name: str, rows: Sequence[ResultRow], ending: str, *, each: bool
    ) -> None:
        name = name if self._is_local else plain(name)  # names in stores are UTF-8
        path = join(self._folder, "captions", name)
        is_whole, has_words = rows[0]["problem"] is None, any(row["words"] for row in rows)
        text = captions_of(rows, ending, each=each)
        if is_whole:
            self._write(f"{path}.{ending}", _bytes_of(text))
        elif has_words:
            self._write(f"{path}.partial.{ending}", _bytes_of(text))
        if plain(rows[0]["path"]) in self._broken and (is_whole or not has_words):
            # Partial captions of the earlier attempt belong to no row.
            with self._translate_errors("removed", path), contextlib.suppress(FileNotFoundError):
                remove_place(self._files, f"{path}.partial.{ending}")

    def flush(self) -> None:
        """Write the rows that wait as a part.

        Raises:
            OutputError: it cannot be written.
        """
        with self._busy:
            if not self._rows:
                return
            name = f"part-{self._number:05}-{secrets.token_hex(4)}.{self._kind}"
            part = join(self._folder, name)
            self._write_part(part, self._rows)
            # A run transcribes a recording once: those without earlier rows need no note.
            self._count(part, filter(self._part_of.__contains__, map(key_in, self._rows)))
            self._number += 1
            self._rows, self._is_late = [], False

    def _take_out_old(self) -> None:
        """Remove rows of recordings that have newer rows."""
        while self._old:
            part, keys = self._old.popitem()
            self._write_part(part, [row for row in self._read(part) if key_in(row) not in keys])

    def _write_part(self, path: str, rows: Sequence[ResultRow]) -> None:
        if not rows:
            with self._translate_errors("removed", path):
                remove_place(self._files, path)
            return
        if path.endswith(".parquet"):
            buffer = io.BytesIO()
            with self._translate_errors("written", path):
                parquet.write_parquet(buffer, rows)
            self._write(path, buffer.getvalue())
        else:
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            self._write(path, _bytes_of("".join(lines)))

    def _write(self, path: str, data: bytes) -> None:
        """Write a file whole or not at all: a reader sees the old file or the new one."""
        folder, _, name = path.rpartition("/")
        beside = join(folder, f".{name}.{secrets.token_hex(4)}.partial")
        with self._translate_errors("written", path):
            make_place(self._files, folder)
            try:
                self._files.pipe_file(beside, data)
                rename(self._files, beside, path)
            except BaseException:
                with contextlib.suppress(Exception):
                    remove_place(self._files, beside)
                raise

    @contextlib.contextmanager
    def _translate_errors(self, what: str, path: str | None = None) -> Generator[None]:
        """In the block, errors of a file system become kiku's OutputError."""
        try:
            yield
        except KikuError:
            raise
        except Exception as error:  # packages of stores often raise other errors than OSError
            raise OutputError(
                f"{path or self._folder} cannot be {what} ({error}): check the place and its "
                "permissions, and run the same command again; what is finished is kept"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop_clock()
        try:
            if self._writing:
                self.flush()
                self._take_out_old()
        finally:
            self.close()

    def _stop_clock(self) -> None:
        self._closed.set()
        if self._clock is not None:
            self._clock.join()

    def close(self) -> None:
        """Unlock the folder, so that another run may write into it."""
        self._stop_clock()
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()


def _number_of(part: str) -> int:
    found = _PART.search(part)
    return int(found[1]) if found else 0


def _bytes_of(text: str) -> bytes:
    # A name that is not UTF-8 survives: JSON reads the escaped characters back.
    return text.encode("utf-8", "backslashreplace")


def _row_in(line: bytes, where: str) -> ResultRow:
    try:
        row = json.loads(line)
        missing = {*Key._fields, "problem", "duration", "words"} - set(row)
        if missing:
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
    except (ValueError, TypeError, RecursionError) as error:
        raise OutputError(
            f"{where} is damaged ({error}): remove that line or the file; what was in it is then "
            "transcribed again"
        ) from error
    return row
