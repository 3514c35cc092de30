"""Warnings where channels appear, disappear or are missing, if each is transcribed by itself.

Does not know what is transcribed of a channel.
"""

from dataclasses import dataclass, field

from kiku.audio.checks import StreamWarning
from kiku.audio.chunk import Chunk


@dataclass(slots=True)
class ChannelChanges:
    """Reports once that a recording has more channels than are transcribed, and once fewer."""

    num_channels: int
    """How many channels are transcribed."""
    at_first: bool = True
    """Whether the recording had this many channels at first; if not, the caller asked for them."""
    _reported: set[bool] = field(default_factory=set[bool])

    def look(self, chunk: Chunk, time: float) -> StreamWarning | None:
        """The warning about the next chunk, which begins at `time`; None where there is none."""
        count, first = chunk.num_channels, self.num_channels
        if chunk.data is None or count == first or (count > first) in self._reported:
            return None
        self._reported.add(count > first)
        what = (
            f"those from {first} on are not transcribed"
            if count > first
            else f"those from {count} on are silent"
        )
        if self.at_first:
            had, remedy = f"had {_channels(first)} at first", "cut it there"
        else:
            had, remedy = f"was declared to have {_channels(first)}", "declare the right number"
        return StreamWarning(
            "damaged",
            f"the recording {had} and has {_channels(count)} from {time:.2f} s on: {what}, counted "
            f"from 0; mix them with channel='mix' (--channel mix), or {remedy}",
            time,
        )


def _channels(count: int) -> str:
    return f"{count} channel" if count == 1 else f"{count} channels"
