"""Checkpoints as ONNX graphs in a folder: made once per checkpoint and precision, then only opened.

A folder appears under its name when it is whole. It holds all that is needed to run the model, so
it can be copied to a machine that has neither the checkpoint nor PyTorch.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from kiku.checkpoint.build import Build, Order
from kiku.checkpoint.cache import (
    cache_folder,
    entries_of,
    identity_of,
    lock_of,
    name_of,
    place_of,
    put_away,
    remove,
)
from kiku.checkpoint.expected import is_small
from kiku.checkpoint.hub import commit_of
from kiku.checkpoint.layout import Files, find
from kiku.checkpoint.lock import locked
from kiku.checkpoint.manifest import (
    ADVICE,
    MANIFEST,
    STAGES,
    VOCABULARIES,
    Manifest,
    read_manifest,
    stated_in,
)
from kiku.checkpoint.reading import read_config
from kiku.config import LMConfig, ModelConfig
from kiku.errors import CheckpointError
from kiku.text import Vocabulary

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConvertedModel:
    """A folder with the graphs of a model."""

    folder: Path
    manifest: Manifest

    @property
    def config(self) -> ModelConfig:
        """The numbers of the model."""
        return self.manifest.config

    @property
    def precision(self) -> str:
        """Of the decoder's weights: one of `kiku.graph.PRECISIONS`."""
        return self.manifest.precision

    @property
    def name(self) -> str:
        """Of the checkpoint that it was made from."""
        return self.manifest.name

    @property
    def vocabulary(self) -> Vocabulary:
        """Of the text tokens, read anew.

        Raises:
            CheckpointError: the checkpoint had none.
            VocabularyError: its file is damaged.
        """
        if self.manifest.vocabulary is None:
            raise CheckpointError(f"{self.folder} has no vocabulary: the checkpoint had none")
        return Vocabulary.load(self.folder / self.manifest.vocabulary)


def default_precision(config: LMConfig) -> str:
    """What a decoder is converted to unless told otherwise: 8 bits are nearly as exact as the
    published bfloat16, and half as much to read; small decoders have no need to save.
    """
    return "float32" if is_small(config) else "int8"


def is_converted(folder: str | Path) -> bool:
    """Whether this is a folder with a converted model, be it whole or not."""
    return (Path(folder).expanduser() / MANIFEST).is_file()


def open_converted(folder: str | Path, *, checksums: bool = False) -> ConvertedModel:
    """Open what `convert` made, here or on another machine.

    Args:
        folder: with the graphs.
        checksums: read big files too, rather than take them by their size.

    Raises:
        CheckpointError: it is not there, not whole, damaged, or of another version of kiku.
    """
    from kiku.graph import FORMAT

    folder = Path(folder).expanduser()
    if not is_converted(folder):
        raise CheckpointError(f"{folder} is not a converted model: {MANIFEST} is missing")
    manifest = read_manifest(folder / MANIFEST, format=FORMAT)
    missing = [name for names in STAGES.values() for name in names if name not in manifest.files]
    if missing:
        raise CheckpointError(f"{folder / MANIFEST} lacks {', '.join(missing)}{ADVICE}")
    for name, problem in manifest.problems(folder, checksums=checksums):
        if problem is not None:
            raise CheckpointError(f"{folder / name} is damaged ({problem}){ADVICE}")
    return ConvertedModel(folder, manifest)


def convert(
    source: str | Path | Files,
    *,
    precision: str | None = None,
    revision: str | None = None,
    folder: Path | None = None,
    checksums: bool = False,
) -> ConvertedModel:
    """Make the graphs of a checkpoint, unless they are there already.

    Memory holds about one tensor at a time. Whatever ends it, no half of a model is ever taken for
    one; what was finished of one that was stopped is used by the next. Several processes may ask
    for the same: one works, the others wait.

    Args:
        source: "demo", a folder, a repository id, or what `find` gave.
        precision: of the decoder's weights, one of `kiku.graph.PRECISIONS`; None takes int8, but
            float32 for decoders below 100 million weights.
        revision: of a repository: branch, tag or commit.
        folder: where to put it; None is the cache (see `cache.cache_folder`).
        checksums: if it is there already, read all of it to see whether it is undamaged.

    Raises:
        CheckpointError: the checkpoint cannot be found, fetched or read, its tensors are not those
            of its config, or the folder cannot be written (no space left, above all).
        ConfigError: a precision that there is not, or a config that cannot be.
        UnsupportedConfig: another kind of model, or a shape that ONNX Runtime cannot run.
    """
    from kiku.graph import FORMAT, check_precision

    if precision is not None:
        check_precision(precision)  # before gigabytes are fetched
    if not isinstance(source, Files) and is_converted(source):
        raise CheckpointError(f"{source} is converted already; give the checkpoint itself")
    files = source if isinstance(source, Files) else find(source, revision=revision)
    name = name_of(files.name if isinstance(source, Files) else source)
    config = read_config(files)
    precision = precision or default_precision(config.lm)
    identity = identity_of(files, config)
    order = Order(
        files, config, name, precision, identity, FORMAT, revision=commit_of(files.weights[0])
    )
    if folder is None:
        folder = place_of(name, precision, identity, FORMAT)
    return _convert(order, folder.expanduser().absolute(), checksums=checksums)


def _convert(order: Order, folder: Path, *, checksums: bool) -> ConvertedModel:
    if model := _existing(order, folder, checksums=checksums, tell=False):
        return model
    build = Build(order, folder)
    waited = False

    def waiting() -> None:
        nonlocal waited
        waited = True
        _log.info("another process converts %s: waiting for it", order.name)

    with build.explained():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock_of(folder), waiting):
            model = _existing(order, folder, checksums=checksums, tell=True)
            if model is not None:
                if waited:
                    _log.info("another process has converted %s: %s is used", order.name, folder)
                return model
            build.run()
            put_away(folder)
            build.part.replace(folder)
            _forget_older(order, folder)
    return open_converted(folder)


def _existing(order: Order, folder: Path, *, checksums: bool, tell: bool) -> ConvertedModel | None:
    """What is in the folder, if it is what was ordered, and whole."""
    if not is_converted(folder):
        _refuse_strangers(folder)
        return None
    try:
        model = open_converted(folder, checksums=checksums)
    except CheckpointError as e:
        _refuse_strangers(folder)
        if tell:
            _log.warning("%s: it is made anew", str(e).removesuffix(ADVICE))
        return None
    found = (model.manifest.identity, model.precision)
    if found != (order.identity, order.precision):
        raise CheckpointError(
            f"{folder} holds {model.name} in {model.precision}, from other files than {order.name} "
            f"in {order.precision}; choose another folder, or remove it"
        )
    return model


def _refuse_strangers(folder: Path) -> None:
    """Nothing that kiku did not write is ever replaced. In the cache everything is its own."""
    if folder.parent == cache_folder() or not folder.exists():
        return
    known = {MANIFEST, *VOCABULARIES, *(name for names in STAGES.values() for name in names)}
    inside = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    if strangers := sorted(inside - known):
        raise CheckpointError(
            f"{folder} holds what is no converted model ({', '.join(strangers[:5])}); choose "
            "another folder"
        )


def _forget_older(order: Order, folder: Path) -> None:
    """Take away what an older version of kiku made of the same checkpoint in the cache."""
    if folder.parent != cache_folder():
        return
    for entry in entries_of(order.name, order.precision):
        stated = stated_in(entry.folder / MANIFEST)
        if stated is None or entry.folder == folder:
            continue
        if stated[0] < order.format and stated[1] == order.identity:
            remove(entry)
            _log.info("%s, made by an older version of kiku, is removed", entry.folder)
