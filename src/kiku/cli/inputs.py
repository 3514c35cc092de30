"""Paths on the command line -> the recordings to transcribe, in order."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from kiku.audio import ENDINGS, num_channels
from kiku.cli.raw import RawFormat
from kiku.errors import AudioError

STDIN = "-"

_USUAL_CHANNELS = 2


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording to transcribe."""

    source: str
    """A path, or "-" for standard input."""
    folder: str = ""
    """Its folder relative to the one that was named: results go into a folder of the same name."""

    @property
    def label(self) -> str:
        """Its name in messages."""
        return "standard input" if self.source == STDIN else self.source

    @property
    def stem(self) -> str:
        """The name of its outputs, without an ending: "talk" for "talk.mp3"."""
        return "stdin" if self.source == STDIN else Path(self.source).stem

    @property
    def name(self) -> str:
        """The name of the file, with its ending."""
        return "stdin" if self.source == STDIN else Path(self.source).name

    def num_channels(self, raw: RawFormat | None = None, track: int | None = None) -> int:
        """How many channels it is expected to have; two if the file does not state it."""
        if raw is not None:
            return raw.num_channels
        count = None if self.source == STDIN else num_channels(self.source, track)
        return count or _USUAL_CHANNELS


def find_recordings(
    paths: Iterable[str], *, recursive: bool = False
) -> list[Recording | AudioError]:
    """Recordings, each once, in the order in which they were named; those of a folder by name.

    Args:
        paths: files, folders (whose own audio and video files are taken), patterns such as
            "*.mp3" that no shell has replaced, or "-" for standard input.
        recursive: take those of folders inside folders, too.

    Returns:
        The recordings, and in place of a path that leads to none an error that says why. Files are
        not opened.
    """
    found: dict[str, Recording | AudioError] = {}
    for path in paths:
        try:
            for one in _lead_to(path, recursive):
                found.setdefault(_key(one), one)
        except AudioError as error:
            found.setdefault(path, error)
    return list(found.values())


_Found: TypeAlias = Recording | AudioError


def _key(one: _Found) -> str:
    """A key that two names of one file share."""
    if not isinstance(one, Recording):
        return str(one)
    return one.source if one.source == STDIN else os.path.realpath(one.source)


def _lead_to(path: str, recursive: bool) -> list[_Found]:
    """The recordings that one path leads to."""
    if path == STDIN:
        if sys.stdin is not None and sys.stdin.isatty():
            raise AudioError("standard input is a terminal; redirect a recording to it with < or |")
        return [Recording(path)]
    if path.startswith(("http://", "https://")):
        raise AudioError(f"{path}: kiku does not read from addresses; download it first")
    if "://" in path and not os.path.lexists(path):
        raise AudioError(
            f"{path}: kiku reads from object stores only with --ray; add --ray, or download it "
            "first"
        )
    if glob.has_magic(path) and not os.path.lexists(path):
        return _matching(path, recursive)
    place = Path(path)
    try:
        if place.is_dir():
            return _in_folder(place, recursive)
        # A link that leads nowhere counts as missing.
        place.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise AudioError(f"{path}: no such file or folder; check the name") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return [Recording(path)]


def _unreadable(path: str | Path, error: OSError | ValueError) -> AudioError:
    reason = getattr(error, "strerror", None) or str(error)
    return AudioError(f"{path}: cannot be opened ({reason.lower()})")


def _matching(pattern: str, recursive: bool) -> list[_Found]:
    """The recordings that match a pattern, as in a shell; "**" stands for any folders between."""
    names = sorted(glob.glob(pattern, recursive=True))
    if not names:
        raise AudioError(f"{pattern}: no file matches this pattern; check the pattern")
    # A pattern for everything finds folders, too, and not all of them have recordings.
    files: list[_Found] = [Recording(name) for name in names if not Path(name).is_dir()]
    return files or [one for name in names for one in _lead_to(name, recursive)]


def _in_folder(folder: Path, recursive: bool) -> list[_Found]:
    """The recordings in a folder, by name."""
    found = list(_walk(folder, recursive))
    if not found:
        more = "" if recursive else ", or add -r to include the folders inside it"
        raise AudioError(
            f"{folder}: no audio or video files in this folder; name the files themselves{more}"
        )
    return found


def _walk(folder: Path, recursive: bool, below: str = "") -> Iterator[_Found]:
    """The recordings of the folder itself, then those of the folders in it."""
    inner: list[Path] = []
    # Files whose names begin with a dot are left behind by systems, such as "._talk.mp3".
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        if path.suffix.lower() in ENDINGS and path.is_file():
            yield Recording(str(path), below)
        elif recursive and path.is_dir() and not path.is_symlink():  # links may lead in a circle
            inner.append(path)
    for path in inner:
        try:
            yield from _walk(path, recursive, os.path.join(below, path.name))
        except OSError as error:  # must not hide the others
            yield _unreadable(path, error)
