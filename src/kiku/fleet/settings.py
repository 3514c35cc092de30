"""The model of a batch, what it runs on, and which of these settings change the words."""

import hashlib
import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import kiku
from kiku.checkpoint import DEMO
from kiku.errors import ConfigError
from kiku.options import StreamOptions
from kiku.recognizer import Recognizer

CPU_SLOTS, GPU_SLOTS = 8, 64
"""Recordings that a process transcribes at once, unless that is set."""

_WORDS_DEPEND_ON = ("model", "revision", "engine", "device", "dtype")


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """A model as `kiku.load` takes it, in each process of a batch. The path of a folder that is
    there becomes absolute: processes on Ray have other working folders."""

    model: str = "demo"
    revision: str | None = None
    engine: str = "auto"
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None
    """Processors of one process; None takes 4, or all of a machine that has fewer."""
    slots: int | None = None
    """Recordings that one process transcribes at once; None is 8, and 64 on a GPU."""

    def __post_init__(self) -> None:
        """Raise ConfigError for invalid values."""
        for name in ("threads", "slots"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")
        object.__setattr__(self, "model", absolute_model(self.model))

    def slots_on(self, *, gpu: bool) -> int:
        """Recordings that one process transcribes at once."""
        return self.slots or (GPU_SLOTS if gpu else CPU_SLOTS)

    def load(self) -> Recognizer:
        """Load the model.

        Raises:
            KikuError: see `kiku.load`.
        """
        return kiku.load(
            self.model,
            engine=self.engine,
            device=self.device,
            dtype=self.dtype,
            slots=self.slots or 1,
            threads=self.threads,
            revision=self.revision,
        )


def absolute_model(model: str) -> str:
    """The same model for a process in another folder: a folder that is there by its whole path."""
    path = os.path.expanduser(model)
    return os.path.abspath(path) if model != DEMO and os.path.isdir(path) else model


@dataclass(frozen=True)
class BatchRequest:
    """How recordings are transcribed."""

    settings: ModelSettings
    options: StreamOptions = field(default_factory=StreamOptions)

    @property
    def identity(self) -> dict[str, Any]:
        """All that the words depend on, in plain values.

        Raises:
            ConfigError: an option has no plain form.
        """
        settings = {name: getattr(self.settings, name) for name in _WORDS_DEPEND_ON}
        return {**settings, "options": self.options.to_dict()}

    def check(self) -> None:
        """Raise ConfigError for options without a plain form, before anything is transcribed."""
        assert self.digest

    @cached_property
    def digest(self) -> str:
        """A short name of the request: rows that have it were transcribed in this way.

        Raises:
            ConfigError: an option has no plain form.
        """
        text = json.dumps(self.identity, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
