"""What the client of a stream has been told, and which events of a second stream of the same sound
it therefore knows already."""

from collections.abc import Iterable, Sequence

import msgspec

from kiku.audio import StreamWarning
from kiku.stream import (
    End,
    Event,
    Finalized,
    Pause,
    WordEnd,
)
from kiku.text import Partial, TurnEnd, TurnEndEager, TurnResumed, TurnStart, Word

Channel = int | None

_SAME_S = 1e-3
"""Seconds; times that differ by less are the same."""


class ClientProgress(msgspec.Struct, forbid_unknown_fields=True):
    """How far the client has been told what was heard; times are the session's."""

    words: dict[str, float] = {}
    """The end of each channel's last word; "" is the one channel of a mix."""
    paused_s: float = 0.0
    """The time of the last `Pause`."""
    warned_s: float = 0.0
    """The time of the last warning."""
    turns: dict[str, str] = {}
    """Of each channel whose turn is open: "open", or "eager" after a `TurnEndEager`."""
    finalizes: list[tuple[str | None, bool]] = []
    """Finalizes that were asked for and not answered: tag and `cut`."""
    has_ended: bool = False
    """Whether the session's last message exists."""

    def add(self, event: Event) -> None:
        """Note an event that the client is told."""
        match event:
            case Word():
                key = _key(event.channel)
                self.words[key] = max(event.end, self.words.get(key, 0.0))
            case Pause():
                self.paused_s = event.time
            case StreamWarning():
                self.warned_s = event.time
            case TurnStart() | TurnResumed():
                self.turns[_key(event.channel)] = "open"
            case TurnEndEager():
                self.turns[_key(event.channel)] = "eager"
            case TurnEnd():
                self.turns.pop(_key(event.channel), None)
            case Finalized():
                self.finalizes = [one for one in self.finalizes if one[0] != event.tag]
            case _:
                pass

    def until_s(self, num_channels: int) -> float:
        """The time up to which every channel's words were told; `num_channels` is 0 for a mix."""
        keys = [_key(i) for i in range(num_channels)] or [_key(None)]
        return min(self.words.get(key, 0.0) for key in keys)

    def copy(self) -> "ClientProgress":
        """A copy, which does not change with this."""
        return ClientProgress(
            dict(self.words), self.paused_s, self.warned_s, dict(self.turns), list(self.finalizes),
            self.has_ended,
        )  # fmt: skip


class Overlap:
    """Leaves out of a stream's events those that an earlier stream of the same sound gave already.

    The second stream begins a little after the last word that was told. It may still hear the end
    of that word, and it knows nothing of a turn that is open.
    """

    def __init__(self, progress: ClientProgress, longest_s: float) -> None:
        """`progress` is the client's; a turn ends at the latest `longest_s` after its last word."""
        self._progress, self._longest_s = progress.copy(), longest_s
        self._skips_end = False  # whether the last word was left out
        self._turns = dict(progress.turns)  # those that this stream has not heard begin

    def of(self, events: Iterable[Event], heard_s: float) -> list[Event]:
        """Those of these events that are to be told, when `heard_s` seconds were heard."""
        found: list[Event] = []
        for event in events:
            found += self._of(event)
        for key in list(self._turns):
            if heard_s > self._progress.words.get(key, 0.0) + self._longest_s:
                found.append(self._end_turn(key, heard_s))
        return found

    def _of(self, event: Event) -> Sequence[Event]:
        progress = self._progress
        match event:
            case Word():
                self._skips_end = (event.start + event.end) / 2 <= self._end(event.channel)
                return [] if self._skips_end else [event]
            case WordEnd():
                return [] if self._skips_end else [event]
            case Partial():
                return [] if event.start < self._end(event.channel) else [event]
            case Pause():
                return [] if event.time <= progress.paused_s + _SAME_S else [event]
            case StreamWarning():
                return [] if event.time <= progress.warned_s + _SAME_S else [event]
            case TurnStart():
                known = self._turns.pop(_key(event.channel), None)
                if known == "eager":
                    return [TurnResumed(event.time, event.channel)]
                return [] if known == "open" else [event]
            case End():
                return [*(self._end_turn(key, event.duration) for key in list(self._turns)), event]
            case _:
                return [event]

    def _end(self, channel: Channel) -> float:
        return self._progress.words.get(_key(channel), 0.0)

    def _end_turn(self, key: str, time: float) -> TurnEnd:
        """The end of a turn in which nothing more was said."""
        self._turns.pop(key)
        return TurnEnd(time, 1.0, int(key) if key else None)


def _key(channel: Channel) -> str:
    return "" if channel is None else str(channel)
