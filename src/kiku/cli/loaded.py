"""Loading a model for a command, with notes for whoever looks on."""

import os
from dataclasses import dataclass

import kiku
from kiku.cli import terminal
from kiku.cli.progress import Meter
from kiku.recognizer import Recognizer


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Which model, and on what it runs: as for `kiku.load`."""

    model: str
    revision: str | None = None
    engine: str = "auto"
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None
    offline: bool = False
    """Nothing is asked of the network."""


def load_with(settings: ModelSettings, meter: Meter, *, slots: int = 1) -> Recognizer | None:
    """The model, ready; None where Ctrl-C stopped it, which has been told.

    Raises:
        KikuError: see `kiku.load`.
    """
    if settings.offline:
        # What fetches models looks there when it is imported, which is later.
        os.environ["HF_HUB_OFFLINE"] = "1"
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
