"""Which decoding options hold where in the sound of a session: a change has its place in the sound,
and is made there again by a process that hears the sound again. Knows no stream and no store."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from kiku.options import DecodingOptions
from kiku.serve.session_sound import StoredFormat

MAX_EARLIER = 32
"""Changes that are kept, at most, as many as may wait in a stream: the sound before the first of
them is then decoded as the sound behind it."""

SAME_S = 1e-6
"""Seconds; places in the sound that differ by less are the same."""


class EarlierDecoding(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Decoding options that hold no more, as they are stored."""

    until_s: float
    """Where in the sound they were changed."""
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Earlier:
    options: DecodingOptions
    plain: EarlierDecoding

    @property
    def until_s(self) -> float:
        return self.plain.until_s


class DecodingHistory:
    """The decoding options of a session, and those before them."""

    def __init__(self, latest: DecodingOptions, earlier: Iterable[EarlierDecoding] = ()) -> None:
        """Start with what is known, if anything is.

        Raises:
            ConfigError: `earlier` are no options.
            ValueError: they are not in order.
        """
        self.latest = latest
        """The options that hold now."""
        self._earlier = deque(_Earlier(DecodingOptions.from_dict(one.options), one)
                              for one in earlier)  # fmt: skip
        times = [0.0, *(one.until_s for one in self._earlier)]
        if not all(a <= b < float("inf") for a, b in pairwise(times)):
            raise ValueError("changes of decoding in an impossible order")

    def copy(self) -> "DecodingHistory":
        """A copy, which does not change with this."""
        return DecodingHistory(self.latest, self.earlier())

    def earlier(self) -> list[EarlierDecoding]:
        """The options that hold no more, in the order of their sound."""
        return [one.plain for one in self._earlier]

    def change(self, time: float, options: DecodingOptions) -> None:
        """Note that these options hold in the sound from `time` on."""
        before = self.at(time - 2 * SAME_S)
        while self._earlier and self._earlier[-1].until_s > time - SAME_S:
            self._earlier.pop()
        if options != before:
            plain = EarlierDecoding(time, before.to_dict())
            self._earlier.append(_Earlier(before, plain))
        self.latest = options
        if len(self._earlier) > MAX_EARLIER:
            self._earlier.popleft()

    def forget(self, until_s: float) -> None:
        """Forget what held only before this time."""
        while self._earlier and self._earlier[0].until_s <= until_s:
            self._earlier.popleft()

    def at(self, time: float) -> DecodingOptions:
        """The options that hold at this time."""
        later = (one.options for one in self._earlier if one.until_s > time + SAME_S)
        return next(later, self.latest)

    def after(self, time: float) -> list[tuple[float, DecodingOptions]]:
        """The changes after this time: where in the sound, and to which options."""
        later = [one for one in self._earlier if one.until_s > time + SAME_S]
        behind = [*(one.options for one in later[1:]), self.latest]
        return [(one.until_s, options) for one, options in zip(later, behind, strict=False)]


class PlannedChanges:
    """Changes of decoding that another process has made in sound that is still to come here."""

    def __init__(
        self,
        changes: Iterable[tuple[float, DecodingOptions]] = (),
        sound: StoredFormat | None = None,
    ) -> None:
        """Plan these changes, as `DecodingHistory.after` gives them, in sound of this format."""
        self._changes, self._sound = deque(changes), sound

    def __bool__(self) -> bool:
        return bool(self._changes)

    def cut(
        self, samples: NDArray[np.generic] | bytes, now_s: float
    ) -> tuple[NDArray[np.generic] | bytes, NDArray[np.generic] | bytes]:
        """Sound that begins at `now_s`: what comes before the next change, and the rest."""
        size = len(samples)
        if self._changes and self._sound is not None:
            unit = 1 if isinstance(samples, bytes) else self._sound.width
            size = max(1, self._sound.cut(size * unit, self._changes[0][0] - now_s, 0) // unit)
        return samples[:size], samples[size:]

    def due(self, now_s: float) -> Iterator[DecodingOptions]:
        """The options that hold from here on, if the sound has come to a change."""
        while self._changes and self._changes[0][0] <= now_s + SAME_S:
            yield self._changes.popleft()[1]
