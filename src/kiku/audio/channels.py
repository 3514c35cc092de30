"""Channels that appear or disappear in a recording of which each channel is transcribed by itself.

Does not know what is transcribed of a channel.
"""

from dataclasses import dataclass, field

from kiku.audio.checks import StreamWarning
from kiku.audio.chunk import Chunk


@dataclass(slots=True)
class ChannelChanges:
    """Reports where a recording has more or fewer channels than it had at first, each once."""

    num_channels: int
    """Channels at first, which are those that are transcribed."""
    _told: set[bool] = field(default_factory=set[bool])

    def look(self, chunk: Chunk, time: float) -> StreamWarning | None:
        """The warning about the next chunk, which begins at `time`; None where there is none."""
        count, first = chunk.num_channels, self.num_channels
        if chunk.data is None or count == first or (count > first) in self._told:
            return None
        self._told.add(count > first)
        what = (
            f"those from {first} on are not heard"
            if count > first
            else f"those from {count} on are silent"
        )
        return StreamWarning(
            "damaged",
            f"the recording had {_channels(first)} at first and has {_channels(count)} from "
            f"{time:.2f} s on: {what}, counted from 0; mix them with channel='mix' "
            "(--channel mix), or cut it there",
            time,
        )


def _channels(count: int) -> str:
    return f"{count} channel" if count == 1 else f"{count} channels"
