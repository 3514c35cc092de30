"""Finds out whether a folder holds a converted model, and opens it."""

from dataclasses import dataclass
from pathlib import Path

from kiku.checkpoint.hub import DEMO
from kiku.config import ModelConfig
from kiku.converted.manifest import ADVICE, GRAPH_FILES, MANIFEST, ConvertedManifest, read_manifest
from kiku.errors import CheckpointError
from kiku.text import Vocabulary


@dataclass(frozen=True, slots=True)
class ConvertedModel:
    """A folder with the graphs of a model."""

    folder: Path
    manifest: ConvertedManifest

    @property
    def config(self) -> ModelConfig:
        """The model's config."""
        return self.manifest.config

    @property
    def precision(self) -> str:
        """Precision of the decoder's weights: one of `kiku.graph.PRECISIONS`."""
        return self.manifest.precision

    @property
    def name(self) -> str:
        """Name of the checkpoint that it was made from."""
        return self.manifest.name

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary of the text tokens, read from its file at each access.

        Raises:
            CheckpointError: the checkpoint had none.
            VocabularyError: its file is damaged.
        """
        if self.manifest.vocabulary is None:
            raise CheckpointError(f"{self.folder} has no vocabulary: the checkpoint had none")
        return Vocabulary.load(self.folder / self.manifest.vocabulary)


def expanded(folder: str | Path) -> Path:
    """The path of a folder as it was given, with `~` replaced by the home folder.

    Raises:
        CheckpointError: there is no such home folder.
    """
    try:
        return Path(folder).expanduser()
    except RuntimeError as e:
        raise CheckpointError(
            f"{folder} cannot be found: there is no home folder of that name; name the folder "
            "without ~"
        ) from e


def is_converted(folder: str | Path) -> bool:
    """Whether this names a folder with a converted model, whole or not. "demo" names none: it is
    the model inside the package; for a folder of that name write "./demo".
    """
    return str(folder) != DEMO and _has_manifest(Path(folder))


def _has_manifest(folder: Path) -> bool:
    try:
        return (folder.expanduser() / MANIFEST).is_file()
    except (OSError, RuntimeError):  # no home folder of that name, or no access
        return False


def open_converted(folder: str | Path, *, checksums: bool = False) -> ConvertedModel:
    """Open what `convert` made, here or on another machine.

    Args:
        folder: the one with the graphs.
        checksums: read big files too, rather than check only their size.

    Raises:
        CheckpointError: it is not there, not whole, damaged, or of another version of kiku.
    """
    from kiku.graph import FORMAT

    folder = expanded(folder)
    if not _has_manifest(folder):
        raise CheckpointError(f"{folder} is not a converted model: {MANIFEST} is missing")
    manifest = read_manifest(folder / MANIFEST, format=FORMAT)
    missing = [name for name in GRAPH_FILES if name not in manifest.files]
    if missing:
        raise CheckpointError(f"{folder / MANIFEST} lacks {', '.join(missing)}{ADVICE}")
    for name, problem in manifest.problems(folder, checksums=checksums):
        if problem is not None:
            raise CheckpointError(f"{folder / name} is damaged ({problem}){ADVICE}")
    return ConvertedModel(folder, manifest)
