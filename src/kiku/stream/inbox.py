"""What the client has given a session and the driver has not looked at: sound and requests.

This is where the two threads of a session meet. The client's thread appends items at one end, the
driver's thread takes them from the other; a deque needs no lock for that. Every number has one
writer, the client's thread or the driver's, and the other thread only reads it.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from kiku.audio import Chunk, StreamWarning
from kiku.errors import QueueFull
from kiku.stream.work import MAX_REQUESTS, DecodingChange, FinalizeRequest

LONG_S = 0.5
"""Seconds; a longer chunk waits in pieces."""

InboxItem = Chunk | FinalizeRequest | DecodingChange | StreamWarning | Literal["close"]
"""One thing that a client gives: a warning is about the sound behind it; "close" says that no more
sound comes."""


@dataclass(slots=True)
class RequestCount:
    """How many requests of one kind were made, and how many of them are done."""

    advice: str
    """What the requests wait for, and what to do if too many wait."""
    made: int = 0
    """Written by the client's thread."""
    done: int = 0
    """Written by the driver's thread."""

    def check(self) -> None:
        """Raise QueueFull if no further request may wait."""
        waiting = self.made - self.done
        if waiting >= MAX_REQUESTS:
            raise QueueFull(f"{waiting} {self.advice}")


@dataclass(slots=True)
class Inbox:
    """Sound and requests of one client in their order, until the driver takes them."""

    items: deque[InboxItem] = field(default_factory=deque[InboxItem])
    """The oldest first."""
    closed_by: Literal["close()", "stop()"] | None = None
    """The call after which the client gives nothing more."""
    pushed_s: float = 0.0
    """Seconds of sound that were ever added. Written by the client's thread."""
    converted_s: float = 0.0
    """Seconds of sound, counted the same way, that were converted. Written by the driver's
    thread."""
    is_converting: bool = False
    """Whether the driver is converting a chunk, which is in neither sum for sure."""
    finalizes: RequestCount = field(
        default_factory=lambda: RequestCount(
            "finalizes are waiting to be answered: wait for `Finalized` before the next"
        )
    )
    changes: RequestCount = field(
        default_factory=lambda: RequestCount(
            "changes of decoding are waiting for the sound before them: make the next one later, "
            "or make fewer"
        )
    )

    def add_pieces(self, chunk: Chunk) -> None:
        """Add a long chunk in pieces, each of which is converted by itself: the other sessions
        wait meanwhile. They are added up as the driver's thread does. For the client's thread."""
        for piece in chunk.split(LONG_S / 2):
            self.pushed_s += piece.num_samples / piece.rate
            self.items.append(piece)

    def ends_with(self, request: FinalizeRequest) -> bool:
        """Whether the last item that waits is an equal request. The driver's thread may take it at
        any moment; a request that is added then is found equal there, or answered once more."""
        try:
            return self.items[-1] == request
        except IndexError:
            return False
