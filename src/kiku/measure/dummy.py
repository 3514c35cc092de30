"""Dummy models: of any shape, with random weights, ready to be measured. A step costs the same
whatever the weights are."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kiku.checkpoint.model_shapes import SHAPES, random_weights
from kiku.config import ModelConfig
from kiku.errors import CheckpointError, ConfigError
from kiku.recognizer import Recognizer
from kiku.text import Vocabulary

NOTE = "dummy_model.json"
"""Name of the file that marks a folder as a dummy model."""


def shape_of(name: str) -> ModelConfig:
    """The numbers of a published model.

    Raises:
        ConfigError: there is no such shape.
    """
    if name not in SHAPES:
        raise ConfigError(f"there is no shape {name!r}; choose one of {', '.join(SHAPES)}")
    return SHAPES[name]


def write_dummy_model(folder: Path, config: ModelConfig, precision: str) -> Path:
    """Write the graphs of a random model of these numbers into a folder, unless it holds them.

    Needs as much room on the disk as the model: 1 GB for the 1B in int8.

    Raises:
        CheckpointError: the files cannot be written.
        ConfigError: there is no such precision.
    """
    from kiku.graph import FORMAT, check_precision, write_codec, write_decoder

    check_precision(precision)
    wanted = {"format": FORMAT, "precision": precision, "config": config.to_dict()}
    note = folder / NOTE
    if note.is_file() and _read(note) == json.loads(json.dumps(wanted)):
        return folder
    codec, lm = random_weights(config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        note.unlink(missing_ok=True)
        write_codec(folder, config.codec, codec, precision)
        write_decoder(folder, config.lm, lm, precision)
        note.write_text(json.dumps(wanted))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CheckpointError(
            f"a random model cannot be written to {folder} ({reason}); make room, or name another "
            "folder"
        ) from error
    return folder


def is_dummy_model(folder: str | Path) -> bool:
    """Whether `write_dummy_model` wrote this folder."""
    return (Path(folder) / NOTE).is_file()


def open_dummy_model(folder: Path, *, slots: int = 1, threads: int | None = None) -> Recognizer:
    """A recognizer of a model that `write_dummy_model` wrote; its words mean nothing.

    Raises:
        CheckpointError: the folder holds something else.
    """
    from kiku.engine.onnx import onnx_engine

    try:
        config = ModelConfig.from_dict(_read(folder / NOTE)["config"])
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{folder} contains no random model ({error}); write it again"
        ) from error
    engine = onnx_engine(folder, config, slots=slots, threads=threads)
    return Recognizer(engine, config, _vocabulary(config), name=folder.name)


def open_model(
    source: str | Path, *, precision: str | None = None, slots: int = 1, threads: int | None = None
) -> Recognizer:
    """A recognizer of a dummy model's folder, or of whatever `kiku.load` takes, on the engine for
    CPUs."""
    if is_dummy_model(source):
        return open_dummy_model(Path(source), slots=slots, threads=threads)
    from kiku import loading

    return loading.load(source, engine="onnx", dtype=precision, slots=slots, threads=threads)


def _read(note: Path) -> Mapping[str, Any]:
    return json.loads(note.read_text())


def _vocabulary(config: ModelConfig) -> Vocabulary:
    """A vocabulary with a piece for each token of the decoder."""
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    count = config.lm.text_vocab_size
    return Vocabulary.from_pieces([*special, *(f"▁w{i}" for i in range(4, count))][:count])
