"""From a folder, a repository or the demo to networks that are ready to transcribe."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kiku.checkpoint.layout import Files, find
from kiku.checkpoint.mapped import MappedTensors
from kiku.checkpoint.reading import Source, open_files
from kiku.checkpoint.tensor_shapes import is_small
from kiku.codec import MimiEncoder
from kiku.config import ModelConfig
from kiku.errors import CheckpointError, ConfigError
from kiku.lm import LM
from kiku.text import Vocabulary

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
        """The vocabulary of the text tokens.

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

    On the CPU the weights are mapped, not read: pages come from the disk when touched, and tensors
    that are stored as the network needs them are never copied.

    Args:
        source: "demo", a folder, a repository id, or what `find` gave.
        dtype: of the decoder: "float32", "bfloat16", "float16" or the torch.dtype. "auto" takes the
            stored one; None does so too, but takes float32 for decoders below 100 million weights.
        device: where to put the networks.
        revision: of a repository: branch, tag or commit.
        needs_vocabulary: false to accept a checkpoint without one.

    Raises:
        CheckpointError: files are missing or damaged, or the tensors are not those of the config
            (all of them are listed).
        ConfigError: the config or `dtype` is impossible.
        UnsupportedConfig: it is another kind of model.
    """
    # checked before gigabytes are fetched for a dtype that does not exist
    wanted = None if dtype is None or dtype == "auto" else as_dtype(dtype)
    if isinstance(source, Files):
        files = source
    else:
        files = find(source, revision=revision, needs_vocabulary=needs_vocabulary)
    opened = open_files(files)
    opened.refuse_problems()
    config = opened.config
    with torch.device("meta"):
        codec, lm = MimiEncoder(config.codec), LM(config.lm)
    if dtype is None and is_small(config.lm):
        wanted = torch.float32
    _fill(lm, opened.lm, wanted)
    _fill(codec, opened.codec, torch.float32)
    return Loaded(files, config, codec.to(device).eval(), lm.to(device).eval())


def as_dtype(value: str | torch.dtype) -> torch.dtype:
    """`"bfloat16"`, `"torch.bfloat16"` or a dtype itself.

    Raises:
        ConfigError: none of float32, float16, bfloat16.
    """
    name = str(value).removeprefix("torch.")
    if name not in DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(DTYPES)} (or 'auto'), not {value!r}")
    return DTYPES[name]


def _fill(module: nn.Module, source: Source, dtype: torch.dtype | None) -> None:
    """Give a network on the meta device its weights in `dtype`; those stored in it stay mapped.

    None is the dtype in which the first layer's attention is stored.
    """
    tensors = MappedTensors(source.stored)
    if dtype is None:
        first = "transformer.layers.0.attention.in_proj.weight"
        names = next(names for pair, names in source.pairs() if first in pair.ours)
        dtype = tensors.mapped(names[0]).dtype
    state: dict[str, Tensor] = {}
    for pair, names in source.pairs():
        theirs = [tensors.mapped(name) for name in names]
        if pair.how.copies or theirs[0].dtype != dtype:
            theirs = tensors.borrowed(names)
        ours = pair.how.read(theirs)
        state.update((name, value.to(dtype)) for name, value in zip(pair.ours, ours, strict=True))
    module.load_state_dict(state, strict=True, assign=True)
