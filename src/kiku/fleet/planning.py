"""How long recordings are about, how many of them are wanted, and which go together.

Pure, but for looking into a few recordings.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from kiku.fleet.looking import look_into
from kiku.fleet.sources import Item

_LOOKED_INTO = 200
_BYTES_A_SECOND = 16_000
"""Of a recording that does not say how long it is: 128 kbit/s."""

WINDOW = 1_024
"""Recordings that are sorted by length among themselves: further apart they stay in order, so that
a run that was stopped has done what was named first."""
BLOCK_S = 600.0
"""Seconds of sound in a block at most, about."""
MOST = 256
"""Recordings in a block at most."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Seconds of each recording, about."""

    seconds: list[float]
    stated: int
    """How many of these were stated by a manifest, or by the recording itself; the others go by
    their bytes."""

    @property
    def total_s(self) -> float:
        """Of all."""
        return math.fsum(self.seconds)

    def between(self, start_s: float, end_s: float | None) -> "Lengths":
        """Of the part of each that is heard."""
        until_s = math.inf if end_s is None else end_s
        return Lengths([max(0.0, min(s, until_s) - start_s) for s in self.seconds], self.stated)


Look = Callable[[Sequence[Item]], Sequence[float | None]]


def lengths_of(items: Sequence[Item], look: Look | None = None) -> Lengths:
    """Seconds of each: as a manifest says, as it says itself, or by its bytes and how many those
    have in a second that end likewise. At most 200 are looked into, from all over the list."""
    unknown = [item for item in items if item.seconds is None and item.size is not None]
    step = max(1, math.ceil(len(unknown) / _LOOKED_INTO))
    looked = unknown[::step]
    found = {
        item.path: seconds
        for item, seconds in zip(looked, (look or look_into)(looked), strict=True)
        if seconds is not None and math.isfinite(seconds)
    }
    rate = _rates({item: found[item.path] for item in looked if item.path in found})
    stated = {item.path: item.seconds for item in items if item.seconds is not None} | found
    return Lengths(
        [stated.get(item.path, (item.size or 0) / rate(item)) for item in items], len(stated)
    )


def _rates(found: dict[Item, float]) -> Callable[[Item], float]:
    """Bytes in a second of a recording, by the ending of its name."""
    size, seconds = defaultdict[str, float](float), defaultdict[str, float](float)
    for item, length in found.items():
        for name in (_ending(item), ""):
            size[name] += item.size or 0
            seconds[name] += length

    def rate(item: Item) -> float:
        name = _ending(item) if seconds.get(_ending(item)) else ""
        if not (seconds.get(name) and size[name]):
            return _BYTES_A_SECOND
        return size[name] / seconds[name]

    return rate


def _ending(item: Item) -> str:
    return PurePosixPath(item.path).suffix.lower()


def within(lengths: Sequence[float], limit_s: float | None) -> int:
    """How many of the first recordings have at most so many seconds together; one in any case."""
    if limit_s is None:
        return len(lengths)
    total = 0.0
    for count, seconds in enumerate(lengths):
        total += seconds
        if total > limit_s:
            return max(1, count)
    return len(lengths)


Block = list[Item]
"""Recordings that one process is given together."""


def blocks_of(
    items: Sequence[Item], lengths: Sequence[float], *, lanes: int = 1, least: int = 1
) -> Iterator[Block]:
    """Recordings in blocks of about the same length, the longest of a block first.

    Args:
        items: in order.
        lengths: seconds of each.
        lanes: blocks that are heard at once: each shall have some.
        least: recordings in a block, where there are enough for all lanes: as many as fill the
            slots.
    """
    most_s = min(BLOCK_S, max(1e-3, math.fsum(lengths)) / (2 * lanes))
    pairs = list(zip(items, lengths, strict=True))
    for start in range(0, len(pairs), WINDOW):
        window = sorted(pairs[start : start + WINDOW], key=lambda pair: -pair[1])
        total_s = math.fsum(seconds for _, seconds in window)
        count = min(math.ceil(total_s / most_s), max(len(window) // least, lanes))
        count = max(count, math.ceil(len(window) / MOST))
        for first in range(min(count, len(window))):
            yield [item for item, _ in window[first::count]]
