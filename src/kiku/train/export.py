# pyright: basic
# What torch gives is only partly typed.
"""A run -> a model in a layout that kiku, moshi and transformers read; or PEFT's adapter."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from torch import Tensor

from kiku.checkpoint import load, read_mimi_decoder, save_native, save_transformers
from kiku.checkpoint.loading import as_dtype
from kiku.checkpoint.saving import as_stored
from kiku.config import ModelConfig
from kiku.errors import TrainingError
from kiku.serial import from_plain
from kiku.train.lora import load_adapter, merged_state, read_adapter_settings, save_adapter
from kiku.train.model import Pupil, begin, trained_weights
from kiku.train.settings import FitSettings
from kiku.train.state import read_state

Layout = Literal["native", "transformers", "adapter"]
Which = Literal["average", "last"]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    folder: Path
    config: ModelConfig
    step: int
    left_out: tuple[str, ...]
    """What was trained and has no place in the layout."""


def export(
    run: Path,
    folder: Path,
    *,
    layout: Layout = "native",
    which: Which = "average",
    dtype: str = "auto",
    model: str | None = None,
) -> Exported:
    """Write what a run has learned, adapters merged.

    Args:
        run: the folder of a run; or of an adapter in PEFT's files, which `model` belongs to.
        folder: for the model; made if need be.
        layout: Kyutai's, transformers', or PEFT's adapter alone.
        which: the averaged weights, or those of the last step.
        dtype: of the decoder that is written; "auto" as the model that the run began with.
        model: that the run began with, where it lies elsewhere now.

    Raises:
        TrainingError: there is no run, or the layout cannot say what was trained.
        CheckpointError: the model cannot be read, or the folder not be written.
        UnsupportedConfig: the layout has no words for the model.
    """
    if (run / "adapter_config.json").exists():
        pupil, weights, step, delay_s = _from_adapter(run, model)
        settings = None
    else:
        settings, pupil, weights, step, delay_s = _from_run(run, which, model)
    if layout == "adapter":
        if settings is None or settings.lora is None:
            raise TrainingError(f"{run} trained whole weights, not adapters: export it as a model")
        base = model or settings.model
        left = save_adapter(folder, pupil.lm, weights, settings.lora, base)
        return Exported(folder, pupil.config, step, tuple(left))
    config = replace(pupil.config, text_delay_s=delay_s)
    stored = load(pupil.loaded.files, dtype="auto").lm.out_norm.weight.dtype
    wanted = stored if dtype == "auto" else as_dtype(dtype)
    lm = as_stored(merged_state(pupil.lm, weights), wanted)
    _write(folder, layout, config, lm, pupil)
    heads = [name for name in lm if name.startswith("pause_heads.")]
    return Exported(folder, config, step, tuple(heads) if layout == "transformers" else ())


def _from_run(
    run: Path, which: Which, model: str | None
) -> tuple[FitSettings, Pupil, Mapping[str, Tensor], int, float]:
    state = read_state(run, moments=False)
    if state is None:
        raise TrainingError(f"{run} is no run: it has no checkpoint yet; kiku train fit makes one")
    settings = from_plain(
        FitSettings, state.about["settings"], what=str(run), error=TrainingError, defaults=True
    )
    settings = replace(settings, model=model or settings.model)
    pupil = begin(settings, trains=False)
    if pupil.identity != state.about["model"]:
        raise TrainingError(
            f"{run} did not begin with {settings.model} as it is now: say with --model where the "
            "model lies that it began with"
        )
    weights = state.average if which == "average" else state.weights
    return settings, pupil, weights, state.step, state.about["delay_s"]


def _from_adapter(run: Path, model: str | None) -> tuple[Pupil, Mapping[str, Tensor], int, float]:
    if model is None:
        raise TrainingError(f"{run} is an adapter: say with --model which model it belongs to")
    lora = read_adapter_settings(run)
    pupil = begin(FitSettings(pack="", model=model, lora=lora), trains=False)
    load_adapter(run, pupil.lm)
    weights = {name: w.detach() for name, w in trained_weights(pupil.lm).items()}
    return pupil, weights, 0, pupil.config.text_delay_s


def _write(
    folder: Path, layout: Layout, config: ModelConfig, lm: Mapping[str, Tensor], pupil: Pupil
) -> None:
    loaded = pupil.loaded
    codec = {name: value.to(torch.float32) for name, value in loaded.codec.state_dict().items()}
    decoder = read_mimi_decoder(loaded.files, loaded.config)
    vocabulary = loaded.vocabulary
    with TemporaryDirectory() as made:
        if layout == "transformers" or not vocabulary.is_sentencepiece:
            path = Path(made) / "tokenizer.json"
            path.write_text(vocabulary.to_tokenizer_json(), encoding="utf-8")
        else:
            path = Path(made) / "tokenizer.model"
            path.write_bytes(vocabulary.source)
        save = save_transformers if layout == "transformers" else save_native
        save(folder, config, lm=lm, codec=codec, vocabulary=path, mimi_decoder=decoder)
