"""The reliability picture, as SVG: words' probabilities, and how often the words were right."""

from kiku.evaluate.trust import Reliability

_SIZE, _LEFT, _TOP, _RIGHT, _BOTTOM = 300, 52, 14, 14, 46
"""Pixels of the square's side, and of the margins around it."""

_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def reliability_svg(found: Reliability) -> str:
    """Draw the bins that hold words, and the diagonal on which both numbers are equal.

    Each bin has a bar: as high as the share of its words that is right, and the more opaque the
    more words it holds. On each bar a dot marks the mean probability of the bin's words.
    """
    width, height = _LEFT + _SIZE + _RIGHT, _TOP + _SIZE + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" class="reliability" '
        'font-family="sans-serif" font-size="11" fill="currentColor">',
        f"<title>Of {found.words} words: how sure, and how often right; "
        f"calibration error {found.ece:.3f}</title>",
    ]
    most = max(one.words for one in found.bins)
    for one in found.bins:
        if not one.words:
            continue
        x, top = _x(one.low), _y(one.right)
        opacity = 0.2 + 0.7 * one.words / most
        parts.append(
            f'<rect x="{x + 1:.1f}" y="{top:.1f}" width="{_x(one.high) - x - 2:.1f}" '
            f'height="{_y(0) - top:.1f}" fill="#3b7dd8" fill-opacity="{opacity:.2f}">'
            f"<title>{one.words} words of {one.low:.1f} to {one.high:.1f}: said "
            f"{one.said:.3f}, right {one.right:.3f}</title></rect>"
        )
    parts.append(
        f'<line x1="{_x(0):.1f}" y1="{_y(0):.1f}" x2="{_x(1):.1f}" y2="{_y(1):.1f}" '
        'stroke="currentColor" stroke-dasharray="4 4" stroke-opacity="0.6"/>'
    )
    parts += [
        f'<circle cx="{_x(one.said):.1f}" cy="{_y(one.right):.1f}" r="3.5" fill="#c2410c"/>'
        for one in found.bins
        if one.words
    ]
    return "".join([*parts, *_axes(), "</svg>"])


def _axes() -> list[str]:
    parts = [
        f'<rect x="{_LEFT}" y="{_TOP}" width="{_SIZE}" height="{_SIZE}" fill="none" '
        'stroke="currentColor" stroke-opacity="0.5"/>'
    ]
    for tick in _TICKS:
        x, y, low = _x(tick), _y(tick), _y(0)
        parts.append(f'<text x="{x:.1f}" y="{low + 16:.1f}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    middle, side = _LEFT + _SIZE / 2, _TOP + _SIZE / 2
    parts.append(
        f'<text x="{middle:.1f}" y="{_y(0) + 36:.1f}" text-anchor="middle">'
        "how sure the model was</text>"
    )
    parts.append(
        f'<text x="14" y="{side:.1f}" text-anchor="middle" '
        f'transform="rotate(-90 14 {side:.1f})">part that was right</text>'
    )
    return parts


def _x(value: float) -> float:
    return _LEFT + value * _SIZE


def _y(value: float) -> float:
    return _TOP + (1 - value) * _SIZE
