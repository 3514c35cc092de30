"""Read a checkpoint's small files: config, feature extractor, tokenizer, generation."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from kiku.checkpoint import Files, find, read_config
from kiku.checkpoint.hub import Access, Place, open_place
from kiku.checkpoint.layout import read_json
from kiku.config import ModelConfig
from kiku.errors import CheckpointError, InputError

Source = str | os.PathLike[str]
""" "demo", a folder, or a repository id."""

ACCESS = frozenset(f.name for f in fields(Access))
"""Names of the arguments that say how the hub and its cache are accessed."""

_STEERS_DOWNLOADS = frozenset({
    "force_download", "proxies", "resume_download", "subfolder", "use_auth_token",
})  # fmt: skip

# These choose among transformers' implementations, of which kiku has one. A dtype concerns models
# only, but programs pass it to processors as well.
_WITHOUT_EFFECT = frozenset({
    "attn_implementation", "dtype", "low_cpu_mem_usage", "torch_dtype", "trust_remote_code",
    "use_fast", "use_safetensors", "weights_only",
})  # fmt: skip


@dataclass(frozen=True)
class SmallFiles:
    """The small files of a checkpoint, or of a folder that holds only what a processor saved."""

    place: Place
    files: Files | None
    """None if there is no config.json."""
    model_config: ModelConfig | None = field(default=None)
    """The config with its known errors corrected; None if there is no config.json."""

    @property
    def config(self) -> dict[str, Any]:
        """config.json as stored, if it is in transformers' layout; else empty."""
        if self.files is None or self.files.layout != "transformers":
            return {}
        return read_json(self.files.config)

    @property
    def feature_extractor(self) -> dict[str, Any]:
        """The feature extractor's values as stored, from either file that holds them."""
        values = self.json("preprocessor_config.json") or self.json("processor_config.json")
        return values.get("feature_extractor", values)

    @property
    def vocabulary(self) -> Path:
        """The tokenizer.json or SentencePiece model.

        Raises:
            CheckpointError: there is none.
        """
        path = self.files.vocabulary if self.files is not None else self.place.get("tokenizer.json")
        if path is None:
            raise CheckpointError(f"{self.place.name} has no vocabulary (tokenizer.json)")
        return path

    def json(self, name: str) -> dict[str, Any]:
        """The object in a JSON file; empty if the file is not there."""
        path = self.place.get(name)
        return read_json(path) if path is not None else {}


def small_files(source: Source, revision: str | None, arguments: Mapping[str, Any]) -> SmallFiles:
    """Open a checkpoint of any layout; warns of values that are known to be wrong.

    Args:
        source: "demo", a folder, or a repository id.
        revision: branch, tag or commit of a repository.
        arguments: of a `from_pretrained`; only those that say how the hub is accessed are used.

    Raises:
        CheckpointError: it cannot be found.
        ConfigError: its config is invalid.
    """
    name = source if isinstance(source, str) else Path(source)
    place = open_place(name, revision=revision, access=_access_of(arguments))
    if place.get("config.json") is None:
        return SmallFiles(place, None)
    files = find(place, weights=False, needs_vocabulary=False)
    return SmallFiles(place, files, read_config(files))


def _access_of(arguments: Mapping[str, Any]) -> Access:
    """How the hub is accessed, from arguments; raises InputError if a value is invalid."""
    cache_dir, token = arguments.get("cache_dir") or None, arguments.get("token")
    local = arguments.get("local_files_only")
    if not isinstance(cache_dir, str | os.PathLike | None):
        raise InputError(f"cache_dir must be a folder, not {cache_dir!r}")
    if not isinstance(token, str | bool | None):
        raise InputError(
            f"token must be a string, True, False or None, not a {type(token).__name__}"
        )
    if not isinstance(local, bool | None):
        raise InputError(f"local_files_only must be True or False, not {local!r}")
    try:
        cache = None if cache_dir is None else Path(cast(Source, cache_dir)).expanduser()
    except RuntimeError as e:
        raise InputError(
            f"cache_dir must be a folder: there is no home folder that {cache_dir!r} could be in; "
            "name it without ~"
        ) from e
    return Access(cache, None if token == "" else token, bool(local))


def known_arguments(arguments: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The arguments of a `from_pretrained` that are values, which are later saved as such.

    Args:
        arguments: all arguments given by name.
        known: the names of values.

    Raises:
        InputError: an argument is unknown, or steers a download in a way that `Access` does not,
            and asks for something.
    """
    others = {k: value for k, value in arguments.items() if k not in known and k not in ACCESS}
    asked = {key for key, value in others.items() if value not in (None, False, "")}
    if found := sorted(_STEERS_DOWNLOADS & asked):
        raise InputError(
            f"from_pretrained does not take {', '.join(found)}; it takes "
            f"{', '.join(sorted(ACCESS))} and revision, and HF_TOKEN, HF_HOME and HF_HUB_OFFLINE "
            "in the environment steer every download"
        )
    unknown = {
        key: value
        for key, value in others.items()
        if key not in _WITHOUT_EFFECT | _STEERS_DOWNLOADS and value is not False
    }
    refuse_unknown(unknown, "from_pretrained")
    return {key: value for key, value in arguments.items() if key in known}


def refuse_unknown(arguments: Mapping[str, Any], what: str) -> None:
    """Refuse unknown arguments, except those that are None, which asks for nothing.

    Raises:
        InputError: there is an unknown argument.
    """
    if unknown := sorted(key for key, value in arguments.items() if value is not None):
        raise InputError(f"{what} does not know {', '.join(unknown)}; leave it out")
