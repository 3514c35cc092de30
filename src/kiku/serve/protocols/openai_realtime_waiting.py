"""What a Realtime client has asked for and is not done yet, in its order. Bounded."""

from collections import deque
from dataclasses import dataclass

from kiku.options import DecodingOptions, StreamOptions

MAX_HELD = 64 * 2**20
"""Bytes of sound that wait for another stream: 20 minutes."""

MAX_WAITING = 20_000
"""Messages that wait for another stream."""


@dataclass(slots=True)
class Sound:
    """To be pushed."""

    data: bytes
    units: int
    """How long it is."""


@dataclass(slots=True)
class Commit:
    """To be finalized."""

    tag: str
    at: int
    """Where its sound ends."""


@dataclass(slots=True)
class Reopen:
    """Another stream is to take the place of the one there is."""

    options: StreamOptions
    drops: bool
    """Whether sound that was not committed is forgotten, and not heard to its end first."""
    units: int = 0
    """Of sound that was forgotten before it was pushed."""


@dataclass(slots=True)
class Rewords:
    """Text is to be picked otherwise."""

    decoding: DecodingOptions


Step = Sound | Commit | Reopen | Rewords


class Waiting:
    """Steps, the oldest first."""

    def __init__(self) -> None:
        """None."""
        self._steps: deque[Step] = deque()
        self._num_bytes = 0

    @property
    def first(self) -> Step | None:
        """What is to be done next."""
        return self._steps[0] if self._steps else None

    @property
    def commits(self) -> list[Commit]:
        """Those among them."""
        return [step for step in self._steps if isinstance(step, Commit)]

    @property
    def is_full(self) -> bool:
        """Whether nothing more should come before some of it is done."""
        return self._num_bytes >= MAX_HELD or len(self._steps) >= MAX_WAITING

    def add(self, step: Step) -> None:
        """One more, behind all others."""
        self._steps.append(step)
        if isinstance(step, Sound):
            self._num_bytes += len(step.data)

    def put_first(self, step: Reopen) -> None:
        """One more, before all others."""
        self._steps.appendleft(step)

    def reopen(self, options: StreamOptions) -> None:
        """Have another stream; one that waits for nothing but its own turn is not opened."""
        last = self._steps[-1] if self._steps else None
        if isinstance(last, Reopen):
            last.options = options
        else:
            self._steps.append(Reopen(options, drops=False))

    def pop(self) -> None:
        """The first is done."""
        step = self._steps.popleft()
        if isinstance(step, Sound):
            self._num_bytes -= len(step.data)

    def forget(self, options: StreamOptions) -> None:
        """Drop the sound behind the last commit, and have another stream after that."""
        steps = self._steps
        kept: deque[Step] = deque()
        units = 0
        while steps and not isinstance(steps[-1], Commit):
            step = steps.pop()
            if isinstance(step, Rewords):
                kept.appendleft(step)
            elif not isinstance(step, Commit):
                units += step.units  # of a stream too, whose work the new one does
                self._num_bytes -= len(step.data) if isinstance(step, Sound) else 0
        steps += kept
        steps.append(Reopen(options, drops=True, units=units))

    def clear(self) -> None:
        """Nothing of it can be done."""
        self._steps.clear()
        self._num_bytes = 0
