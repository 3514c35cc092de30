"""Objects whose values are saved to a JSON file and loaded: configs and the feature extractor."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch

from kiku.checkpoint.layout import read_json
from kiku.errors import CheckpointError
from kiku.hf.pushing import PushesToHub
from kiku.writing import write_whole


class Values(PushesToHub):
    """An object whose attributes are its values; unknown ones are kept and saved."""

    file_name: ClassVar[str]
    """Name of the JSON file in a checkpoint."""

    def to_dict(self) -> dict[str, Any]:
        """All values, JSON-ready."""
        return {key: _plain(value) for key, value in vars(self).items() if not key.startswith("_")}

    def to_json_string(self) -> str:
        """The content of the file."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: str | os.PathLike[str]) -> None:
        """Write the file, under any name.

        Raises:
            CheckpointError: it cannot be written.
        """
        path = Path(json_file_path)
        write_text(path.parent, path.name, self.to_json_string())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **changes: Any) -> Self:
        """Make an object from `to_dict`'s output; `changes` win."""
        return cls(**{**values, **changes})

    @classmethod
    def from_json_file(cls, path: str | os.PathLike[str]) -> Self:
        """Make an object from one file.

        Raises:
            CheckpointError: it cannot be read, or is no JSON object.
        """
        return cls.from_dict(read_json(Path(path)))

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> list[str]:
        """Write the file into a folder, which is made if needed; its path is returned in a list."""
        return [write_text(save_directory, self.file_name, self.to_json_string())]

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.to_dict() == other.to_dict()  # pyright: ignore

    __hash__ = None  # pyright: ignore[reportAssignmentType]  # values can be changed

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"


def write_text(folder: str | os.PathLike[str], name: str, text: str) -> str:
    """Write the file `name` of `folder`, which is made if needed; the path is returned.

    A reader sees either the old file or the whole new one. A link is replaced, not followed:
    folders of the hub's cache consist of links to files that other models share.

    Raises:
        CheckpointError: it cannot be written.
    """
    path = Path(folder) / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be written ({error.strerror or error}); choose another folder"
        ) from error
    return str(path)


def _plain(value: Any) -> Any:
    if isinstance(value, Values):
        return value.to_dict()
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, tuple | list):
        return [_plain(part) for part in cast("list[Any]", value)]
    return value
