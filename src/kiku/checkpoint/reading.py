"""Reads the config of a checkpoint's files, and finds which of their tensors is which of ours.

Needs no PyTorch, and reads no numbers of the weights, except one row of transformers' head.
"""

import math
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from kiku.checkpoint.arrays import as_float32, mapped
from kiku.checkpoint.config_native import read_native, read_native_codec
from kiku.checkpoint.config_transformers import filled, read_transformers
from kiku.checkpoint.corrections import Seen, correct, start_row_is_filler
from kiku.checkpoint.headers import Stored, read_headers
from kiku.checkpoint.layout import Files, Layout, read_json
from kiku.checkpoint.names import (
    Pair,
    Table,
    native_codec,
    native_lm,
    transformers_codec,
    transformers_lm,
)
from kiku.checkpoint.tensor_shapes import Shapes, codec_shapes, lm_shapes
from kiku.config import ModelConfig
from kiku.errors import CheckpointError, ConfigError

_SHOWN = 50  # problems of tensors; a model of another size has thousands of them

_HEAD = "lm_head.weight"  # transformers' name
_TIMING = ("audio_delay_seconds", "audio_silence_prefix_seconds")


def read_config(files: Files) -> ModelConfig:
    """The config of a checkpoint, corrected (with a warning each) where its files are wrong.

    Without the weights (`find(..., weights=False)`) pause heads that config.json does not mention
    are not noticed.

    Raises:
        CheckpointError: a file is damaged, or cannot be read.
        ConfigError: the config is impossible.
        UnsupportedConfig: it is another kind of model.
    """
    return _read_config(files, read_headers(files.lm))


class Source:
    """The tensors in the files of one network, under the names that kiku expects."""

    def __init__(self, table: Table, stored: Mapping[str, Stored], ours: Shapes) -> None:
        """`ours` are the shapes of our tensors; nothing is compared yet."""
        self.stored = stored
        self._table, self._ours = table, ours
        self._names: dict[str, str] = {}  # canonical -> as in the file
        self._twice: list[str] = []
        for name in stored:
            canonical = table.canonical(name)
            if table.skips(canonical):
                continue
            if canonical in self._names:
                self._twice.append(f"twice: {name} and {self._names[canonical]}")
            self._names[canonical] = name

    def problems(self) -> list[str]:
        """One line for each tensor that is missing, unexpected, mis-shaped or present twice."""
        expected = self._table.expected(self._ours)
        found = list(self._twice)
        for name, wanted in expected.items():
            if name not in self._names:
                found.append(f"missing: {name} {list(wanted)}")
                continue
            shape = self.stored[self._names[name]].shape
            if shape != wanted:
                found.append(
                    f"wrong shape: {self._names[name]} is {list(shape)}, not {list(wanted)}"
                )
        for canonical, name in self._names.items():
            if canonical not in expected:
                found.append(f"unexpected: {name} {list(self.stored[name].shape)}")
        return found

    def pairs(self) -> Iterator[tuple[Pair, list[str]]]:
        """Every pair of the table, with the names that its tensors have in the files."""
        for pair in self._table.pairs():
            yield pair, [self._names[name] for name in pair.theirs]


@dataclass(frozen=True, slots=True)
class Opened:
    """A checkpoint of which the config and the headers have been read, but not the weights."""

    files: Files
    config: ModelConfig
    codec: Source
    lm: Source

    def problems(self) -> list[str]:
        """One line for each tensor that is wrong."""
        return self.lm.problems() + self.codec.problems()

    def refuse_problems(self) -> None:
        """Check that all tensors are as the config says.

        Raises:
            CheckpointError: they are not; all that are wrong are listed.
        """
        if problems := self.problems():
            raise CheckpointError(_listed(self.files, problems))


def open_files(files: Files, config: ModelConfig | None = None) -> Opened:
    """Read config and headers; nothing is compared yet.

    Args:
        files: with the weights.
        config: what `read_config` gave, if it has been read.

    Raises:
        CheckpointError, ConfigError, UnsupportedConfig: as `read_config`.
    """
    lm_stored = read_headers(files.lm)
    codec_stored = lm_stored if files.codec == files.lm else read_headers(files.codec)
    if config is None:
        config = _read_config(files, lm_stored)
    lm_table, codec_table = tables(files.layout, config)
    return Opened(
        files,
        config,
        codec=Source(codec_table, codec_stored, codec_shapes(config.codec)),
        lm=Source(lm_table, lm_stored, lm_shapes(config.lm)),
    )


def tables(layout: Layout, config: ModelConfig) -> tuple[Table, Table]:
    """The name tables of decoder and codec in one layout."""
    if layout == "native":
        return native_lm(config.lm), native_codec(config.codec)
    return transformers_lm(config.lm), transformers_codec(config.codec)


@contextmanager
def _blamed_on(file: Path) -> Generator[None]:
    """Name the file in errors about an impossible value."""
    try:
        yield
    except ConfigError as e:
        raise type(e)(f"{file}: {e}") from e
    except (TypeError, AttributeError, ValueError, ArithmeticError) as e:
        raise ConfigError(f"{file}: a value has the wrong type, or is impossible ({e})") from e


def _read_config(files: Files, stored: Mapping[str, Stored]) -> ModelConfig:
    config = read_json(files.config)
    if files.layout == "native":
        return _read_native(files, config, stored)
    return _read_transformers(files, config, stored)


def _read_native(files: Files, config: dict[str, Any], stored: Mapping[str, Stored]) -> ModelConfig:
    codec = None
    if files.codec_config is not None:
        description = read_json(files.codec_config)
        with _blamed_on(files.codec_config):
            codec = read_native_codec(description)
    heads = sum(1 for name in stored if name.startswith("extra_heads."))
    with _blamed_on(files.config):
        seen = Seen("native", config, _timing(config.get("stt_config") or {}))
        correct(seen, config_file=files.config, timing_file=None)
        return read_native({**seen.config, "stt_config": seen.timing}, codec, num_pause_heads=heads)


def _read_transformers(
    files: Files, config: dict[str, Any], stored: Mapping[str, Stored]
) -> ModelConfig:
    timing: dict[str, Any] = {}
    if files.preprocessor is not None:
        preprocessor = read_json(files.preprocessor)
        with _blamed_on(files.preprocessor):
            # transformers 5 nests the feature extractor's values in processor_config.json
            timing = _timing(preprocessor.get("feature_extractor", preprocessor))
    zero = _HEAD in stored and _last_row_is_zero(stored[_HEAD])
    with _blamed_on(files.config):
        seen = Seen("transformers", filled(config), timing, last_head_row_is_zero=zero)
        correct(seen, config_file=files.config, timing_file=files.preprocessor)
        filler = start_row_is_filler(seen.config, last_head_row_is_zero=seen.last_head_row_is_zero)
        return read_transformers(seen.config, seen.timing, last_head_row_is_zero=filler)


def _last_row_is_zero(head: Stored) -> bool:
    return len(head.shape) == 2 and not as_float32(mapped(head)[-1:], head.dtype).any()


def _timing(values: Any) -> dict[str, Any]:
    """The delay and the silence prefix, as far as they are stated; both layouts use the same two
    keys."""
    if not isinstance(values, dict):
        raise ConfigError(f"delay and silence prefix must be in an object, not {values!r}")
    stated = {key: cast(Any, values[key]) for key in _TIMING if key in values}
    for key, value in stated.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value < math.inf:
            raise ConfigError(f"{key} must be a number of seconds, 0 or more, not {value!r}")
    return stated


def shortened(problems: list[str]) -> list[str]:
    """The first of many problems, and how many more there are."""
    left = len(problems) - _SHOWN
    return problems if left <= 1 else [*problems[:_SHOWN], f"and {left:,} more"]


def _listed(files: Files, problems: list[str]) -> str:
    shown = "".join(f"\n  {p}" for p in shortened(problems))
    where = ", ".join(str(path) for path in files.weights)
    return (
        f"the tensors of {where} are not those that {files.config} describes ({len(problems)} "
        f"differ):{shown}\neither the files belong to different checkpoints, or they were made by "
        "something that kiku does not know"
    )
