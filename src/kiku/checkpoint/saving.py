"""Writes networks into a folder, in either layout."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from kiku.checkpoint.config_native import write_native, write_native_codec
from kiku.checkpoint.config_transformers import write_preprocessor, write_transformers
from kiku.checkpoint.mimi_decoder import mimi_decoder_to_transformers
from kiku.checkpoint.names import native_codec, native_lm, transformers_codec, transformers_lm
from kiku.config import ModelConfig
from kiku.errors import CheckpointError
from kiku.writing import in_place_of, reason_of

_CODEC_FILE = "mimi.safetensors"
_CODEC_CONFIG_FILE = "mimi_config.json"
_VOCABULARY_FILE = "tokenizer.model"

State = Mapping[str, Tensor]
"""A `state_dict()`."""


def to_native(
    lm: State, codec: State, config: ModelConfig
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Our tensors under Kyutai's names: those of the decoder's file and those of the codec's."""
    return native_lm(config.lm).to_theirs(lm), native_codec(config.codec).to_theirs(codec)


def to_transformers(lm: State, codec: State, config: ModelConfig) -> dict[str, Tensor]:
    """Our tensors under transformers' flat names (on disk); pause heads have no place there."""
    return {
        **transformers_lm(config.lm).to_theirs(lm),
        **transformers_codec(config.codec).to_theirs(codec),
    }


def save_native(
    folder: Path,
    config: ModelConfig,
    *,
    lm: State,
    codec: State,
    vocabulary: Path,
    mimi_decoder: State | None = None,
) -> None:
    """Write a checkpoint in Kyutai's layout: config.json, two safetensors files, the vocabulary.

    A codec that is not the published one is described in mimi_config.json, in moshi's own terms.
    moshi loads the folder as it is if `mimi_decoder` is given: its codec needs the part that makes
    sound.

    Args:
        folder: made if need be; files of these names are replaced.
        config: the config of the model.
        lm: `state_dict()` of the decoder, in the dtype to be stored.
        codec: `state_dict()` of the codec, in the dtype to be stored.
        vocabulary: a SentencePiece model (or tokenizer.json, which only kiku reads in this layout);
            copied.
        mimi_decoder: what `read_mimi_decoder` gave.

    Raises:
        UnsupportedConfig: Kyutai's layout cannot describe this model.
        CheckpointError: the folder cannot be written.
    """
    tokenizer_name = "tokenizer.json" if vocabulary.suffix == ".json" else _VOCABULARY_FILE
    values = write_native(config, mimi_name=_CODEC_FILE, tokenizer_name=tokenizer_name)
    described = write_native_codec(config.codec)
    lm_tensors, codec_tensors = to_native(lm, codec, config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if "mimi_config_name" in values:
            _write_json(folder / _CODEC_CONFIG_FILE, described)
        _write_tensors(folder / "model.safetensors", lm_tensors)
        _write_tensors(folder / _CODEC_FILE, {**codec_tensors, **(mimi_decoder or {})})
        _copy(vocabulary, folder / tokenizer_name)
        _write_json(folder / "config.json", values)
    except (OSError, SafetensorError) as e:
        raise _unwritten(folder, e) from e


def save_transformers(
    folder: Path,
    config: ModelConfig,
    *,
    lm: State,
    codec: State,
    vocabulary: Path | None = None,
    mimi_decoder: State | None = None,
) -> None:
    """Write a checkpoint in transformers' layout: configs, one safetensors file, tokenizer.

    Args:
        folder: made if need be; files of these names are replaced.
        config: of the model. Its pause heads are left out: the layout has no place for them.
        lm: `state_dict()` of the decoder, in the dtype to be stored.
        codec: `state_dict()` of the codec, in the dtype to be stored.
        vocabulary: a tokenizer.json; copied. None writes none.
        mimi_decoder: what `read_mimi_decoder` gave; without it transformers fills that part at
            random, with a warning.

    Raises:
        UnsupportedConfig: transformers' layout cannot describe this model.
        CheckpointError: the folder cannot be written, or the vocabulary is not a tokenizer.json.
    """
    if vocabulary is not None and vocabulary.suffix != ".json":
        raise CheckpointError(f"transformers' layout needs a tokenizer.json, not {vocabulary.name}")
    tensors = to_transformers(lm, codec, config)
    tensors.update(mimi_decoder_to_transformers(mimi_decoder or {}, config.codec))
    stored = str(lm["out_norm.weight"].dtype).removeprefix("torch.")
    values = {**write_transformers(config), "dtype": stored, "torch_dtype": stored}
    preprocessor = write_preprocessor(config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_tensors(folder / "model.safetensors", tensors)
        if vocabulary is not None:
            _copy(vocabulary, folder / "tokenizer.json")
        _write_json(folder / "preprocessor_config.json", preprocessor)
        _write_json(folder / "config.json", values)
    except (OSError, SafetensorError) as e:
        raise _unwritten(folder, e) from e


def _unwritten(folder: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{folder} cannot be written ({reason_of(error)}): make room or give another folder"
    )


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    with in_place_of(path) as beside:
        save_file(plain, beside, metadata={"format": "pt"})


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    with in_place_of(path) as beside:
        beside.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    if source.resolve() != target.resolve():
        with in_place_of(target) as beside:
            shutil.copyfile(source, beside)


def as_stored(state: State, dtype: torch.dtype) -> dict[str, Tensor]:
    """A state in another dtype, e.g. to ship a small model in half precision."""
    return {name: t.to(dtype) if t.is_floating_point() else t for name, t in state.items()}
