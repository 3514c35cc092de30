"""What `kiku serve` is asked before it can end in order: it starts for a second or two."""

import signal
from collections.abc import Generator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any


class EndRequest:
    """Notes the first Ctrl-C or SIGTERM; another one ends the program at once."""

    def __init__(self) -> None:
        """Note nothing yet."""
        self.has_come = False
        self._is_taken = False
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        """Note from now on; a signal that the program ignores stays ignored."""
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._note)  # fails in other threads than the main one
                self._before[number] = handler

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.has_come or self._is_taken:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.has_come = True

    def take(self) -> bool:
        """Whether one has come. From now on others handle signals; what comes back here after them
        ends the program at once."""
        self._is_taken = True
        return self.has_come

    def end(self) -> None:
        """Put the handlers back that were there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextmanager
def first_is_noted() -> Generator[EndRequest]:
    """In this block, the first request to end the program is noted."""
    request = EndRequest()
    with suppress(ValueError):  # not in the main thread, where signals do not come either
        request.listen()
    try:
        yield request
    finally:
        request.end()
