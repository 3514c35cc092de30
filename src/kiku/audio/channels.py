"""Channels that come, go or are missing in a recording of which each is heard by itself.

Does not know what is heard of a channel.
"""

from dataclasses import dataclass, field

from kiku.audio.checks import StreamWarning
from kiku.audio.chunk import Chunk


@dataclass(slots=True)
class ChannelChanges:
    """Tells where a recording has more or fewer channels than are heard, each once."""

    num_channels: int
    """Which are heard."""
    at_first: bool = True
    """Whether the recording had as many at first; else they are what was asked for before."""
    _told: set[bool] = field(default_factory=set[bool])

    def look(self, chunk: Chunk, time: float) -> StreamWarning | None:
        """What is to be told of the next chunk, which begins at `time`."""
        count, first = chunk.num_channels, self.num_channels
        if chunk.data is None or count == first or (count > first) in self._told:
            return None
        self._told.add(count > first)
        what = (
            f"those from {first} on are not heard"
            if count > first
            else f"those from {count} on are silent"
        )
        if self.at_first:
            had, remedy = f"had {_channels(first)} at first", "cut it there"
        else:
            had, remedy = f"was to have {_channels(first)}", "say how many it has"
        return StreamWarning(
            "damaged",
            f"the recording {had} and has {_channels(count)} from {time:.2f} s on: {what}, counted "
            f"from 0; mix them with channel='mix' (--channel mix), or {remedy}",
            time,
        )


def _channels(count: int) -> str:
    return f"{count} channel" if count == 1 else f"{count} channels"
