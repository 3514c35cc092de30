"""Loading a model for a command, with notes for whoever looks on."""

import os
from dataclasses import dataclass
from typing import ClassVar

import kiku
from kiku.checkpoint import DEMO
from kiku.cli import terminal
from kiku.cli.options import Device, Dtype, Engine, Model, ModelDir, Offline, Revision, Threads
from kiku.cli.progress import Meter
from kiku.recognizer import Recognizer


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Which model, and on what it runs: as for `kiku.load`."""

    TITLE: ClassVar[str] = "The model"

    model: Model = DEMO
    revision: Revision = None
    engine: Engine = "auto"
    device: Device = None
    dtype: Dtype = None
    threads: Threads = None
    offline: Offline = False
    model_dir: ModelDir = None

    def apply(self) -> None:
        """Set what other packages and processes look for in the environment, before they do."""
        if self.offline:
            os.environ["HF_HUB_OFFLINE"] = "1"
        if self.model_dir is not None:
            os.environ["KIKU_CACHE"] = str(self.model_dir.absolute())


def load_with(settings: ModelSettings, meter: Meter, *, slots: int = 1) -> Recognizer | None:
    """The model, ready; None where Ctrl-C stopped it, which has been told.

    Raises:
        KikuError: see `kiku.load`.
    """
    settings.apply()
    meter.note(f"loading {settings.model}")
    try:
        with meter.noting():
            return kiku.load(
                settings.model,
                engine=settings.engine,
                device=settings.device,
                dtype=settings.dtype,
                slots=slots,
                threads=settings.threads,
                revision=settings.revision,
            )
    except KeyboardInterrupt:
        terminal.error(f"interrupted while loading {settings.model}")
        return None
