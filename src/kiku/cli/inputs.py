"""What was named on the command line -> the recordings to transcribe, in order."""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kiku.audio import num_channels
from kiku.errors import AudioError

STDIN = "-"

_USUAL_CHANNELS = 2

_SUFFIXES = (
    ".3gp .aac .ac3 .aif .aiff .amr .ape .au .avi .caf .dts .flac .flv .m2ts .m4a .m4b .m4v .mka "
    ".mkv .mov .mp2 .mp3 .mp4 .mpeg .mpg .mpga .mts .mxf .oga .ogg .ogv .opus .ra .spx .tta .ts "
    ".vob .voc .w64 .wav .webm .wma .wmv .wv"
)
SUFFIXES = frozenset(_SUFFIXES.split())
"""Endings by which recordings are found in a folder. A file that is named may have any."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording to transcribe."""

    source: str
    """A path, or "-" for standard input."""

    @property
    def label(self) -> str:
        """What it is called when people are told about it."""
        return "standard input" if self.source == STDIN else self.source

    @property
    def stem(self) -> str:
        """The name of its outputs, without an ending: "talk" for "talk.mp3"."""
        return "stdin" if self.source == STDIN else Path(self.source).stem

    @property
    def name(self) -> str:
        """The name of the file, with its ending."""
        return "stdin" if self.source == STDIN else Path(self.source).name

    def num_channels(self) -> int:
        """How many channels are expected of it; two where it does not say."""
        count = None if self.source == STDIN else num_channels(self.source)
        return count or _USUAL_CHANNELS


def find_recordings(paths: Iterable[str]) -> list[Recording | AudioError]:
    """Recordings, each once, in the order in which they were named; those of a folder by name.

    Args:
        paths: files, folders (whose own audio and video files are taken, not those of folders
            inside), or "-" for standard input.

    Returns:
        The recordings, and in the place of a path that leads to none what is wrong with it. Files
        are not opened.
    """
    found: dict[str, Recording | AudioError] = {}
    for path in paths:
        try:
            for source in _sources(path):
                key = source if source == STDIN else os.path.realpath(source)
                found.setdefault(key, Recording(source))
        except AudioError as error:
            found.setdefault(path, error)
    return list(found.values())


def _sources(path: str) -> list[str]:
    """The recordings that one path leads to."""
    if path == STDIN:
        if sys.stdin is not None and sys.stdin.isatty():
            raise AudioError("standard input is a terminal; send a recording into it with < or |")
        return [path]
    if path.startswith(("http://", "https://")):
        raise AudioError(f"{path}: addresses are not read; download it first")
    place = Path(path)
    try:
        if place.is_dir():
            return _media(place)
        # Links that lead nowhere are there as little as what has no name.
        place.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise AudioError(f"{path}: no such file or folder; check the name") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(f"{path}: cannot be opened ({reason.lower()})") from error
    return [path]


def _media(folder: Path) -> list[str]:
    """The recordings in a folder, by name."""
    # Names with a dot in front are what systems leave behind, such as "._talk.mp3".
    media = [
        str(file)
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    ]
    if not media:
        raise AudioError(
            f"{folder}: no audio or video files in this folder; name the files themselves"
        )
    return media
