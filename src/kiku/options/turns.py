"""`TurnPolicy`: when a pause is the end of a turn; and the levels of eagerness."""

import sys
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from kiku.errors import ConfigError
from kiku.options.base import Options, check_number, check_whole
from kiku.serial import plain_numbers

Eagerness = Literal["low", "medium", "high"]
"""How soon a silence counts as the end of a turn."""

_MOST_FLOAT = sys.float_info.max


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnPolicy(Options):
    """When a pause is the end of a turn.

    The third head, the thresholds 0.6 and 0.4, the smoothing (next to none) and the 12 frames are
    those of Kyutai's own voice agent. The other values were chosen on recordings of people on whom
    the demo model was never trained. `benchmarks/people.py` measures what the levels do;
    docs/live.md has its table.
    """

    WHAT: ClassVar[str] = "the turn policy"

    head: int = 2
    """Which pause head shows the end of a turn, from 0 (2 is the third, for pauses of 2 s). Later
    heads, which are for longer pauses, show it too."""
    eager_head: int = 1
    """Which pause head shows an eager end of a turn; not above `head`."""
    on: float = 0.6
    """A pause begins when the smoothed probability is above this."""
    off: float = 0.4
    """A pause is over when the smoothed probability is below this; not above `on`."""
    half_life_s: float = 0.01
    """Seconds in which an old value loses half its weight in the smoothing."""
    ignored_frames: int = 12
    """Frames at the beginning of a stream for which the heads say nothing useful."""
    hold_s: float = 0.0
    """Seconds that a pause must last before it is the end of a turn."""

    eager_silence_s: float = 0.7
    """Without heads: seconds of quiet after which a turn has an eager end; not above
    `silence_s`."""
    silence_s: float = 1.0
    """Without heads: seconds of quiet after which a turn ends."""
    text_silence_s: float = 2.4
    """Without heads: seconds without text after which a turn ends even if it is not quiet."""
    margin_db: float = 9.0
    """Decibels above the noise; softer sound counts as quiet. (With heads, quiet only shows when a
    pause began.)"""
    quiet_db: float = -60.0
    """dBFS; the noise is assumed to be at least this loud."""
    rise_db_s: float = 4.0
    """Decibels per second by which the noise is assumed to grow."""

    number_s: float = 1.6
    """Seconds that a pause must last where a number is being dictated."""
    word_s: float = 1.6
    """Seconds that a pause must last after a word that leaves the sentence open."""
    longest_s: float = 4.0
    """Seconds after its last text after which a turn ends in any case."""

    def __post_init__(self) -> None:
        """Raise ConfigError for impossible numbers."""
        plain_numbers(self)
        for one in fields(self):
            value = getattr(self, one.name)
            if one.type is int:
                check_whole(one.name, value, 0)
            elif one.name == "quiet_db":
                check_number(one.name, value, "a finite number", -_MOST_FLOAT, _MOST_FLOAT)
            else:
                check_number(one.name, value, "at least 0 and finite", 0.0, _MOST_FLOAT)
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
        """Return the policy of a level of eagerness.

        On the same frames a more eager level never ends a turn later, even where it splits a turn
        of the other level into several. Only a number that it has split in two may delay it.

        Raises:
            ConfigError: there is no such level.
        """
        if not isinstance(eagerness, str) or eagerness not in _POLICIES:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"eagerness must be one of {', '.join(_POLICIES)}, not {eagerness!r}")
        return _POLICIES[eagerness]


_POLICIES: dict[Eagerness, TurnPolicy] = {
    "low": TurnPolicy(
        eager_head=2, hold_s=0.4, eager_silence_s=1.0, silence_s=1.4, text_silence_s=3.2,
        number_s=2.2, word_s=2.2, longest_s=8.0,
    ),
    "medium": TurnPolicy(),
    "high": TurnPolicy(
        head=1, eager_head=0, eager_silence_s=0.6, silence_s=0.8, text_silence_s=2.0,
        number_s=1.4, word_s=1.2, longest_s=2.0,
    ),
}  # fmt: skip


def turn_policy_of(turns: Any) -> TurnPolicy | None:
    if turns is None or turns is False:
        return None
    if turns is True:
        return TurnPolicy()
    if isinstance(turns, TurnPolicy):
        return turns
    if isinstance(turns, str) and turns in _POLICIES:
        return TurnPolicy.of(turns)
    raise ConfigError(
        f"turns must be true or false, an eagerness ({', '.join(_POLICIES)}) or a TurnPolicy, not "
        f"{turns!r}"
    )
