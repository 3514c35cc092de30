"""The numbers of turns: how long a pause must be, and how sure, to be the end of one."""

import math
from dataclasses import dataclass, fields
from typing import Literal

from kiku.errors import ConfigError

Eagerness = Literal["low", "medium", "high"]
"""How soon a silence is taken for the end of a turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnPolicy:
    """When a pause is an end.

    The third head, 0.6, 0.4, the smoothing (next to none) and the 12 frames are what Kyutai's own
    voice agent uses. The rest was chosen on people whom the demo model never heard;
    `benchmarks/people.py` measures what the levels do, and docs/live.md has its table.
    """

    head: int = 2
    """Which pause head tells an end (from 0: the third is of 2 s); the later ones, being of longer
    pauses, tell it too."""
    eager_head: int = 1
    """Which one tells an eager end; not above `head`."""
    on: float = 0.6
    """A pause begins where the smoothed probability is above this."""
    off: float = 0.4
    """It is over where the probability is below this; not above `on`."""
    half_life_s: float = 0.01
    """Of the smoothing: seconds in which an old value loses half its weight."""
    ignored_frames: int = 12
    """At the beginning of a stream, of which the heads say nothing useful."""
    hold_s: float = 0.0
    """Seconds for which the pause must stand before it is an end."""

    eager_silence_s: float = 0.7
    """Without heads: seconds of quiet that tell an eager end; not above `silence_s`."""
    silence_s: float = 1.0
    """Without heads: seconds of quiet that tell an end."""
    text_silence_s: float = 2.4
    """Without heads: seconds without text that tell an end even where it is not quiet."""
    margin_db: float = 9.0
    """What lies less above the noise than this is quiet. (With heads, quiet only tells since when
    there is a pause.)"""
    quiet_db: float = -60.0
    """The noise counts as at least this loud (dBFS)."""
    rise_db_s: float = 4.0
    """How fast the noise is believed to grow, in dB per second."""

    number_s: float = 1.6
    """Seconds that a pause must last where a number is being dictated."""
    word_s: float = 1.6
    """Seconds that a pause must last after a word that is left open."""
    longest_s: float = 4.0
    """A turn ends that many seconds after its last text, whatever the rest says."""

    def __post_init__(self) -> None:
        """Raise ConfigError for numbers that cannot be."""
        for field in fields(self):
            value: float = getattr(self, field.name)
            least = -math.inf if field.name == "quiet_db" else 0.0
            if not (math.isfinite(value) and value >= least):
                raise ConfigError(f"{field.name} must be at least 0 and finite, not {value}")
        for less, more in (("eager_head", "head"), ("eager_silence_s", "silence_s"), ("off", "on")):
            if getattr(self, less) > getattr(self, more):
                raise ConfigError(
                    f"{less} must not be above {more}: "
                    f"they are {getattr(self, less)} and {getattr(self, more)}"
                )
        if self.on >= 1 or self.longest_s == 0 or self.half_life_s == 0:
            raise ConfigError(
                "on must be below 1, longest_s and half_life_s above 0: "
                f"they are {self.on}, {self.longest_s} and {self.half_life_s}"
            )

    @classmethod
    def of(cls, eagerness: Eagerness) -> "TurnPolicy":
        """The policy of a level of eagerness.

        On the same frames a more eager level never ends a turn later, however many it has made of
        what is one turn for the other; only a number that it has cut may keep it longer.

        Raises:
            ConfigError: there is no such level.
        """
        if eagerness not in _POLICIES:
            raise ConfigError(f"eagerness must be one of {', '.join(_POLICIES)}, not {eagerness!r}")
        return _POLICIES[eagerness]


_POLICIES: dict[Eagerness, TurnPolicy] = {
    "low": TurnPolicy(
        eager_head=2,
        hold_s=0.4,
        eager_silence_s=1.0,
        silence_s=1.4,
        text_silence_s=3.2,
        number_s=2.2,
        word_s=2.2,
        longest_s=8.0,
    ),
    "medium": TurnPolicy(),
    "high": TurnPolicy(
        head=1,
        eager_head=0,
        eager_silence_s=0.6,
        silence_s=0.8,
        text_silence_s=2.0,
        number_s=1.4,
        word_s=1.2,
        longest_s=2.0,
    ),
}
