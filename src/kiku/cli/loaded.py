"""Loading a model for a command, with notes for the user meanwhile."""

import os
from dataclasses import dataclass
from typing import ClassVar

import typer

import kiku
from kiku.calibration import Calibration
from kiku.checkpoint import DEMO
from kiku.cli import terminal
from kiku.cli.options import (
    Device,
    Dtype,
    Engine,
    Model,
    ModelDir,
    Offline,
    Revision,
    Threads,
)
from kiku.cli.progress import Meter
from kiku.engine.choice import DTYPES
from kiku.recognizer import Recognizer

_ENGINES = ("auto", *DTYPES)
_DTYPES = tuple(dict.fromkeys(name for names in DTYPES.values() for name in names))


@dataclass(frozen=True, slots=True)
class ModelOptions:
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

    def __post_init__(self) -> None:
        """Raise BadParameter for an unknown engine or dtype; it lists those that there are."""
        for option, name, known in (
            ("--engine", self.engine, _ENGINES),
            ("--dtype", self.dtype, _DTYPES),
        ):
            if name is not None and name not in known:
                raise typer.BadParameter(
                    f"{name!r} is not known; choose one of {', '.join(known)}", param_hint=option
                )

    def apply(self) -> None:
        """Set variables of the environment, before other packages and processes read them."""
        if self.offline:
            os.environ["HF_HUB_OFFLINE"] = "1"
        if self.model_dir is not None:
            os.environ["KIKU_CACHE"] = str(self.model_dir.absolute())


def load_with(
    settings: ModelOptions,
    meter: Meter,
    *,
    slots: int = 1,
    calibration: Calibration | None = None,
) -> Recognizer | None:
    """Load the model; None if Ctrl-C stopped that, which has been reported.

    Args:
        settings: which model.
        meter: where it is noted.
        slots: number of streams at the same time.
        calibration: what will be applied to its probabilities; a warning is printed if it was
            measured with another model.

    Raises:
        KikuError: see `kiku.load`.
    """
    settings.apply()
    meter.note(f"loading {settings.model}")
    try:
        with meter.noting():
            recognizer = kiku.load(
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
    warn_of_calibration(calibration, recognizer.name)
    return recognizer


def warn_of_calibration(calibration: Calibration | None, model: str) -> None:
    """Print a warning if there is a calibration that was measured with another model."""
    if calibration is not None and (warning := calibration.warning_for(model)):
        terminal.error(f"warning: {warning}")
