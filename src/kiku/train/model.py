# pyright: basic
# What torch gives is only partly typed.
"""The decoder that a run trains, from the model that it begins with."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kiku.checkpoint import Loaded, load
from kiku.checkpoint.identity import digest_of, identity_of
from kiku.codec import MimiEncoder
from kiku.config import ModelConfig
from kiku.errors import TrainingError
from kiku.lm import LM
from kiku.train.identity import codec_digest, vocabulary_digest
from kiku.train.lora import adapt
from kiku.train.new_pieces import new_pieces_of, with_rows
from kiku.train.peft_files import load_adapter
from kiku.train.settings import CodecSettings, FitSettings
from kiku.train.shards import Index, PackReader

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

CODEC = "codec."
"""Prefix of the names of the codec's weights, where they are next to the decoder's."""


@dataclass(frozen=True, slots=True)
class TrainableModel:
    """A decoder that is being trained, and the model that it comes from."""

    loaded: Loaded
    config: ModelConfig
    """The config with the pause heads that the decoder has in this run."""
    lm: LM
    identity: str
    """Digest of the model that it began with, and of which rows of its tables are trained."""
    new: range
    """Ids of the new pieces, for which it is not trained yet."""

    @property
    def weights(self) -> dict[str, Tensor]:
        """Trained weights by name: the decoder's, and the codec's with the prefix `CODEC`."""
        codec = trained_weights(self.loaded.codec)
        return {**trained_weights(self.lm), **{CODEC + name: one for name, one in codec.items()}}


def load_for_training(
    settings: FitSettings, *, trains: bool = True, in_parts: bool = False
) -> TrainableModel:
    """The decoder of a run before its first step.

    Args:
        settings: which model, adapters, pause heads.
        trains: whether it will be trained, and not only filled with weights of a run.
        in_parts: whether each process will take its part of the weights out of it.

    Raises:
        CheckpointError: the model cannot be loaded.
        TrainingError: an adapter cannot be read, or does not fit; or new pause heads would never
            learn.
    """
    frozen = settings.lora is not None and settings.train.precision == "bfloat16"
    # Frozen weights need no more precision than the products they are used in.
    loaded = load(settings.model, dtype=torch.bfloat16 if frozen and trains else torch.float32)
    has = loaded.config.lm.num_pause_heads
    if trains:
        _refuse_zero_heads(settings, has)
    config, lm = _with_heads(loaded, settings.pause_heads)
    # Loaded weights are mapped from the file, which must not change. Taking a part copies it.
    if not in_parts or settings.lora is not None:
        for weight in lm.parameters():
            weight.data = weight.data.clone()
    torch.manual_seed(settings.train.seed)
    lm.requires_grad_(settings.codec is None or not settings.codec.alone)
    _unfreeze(loaded.codec, config.lm.num_codebooks, settings.codec)
    new = range(0)
    if settings.lora is not None or settings.loss.keep:
        new = new_pieces_of(loaded, -1 if settings.lora is None else settings.lora.new_pieces)
    if settings.lora is not None:
        adapt(lm, settings.lora, new)
        lm.pause_heads[has:].requires_grad_(True)  # new ones are zero, and must learn
        if settings.lora.start and trains:
            load_adapter(Path(settings.lora.start), lm)
        # Trained weights are float32, also if the frozen ones are bfloat16.
        for weight in lm.parameters():
            if weight.requires_grad:
                weight.data = weight.data.float()
    identity = identity_of(loaded.files, loaded.config)
    rows = {name: [table.first, len(table.rows)] for name, table in with_rows(lm).items()}
    return TrainableModel(
        loaded, config, lm, digest_of([identity, rows]) if rows else identity, new
    )


def _refuse_zero_heads(settings: FitSettings, has: int) -> None:
    """Check that new pause heads, which begin as zero, are trained."""
    if settings.pause_heads <= has:
        return
    why = ""
    if settings.codec is not None and settings.codec.alone:
        why = "codec.alone does not train the decoder: leave pause_heads or codec.alone out"
    elif settings.loss.pauses == 0:
        why = "loss.pauses is 0: leave pause_heads out, or give loss.pauses a weight"
    if why:
        raise TrainingError(
            f"pause_heads is {settings.pause_heads}, and the model has {has}; new ones would learn "
            f"nothing, because {why}"
        )


def _with_heads(loaded: Loaded, wanted: int) -> tuple[ModelConfig, LM]:
    """The decoder with `wanted` pause heads (-1: as many as it has); new ones are zero."""
    has = loaded.config.lm.num_pause_heads
    if wanted in (-1, has):
        return loaded.config, loaded.lm
    config = replace(loaded.config, lm=replace(loaded.config.lm, num_pause_heads=wanted))
    with torch.device("meta"):
        lm = LM(config.lm)
    state = {
        name: value
        for name, value in loaded.lm.state_dict().items()
        if not name.startswith("pause_heads.") or int(name.split(".")[1]) < wanted
    }
    head = torch.zeros(config.lm.pause_classes, config.lm.transformer.dim)
    for number in range(has, wanted):
        state[f"pause_heads.{number}.weight"] = head.clone().to(loaded.lm.out_norm.weight.dtype)
    lm.load_state_dict(state, assign=True)
    for module in lm.modules():
        fill: Any = getattr(module, "fill", None)
        if fill is not None:  # tables of rotary positions are in no file
            fill("cpu")
    return config, lm


def trained_weights(network: nn.Module) -> dict[str, Tensor]:
    """The weights that are trained, by name."""
    return {name: weight for name, weight in network.named_parameters() if weight.requires_grad}


def _unfreeze(codec: MimiEncoder, num_codebooks: int, settings: CodecSettings | None) -> None:
    """Let parts of a codec be trained, in place, but none whose codes the decoder never reads."""
    codec.requires_grad_(False)
    if settings is None:
        return
    for part in settings.parts:
        codec.get_submodule(part).requires_grad_(True)
    if num_codebooks <= codec.config.num_semantic:
        codec.quantizer.acoustic.requires_grad_(False)
    for weight in trained_weights(codec).values():
        weight.data = weight.data.clone()
    if not trained_weights(codec):
        raise TrainingError(
            f"codec.parts names {', '.join(settings.parts)}, but this codec has no weights to "
            "train there: name further parts"
        )


def enable_checkpointing(lm: LM) -> None:
    """Keep only the input of each layer, and recompute the layer for its gradient; in place."""
    for layer in lm.transformer.layers:
        layer.forward = _checkpointed(layer.forward)  # pyright: ignore
    lm.embed = _checkpointed(lm.embed)  # pyright: ignore


def _checkpointed(function: Callable[..., Any]) -> Callable[..., Any]:
    return partial(checkpoint, function, use_reentrant=False)


def refuse_other_pack(index: Index, model: TrainableModel, folder: str) -> None:
    """Check that a pack was made with this model's codec and vocabulary.

    Its codes and tokens mean nothing to other codecs and vocabularies.

    Raises:
        TrainingError: the pack was made for another codec or vocabulary.
    """
    lm = model.config.lm
    wanted = {
        "codec": codec_digest(model.loaded.codec),
        "vocabulary": vocabulary_digest(model.loaded.vocabulary),
        "num_codebooks": lm.num_codebooks,
        "text_vocab_size": lm.text_vocab_size,
        "pad_id": model.config.pad_id,
    }
    if index.settings.get("vocabulary") != wanted["vocabulary"]:
        has, had = wanted["text_vocab_size"], index.settings.get("text_vocab_size")
        raise TrainingError(
            f"{folder} was packed with another vocabulary ({had} pieces; "
            f"{model.loaded.files.name} has {has}): pack the manifest again with --model "
            f"{model.loaded.files.name}, or let the run start from the model that it was packed "
            "with"
        )
    for key, value in wanted.items():
        if index.settings.get(key) != value:
            raise TrainingError(
                f"{folder} was packed for a model with another {key}: pack the manifest again with "
                f"--model {model.loaded.files.name}"
            )


def refuse_pack_without_sound(reader: PackReader, settings: FitSettings) -> None:
    """Check that the pack has sound if the codec is trained.

    Raises:
        TrainingError: the pack has none.
    """
    if settings.codec is not None and not reader.has_sound:
        raise TrainingError(
            f"the codec is to be trained, but {settings.pack} has no sound: pack the manifest "
            "again with --sound, or leave the table codec out"
        )


def refuse_to_keep(reader: PackReader, model: TrainableModel, settings: FitSettings) -> None:
    """Check that `loss.keep` can work: it needs marked examples, and the model's own delay.

    Raises:
        TrainingError: no example is marked, or the pack has another delay than the model.
    """
    if not settings.loss.keep:
        return
    if not reader.keep.any():
        raise TrainingError(
            f"loss.keep is {settings.loss.keep:g}, but no example of {settings.pack} is marked: "
            'write "keep": true in rows of the manifest and pack it again, or leave loss.keep out'
        )
    has, wanted = model.config.text_delay_s, reader.index.settings["delay_s"]
    if has != wanted:
        raise TrainingError(
            f"loss.keep holds the model to its own text, {has:g} s after the sound, but "
            f"{settings.pack} asks for text {wanted:g} s after it: pack without --delay, or leave "
            "loss.keep out"
        )
