"""SVG pictures of a training run and of words along their sound, and an HTML page of them.

Knows numbers and words; does not know networks or files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from kiku.train.manifest import TimedWord

Values = Mapping[str, float]

_WIDTH, _HEIGHT, _LEFT, _ABOVE = 640, 110, 64, 26
"""Pixels: width and height of a panel's inside, and the space left of it and above it."""
_BLUE, _RED = "#3b7dd8", "#c2410c"
_SECOND, _LOW, _MOST_DB = 120, 70, 60.0
"""Pixels per second, pixels of the height of the sound, and decibels below the loudest drawn."""
_STYLE = (
    "body{font:14px sans-serif;margin:2em;max-width:80em;color-scheme:light dark}"
    "div{overflow-x:auto}h2{font-size:1em;margin:2em 0 0}p{margin:.3em 0}"
)


@dataclass(frozen=True, slots=True)
class _Panel:
    """One diagram: the values of these names, from 0 to the largest."""

    title: str
    names: tuple[str, ...]
    is_share: bool = False
    """Whether the values are shares of what is right; the share of what is wrong is drawn."""


_PANELS = (
    _Panel("loss", ("loss", "dev_loss")),
    _Panel("tokens that are wrong", ("token_accuracy", "dev_accuracy"), is_share=True),
    _Panel("frames a second", ("frames_per_s",)),
)


def curve_svg(rows: Sequence[Values]) -> str:
    """Loss, errors and speed over the steps: blue for training, red for the split dev.

    Args:
        rows: values by the names of the curve's columns; "step" is required, others may be missing.
    """
    height = len(_PANELS) * (_HEIGHT + _ABOVE) + 24
    parts = [_svg(_LEFT + _WIDTH + 12, height, "loss, wrong tokens and speed over the steps")]
    last = max((row["step"] for row in rows), default=1.0)
    for number, panel in enumerate(_PANELS):
        top = _ABOVE + number * (_HEIGHT + _ABOVE)
        lines = [
            [(row["step"] / last, _drawn(row[name], panel)) for row in rows if name in row]
            for name in panel.names
        ]
        most = max((y for line in lines for _, y in line), default=0.0) or 1.0
        parts.append(
            f'<rect x="{_LEFT}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" '
            f'stroke="currentColor" stroke-opacity="0.4"/>{_text(_LEFT, top - 6, panel.title)}'
            f"{_text(_LEFT - 6, top + 10, f'{most:.3g}', 'end')}"
            f"{_text(_LEFT - 6, top + _HEIGHT, '0', 'end')}"
        )
        for colour, line in zip((_BLUE, _RED), lines, strict=False):
            points = [(_LEFT + x * _WIDTH, top + (1 - y / most) * _HEIGHT) for x, y in line]
            parts.append(_line(points, colour))
    for x, name, colour in ((_LEFT, "in training", _BLUE), (_LEFT + 80, "dev", _RED)):
        parts.append(f'<g fill="{colour}">{_text(x, height - 8, name)}</g>')
    parts.append(_text(_LEFT + _WIDTH, height - 8, f"step {last:,.0f}", "end"))
    return "".join([*parts, "</svg>"])


def _drawn(value: float, panel: _Panel) -> float:
    return 1.0 - value if panel.is_share else value


def words_svg(words: Sequence[TimedWord], loudness: NDArray[np.float32], row_s: float) -> str:
    """The loudness of a recording, with each word marked from its start to its end.

    Args:
        words: words whose times count from the beginning of `loudness`.
        loudness: [T] root mean squares.
        row_s: seconds between two values of `loudness`.
    """
    seconds = len(loudness) * row_s
    width, height = round(seconds * _SECOND) + 2, _LOW + 40
    parts = [_svg(width, height, " ".join(word.text for word in words))]
    decibel = 20 * np.log10(loudness / max(float(loudness.max(initial=0.0)), 1e-6) + 1e-6)
    heights = np.clip(decibel, -_MOST_DB, 0.0) / -_MOST_DB * _LOW
    points = [(i * row_s * _SECOND, float(y)) for i, y in enumerate(heights)]
    for number, word in enumerate(words):
        x, wide = word.start * _SECOND, max(1.0, (word.end - word.start) * _SECOND)
        row = _LOW + 14 + 14 * (number % 2)  # in one row neighbours would overlap
        parts.append(
            f'<rect x="{x:.1f}" y="0" width="{wide:.1f}" height="{_LOW}" fill="{_RED}" '
            f'fill-opacity="0.15" stroke="{_RED}"><title>{escape(word.text)} {word.start:.2f} to '
            f"{word.end:.2f} s</title></rect>{_text(x, row, word.text)}"
        )
    return "".join([*parts, _line(points, _BLUE), "</svg>"])


def pictures_page(title: str, pictures: Sequence[tuple[str, str, str]], more: int = 0) -> str:
    """HTML without a script: name, reason and picture one below the other.

    Args:
        title: title of the page.
        pictures: name, reason and SVG of each.
        more: how many others are not shown.
    """
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1>"
    ]
    parts += [
        f"<h2>{escape(name)}</h2><p>{escape(why)}</p><div>{picture}</div>"
        for name, why, picture in pictures
    ]
    if more:
        parts.append(f"<p>and {more:,} more, which the report names</p>")
    return "\n".join([*parts, "</html>"]) + "\n"


def _svg(width: int, height: int, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" font-family="sans-serif" font-size="11" '
        f'fill="currentColor"><title>{escape(title)}</title>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(points: Sequence[tuple[float, float]], colour: str) -> str:
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
