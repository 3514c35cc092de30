"""The counted messages of a session: what a client who comes back is told again."""

from collections import deque
from collections.abc import Iterable
from itertools import islice

from kiku.serve.protocols.interface import Send

MOST = 20_000
"""Messages that are kept."""


class History:
    """The last messages by number; the first there was is number 1."""

    def __init__(self, messages: Iterable[str | bytes] = (), count: int = 0) -> None:
        """With messages of which the last is number `count`."""
        self._kept = deque((Send(one) for one in messages), MOST)
        self.count = count
        """How many there were."""

    def add(self, message: Send) -> None:
        """One more."""
        self._kept.append(message)
        self.count += 1

    def knows_behind(self, number: int) -> bool:
        """Whether all messages behind this number, which there was, are kept."""
        return 0 <= self.count - number <= len(self._kept)

    def behind(self, number: int) -> list[Send]:
        """The kept messages behind this number."""
        missed = max(0, min(self.count - number, len(self._kept)))
        return list(islice(self._kept, len(self._kept) - missed, None))
