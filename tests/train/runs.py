"""What tests ask of a run when it has ended or was stopped."""

import csv
from pathlib import Path

from kiku.train.settings import FitSettings
from kiku.train.state import RunState, read_state


def quiet(line: str) -> None:
    """In the place of `print`."""


def state_of(settings: FitSettings) -> RunState:
    """Its checkpoint."""
    state = read_state(Path(settings.run))
    assert state is not None
    return state


def curve_of(settings: FitSettings) -> list[dict[str, str]]:
    """Its curve, but for what depends on the machine's speed."""
    with (Path(settings.run) / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in ("frames_per_s", "seconds")} for row in rows]
