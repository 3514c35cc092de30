"""Files for results: their names, and writing them whole or not at all."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from kiku.cli.inputs import Recording
from kiku.errors import ConfigError, OutputError


def make_folder(path: Path) -> None:
    """Create the folder for results, unless it is there.

    Raises:
        OutputError: that is impossible, or nothing may be written in it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise OutputError(f"{path} is a file; -o wants a folder") from None
    except OSError as error:
        raise OutputError(f"the folder {path} cannot be made ({_reason(error)})") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise OutputError(f"nothing may be written in {path}; choose another folder with -o")


def name_outputs(
    recordings: Sequence[Recording], folder: Path, endings: Sequence[str]
) -> Mapping[Recording, dict[str, Path]]:
    """Where the results of each recording go, by format: talk.mp3 -> talk.txt.

    Recordings that would share a name keep their endings: talk.mp3.txt and talk.wav.txt.

    Raises:
        ConfigError: two recordings have one and the same name.
    """
    stems = [recording.stem.casefold() for recording in recordings]
    named: dict[Recording, str] = {}
    taken: dict[str, Recording] = {}
    for recording, stem in zip(recordings, stems, strict=True):
        name = recording.stem if stems.count(stem) == 1 else recording.name
        other = taken.setdefault(name.casefold(), recording)
        if other is not recording:
            raise ConfigError(
                f"{other.label} and {recording.label} would both be written to "
                f"{folder / name}.{endings[0]}; use two runs and two folders"
            )
        named[recording] = name
    return {
        recording: {ending: folder / f"{name}.{ending}" for ending in endings}
        for recording, name in named.items()
    }


def refuse_existing(paths: Mapping[str, Path]) -> None:
    """Check that no result would replace a file.

    Raises:
        OutputError: one would.
    """
    for path in paths.values():
        if path.exists():
            raise OutputError(f"{path} exists already; --force overwrites it")


def write_whole(path: Path, text: str) -> None:
    """Write `text` to `path` so that whoever looks sees the old file or the whole new one.

    Raises:
        OutputError: it cannot be written; nothing is left behind.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8", newline="\n")
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be written ({_reason(error)})") from error


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
