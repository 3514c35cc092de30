"""The steps that a Realtime client has asked for and that are not done yet, in order. Bounded."""

from collections import deque
from dataclasses import dataclass
from enum import Enum

from kiku.options import DecodingOptions, StreamOptions

MAX_HELD = 64 * 2**20
"""Bytes of sound that may wait for another stream: 20 minutes."""

MAX_WAITING = 20_000
"""Number of messages that may wait for another stream."""


@dataclass(slots=True)
class PendingAudio:
    """Sound to be pushed."""

    data: bytes
    units: int
    """Length of the sound, in units of `UNITS_PER_S`."""


class CommitKind(Enum):
    """Why a stream is finalized."""

    CLIENT = "client"
    """The client has committed, and gets an item."""
    REST = "rest"
    """The stream is about to be replaced; its last words come first."""
    LAST = "last"
    """The connection is about to end, as the client is silent."""


@dataclass(slots=True)
class Commit:
    """A commit to be finalized."""

    tag: str
    """Tag of the finalize."""
    at: int
    """Place where its sound ends."""
    kind: CommitKind = CommitKind.CLIENT

    @property
    def is_own(self) -> bool:
        """Whether the client has not asked for it."""
        return self.kind is not CommitKind.CLIENT


@dataclass(slots=True)
class Reopen:
    """Another stream is to replace the present one."""

    options: StreamOptions
    drops: bool
    """Whether to forget sound that was not committed, instead of hearing it to its end first."""
    units: int = 0
    """Length of sound that was forgotten before it was pushed."""


@dataclass(slots=True)
class ChangeDecoding:
    """Decoding options are to change."""

    decoding: DecodingOptions
    keywords: list[str] | None = None
    """As the client has written them; None if it has named none."""
    event_id: str | None = None
    """Of the client's message."""


Step = PendingAudio | Commit | Reopen | ChangeDecoding


class PendingSteps:
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
    def changes_decoding(self) -> bool:
        """Whether one of the steps is to change decoding options."""
        return any(isinstance(step, ChangeDecoding) for step in self._steps)

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be read before some steps are done."""
        return self._num_bytes >= MAX_HELD or len(self._steps) >= MAX_WAITING

    def add(self, step: Step) -> None:
        """Add a step after all others."""
        self._steps.append(step)
        if isinstance(step, PendingAudio):
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
        if isinstance(step, PendingAudio):
            self._num_bytes -= len(step.data)

    def forget(self, options: StreamOptions) -> None:
        """Drop the sound after the last commit, and have another stream after that."""
        steps = self._steps
        kept: deque[Step] = deque()
        units = 0
        while steps and not isinstance(steps[-1], Commit):
            step = steps.pop()
            if isinstance(step, ChangeDecoding):
                kept.appendleft(step)
            elif not isinstance(step, Commit):
                units += step.units  # also those of a Reopen, which the new one replaces
                self._num_bytes -= len(step.data) if isinstance(step, PendingAudio) else 0
        steps += kept
        steps.append(Reopen(options, drops=True, units=units))

    def clear(self) -> None:
        """Remove all steps, as none can be done."""
        self._steps.clear()
        self._num_bytes = 0
