"""The making of a converted model: in a folder beside, stage by stage, with a journal."""

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

from kiku.checkpoint.cache import PART, cache_folder
from kiku.checkpoint.expected import codec_shapes, lm_shapes
from kiku.checkpoint.layout import Files
from kiku.checkpoint.manifest import (
    MANIFEST,
    READ_WHOLE,
    STAGES,
    VOCABULARIES,
    Checked,
    Manifest,
    read_manifest,
    sha256_of,
)
from kiku.checkpoint.weights import Weights, weights_of
from kiku.config import ModelConfig
from kiku.errors import CheckpointError, KikuError

_JOURNAL = "journal.json"
_TELL_EVERY_S = 5.0

# Of the decoder, scales and all, a little more than measured.
_BYTES_PER_WEIGHT = {"float32": 4.0, "int8": 1.15, "int4": 0.75}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made, from what."""

    files: Files
    config: ModelConfig
    name: str
    precision: str
    identity: str
    """Of the checkpoint (see `cache.identity_of`)."""
    format: int
    revision: str | None

    def manifest(self, files: Mapping[str, Checked]) -> Manifest:
        """What stands beside these files."""
        return Manifest(
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
    """One conversion. Whoever runs it holds the folder's lock."""

    def __init__(self, order: Order, folder: Path) -> None:
        """`folder` is where the model is to stand in the end; nothing is touched yet."""
        self.order, self.folder = order, folder
        self.part = folder.with_name(folder.name + PART)
        """Where it is made. After `run` it is whole, and can be given the folder's name."""

    def run(self) -> None:
        """Make all that is not there yet from an earlier run.

        Raises:
            CheckpointError: the tensors are not those of the config.
            UnsupportedConfig: a shape that ONNX Runtime cannot run.
            OSError: see `explained`.
        """
        from kiku import graph

        order, config = self.order, self.order.config
        codec, lm = weights_of(order.files, config)
        done = self._kept()
        self._check_space(done)
        _log.info(
            "converting %s to %s for ONNX Runtime, which is done once; it goes to %s",
            order.name, order.precision, self.folder,
        )  # fmt: skip
        self.part.mkdir(exist_ok=True)
        told = _Told(config, codec, lm)
        for stage, names in STAGES.items():
            if all(name in done for name in names):
                _log.info("the %s was finished by an earlier run", stage)
                continue
            if stage == "codec":
                graph.write_codec(self.part, config.codec, told.codec, order.precision)
            else:
                graph.write_decoder(self.part, config.lm, told.lm, order.precision)
            done |= {name: _settled(self.part / name) for name in names}
            self._note(_JOURNAL, done)
        if order.files.vocabulary is not None:
            name = VOCABULARIES[order.files.vocabulary.suffix == ".json"]
            shutil.copyfile(order.files.vocabulary, self.part / name)
            done[name] = _settled(self.part / name)
        self._note(_JOURNAL, done)
        (self.part / _JOURNAL).replace(self.part / MANIFEST)
        size = sum(file.num_bytes for file in done.values())
        _log.info("converted %s: %.1f MB", order.name, size / 1e6)

    @contextmanager
    def explained(self) -> Generator[None]:
        """Turn what a disk says into one sentence each; what cannot be finished is removed."""
        try:
            yield
        except KikuError:
            shutil.rmtree(self.part, ignore_errors=True)
            raise
        except OSError as e:
            # numpy says in words, without a number, that fewer bytes were written than it gave.
            full = e.errno in (errno.ENOSPC, errno.EDQUOT, None)
            if full:
                shutil.rmtree(self.part, ignore_errors=True)
                reason = f"no space left on the disk for {self._needed() / 1e6:,.0f} MB; make room"
            else:
                reason = e.strerror or str(e)
            raise CheckpointError(
                f"{self.order.name} cannot be converted to {self.folder}: {reason}, or "
                f"{self._elsewhere}"
            ) from e

    @property
    def _elsewhere(self) -> str:
        """How to have it on another disk."""
        in_cache = self.folder.parent == cache_folder()
        return f"{'set KIKU_CACHE to' if in_cache else 'choose'} a folder on another disk"

    def _kept(self) -> dict[str, Checked]:
        """Files of an earlier run of the same that are whole; all others are removed."""
        done: dict[str, Checked] = {}
        for name in (MANIFEST, _JOURNAL):
            try:
                earlier = read_manifest(self.part / name, format=self.order.format)
            except CheckpointError:
                continue
            if earlier == self.order.manifest(earlier.files):
                wrong = {n for n, bad in earlier.problems(self.part, checksums=True) if bad}
                done = {n: file for n, file in earlier.files.items() if n not in wrong}
                break
        stages = [names for names in STAGES.values() if all(name in done for name in names)]
        done = {name: done[name] for names in stages for name in names}
        for path in self.part.iterdir() if self.part.is_dir() else ():
            if path.name not in (*done, _JOURNAL):
                path.unlink()
        return done

    def _needed(self) -> float:
        """Bytes that the graphs will take, or a little more."""
        config = self.order.config
        codec = sum(map(math.prod, codec_shapes(config.codec).values()))
        lm = sum(map(math.prod, lm_shapes(config.lm).values()))
        return 4 * codec + _BYTES_PER_WEIGHT[self.order.precision] * lm

    def _check_space(self, done: Mapping[str, Checked]) -> None:
        needed = self._needed() - sum(file.num_bytes for file in done.values())
        free = shutil.disk_usage(self.folder.parent).free
        if free < needed:
            raise CheckpointError(
                f"{self.order.name} in {self.order.precision} takes about "
                f"{needed / 1e6:,.0f} MB in {self.folder.parent}, where "
                f"{free / 1e6:,.0f} MB are free; make room, or {self._elsewhere}"
            )

    def _note(self, name: str, files: Mapping[str, Checked]) -> None:
        """Write a manifest of what is there, whole or not at all."""
        beside = self.part / f"{name}.new"
        beside.write_text(self.order.manifest(files).to_json(), encoding="utf-8")
        beside.replace(self.part / name)


class _Told:
    """The weights, and now and then a word about how many of them have been read."""

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


def _settled(path: Path) -> Checked:
    """What a finished file must be from now on."""
    size = path.stat().st_size
    if size > READ_WHOLE:
        # Later it is taken by its size, which a crash of the machine would leave as it is.
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    return Checked(size, sha256_of(path))
