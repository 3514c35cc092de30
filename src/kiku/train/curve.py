"""Reports during training: a line now and then, a CSV file, a picture, TensorBoard.

Knows numbers by their names; does not know networks.
"""

import csv
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kiku.errors import TrainingError
from kiku.train.atomic_files import durable
from kiku.train.pictures import curve_svg
from kiku.writing import reason_of, write_whole

FILE, PICTURE = "curve.csv", "curve.svg"
COLUMNS: tuple[str, ...] = (
    "step", "epoch", "lr", "loss", "text", "pauses", "keep", "token_accuracy", "grad_norm",
    "dev_loss", "dev_accuracy", "dev_keep", "frames_per_s", "seconds",
)  # fmt: skip
"""Columns of the CSV file. The last two depend on the clock; the others are the same in every run
with the same settings."""
_DRAW_S = 5.0
"""Seconds at least between two pictures."""
_MOST_POINTS = 1000
"""Points of a drawn line; at twice as many every second point is dropped."""


class Curve:
    """Records the course of one run."""

    def __init__(
        self, folder: Path, *, step: int, steps: int, on_progress: Callable[[str], None]
    ) -> None:
        """Go on at a step: lines of later steps, written before the run was killed, are removed.

        Raises:
            TrainingError: the file cannot be read or written.
        """
        self.path, self.steps, self.on_progress = folder / FILE, steps, on_progress
        self._begun, self._first, self._drawn = time.monotonic(), step, -math.inf
        self._points = self._keep_until(step)
        self._board = _tensorboard(folder, step)

    def add(self, values: Mapping[str, float], *, frames: int, seconds: float) -> None:
        """Add one line to the file, the picture, TensorBoard and the log.

        Args:
            values: values by the names of `COLUMNS`; "step" is one of them.
            frames: how many frames were learned from since the last line.
            seconds: how long this took.

        Raises:
            TrainingError: the file cannot be written.
        """
        rate = frames / max(seconds, 1e-9)
        row = {**values, "frames_per_s": round(rate, 1), "seconds": round(seconds, 3)}
        try:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, COLUMNS, lineterminator="\n").writerow(row)
        except OSError as error:
            raise self._refused(error) from error
        self._points.append(row)
        if len(self._points) >= 2 * _MOST_POINTS:
            self._points = self._points[1::2]
        if time.monotonic() - self._drawn > _DRAW_S:
            self._draw()
        step = int(values["step"])
        for name, value in values.items():
            if self._board is not None and name != "step":
                self._board.add_scalar(name, value, step)
        self.on_progress(self._line(values, step, rate))

    def close(self) -> None:
        """Draw the whole course; write to the disk what TensorBoard holds."""
        self._draw()
        if self._board is not None:
            self._board.close()

    def _line(self, values: Mapping[str, float], step: int, rate: float) -> str:
        spent = time.monotonic() - self._begun
        left = spent / max(1, step - self._first) * (self.steps - step)
        parts = [f"step {step:,}/{self.steps:,}"]
        if "loss" in values:
            parts.append(f"loss {values['loss']:.4f}, tokens {values['token_accuracy']:.1%}")
        if "keep" in values:
            parts.append(f"change from before {values['keep']:.4f}")
        if "dev_loss" in values:
            parts.append(f"dev {values['dev_loss']:.4f}, tokens {values['dev_accuracy']:.1%}")
        return "  ".join([*parts, f"{rate:,.0f} frames/s", f"{clock_time(left)} left"])

    def _draw(self) -> None:
        try:
            write_whole(self.path.with_name(PICTURE), curve_svg(self._points))
        except OSError as error:
            raise self._refused(error) from error
        self._drawn = time.monotonic()

    def _keep_until(self, step: int) -> list[Mapping[str, float]]:
        """Remove lines after `step` from the file; gives those that are left."""
        rows: list[dict[str, str]] = []
        try:
            if step and self.path.exists():
                with self.path.open(newline="", encoding="utf-8") as file:
                    rows = [row for row in csv.DictReader(file) if _is_until(row, step)]
            with durable(self.path) as beside, beside.open("w", newline="", encoding="utf-8") as to:
                writer = csv.DictWriter(to, COLUMNS, lineterminator="\n", extrasaction="ignore")
                writer.writeheader()
                writer.writerows(rows)
        except OSError as error:
            raise self._refused(error) from error
        return [{name: float(cell) for name, cell in row.items() if cell} for row in rows]

    def _refused(self, error: OSError) -> TrainingError:
        return TrainingError(
            f"{self.path} cannot be written ({reason_of(error)}): make room and run it again; it "
            "continues from the last checkpoint"
        )


def _is_until(row: Mapping[str, str | None], step: int) -> bool:
    """Whether a row is complete and belongs to a step up to `step`."""
    number = row.get("step") or ""
    return number.isdigit() and int(number) <= step and row.get("seconds") is not None


def clock_time(seconds: float) -> str:
    """Seconds as text: 1:02:03, or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _tensorboard(folder: Path, step: int) -> Any:
    """A writer, or None if TensorBoard is not installed; values of later steps are removed."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # pyright: ignore
    except ImportError:
        return None
    later = step + 1 if step else None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=later)
