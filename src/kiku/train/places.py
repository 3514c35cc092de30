"""Check folders for output before any work, so that no files of others are replaced or mixed in.

Knows names of files; does not read them.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from kiku.errors import TrainingError
from kiku.writing import reason_of

_MODEL = {
    "config.json", "model.safetensors", "mimi.safetensors", "mimi_config.json", "tokenizer.model",
    "tokenizer.json", "preprocessor_config.json", "kiku_vocabulary.json", "adapter_config.json",
    "adapter_model.safetensors",
}  # fmt: skip
"""Names of the files in the folder of a model or an adapter."""

_FINISHED = ("config.json", "adapter_config.json")
"""Files that are written last: a folder with one of these is complete."""

_SHARD = re.compile(r"\w[\w.-]*-\d{5}\.safetensors")


def refuse_taken(folder: Path) -> None:
    """Check that a model can be written there. Leftovers of a killed run are allowed.

    Raises:
        TrainingError: there is a model already (perhaps the one that a run began with), or anything
            else; or nothing may be written there.
    """
    inside = _names_in(folder)
    _refuse_strangers(folder, inside, _MODEL.__contains__, "model")
    if not inside.isdisjoint(_FINISHED):
        raise TrainingError(
            f"{folder} holds a model already, which is not replaced: choose another folder, or "
            "remove this one"
        )


def refuse_no_pack(folder: Path) -> None:
    """Check that a pack can be written there, or resumed.

    Raises:
        TrainingError: there is anything but a pack, or nothing may be written there.
    """
    _refuse_strangers(folder, _names_in(folder), _is_of_pack, "pack")


def _is_of_pack(name: str) -> bool:
    return name in ("pack.json", ".lock") or _SHARD.fullmatch(name) is not None


def _names_in(folder: Path) -> set[str]:
    """Names of the files in a folder; empty if it does not exist yet."""
    try:
        there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    except OSError as error:  # a name that is too long
        raise TrainingError(f"{folder} cannot be made ({reason_of(error)})") from error
    if not there.is_dir():
        raise TrainingError(f"{folder} cannot be a folder: {there} is a file; choose another name")
    if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        raise TrainingError(f"nothing may be written in {there}: choose another folder")
    return {one.name for one in folder.iterdir()} if folder.exists() else set()


def _refuse_strangers(
    folder: Path, inside: set[str], known: Callable[[str], bool], what: str
) -> None:
    # Files that begin with ".kiku-" are unfinished ones that a killed run left.
    strangers = sorted(n for n in inside if not known(n) and not n.startswith(".kiku-"))
    if strangers:
        raise TrainingError(
            f"{folder} holds what is no {what} ({', '.join(strangers[:5])}): choose another folder"
        )
