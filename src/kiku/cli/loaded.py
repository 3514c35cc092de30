"""Loading a model for a command, with notes for whoever looks on."""

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


def load_with(settings: ModelSettings, meter: Meter, *, slots: int = 1) -> Recognizer | None:
    """The model, ready; None where Ctrl-C stopped it, which has been told.

    Raises:
        KikuError: see `kiku.load`.
    """
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
