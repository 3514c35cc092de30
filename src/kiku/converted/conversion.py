"""From a checkpoint to a folder of ONNX graphs, unless it exists already.

A folder gets its name only once it is complete, however the making of it ends.
"""

import logging
import os
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Lock

from kiku.checkpoint.hub import commit_of, demo_folder
from kiku.checkpoint.identity import identity_of
from kiku.checkpoint.layout import Files, find
from kiku.checkpoint.reading import read_config
from kiku.checkpoint.tensor_shapes import is_small
from kiku.config import LMConfig
from kiku.converted.build import Build, Order
from kiku.converted.cache import (
    NoCache,
    entries,
    is_in_cache,
    lock_of,
    name_of,
    place_of,
    remove,
    temporary_folder,
)
from kiku.converted.lock import locked
from kiku.converted.manifest import ADVICE, GRAPH_FILES, MANIFEST, VOCABULARIES, stated_in
from kiku.converted.model import ConvertedModel, expanded, is_converted, open_converted
from kiku.errors import CheckpointError

_log = logging.getLogger(__name__)

_IN_THIS_PROCESS = Lock()
"""Held by the thread that converts to this process's temporary folder."""


def default_precision(config: LMConfig) -> str:
    """The default precision of a decoder: 8 bits are nearly as exact as the published bfloat16, and
    half as much to read; small decoders need not save memory.
    """
    return "float32" if is_small(config) else "int8"


def convert(
    source: str | Path | Files,
    *,
    precision: str | None = None,
    revision: str | None = None,
    folder: Path | None = None,
    checksums: bool = False,
    lasting: bool = False,
) -> ConvertedModel:
    """Make the graphs of a checkpoint, unless they exist already.

    Memory holds about one tensor at a time. However the conversion ends, half a model is never
    taken for a whole one. Several processes may ask for the same model: one makes it, the others
    wait.

    Args:
        source: "demo", a folder, a repository id, or what `find` gave.
        precision: the precision of the decoder's weights, one of `kiku.graph.PRECISIONS`; None
            takes int8, but float32 for decoders below 100 million weights.
        revision: of a repository: branch, tag or commit.
        folder: where to put it; None is the cache (see `cache.cache_folder`).
        checksums: if the graphs exist already, read all of them to see whether they are undamaged.
        lasting: where there is no cache, raise for the demo too. Otherwise the demo goes to a
            temporary folder, which is removed when this process ends.

    Raises:
        CheckpointError: the checkpoint cannot be found, fetched or read, its tensors are not those
            of its config, or the folder cannot be written (no space left, above all).
        ConfigError: a precision that does not exist, or an impossible config.
        UnsupportedConfig: another kind of model, or a shape that ONNX Runtime cannot run.
    """
    from kiku.graph import FORMAT, check_precision

    if precision is not None:
        check_precision(precision)  # before gigabytes are fetched
    target = None if folder is None else _target(folder)
    if not isinstance(source, Files) and is_converted(source):
        raise CheckpointError(f"{source} is already converted; give the checkpoint itself")
    files = source if isinstance(source, Files) else find(source, revision=revision)
    name = name_of(files.name if isinstance(source, Files) else source)
    config = read_config(files)
    precision = precision or default_precision(config.lm)
    identity = identity_of(files, config)
    order = Order(
        files, config, name, precision, identity, FORMAT, revision=commit_of(files.weights[0])
    )
    if target is not None:
        return _convert(order, target, checksums=checksums)
    try:
        return _convert(
            order, place_of(name, precision, identity, FORMAT).absolute(), checksums=checksums
        )
    except NoCache as e:
        if lasting or files.config.parent.resolve() != demo_folder():
            raise
        # Converting the demo takes a second: trying it should not need a home folder first.
        _log.warning("%s; the demo is kept in a temporary folder until the program ends", e)
        place = _temporary(e) / precision
        return _convert(order, place, lock=_IN_THIS_PROCESS, checksums=checksums)


def _target(folder: Path) -> Path:
    """The absolute path of the folder that the caller asked for.

    Raises:
        CheckpointError: nothing can be put there.
    """
    place = expanded(folder).absolute()
    if place.name in ("", ".."):
        raise CheckpointError(
            f"a converted model cannot replace {folder}; name a new folder, such as "
            f"{folder / 'converted'}"
        )
    return place


def _temporary(why: NoCache) -> Path:
    """A folder for this process alone. It needs no lock between processes: where there is no cache,
    there may be no place for such locks either.

    Raises:
        CheckpointError: there is none, as in a container that cannot be written at all.
    """
    try:
        # A forked process has its parent's folder, so each has a folder of its own within it.
        return temporary_folder() / str(os.getpid())
    except OSError as e:
        reason = e.strerror or str(e)
        raise CheckpointError(f"{why}; a temporary folder cannot be made either ({reason})") from e


def _convert(
    order: Order,
    folder: Path,
    *,
    checksums: bool,
    lock: AbstractContextManager[object] | None = None,
) -> ConvertedModel:
    build = Build(order, folder)
    with build.explained():
        if model := _existing(order, folder, checksums=checksums, tell=False):
            return model
        _refuse_strangers(build.part)
    waited = False

    def waiting() -> None:
        nonlocal waited
        waited = True
        _log.info("another process converts %s: waiting for it", order.name)

    with build.explained():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lock or locked(lock_of(folder), waiting), build.tidied():
            model = _existing(order, folder, checksums=checksums, tell=True)
            if model is not None:
                if waited:
                    _log.info("another process has converted %s; using %s", order.name, folder)
                return model
            build.run()
            _forget_older(order, folder)
    return open_converted(folder)


def _existing(order: Order, folder: Path, *, checksums: bool, tell: bool) -> ConvertedModel | None:
    """The model in the folder, if it is whole and the one that was ordered; else None."""
    if not is_converted(folder):
        _refuse_strangers(folder)
        return None
    try:
        model = open_converted(folder, checksums=checksums)
    except CheckpointError as e:
        _refuse_strangers(folder)
        if tell:
            _log.warning("%s: converting it again", str(e).removesuffix(ADVICE))
        return None
    found = (model.manifest.identity, model.precision)
    if found != (order.identity, order.precision):
        raise CheckpointError(
            f"{folder} contains {model.name} in {model.precision}, made from other files than "
            f"{order.name} in {order.precision}; choose another folder, or remove it"
        )
    return model


def _refuse_strangers(folder: Path) -> None:
    """Raise if a folder holds what kiku did not write, which is never replaced. In the cache
    everything is kiku's own."""
    if is_in_cache(folder) or not folder.exists():
        return
    known = {MANIFEST, *VOCABULARIES, *GRAPH_FILES}
    inside = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    if strangers := sorted(inside - known):
        raise CheckpointError(
            f"{folder} contains files that are not of a converted model "
            f"({', '.join(strangers[:5])}); choose another folder"
        )


def _forget_older(order: Order, folder: Path) -> None:
    """Remove from the cache what an older version of kiku made from the same checkpoint."""
    if not is_in_cache(folder):
        return
    for entry in entries():
        stated = stated_in(entry.folder / MANIFEST)
        if stated is None or entry.folder == folder or entry.precision != order.precision:
            continue
        if stated[0] < order.format and stated[1] == order.identity:
            remove(entry)
            _log.info("removing %s, made by an older version of kiku", entry.folder)
