"""A run -> a model in a layout that kiku, moshi and transformers read; or PEFT's adapter."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from kiku.checkpoint import load
from kiku.checkpoint.loading import as_dtype
from kiku.checkpoint.saving import as_stored
from kiku.config import ModelConfig
from kiku.errors import TrainingError
from kiku.serial import from_plain
from kiku.train.lora import merged_state
from kiku.train.model import CODEC, TrainableModel, load_for_training, trained_weights
from kiku.train.model_files import write_model
from kiku.train.peft_files import (
    load_adapter,
    read_adapter_delay,
    read_adapter_settings,
    save_adapter,
)
from kiku.train.places import check_model_folder, in_place_of_model, refuse_to_replace
from kiku.train.settings import FitSettings
from kiku.train.state import read_state

Layout = Literal["native", "transformers", "adapter"]
Which = Literal["average", "last"]


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of an export."""

    folder: Path
    config: ModelConfig
    step: int
    left_out: tuple[str, ...]
    """Trained parts that the layout has no place for."""


def export(
    run: Path,
    folder: Path,
    *,
    layout: Layout = "native",
    which: Which = "average",
    dtype: str = "auto",
    model: str | None = None,
    force: bool = False,
) -> Exported:
    """Write the model that a run has trained, with adapters merged.

    Args:
        run: the folder of a run, or of an adapter in PEFT's files (which belongs to `model`).
        folder: where the model is written: new or empty; with `force` also a model's folder.
        layout: Kyutai's, transformers', or PEFT's adapter alone.
        which: the averaged weights, or those of the last step.
        dtype: dtype of the written decoder; "auto" is that of the model the run began with.
        model: the model that the run began with, if it has been moved.
        force: replace a model in the folder, unless it is read here.

    Raises:
        TrainingError: there is no run, the folder holds a model or anything else, or the layout
            cannot hold what was trained.
        CheckpointError: the model cannot be read, or the folder cannot be written.
        UnsupportedConfig: the layout cannot describe the model.
    """
    check_model_folder(folder, force=force)
    if (run / "adapter_config.json").exists():
        trainable, weights, step, delay_s = _from_adapter(run, model)
        settings = None
    else:
        settings, trainable, weights, step, delay_s = _from_run(run, which, model)
    for read in (run, trainable.loaded.files.config.parent):
        refuse_to_replace(folder, read)
    config = replace(trainable.config, text_delay_s=delay_s)
    if layout == "adapter":
        if settings is None or settings.lora is None:
            raise TrainingError(f"{run} trained whole weights, not adapters: export it as a model")
        if settings.codec is not None:
            raise TrainingError(
                f"{run} also trained the codec, which PEFT's files cannot store, and without "
                "which the adapter would not work as trained: export it as a model"
            )
        base = model or settings.model
        with in_place_of_model(folder) as place:
            left = save_adapter(place, trainable.lm, weights, settings.lora, base, delay_s)
        return Exported(folder, config, step, tuple(left))
    stored = load(trainable.loaded.files, dtype="auto").lm.out_norm.weight.dtype
    wanted = stored if dtype == "auto" else as_dtype(dtype)
    lm = as_stored(merged_state(trainable.lm, weights), wanted)
    codec = {n.removeprefix(CODEC): one for n, one in weights.items() if n.startswith(CODEC)}
    vocabulary = trainable.loaded.vocabulary
    with in_place_of_model(folder) as place:
        left_out = write_model(place, layout, config, lm, trainable.loaded, vocabulary, codec)
    return Exported(folder, config, step, left_out)


def _from_run(
    run: Path, which: Which, model: str | None
) -> tuple[FitSettings, TrainableModel, Mapping[str, Tensor], int, float]:
    state = read_state(run, moments=False)
    if state is None:
        raise TrainingError(f"{run} has no checkpoint of a run yet; kiku train fit makes one")
    settings = from_plain(
        FitSettings,
        state.about["settings"],
        what=str(run),
        error=TrainingError,
        defaults=True,
        lenient=True,
    )
    settings = replace(settings, model=model or settings.model)
    trainable = load_for_training(settings, trains=False)
    if trainable.identity != state.about["model"]:
        raise TrainingError(
            f"{run} did not start from {settings.model} as it is now: give --model, the place of "
            "the model that it started from"
        )
    weights = state.average if which == "average" else state.weights
    return settings, trainable, weights, state.step, state.about["delay_s"]


def _from_adapter(
    run: Path, model: str | None
) -> tuple[TrainableModel, Mapping[str, Tensor], int, float]:
    if model is None:
        raise TrainingError(f"{run} is an adapter: give --model, the model that it belongs to")
    lora = read_adapter_settings(run)
    trainable = load_for_training(FitSettings(pack="", model=model, lora=lora), trains=False)
    load_adapter(run, trainable.lm)
    weights = {name: w.detach() for name, w in trained_weights(trainable.lm).items()}
    delay_s = read_adapter_delay(run)
    return trainable, weights, 0, trainable.config.text_delay_s if delay_s is None else delay_s
