"""Makes a converted model, in a folder that gets its final name once the model is complete."""

import errno
import logging
import math
import os
import shutil
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kiku.checkpoint.identity import sha256_of
from kiku.checkpoint.layout import Files
from kiku.checkpoint.tensor_shapes import codec_shapes, lm_shapes
from kiku.checkpoint.weights import Weights, weights_of
from kiku.config import ModelConfig
from kiku.converted.cache import PART, NoCache, is_in_cache, put_away
from kiku.converted.manifest import (
    GRAPH_FILES,
    MANIFEST,
    READ_WHOLE,
    VOCABULARIES,
    Checked,
    ConvertedManifest,
)
from kiku.errors import CheckpointError, KikuError

_TELL_EVERY_S = 5.0

# Bytes of the decoder's weights, with their scales, a little more than measured.
_BYTES_PER_WEIGHT = {"float32": 4.0, "int8": 1.15, "int4": 0.75}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Order:
    """What to convert, and to what."""

    files: Files
    config: ModelConfig
    name: str
    precision: str
    identity: str
    """The identity of the checkpoint (see `checkpoint.identity`)."""
    format: int
    revision: str | None

    def manifest(self, files: Mapping[str, Checked]) -> ConvertedManifest:
        """The manifest for these files."""
        return ConvertedManifest(
            format=self.format,
            kiku=version("kiku"),
            precision=self.precision,
            name=self.name,
            revision=self.revision,
            identity=self.identity,
            config=self.config,
            files=files,
        )


class Build:
    """One conversion. The caller of `run` holds the folder's lock."""

    def __init__(self, order: Order, folder: Path) -> None:
        """`folder` is where the model will be in the end; nothing is touched yet."""
        self.order, self.folder = order, folder
        self.part = folder.with_name(folder.name + PART)
        """The folder in which the model is made. If it exists, a stopped run has left it."""

    def run(self) -> None:
        """Make the model, and replace the folder with it.

        Raises:
            CheckpointError: the tensors are not those of the config.
            UnsupportedConfig: a shape that ONNX Runtime cannot run.
            OSError: see `explained`.
        """
        from kiku import graph

        order, config = self.order, self.order.config
        codec, lm = weights_of(order.files, config)
        if self.part.is_symlink():
            raise CheckpointError(
                f"{self.part}, where the model is to be made, is a link, and kiku does not follow "
                "it; remove it"
            )
        put_away(self.part)
        self._check_space()
        _log.info(
            "converting %s to %s for ONNX Runtime, only once, in %s",
            order.name, order.precision, self.folder,
        )  # fmt: skip
        self.part.mkdir()
        weights = _CountedWeights(config, codec, lm)
        graph.write_codec(self.part, config.codec, weights.codec, order.precision)
        graph.write_decoder(self.part, config.lm, weights.lm, order.precision)
        names = [*GRAPH_FILES]
        if order.files.vocabulary is not None:
            names.append(VOCABULARIES[order.files.vocabulary.suffix == ".json"])
            shutil.copyfile(order.files.vocabulary, self.part / names[-1])
        manifest = order.manifest({name: _settled(self.part / name) for name in names})
        (self.part / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        put_away(self.folder)
        self.part.replace(self.folder)
        _log.info("converted %s: %.1f MB", order.name, manifest.num_bytes / 1e6)

    @contextmanager
    def tidied(self) -> Generator[None]:
        """As `explained`; also removes what cannot be finished. For the holder of the lock only."""
        with self.explained():
            try:
                yield
            except KikuError:
                shutil.rmtree(self.part, ignore_errors=True)
                raise
            except OSError as e:
                if _is_full(e):
                    shutil.rmtree(self.part, ignore_errors=True)
                raise

    @contextmanager
    def explained(self) -> Generator[None]:
        """Turn each error of a disk into one sentence."""
        try:
            yield
        except OSError as e:
            full = _is_full(e)
            advice = f", or {self._elsewhere}" if full else f"; {self._elsewhere}"
            reason = e.strerror or str(e)
            if full:
                reason = f"no space left on the disk for {self._needed() / 1e6:,.0f} MB; make room"
            elif e.filename is not None and Path(e.filename) != self.folder:
                reason += f" ({e.filename})"
            kind = NoCache if is_in_cache(self.folder) and not full else CheckpointError
            raise kind(
                f"{self.order.name} cannot be converted to {self.folder}: {reason}{advice}"
            ) from e

    @property
    def _elsewhere(self) -> str:
        """Advice on how to put the model on another disk, for messages."""
        in_cache = is_in_cache(self.folder)
        return (
            f"{'set KIKU_CACHE to' if in_cache else 'choose'} another folder that kiku may write to"
        )

    def _needed(self) -> float:
        """Bytes that the graphs will take, or a little more."""
        from kiku import graph

        config = self.order.config
        codec = sum(map(math.prod, codec_shapes(config.codec).values()))
        lm = sum(map(math.prod, lm_shapes(config.lm).values()))
        return 4 * codec + _BYTES_PER_WEIGHT[graph.precision_of_weights(self.order.precision)] * lm

    def _check_space(self) -> None:
        needed = self._needed()
        free = shutil.disk_usage(self.folder.parent).free
        if free < needed:
            raise CheckpointError(
                f"{self.order.name} in {self.order.precision} needs about {needed / 1e6:,.0f} MB "
                f"in {self.folder.parent}, but only {free / 1e6:,.0f} MB are free; make room, or "
                f"{self._elsewhere}"
            )


class _CountedWeights:
    """The weights of a model, as they are read; logs now and then how many have been read."""

    def __init__(self, config: ModelConfig, codec: Weights, lm: Weights) -> None:
        self.codec, self.lm = self._told_by(codec), self._told_by(lm)
        shapes = (*codec_shapes(config.codec).values(), *lm_shapes(config.lm).values())
        self._total = sum(map(math.prod, shapes))
        self._read = 0
        self._last = time.monotonic()

    def _told_by(self, weights: Weights) -> Weights:
        def read(name: str) -> NDArray[np.float32]:
            array = weights(name)
            self._read += array.size
            if time.monotonic() - self._last > _TELL_EVERY_S:
                self._last = time.monotonic()
                _log.info("converting: %.0f %%", 100 * min(self._read / self._total, 1))
            return array

        return read


def _is_full(error: OSError) -> bool:
    # numpy says in words, without a number, that fewer bytes were written than it gave.
    return error.errno in (errno.ENOSPC, errno.EDQUOT, None)


def _settled(path: Path) -> Checked:
    """The size and checksum of a finished file."""
    size = path.stat().st_size
    if size > READ_WHOLE:
        # Later only its size is checked, which a crash of the machine may leave right while data
        # are lost.
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    return Checked(size, sha256_of(path))
