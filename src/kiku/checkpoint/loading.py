"""From a folder, a repository or the demo to networks that are ready to listen."""

import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kiku.checkpoint.config_native import read_native, read_native_codec
from kiku.checkpoint.config_transformers import filled, read_transformers
from kiku.checkpoint.corrections import Seen, correct, start_row_is_filler
from kiku.checkpoint.headers import TensorFiles
from kiku.checkpoint.layout import Files, Layout, find, read_json
from kiku.checkpoint.names import (
    Table,
    native_codec,
    native_lm,
    transformers_codec,
    transformers_lm,
)
from kiku.codec import MimiEncoder
from kiku.config import ModelConfig
from kiku.errors import CheckpointError, ConfigError
from kiku.lm import LM
from kiku.text import Vocabulary

_HEAD = {"native": "text_linear.weight", "transformers": "lm_head.weight"}
_TIMING = ("audio_delay_seconds", "audio_silence_prefix_seconds")

# Decoders with fewer weights than this run in float32 unless told otherwise: the memory that
# bfloat16 would save is not worth its rounding.
_SMALL = 100_000_000

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
"""The dtypes that a decoder can have, by the names that files use."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint in memory."""

    files: Files
    config: ModelConfig
    codec: MimiEncoder
    """Always float32, in eval mode."""
    lm: LM
    """In eval mode."""

    @property
    def vocabulary(self) -> Vocabulary:
        """Of the text tokens.

        Raises:
            CheckpointError: the checkpoint has none (it was loaded with `needs_vocabulary=False`).
            VocabularyError: its file is damaged.
        """
        if self.files.vocabulary is None:
            raise CheckpointError(f"{self.files.name} has no vocabulary (tokenizer.json)")
        return Vocabulary.load(self.files.vocabulary)


def load(
    source: str | Path | Files,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str = "cpu",
    revision: str | None = None,
    needs_vocabulary: bool = True,
) -> Loaded:
    """Load a checkpoint of any layout.

    On the CPU the weights are mapped, not read: pages come from the disk when touched, and what is
    stored as the network wants it is never copied.

    Args:
        source: "demo", a folder, a repository id, or what `find` gave.
        dtype: of the decoder: "float32", "bfloat16", "float16" or the torch.dtype; "auto" takes
            what is stored; None does so too, but takes float32 for decoders below 100 million
            weights.
        device: where to put the networks.
        revision: of a repository: branch, tag or commit.
        needs_vocabulary: false to accept a checkpoint without one.

    Raises:
        CheckpointError: files are missing or damaged, or the tensors are not those of the config
            (all of them are listed).
        ConfigError: the config or `dtype` cannot be.
        UnsupportedConfig: it is another kind of model.
    """
    # before gigabytes are fetched for a dtype that there is not
    wanted = None if dtype is None or dtype == "auto" else as_dtype(dtype)
    if isinstance(source, Files):
        files = source
    else:
        files = find(source, revision=revision, needs_vocabulary=needs_vocabulary)
    parts = _open(files)
    if problems := parts.problems():
        raise CheckpointError(_listed(files, problems))
    if dtype is None and sum(p.numel() for p in parts.lm.parameters()) < _SMALL:
        wanted = torch.float32
    if wanted is None:
        wanted = parts.lm_source.dtype_of("transformer.layers.0.attention.in_proj.weight")
    parts.lm_source.fill(wanted)
    parts.codec_source.fill(torch.float32)
    return Loaded(files, parts.config, parts.codec.to(device).eval(), parts.lm.to(device).eval())


def as_dtype(value: str | torch.dtype) -> torch.dtype:
    """`"bfloat16"`, `"torch.bfloat16"` or a dtype itself.

    Raises:
        ConfigError: none of float32, float16, bfloat16.
    """
    name = str(value).removeprefix("torch.")
    if name not in DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(DTYPES)} (or 'auto'), not {value!r}")
    return DTYPES[name]


def read_config(files: Files) -> ModelConfig:
    """The numbers of a checkpoint, corrected (with a warning each) where its files are wrong.

    Without the weights (`find(..., weights=False)`) pause heads that config.json does not mention
    go unseen.

    Raises:
        CheckpointError, ConfigError, UnsupportedConfig: as `load`.
    """
    return _read_config(files, TensorFiles(files.lm))


def tables(layout: Layout, config: ModelConfig) -> tuple[Table, Table]:
    """The name tables of decoder and codec in one layout."""
    if layout == "native":
        return native_lm(config.lm), native_codec(config.codec)
    return transformers_lm(config.lm), transformers_codec(config.codec)


def check(files: Files) -> list[str]:
    """What is wrong with the tensors of a checkpoint; empty if all is well.

    Raises:
        CheckpointError, ConfigError, UnsupportedConfig: as `load`, for what is wrong before tensors
        can be compared.
    """
    return _open(files).problems()


@dataclass(frozen=True, slots=True)
class _Parts:
    """Both networks on the meta device, and the files that will fill them."""

    config: ModelConfig
    codec: MimiEncoder
    lm: LM
    codec_source: "_Source"
    lm_source: "_Source"

    def problems(self) -> list[str]:
        """One line for each tensor that is wrong."""
        return self.lm_source.problems() + self.codec_source.problems()


def _open(files: Files) -> _Parts:
    lm_tensors = TensorFiles(files.lm)
    codec_tensors = lm_tensors if files.codec == files.lm else TensorFiles(files.codec)
    config = _read_config(files, lm_tensors)
    with torch.device("meta"):
        codec, lm = MimiEncoder(config.codec), LM(config.lm)
    lm_table, codec_table = tables(files.layout, config)
    return _Parts(
        config=config,
        codec=codec,
        lm=lm,
        codec_source=_Source(codec_table, codec_tensors, codec),
        lm_source=_Source(lm_table, lm_tensors, lm),
    )


@contextmanager
def _blamed_on(file: Path) -> Generator[None]:
    """Say in which file the value stands that cannot be."""
    try:
        yield
    except ConfigError as e:
        raise type(e)(f"{file}: {e}") from e
    except (TypeError, AttributeError, ValueError, ArithmeticError) as e:
        raise ConfigError(f"{file}: a value has the wrong type, or cannot be ({e})") from e


def _read_config(files: Files, tensors: TensorFiles) -> ModelConfig:
    config = read_json(files.config)
    if files.layout == "native":
        return _read_native(files, config, tensors)
    return _read_transformers(files, config, tensors)


def _read_native(files: Files, config: dict[str, Any], tensors: TensorFiles) -> ModelConfig:
    codec = None
    if files.codec_config is not None:
        description = read_json(files.codec_config)
        with _blamed_on(files.codec_config):
            codec = read_native_codec(description)
    heads = sum(1 for name in tensors.stored if name.startswith("extra_heads."))
    with _blamed_on(files.config):
        seen = Seen("native", config, _timing(config.get("stt_config") or {}))
        correct(seen, config_file=files.config, timing_file=None)
        return read_native({**seen.config, "stt_config": seen.timing}, codec, num_pause_heads=heads)


def _read_transformers(files: Files, config: dict[str, Any], tensors: TensorFiles) -> ModelConfig:
    timing: dict[str, Any] = {}
    if files.preprocessor is not None:
        preprocessor = read_json(files.preprocessor)
        with _blamed_on(files.preprocessor):
            # transformers 5 nests the feature extractor's values in processor_config.json
            timing = _timing(preprocessor.get("feature_extractor", preprocessor))
    head = tensors.stored.get(_HEAD["transformers"])
    zero = (
        head is not None
        and len(head.shape) == 2
        and not tensors.last_row(_HEAD["transformers"]).any()
    )
    with _blamed_on(files.config):
        seen = Seen("transformers", filled(config), timing, last_head_row_is_zero=bool(zero))
        correct(seen, config_file=files.config, timing_file=files.preprocessor)
        filler = start_row_is_filler(seen.config, last_head_row_is_zero=seen.last_head_row_is_zero)
        return read_transformers(seen.config, seen.timing, last_head_row_is_zero=filler)


def _timing(values: Any) -> dict[str, Any]:
    """Delay and silence prefix, as far as they are stated; both layouts use the same two keys."""
    if not isinstance(values, dict):
        raise ConfigError(f"delay and silence prefix should be in an object, not {values!r}")
    stated = {key: values[key] for key in _TIMING if key in values}
    for key, value in stated.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value < math.inf:
            raise ConfigError(f"{key} must be a number of seconds, 0 or more, not {value!r}")
    return stated


class _Source:
    """The files of one network, its table, and the network (on the meta device) to fill."""

    def __init__(self, table: Table, tensors: TensorFiles, module: nn.Module) -> None:
        self.table, self.tensors, self.module = table, tensors, module
        self.names: dict[str, str] = {}  # canonical -> as in the file
        self.twice: list[str] = []
        for name in tensors.stored:
            canonical = table.canonical(name)
            if table.skips(canonical):
                continue
            if canonical in self.names:
                self.twice.append(f"twice: {name} and {self.names[canonical]}")
            self.names[canonical] = name

    def problems(self) -> list[str]:
        """One line for each tensor that is missing, unexpected, mis-shaped or there twice."""
        expected = self.table.to_theirs(self.module.state_dict())
        found = list(self.twice)
        for name, wanted in expected.items():
            if name not in self.names:
                found.append(f"missing: {name} {list(wanted.shape)}")
                continue
            shape = self.tensors.stored[self.names[name]].shape
            if shape != tuple(wanted.shape):
                found.append(
                    f"wrong shape: {self.names[name]} is {list(shape)}, not {list(wanted.shape)}"
                )
        for canonical, name in self.names.items():
            if canonical not in expected:
                found.append(f"unexpected: {name} {list(self.tensors.stored[name].shape)}")
        return found

    def dtype_of(self, ours: str) -> torch.dtype:
        """In which dtype the tensor that we call `ours` is stored."""
        pair = next(pair for pair in self.table.pairs() if ours in pair.ours)
        return self.tensors.mapped(self.names[pair.theirs[0]]).dtype

    def fill(self, dtype: torch.dtype) -> None:
        """Give the network its weights, in `dtype`; what is stored so stays mapped."""
        state: dict[str, Tensor] = {}
        for pair in self.table.pairs():
            names = [self.names[name] for name in pair.theirs]
            theirs = [self.tensors.mapped(name) for name in names]
            if pair.how.copies or theirs[0].dtype != dtype:
                theirs = self.tensors.borrowed(names)
            ours = pair.how.read(theirs)
            state.update(
                (name, value.to(dtype)) for name, value in zip(pair.ours, ours, strict=True)
            )
        self.module.load_state_dict(state, strict=True, assign=True)


def _listed(files: Files, problems: list[str]) -> str:
    shown = "".join(f"\n  {p}" for p in problems)
    where = ", ".join(str(path) for path in files.weights)
    return (
        f"the tensors of {where} are not those that {files.config} describes "
        f"({len(problems)} differ):{shown}\n"
        "either the files belong to different checkpoints, or one was made by something that "
        "kiku does not know"
    )
