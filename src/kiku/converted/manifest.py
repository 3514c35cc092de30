"""The manifest of a converted model: `kiku-onnx.json`, next to the graphs."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from kiku.checkpoint.identity import digest_of, sha256_of
from kiku.checkpoint.layout import read_json
from kiku.config import ModelConfig
from kiku.errors import CheckpointError, ConfigError

MANIFEST = "kiku-onnx.json"
GRAPH_FILES: tuple[str, ...] = (
    "codec.onnx", "codec.kernels.onnx", "codec.data",
    "decoder.onnx", "decoder.kernels.onnx", "decoder.data",
)  # fmt: skip
"""The graphs and their weights."""

ADVICE = "; convert the model again"
"""The end of every error message about a converted model."""

VOCABULARIES = ("tokenizer.model", "tokenizer.json")

_Kind = TypeVar("_Kind", int, str)

READ_WHOLE = 32 * 2**20
"""Bytes; files up to this size are read and compared whenever a model is opened (20 ms)."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The size and checksum that a file must have."""

    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ConvertedManifest:
    """The manifest of a converted model."""

    format: int
    """`kiku.graph.FORMAT` of the kiku that wrote it."""
    kiku: str
    """The version of kiku that wrote it."""
    precision: str
    name: str
    """Name of the checkpoint: "demo", a repository id, the last part of a folder's path."""
    revision: str | None
    """The commit of the checkpoint, if it came from a repository."""
    identity: str
    """The digest of the checkpoint's files and config."""
    config: ModelConfig
    files: Mapping[str, Checked]

    @property
    def vocabulary(self) -> str | None:
        """The vocabulary's file; None if the checkpoint had none."""
        return next((name for name in VOCABULARIES if name in self.files), None)

    @property
    def num_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.num_bytes for file in self.files.values())

    def to_json(self) -> str:
        """The text of the manifest's file."""
        values: dict[str, Any] = {
            "format": self.format,
            "kiku": self.kiku,
            "precision": self.precision,
            "source": {"name": self.name, "revision": self.revision, "identity": self.identity},
            "config": self.config.to_dict(),
            "files": {
                name: {"bytes": file.num_bytes, "sha256": file.sha256}
                for name, file in sorted(self.files.items())
            },
        }
        return json.dumps(values | {"checksum": _checksum(values)}, indent=2) + "\n"

    def problems(self, folder: Path, *, checksums: bool) -> Iterator[tuple[str, str | None]]:
        """Each file, and what is wrong with it (None if all is well).

        Args:
            folder: where the files are.
            checksums: false to check only the size of big files.
        """
        for name, wanted in self.files.items():
            yield name, _problem(folder / name, wanted, checksums=checksums)


def read_manifest(path: Path, *, format: int) -> ConvertedManifest:
    """Read a manifest.

    Args:
        path: of the file.
        format: the only format that can be run.

    Raises:
        CheckpointError: it cannot be read, is damaged, or is of another format.
    """
    try:
        values = read_json(path)
    except CheckpointError as e:
        raise CheckpointError(f"{e}{ADVICE}") from e
    found = values.get("format")
    if isinstance(found, int) and found != format:
        age = "an older" if found < format else "a newer"
        raise CheckpointError(
            f"{path.parent} was converted by {age} version of kiku (format {found}, but this "
            f"version uses {format}){ADVICE}"
        )
    checksum = values.pop("checksum", None)
    if checksum != _checksum(values):
        raise CheckpointError(f"{path} is damaged{ADVICE}")
    try:
        # The checksum shows that kiku wrote it: a value can only be wrong if it was forged.
        source = values["source"]
        return ConvertedManifest(
            format=_text_or_number(values["format"], int),
            kiku=_text_or_number(values["kiku"], str),
            precision=_text_or_number(values["precision"], str),
            name=_text_or_number(source["name"], str),
            revision=source["revision"] and _text_or_number(source["revision"], str),
            identity=_text_or_number(source["identity"], str),
            config=ModelConfig.from_dict(values["config"]),
            files=_files(values["files"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as e:
        raise CheckpointError(
            f"{path} was not written by kiku, or was changed ({e}){ADVICE}"
        ) from e


def stated_in(path: Path) -> tuple[int, str] | None:
    """Format and identity of a manifest of any version; None if it does not say."""
    try:
        values = read_json(path)
        return values["format"] + 0, values["source"]["identity"] + ""
    except (CheckpointError, KeyError, TypeError):
        return None


def name_in(path: Path) -> str | None:
    """The checkpoint's name in a manifest of any version; None if it does not say."""
    try:
        return read_json(path)["source"]["name"] + ""
    except (CheckpointError, KeyError, TypeError):
        return None


def _checksum(values: Mapping[str, Any]) -> str:
    try:
        return digest_of(values)
    except (ValueError, RecursionError) as e:
        raise CheckpointError(f"a manifest is damaged ({e}){ADVICE}") from e


def _text_or_number(value: object, kind: type[_Kind]) -> _Kind:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not a {kind.__name__}")
    return value


def _files(values: Mapping[str, Any]) -> dict[str, Checked]:
    known = {*GRAPH_FILES, *VOCABULARIES}
    files: dict[str, Checked] = {}
    for name, file in values.items():
        if name not in known:
            raise ValueError(f"there is no file {name!r} in a converted model")
        stated = cast(Mapping[str, Any], file)
        size, sha256 = stated["bytes"], stated["sha256"]
        files[name] = Checked(_text_or_number(size, int), _text_or_number(sha256, str))
    return files


def _problem(path: Path, wanted: Checked, *, checksums: bool) -> str | None:
    try:
        size = path.stat().st_size
        if size != wanted.num_bytes:
            return f"{size:,} bytes, not {wanted.num_bytes:,}"
        if checksums or size <= READ_WHOLE:
            found = sha256_of(path)
            if found != wanted.sha256:
                return f"its sha256 is {found}, not {wanted.sha256}"
    except FileNotFoundError:
        return "missing"
    except OSError as e:
        return f"cannot be read: {e.strerror or e}"
    return None
