"""`Calibration`: how often words of a given probability are right, measured once and kept.

A model's probabilities may be too high or too low. `kiku evaluate --calibrate` measures on
recordings with known text how often words of each probability are right, and saves the result. With
`StreamOptions.calibration`, streams give out these numbers instead of the model's own. They keep
the order: a word with a higher probability than another never gets a lower one. This module works
on numbers alone and knows no model.
"""

import json
import math
import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from kiku.errors import ConfigError, OutputError
from kiku.serial import from_plain, plain_numbers, to_plain
from kiku.writing import reason_of, write_whole

CalibrationKind = Literal["isotonic", "temperature"]
"""How a calibration converts: by a curve through measured points ("isotonic"), or by one number
that divides the log-odds ("temperature")."""

KINDS: tuple[CalibrationKind, ...] = get_args(CalibrationKind)

MAX_POINTS = 1_000
"""Largest number of points of a curve, which is looked up for every word."""

_LEAST = 1e-6
"""Least distance of a probability from 0 and 1; log-odds of a nearer one are those at this
distance."""


def log_odds(probability: float) -> float:
    """The natural logarithm of the odds of a probability; finite for 0 and 1, too."""
    kept = min(max(probability, _LEAST), 1 - _LEAST)
    return math.log(kept / (1 - kept))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_points(value: Any) -> bool:
    if not isinstance(value, tuple | list):
        return False
    return all(
        isinstance(point, tuple | list)
        and len(cast("Sequence[Any]", point)) == 2
        and all(map(_is_number, cast("Sequence[Any]", point)))
        for point in cast("Sequence[Any]", value)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Converts the model's probability of a word to how often words with this probability are
    right."""

    kind: CalibrationKind
    """How the probability is converted."""
    points: tuple[tuple[float, float], ...] = ()
    """For "isotonic": pairs of the model's probability and the share of words that are right, both
    from 0 to 1 and rising. The curve is straight between points, and level outside them."""
    temperature: float = 1.0
    """For "temperature": the number that divides the log-odds. Above 1, words become less sure."""
    words: int = 0
    """Number of words on which the calibration was measured."""
    model: str = ""
    """Name of the model that was measured."""

    def __post_init__(self) -> None:
        """Raise ConfigError for impossible values, and for points that do not rise."""
        plain_numbers(self)
        if not (isinstance(self.kind, str) and self.kind in KINDS):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"kind must be {' or '.join(KINDS)}, not {self.kind!r}")
        if not (_is_number(self.temperature) and 1e-3 <= self.temperature <= 1e3):
            raise ConfigError(f"temperature must be from 0.001 to 1000, not {self.temperature!r}")
        if not (_is_number(self.words) and self.words >= 0):
            raise ConfigError(f"words must be at least 0, not {self.words!r}")
        if not isinstance(self.model, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"model must be the name of a model, not {self.model!r}")
        if not _are_points(self.points):
            raise ConfigError(f"points must be pairs of numbers, not {self.points!r:.60}")
        if (self.kind == "isotonic") != bool(self.points):
            raise ConfigError("an isotonic calibration needs points, and no other may have them")
        if len(self.points) > MAX_POINTS:
            raise ConfigError(f"at most {MAX_POINTS} points are allowed, not {len(self.points)}")
        if not all(0 <= x <= 1 and 0 <= y <= 1 for x, y in self.points):
            raise ConfigError("points must lie from 0 to 1")
        for (x, y), (next_x, next_y) in zip(self.points, self.points[1:], strict=False):
            if not (x < next_x and y <= next_y):
                raise ConfigError(f"points must rise: ({next_x}, {next_y}) follows ({x}, {y})")

    def __call__(self, probability: float) -> float:
        """The share of words that are right among those to which the model gives `probability`."""
        if self.kind == "temperature":
            return 1 / (1 + math.exp(-log_odds(probability) / self.temperature))
        points = self.points
        index = bisect_right(points, (probability, math.inf))
        if index == 0:
            return points[0][1]
        if index == len(points):
            return points[-1][1]
        (x, y), (next_x, next_y) = points[index - 1], points[index]
        return y + (next_y - y) * (probability - x) / (next_x - x)

    def warning_for(self, model: str) -> str | None:
        """A warning for who applies it to the model of this name; None if it belongs to it."""
        # A model has the same last name as a repository and as a copy of it in a folder.
        if not self.model or Path(self.model).name == Path(model).name:
            return None
        return (
            f"the calibration was measured with the model {self.model}, and says nothing about "
            f"{model}: measure one with  kiku evaluate --calibrate"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Calibration":
        """Build from `to_dict`'s values.

        Raises:
            ConfigError: `values` are not those of `to_dict`.
        """
        return from_plain(cls, values, what="the calibration", defaults=True, lenient=True)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the calibration to a file, as JSON.

        Raises:
            OutputError: the file cannot be written.
        """
        try:
            write_whole(Path(path), json.dumps(self.to_dict(), indent=2) + "\n")
        except OSError as error:
            raise OutputError(
                f"{os.fspath(path)} cannot be written ({reason_of(error)}): check the folder, its "
                "permissions and the disk"
            ) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Calibration":
        """Read a file that `save` wrote.

        Raises:
            ConfigError: the file cannot be read, or is not a calibration.
        """
        name = os.fspath(path)
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise ConfigError(
                f"the calibration {name} cannot be read ({reason_of(error)}): name a file that "
                "`kiku evaluate --calibrate` wrote"
            ) from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                f"{name} is not a calibration ({error}): name a file that `kiku evaluate "
                "--calibrate` wrote"
            ) from error
        try:
            return cls.from_dict(values)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from error
