"""The learning curve, as a picture."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from kiku.errors import MissingExtra


def draw_curve(rows: Sequence[Mapping[str, float | str]], path: Path) -> None:
    """Draw the loss of every stage, and measured word errors of the frame heads, over minutes.

    Args:
        rows: lines of the log.
        path: file of the picture.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("drawing the learning curve", "train") from error
    figure = Figure(figsize=(9, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    before, named = 0.0, set[str]()
    for stage in dict.fromkeys(str(row["stage"]) for row in rows):
        lines = [row for row in rows if row["stage"] == stage]
        if not lines:
            continue
        curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for row in lines:
            minute = (before + float(row["trained_s"])) / 60
            for key in ("loss", "dev", "syn", "an4"):
                if key in row:
                    curves[key].append((minute, float(row[key])))
        if curves["loss"]:
            above.plot(*zip(*curves["loss"], strict=True), label=stage)
        for key, colour in (("dev", "tab:blue"), ("syn", "tab:orange"), ("an4", "tab:green")):
            if curves[key]:
                below.plot(
                    *zip(*curves[key], strict=True),
                    "o-",
                    color=colour,
                    label=None if key in named else key,
                )
                named.add(key)
        before += max(float(row["trained_s"]) for row in lines)
        above.axvline(before / 60, color="0.8")
        below.axvline(before / 60, color="0.8")
    above.set_ylabel("loss")
    above.set_yscale("log")
    below.set_ylabel("word error, frame heads")
    below.set_xlabel("minutes of training")
    below.set_ylim(0, 1)
    for axes in (above, below):
        # A run of seconds may have ended before it logged anything.
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    figure.savefig(path, dpi=100)
