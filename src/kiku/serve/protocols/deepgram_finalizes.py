"""What Deepgram's live clients have finalized, and which of it has been answered.

The stream answers equal requests at one place once. Here each has a number, and so an answer.
"""

import re

from kiku.serve.protocols.interface import Finalize

_TAG = re.compile(r"finalize ([0-9]{1,18})")


class Finalizes:
    """Those of one connection."""

    def __init__(self) -> None:
        """None was asked for."""
        self._num_asked = 0
        self._answered: dict[int, int] = {}  # the last that was, by channel

    def ask(self) -> Finalize:
        """One more, for all channels."""
        self._num_asked += 1
        return Finalize(f"finalize {self._num_asked}")

    def is_answered_by(self, tag: str | None, channel: int = 0) -> bool:
        """Whether an answer with this tag is to one of them; those before it have theirs, too."""
        found = _TAG.fullmatch(tag or "")
        if found is None:
            return False
        self._answered[channel] = max(self._answered.get(channel, 0), int(found[1]))
        return True

    def is_open(self, channel: int = 0) -> bool:
        """Whether an answer is still to come."""
        return self._answered.get(channel, 0) < self._num_asked

    def give_up(self, num_channels: int = 1) -> None:
        """Wait for none of them any more: the stream took it not, or is given up."""
        self._answered = dict.fromkeys(range(num_channels), self._num_asked)
