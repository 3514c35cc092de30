"""The steps that a Realtime client has asked for and that are not done yet, in order. Bounded."""

from collections import deque
from dataclasses import dataclass

from kiku.options import DecodingOptions, StreamOptions

MAX_HELD = 64 * 2**20
"""Bytes of sound that may wait for another stream: 20 minutes."""

MAX_WAITING = 20_000
"""Number of messages that may wait for another stream."""


@dataclass(slots=True)
class Sound:
    """Sound to be pushed."""

    data: bytes
    units: int
    """Length of the sound, in units of `UNITS_PER_S`."""


@dataclass(slots=True)
class Commit:
    """A commit to be finalized."""

    tag: str
    at: int
    """Place where its sound ends."""


@dataclass(slots=True)
class Reopen:
    """Another stream is to replace the present one."""

    options: StreamOptions
    drops: bool
    """Whether to forget sound that was not committed, instead of hearing it to its end first."""
    units: int = 0
    """Length of sound that was forgotten before it was pushed."""


@dataclass(slots=True)
class Rewords:
    """Decoding options are to change."""

    decoding: DecodingOptions


Step = Sound | Commit | Reopen | Rewords


class Waiting:
    """Steps, the oldest first."""

    def __init__(self) -> None:
        """Start with none."""
        self._steps: deque[Step] = deque()
        self._num_bytes = 0

    @property
    def first(self) -> Step | None:
        """The step to be done next."""
        return self._steps[0] if self._steps else None

    @property
    def commits(self) -> list[Commit]:
        """The commits among the steps."""
        return [step for step in self._steps if isinstance(step, Commit)]

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be read before some steps are done."""
        return self._num_bytes >= MAX_HELD or len(self._steps) >= MAX_WAITING

    def add(self, step: Step) -> None:
        """Add a step after all others."""
        self._steps.append(step)
        if isinstance(step, Sound):
            self._num_bytes += len(step.data)

    def put_first(self, step: Reopen) -> None:
        """Add a step before all others."""
        self._steps.appendleft(step)

    def reopen(self, options: StreamOptions) -> None:
        """Have another stream. It replaces a `Reopen` that is the last step, as nothing is between
        them."""
        last = self._steps[-1] if self._steps else None
        if isinstance(last, Reopen):
            last.options = options
        else:
            self._steps.append(Reopen(options, drops=False))

    def pop(self) -> None:
        """Remove the first step, which is done."""
        step = self._steps.popleft()
        if isinstance(step, Sound):
            self._num_bytes -= len(step.data)

    def forget(self, options: StreamOptions) -> None:
        """Drop the sound after the last commit, and have another stream after that."""
        steps = self._steps
        kept: deque[Step] = deque()
        units = 0
        while steps and not isinstance(steps[-1], Commit):
            step = steps.pop()
            if isinstance(step, Rewords):
                kept.appendleft(step)
            elif not isinstance(step, Commit):
                units += step.units  # also those of a Reopen, which the new one replaces
                self._num_bytes -= len(step.data) if isinstance(step, Sound) else 0
        steps += kept
        steps.append(Reopen(options, drops=True, units=units))

    def clear(self) -> None:
        """Remove all steps, as none can be done."""
        self._steps.clear()
        self._num_bytes = 0
