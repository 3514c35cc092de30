"""Estimate the lengths of recordings, apply the limit of a run, and group recordings into blocks.

All functions are pure, except that the lengths of a few recordings are read.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from kiku.fleet.durations import probe_durations
from kiku.fleet.sources import Item

_PROBED = 200
_BYTES_A_SECOND = 16_000
"""Bytes a second of a recording that does not state its length: 128 kbit/s."""

WINDOW = 1_024
"""Recordings that are sorted by length together. Windows stay in order, so that a run that was
stopped has done the recordings that were named first."""
BLOCK_S, SMALL_S = 600.0, 15.0
"""Estimated seconds of sound in a block at most; and in the last ones, if there are enough for all
lanes: each block costs some milliseconds."""
_LEAST_S = 1.0
"""Seconds that a recording counts at least, also one of unknown length."""
MOST = 256
"""Recordings in a block at most."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Estimated seconds of each recording."""

    seconds: list[float]
    stated: int
    """How many of these were stated by a manifest, or by the recording itself; the others are
    estimated from their bytes."""

    @property
    def total_s(self) -> float:
        """Seconds of all recordings."""
        return math.fsum(self.seconds)

    def between(self, start_s: float, end_s: float | None) -> "Lengths":
        """Lengths of the part of each recording from `start_s` to `end_s`."""
        until_s = math.inf if end_s is None else end_s
        return Lengths([max(0.0, min(s, until_s) - start_s) for s in self.seconds], self.stated)


Probe = Callable[[Sequence[Item]], Sequence[float | None]]


def lengths_of(items: Sequence[Item], probe: Probe | None = None) -> Lengths:
    """Seconds of each recording: from its manifest, from the recording itself, or from its bytes.

    At most 200 recordings, spread over the list, are read. The others are estimated by the bytes a
    second of those whose names have the same ending.
    """
    unknown = [item for item in items if item.seconds is None and item.size is not None]
    step = max(1, math.ceil(len(unknown) / _PROBED))
    probed = unknown[::step]
    found = {
        item.path: seconds
        for item, seconds in zip(probed, (probe or probe_durations)(probed), strict=True)
        if seconds is not None and math.isfinite(seconds)
    }
    rate = _rates({item: found[item.path] for item in probed if item.path in found})
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
    """How many of the first recordings have at most `limit_s` seconds in total; at least one."""
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
    """Recordings in blocks, the longest of each window first.

    Blocks become smaller towards the end, so that all lanes end at about the same time: each is
    half of what a lane would get of all that is left.

    Args:
        items: recordings, in order.
        lengths: seconds of each.
        lanes: blocks that are transcribed at once: there should be a block for each.
        least: recordings in a block at least, if there are enough for all lanes: as many as fill
            the slots.
    """
    pairs = [(item, max(_LEAST_S, seconds)) for item, seconds in zip(items, lengths, strict=True)]
    left_s = math.fsum(seconds for _, seconds in pairs)
    small_s, least = min(SMALL_S, left_s / lanes), min(least, math.ceil(len(pairs) / lanes))
    for start in range(0, len(pairs), WINDOW):
        window = sorted(pairs[start : start + WINDOW], key=lambda pair: -pair[1])
        while window:
            most_s = max(small_s, min(BLOCK_S, left_s / (2 * lanes)))
            count = max(least, within([seconds for _, seconds in window], most_s))
            block, window = window[: min(count, MOST)], window[min(count, MOST) :]
            left_s -= math.fsum(seconds for _, seconds in block)
            yield [item for item, _ in block]
