"""Folders of recordings with their texts next to them -> which text belongs to which recording.

Two layouts are known: `ID.trans.txt` files whose lines are a recording's name and its text, as
LibriSpeech has them; and a `.txt` of the same name next to a recording.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kiku.manifest_rows import RECORDINGS

_LISTED = ".trans.txt"
_PARTS_OF_LIBRISPEECH = 3
"""Parts of a recording's name: speaker, chapter, utterance, as in 1688-142285-0003."""


@dataclass(frozen=True, slots=True)
class Found:
    """A recording with its text; or, without one of them, what is missing."""

    id: str
    """The path relative to the folder."""
    path: Path | None
    text: str | None
    problem: str = ""
    fields: dict[str, str] = field(default_factory=dict[str, str])


def utterances_in(folder: Path) -> Iterator[Found]:
    """All recordings in a folder and its subfolders, by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and _is_visible(path))
    sounds = {path.with_suffix(""): path for path in files if path.suffix.lower() in RECORDINGS}
    told: set[Path] = set()
    for path in files:
        if path.name.endswith(_LISTED):
            for found in _listed(path, folder, sounds):
                if found.path is not None:
                    told.add(found.path)
                yield found
    for path in files:
        if path.suffix.lower() in RECORDINGS and path not in told:
            yield _with_text_beside(path, folder)
        elif _is_text(path) and path.with_suffix("") not in sounds:
            yield Found(_id(path, folder), None, None, "is a text without a recording")


def _is_visible(path: Path) -> bool:
    return not path.name.startswith(".")


def _is_text(path: Path) -> bool:
    return path.suffix == ".txt" and not path.name.endswith(_LISTED)


def _id(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _listed(path: Path, folder: Path, sounds: dict[Path, Path]) -> Iterator[Found]:
    text = _read(path)
    if isinstance(text, Found):
        yield Found(_id(path, folder), None, None, text.problem)
        return
    for line in text.splitlines():
        name, _, said = line.strip().partition(" ")
        if not name:
            continue
        sound = sounds.get(path.parent / name)
        if sound is None:
            yield Found(f"{_id(path, folder)}, {name}", None, None, "is a text without a recording")
            continue
        parts = name.split("-")
        speaker = {"speaker": parts[0]} if len(parts) == _PARTS_OF_LIBRISPEECH else {}
        yield Found(_id(sound, folder), sound, said.strip(), fields=speaker)


def _with_text_beside(path: Path, folder: Path) -> Found:
    beside = path.with_suffix(".txt")
    if not beside.is_file():
        why = f"has no text: write what is said to {beside.name}, and nothing if nothing is said"
        return Found(_id(path, folder), None, None, why)
    text = _read(beside)
    if isinstance(text, Found):
        return Found(_id(path, folder), None, None, text.problem)
    return Found(_id(path, folder), path, " ".join(text.split()))


def _read(path: Path) -> str | Found:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        return Found("", None, None, f"{path.name} cannot be read ({error})")
