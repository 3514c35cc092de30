"""Check folders for output before any work, so that no files of others are replaced or mixed in.

Knows names of files; does not read them.
"""

import os
import re
import secrets
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from kiku.errors import TrainingError
from kiku.writing import reason_of

_MODEL = {
    "config.json", "model.safetensors", "mimi.safetensors", "mimi_config.json", "tokenizer.model",
    "tokenizer.json", "preprocessor_config.json", "kiku_vocabulary.json", "adapter_config.json",
    "adapter_model.safetensors", "kiku_adapter.json",
}  # fmt: skip
"""Names of the files in the folder of a model or an adapter."""

_FINISHED = ("config.json", "adapter_config.json")
"""Files that are written last: a folder with one of these is complete."""

_SHARD = re.compile(r"\w[\w.-]*-\d{5}\.safetensors")


def check_model_folder(folder: Path, *, force: bool = False) -> None:
    """Check that a model can be written there. Leftovers of a killed run are allowed.

    Args:
        folder: where the model is to be written.
        force: allow a model there, which is replaced, but nothing else.

    Raises:
        TrainingError: there is a model already (perhaps the one that a run began with), or anything
            else; or nothing may be written there.
    """
    inside = _names_in(folder)
    _refuse_strangers(folder, inside, _MODEL.__contains__, "model")
    if inside.isdisjoint(_FINISHED):
        return
    if force:
        _refuse_closed(folder.resolve().parent)  # where the new one is written
    else:
        raise TrainingError(
            f"{folder} already contains a model: choose another folder, or replace the model "
            "there ( --force )"
        )


def refuse_to_replace(folder: Path, read: Path) -> None:
    """Check that a model is not written over what it is made from.

    Args:
        folder: where the model is to be written.
        read: folder of a model, an adapter or a run.

    Raises:
        TrainingError: they are one folder.
    """
    if folder.exists() and folder.samefile(read):
        raise TrainingError(
            f"{folder} is used to make the new model, and is not replaced: choose another folder"
        )


@contextmanager
def in_place_of_model(folder: Path) -> Generator[Path]:
    """Where to write a model: the folder itself; if it holds a model, a new folder beside it, which
    replaces it when the block ends without an error. Until then the old model stays.

    Raises:
        TrainingError: the folder cannot be replaced; the old model stays.
    """
    folder = folder.resolve()
    if _names_in(folder).isdisjoint(_FINISHED):
        yield folder
        return
    beside = _new_name(folder)
    try:
        yield beside
        _replace(folder, beside)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _replace(folder: Path, new: Path) -> None:
    old = _new_name(folder)
    try:
        folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            old.rename(folder)
            raise
    except OSError as error:
        raise TrainingError(
            f"the model in {folder} cannot be replaced ({reason_of(error)}): choose another folder"
        ) from error
    shutil.rmtree(old, ignore_errors=True)


def _new_name(beside: Path) -> Path:
    return beside.with_name(f".kiku-{secrets.token_hex(8)}")


def check_pack_folder(folder: Path) -> None:
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
    _refuse_closed(there)
    return {one.name for one in folder.iterdir()} if folder.exists() else set()


def _refuse_closed(folder: Path) -> None:
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise TrainingError(f"the folder {folder} is not writable: choose another folder")


def _refuse_strangers(
    folder: Path, inside: set[str], known: Callable[[str], bool], what: str
) -> None:
    # Files that begin with ".kiku-" are unfinished ones that a killed run left.
    strangers = sorted(n for n in inside if not known(n) and not n.startswith(".kiku-"))
    if strangers:
        raise TrainingError(
            f"{folder} contains files that are not of a {what} ({', '.join(strangers[:5])}): "
            "choose another folder"
        )
