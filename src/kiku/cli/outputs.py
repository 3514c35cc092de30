"""Files for results: their names, and writing them whole or not at all."""

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from kiku import writing
from kiku.cli.inputs import Recording
from kiku.errors import ConfigError, OutputError
from kiku.writing import is_device, reason_of


def make_folder(
    path: Path, *, wants: str = "a folder, or a new file that ends in a format such as .txt"
) -> None:
    """Create the folder for results, unless it is there.

    Args:
        path: of the folder.
        wants: what -o has to name, for the message if a file was named.

    Raises:
        OutputError: the folder cannot be made, or nothing may be written in it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise OutputError(f"{path} is a file; -o needs {wants}") from None
    except OSError as error:
        raise OutputError(f"the folder {path} cannot be made ({reason_of(error)})") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise OutputError(f"the folder {path} is not writable; choose another folder with -o")


STANDARD = "-"
"""What -o names where results are to go to standard output, as without it."""

PARTIAL = ".partial"
"""Put before the ending of a result that is not whole: talk.partial.srt."""


def file_format_of(path: Path, known: Collection[str]) -> str | None:
    """The format that a path names by its ending, if it is a file's: talk.srt. None for a folder,
    or a path that will be one."""
    ending = path.suffix.removeprefix(".").lower()
    return ending if ending in known and not os.path.isdir(path) else None


def partial_of(path: Path) -> Path:
    """The name of a result while it is not whole: talk.srt -> talk.partial.srt."""
    return path.with_name(f"{path.stem}{PARTIAL}{path.suffix}")


def name_outputs(
    recordings: Sequence[Recording], folder: Path, endings: Sequence[str]
) -> Mapping[Recording, dict[str, Path]]:
    """Where the results of each recording go, by format: talk.mp3 -> talk.txt.

    Recordings that would share a name keep their endings: talk.mp3.txt and talk.wav.txt. Those of
    folders inside a folder go into folders of the same names.

    Raises:
        ConfigError: two recordings have one and the same name.
    """
    stems = [(recording.folder, recording.stem.casefold()) for recording in recordings]
    named: dict[Recording, Path] = {}
    taken: dict[str, Recording] = {}
    for recording, stem in zip(recordings, stems, strict=True):
        # The result of "talk.partial.wav" must not look like a partial result of "talk.wav".
        alone = stems.count(stem) == 1 and not stem[1].endswith(PARTIAL)
        name = Path(recording.folder, recording.stem if alone else recording.name)
        other = taken.setdefault(str(name).casefold(), recording)
        if other is not recording:
            raise ConfigError(
                f"{other.label} and {recording.label} would both be written to "
                f"{folder / name}.{endings[0]}; use two runs and two folders"
            )
        named[recording] = name
    return {
        recording: {ending: folder / name.parent / f"{name.name}.{ending}" for ending in endings}
        for recording, name in named.items()
    }


def exists(path: Path) -> bool:
    """Whether a file, or a link, is there already. Devices and pipes do not count: results may be
    written to them."""
    return os.path.lexists(path) and not is_device(path)


def refuse_existing(paths: Mapping[str, Path]) -> None:
    """Check that no result would replace a file.

    Raises:
        OutputError: one would.
    """
    for path in paths.values():
        if exists(path):
            raise OutputError(f"{path} already exists; overwrite it with --force")


def refuse_no_file(path: Path) -> None:
    """Check that there is neither a folder nor a device where a file is to be.

    Raises:
        OutputError: there is one.
    """
    refuse_folder(path)
    if is_device(path):
        raise OutputError(f"{path} is not a file; name one")


def refuse_folder(path: Path) -> None:
    """Check that there is no folder where a file is to be written.

    Raises:
        OutputError: there is one.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file in it")


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same existing file."""
    with suppress(OSError):
        return os.path.samefile(one, other)
    return False


def write_result(path: Path, text: str) -> None:
    """Write `text` to `path` so that a reader sees either the old file or the whole new one. A link
    is replaced, not followed; the folder is made if need be.

    Raises:
        OutputError: it cannot be written; nothing is left behind.
    """
    try:
        if not is_device(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        writing.write_whole(path, text)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({reason_of(error)})") from error


def forget_partial(path: Path) -> None:
    """Remove the partial result next to a whole one."""
    with suppress(OSError):
        partial_of(path).unlink(missing_ok=True)
