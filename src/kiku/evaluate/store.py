"""Results, kept as they come: a line for each utterance, so that a run that was stopped goes on
where it was.

The first line has the settings of the run; results of other settings are not mixed with these.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO, cast

from filelock import FileLock, Timeout

from kiku.errors import ConfigError, KikuError, OutputError
from kiku.evaluate.hearing import HeardUtterance
from kiku.serial import from_plain, to_plain
from kiku.writing import reason_of

NAME = "results.jsonl"
"""Name of the file of results in its folder."""


class ResultStore:
    """Results by utterance, in a folder or in memory. Until it is closed, or left as a context
    manager, no other run can write into the folder."""

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        """Read the results that the folder holds already.

        Args:
            folder: None keeps everything in memory.
            settings: how utterances are run through the model, in plain values.

        Raises:
            ConfigError: the results in the folder are of other settings.
            OutputError: the file is damaged, or cannot be read or written.
        """
        self.settings = dict(settings)
        self.heard: dict[str, HeardUtterance] = {}
        self._file: TextIO | None = None
        self._lock: FileLock | None = None
        if folder is None:
            return
        self._path = folder / NAME
        try:
            self._open(folder)
        except OSError as error:
            self.close()
            raise OutputError(
                f"{self._path} cannot be written ({reason_of(error)}): check the folder, its "
                "permissions and the disk"
            ) from error
        except KikuError:
            self.close()
            raise

    def _open(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / ".lock", timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            self._lock = None
            raise OutputError(
                f"another run writes to {folder}: wait for it, or name another folder"
            ) from None
        whole = 0
        if self._path.exists():
            settings, self.heard, whole = _read(self._path)
            if settings is not None:
                _check_same(settings, self.settings, folder)
        self._file = self._path.open("a", encoding="utf-8", newline="\n")
        self._file.truncate(whole)
        if not whole:
            self._write({"settings": self.settings})

    def add(self, heard: HeardUtterance) -> None:
        """Keep a result.

        Raises:
            OutputError: it cannot be written; earlier results are still there.
        """
        self.heard[heard.id] = heard
        if self._file is not None:
            try:
                self._write(to_plain(heard))
            except OSError as error:
                raise OutputError(
                    f"{self._path} cannot be written any further ({reason_of(error)}): make room "
                    "and run the same command again; what is in it is kept"
                ) from error

    def _write(self, values: Mapping[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(values, ensure_ascii=False) + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, and let another run write into the folder."""
        if self._file is not None:
            with suppress(OSError):  # what it did not take has been reported
                self._file.close()
        if self._lock is not None:
            self._lock.release()
        self._file = self._lock = None


def forget(folder: str | Path) -> None:
    """Delete the results in a folder: the next evaluation there runs every utterance.

    Raises:
        OutputError: the file cannot be removed.
    """
    path = Path(folder) / NAME
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be removed ({reason_of(error)})") from error


def read_results(folder: Path) -> tuple[dict[str, Any], dict[str, HeardUtterance]]:
    """Read the settings of an earlier run, and its results by utterance.

    Raises:
        OutputError: there are no results, or they are damaged.
    """
    path = folder / NAME
    try:
        settings, heard, _ = _read(path)
    except OSError as error:
        raise OutputError(
            f"{folder} contains no results ({NAME}: {reason_of(error)}): name the folder that an "
            "evaluation was written to"
        ) from error
    if settings is None:
        raise OutputError(f"{path} is empty: run that evaluation again")
    return settings, heard


def _read(path: Path) -> tuple[dict[str, Any] | None, dict[str, HeardUtterance], int]:
    """Settings, results by id, and how many bytes are whole lines: a run that was killed may have
    left a part of a line."""
    data = path.read_bytes()
    lines = data.split(b"\n")
    torn = lines.pop()
    heard: dict[str, HeardUtterance] = {}
    settings: dict[str, Any] | None = None
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
            if number == 1:
                settings = _settings_of(values)
                continue
            one = from_plain(HeardUtterance, values, what="the result", error=OutputError)
        except (ValueError, RecursionError, OutputError) as error:
            raise OutputError(
                f"{path} is damaged in line {number} ({error}): remove that line, or start again "
                "with --fresh (`forget`)"
            ) from error
        heard[one.id] = one
    return settings, heard, len(data) - len(torn)


def _settings_of(values: Any) -> dict[str, Any]:
    settings: Any = (
        cast("dict[str, Any]", values).get("settings") if isinstance(values, dict) else 0
    )
    if not isinstance(settings, dict):
        raise ValueError("the first line does not contain the settings")
    return cast("dict[str, Any]", settings)


def _check_same(there: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    there, wanted = json.loads(json.dumps(there)), json.loads(json.dumps(wanted))
    if other := "; ".join(_differences(there, wanted)):
        raise ConfigError(
            f"{os.fspath(folder)} contains results with other settings ({other}): name another "
            "folder, or start again with --fresh (`forget`)"
        )


def _differences(
    there: Mapping[str, Any], wanted: Mapping[str, Any], before: str = ""
) -> Iterator[str]:
    """The values that differ, at any depth: options.decoding.temperature 0.0, not 0.5."""
    for name in sorted({*there, *wanted}):
        old, new = there.get(name), wanted.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            old, new = cast("dict[str, Any]", old), cast("dict[str, Any]", new)
            yield from _differences(old, new, f"{before}{name}.")
        elif old != new:
            yield f"{before}{name} {old!r}, not {new!r}"
