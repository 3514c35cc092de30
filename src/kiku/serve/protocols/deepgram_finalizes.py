"""The `Finalize` messages of Deepgram's live clients, and which of them have been answered.

The stream answers equal requests at one place only once. Here each has a number, so that each gets
an answer.
"""

import re

from kiku.serve.protocols.interface import FinalizeStream

_TAG = re.compile(r"finalize ([0-9]{1,18})")


class Finalizes:
    """The finalizes of one connection."""

    def __init__(self) -> None:
        """Start with none."""
        self._num_asked = 0
        self._answered: dict[int, int] = {}  # number of the last one answered, by channel

    def ask(self) -> FinalizeStream:
        """Ask for one more, in all channels."""
        self._num_asked += 1
        return FinalizeStream(f"finalize {self._num_asked}")

    def is_answered_by(self, tag: str | None, channel: int = 0) -> bool:
        """Whether an answer with this tag is to one of them; it answers earlier ones, too."""
        found = _TAG.fullmatch(tag or "")
        if found is None:
            return False
        self._answered[channel] = max(self._answered.get(channel, 0), int(found[1]))
        return True

    def is_open(self, channel: int = 0) -> bool:
        """Whether an answer in this channel is still to come."""
        return self._answered.get(channel, 0) < self._num_asked

    def give_up(self, num_channels: int = 1) -> None:
        """Wait for no answer any more: the stream refused the last one, or is given up."""
        self._answered = dict.fromkeys(range(num_channels), self._num_asked)
