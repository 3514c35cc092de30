"""Memory that a large backlog of sound has left, given back to the system.

glibc keeps what was freed between other things: after two hours of sound that clients had sent at
once, a process stayed 375 MB larger; 27 MB with this.
"""

import asyncio
import ctypes
import sys

LARGE_BYTES = 64 * 2**20
"""Of sound; less is left to the allocator, which uses it again."""

SETTLE_S = 1.0
"""A stream that is given up drops its sound a moment later."""


class Backlog:
    """The sound that waits in all streams, as it comes and goes."""

    def __init__(self) -> None:
        """None waits."""
        self._most = 0.0

    def has_gone(self, waiting_bytes: float) -> bool:
        """Take note of how much waits now; whether most of a large backlog went since this was true
        last, or since the most there was."""
        self._most = max(self._most, waiting_bytes)
        if self._most < LARGE_BYTES or waiting_bytes > self._most / 2:
            return False
        self._most = waiting_bytes
        return True


async def give_back() -> None:
    """Have the system get what is free, in a thread that nobody waits for."""
    await asyncio.sleep(SETTLE_S)
    await asyncio.to_thread(trim)


def trim() -> None:
    """Give free memory back, where the allocator is glibc's; elsewhere nothing is done."""
    if sys.platform != "linux":
        return
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # others, as musl, have none
    if malloc_trim is not None:
        malloc_trim(0)
