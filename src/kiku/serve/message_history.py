"""The counted messages of a session, which are sent again to a client who comes back."""

import sys
from collections import deque
from collections.abc import Iterable
from itertools import islice

from kiku.serve.protocols.interface import Send

MAX_MESSAGES = 20_000
"""Number of messages that are kept, at most."""

MAX_BYTES = 2**23
"""Bytes of memory they may take: enough for `MAX_MESSAGES` that say what was heard."""


class MessageHistory:
    """The last messages of a session, by number; the session's first is number 1."""

    def __init__(self, messages: Iterable[str | bytes] = (), count: int = 0) -> None:
        """Start with these messages, of which the last is number `count`."""
        self._kept: deque[Send] = deque()
        self._num_bytes = 0
        for one in messages:
            self._keep(Send(one))
        self.count = count
        """Number of all messages of the session, kept or not."""

    def add(self, message: Send) -> None:
        """Add the next message."""
        self._keep(message)
        self.count += 1

    def _keep(self, message: Send) -> None:
        """Keep a message, and drop the oldest while there is too much."""
        kept = self._kept
        kept.append(message)
        self._num_bytes += sys.getsizeof(message.data)
        while len(kept) > MAX_MESSAGES or self._num_bytes > MAX_BYTES:
            self._num_bytes -= sys.getsizeof(kept.popleft().data)

    def has_all_after(self, number: int) -> bool:
        """Whether there was a message of this number (or it is 0), and all later ones are kept."""
        return 0 <= self.count - number <= len(self._kept)

    def after(self, number: int) -> list[Send]:
        """The kept messages after this number."""
        missed = max(0, min(self.count - number, len(self._kept)))
        return list(islice(self._kept, len(self._kept) - missed, None))
