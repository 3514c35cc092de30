"""Which layout a checkpoint has, and which files of it are needed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from kiku.checkpoint.hub import Folder, Place, file_elsewhere, open_place
from kiku.errors import CheckpointError, ConfigError, UnsupportedConfig

Layout = Literal["native", "transformers"]

# Kyutai's loader uses these names where config.json names none.
_LM_NAME = "model.safetensors"
_CODEC_NAME = "tokenizer-e351c8d8-checkpoint125.safetensors"
_VOCABULARY_NAME = "tokenizer_spm_32k_3.model"

_INDEX_NAME = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Files:
    """Local paths of everything that a checkpoint consists of."""

    name: str
    """What was asked for: a folder, a repository id."""
    layout: Layout
    config: Path
    lm: tuple[Path, ...]
    """Safetensors files with the decoder; empty when they were not asked for."""
    codec: tuple[Path, ...]
    """Safetensors files with the codec; the same as `lm` in transformers' layout."""
    vocabulary: Path | None
    """A SentencePiece model or a tokenizer.json."""
    codec_config: Path | None = None
    """Native: a codec other than the published one (moshi's `mimi_config_name`)."""
    preprocessor: Path | None = None
    """transformers: preprocessor_config.json or processor_config.json."""

    @property
    def weights(self) -> tuple[Path, ...]:
        """Every safetensors file, each once."""
        return tuple(dict.fromkeys((*self.lm, *self.codec)))


def find(
    source: str | Path | Place,
    *,
    revision: str | None = None,
    weights: bool = True,
    needs_vocabulary: bool = True,
) -> Files:
    """Find the files of a checkpoint; download those that are needed and not there yet.

    Args:
        source: "demo", a folder, a repository id, or one of these as `hub.open_place` gave it.
        revision: of a repository: branch, tag or commit.
        weights: false to leave the weights out (to read the config alone).
        needs_vocabulary: false to accept a checkpoint without one.

    Raises:
        CheckpointError: not found, not reachable, or files are missing; all the missing ones are
            listed.
        ConfigError: config.json has something that is not a name where a file should be named.
        UnsupportedConfig: it is another kind of model.
    """
    place = open_place(source, revision=revision)
    config_path = place.get("config.json")
    if config_path is None:
        raise CheckpointError(
            f"{place.name} is not a checkpoint: config.json is missing{_there(place)}"
        )
    config = read_json(config_path)
    if layout_of(config, config_path) == "transformers":
        return _transformers(place, config_path, weights=weights, needs_vocabulary=needs_vocabulary)
    return _native(place, config_path, config, weights=weights, needs_vocabulary=needs_vocabulary)


def layout_of(config: dict[str, Any], path: Path) -> Layout:
    """Which layout a config.json belongs to.

    Raises:
        UnsupportedConfig: it describes another kind of model.
    """
    kind = config.get("model_type")
    if kind == "kyutai_speech_to_text":
        return "transformers"
    if kind == "stt" or (kind is None and "text_card" in config and config.get("dep_q") == 0):
        return "native"
    raise UnsupportedConfig(
        f"{path} describes a model of type {kind!r}; kiku only reads speech-to-text models: 'stt' "
        "(Kyutai's layout) and 'kyutai_speech_to_text' (transformers')"
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds one object.

    Raises:
        CheckpointError: it cannot be read, or is not that.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise CheckpointError(f"{path} cannot be read: {e}") from e
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} must contain a JSON object, not a {type(values).__name__}")
    return values  # pyright: ignore[reportUnknownVariableType]


def _native(
    place: Place,
    config_path: Path,
    config: dict[str, Any],
    *,
    weights: bool,
    needs_vocabulary: bool,
) -> Files:
    missing: list[str] = []

    def named(key: str, usual: str | None = None) -> str | None:
        name: object = config.get(key)
        if name is not None and not isinstance(name, str):
            raise ConfigError(f"{config_path}: {key} must be the name of a file, not {name!r}")
        return name or usual

    def need(name: str | None, *, optional: bool = False) -> Path | None:
        if name is None:
            return None
        path = file_elsewhere(name, place) or place.get(name)
        if path is None and not optional:
            missing.append(name)
        return path

    lm_name, codec_name = named("moshi_name", _LM_NAME), named("mimi_name", _CODEC_NAME)
    codec_config = need(named("mimi_config_name"))
    vocabulary = need(named("tokenizer_name", _VOCABULARY_NAME), optional=not needs_vocabulary)
    lm = need(lm_name) if weights else None
    codec = need(codec_name) if weights else None
    _refuse_missing(place, missing)
    return Files(
        name=place.name,
        layout="native",
        config=config_path,
        lm=(lm,) if lm else (),
        codec=(codec,) if codec else (),
        vocabulary=vocabulary,
        codec_config=codec_config,
    )


def _transformers(
    place: Place, config_path: Path, *, weights: bool, needs_vocabulary: bool
) -> Files:
    missing: list[str] = []
    preprocessor = place.get("preprocessor_config.json") or place.get("processor_config.json")
    vocabulary = place.get("tokenizer.json") or place.get("tokenizer.model")
    if vocabulary is None and needs_vocabulary:
        missing.append("tokenizer.json")
    shards = _shards(place, missing) if weights else ()
    _refuse_missing(place, missing)
    return Files(
        name=place.name,
        layout="transformers",
        config=config_path,
        lm=shards,
        codec=shards,
        vocabulary=vocabulary,
        preprocessor=preprocessor,
    )


def _shards(place: Place, missing: list[str]) -> tuple[Path, ...]:
    """The one weights file, or all that the index names."""
    whole = place.get(_LM_NAME)
    if whole is not None:
        return (whole,)
    index_path = place.get(_INDEX_NAME)
    if index_path is None:
        missing.append(f"{_LM_NAME} (or {_INDEX_NAME} and its shards)")
        return ()
    weight_map: Any = read_json(index_path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index_path} has no weight_map: it is not an index of shards")
    names = list(cast(dict[str, Any], weight_map).values())
    for name in names:
        if not isinstance(name, str):
            raise CheckpointError(
                f"{index_path}: weight_map must give the name of a shard, not {name!r}"
            )
    found: list[Path] = []
    for name in sorted(set(names)):
        path = place.get(name)
        if path is None:
            missing.append(name)
        else:
            found.append(path)
    return tuple(found)


def _refuse_missing(place: Place, missing: list[str]) -> None:
    if missing:
        raise CheckpointError(
            f"{place.name} is not a complete checkpoint: {', '.join(missing)} "
            f"missing{_there(place)}"
        )


def _there(place: Place) -> str:
    """For a message: what is in the folder instead, and a hint where other formats are found."""
    names = place.listing()
    if not isinstance(place, Folder):
        return f" in the cache, and {place.why_not()}" if place.no_answer else ""
    if not names:
        return " (the folder is empty)"
    hint = ""
    if any(n.endswith((".bin", ".pt", ".pth", ".gguf", ".npz")) for n in names):
        hint = "; kiku only reads safetensors"
    shown = ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")
    return f" (there are: {shown}){hint}"
