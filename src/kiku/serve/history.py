"""The counted messages of a session: what a client who comes back is told again."""

import sys
from collections import deque
from collections.abc import Iterable
from itertools import islice

from kiku.serve.protocols.interface import Send

MOST = 20_000
"""Messages that are kept."""

MOST_BYTES = 2**23
"""What they may take of memory; of those that say what was heard it is enough for all of `MOST`."""


class History:
    """The last messages by number; the first there was is number 1."""

    def __init__(self, messages: Iterable[str | bytes] = (), count: int = 0) -> None:
        """With messages of which the last is number `count`."""
        self._kept: deque[Send] = deque()
        self._num_bytes = 0
        for one in messages:
            self._keep(Send(one))
        self.count = count
        """How many there were."""

    def add(self, message: Send) -> None:
        """One more."""
        self._keep(message)
        self.count += 1

    def _keep(self, message: Send) -> None:
        """Keep one more, and let go of the oldest where that is too much."""
        kept = self._kept
        kept.append(message)
        self._num_bytes += sys.getsizeof(message.data)
        while len(kept) > MOST or self._num_bytes > MOST_BYTES:
            self._num_bytes -= sys.getsizeof(kept.popleft().data)

    def knows_behind(self, number: int) -> bool:
        """Whether all messages behind this number, which there was, are kept."""
        return 0 <= self.count - number <= len(self._kept)

    def behind(self, number: int) -> list[Send]:
        """The kept messages behind this number."""
        missed = max(0, min(self.count - number, len(self._kept)))
        return list(islice(self._kept, len(self._kept) - missed, None))
