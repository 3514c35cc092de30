"""What is saved of a session: its fields, and the checks of a state that comes from outside."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiku.audio import StreamWarning
from kiku.config import MAX_STREAM_FRAMES, ModelConfig
from kiku.errors import StreamError
from kiku.options import DecodingOptions
from kiku.stream.work import MAX_REQUESTS, ChangeState, ChangeWork, FinalizeState, FinalizeWork
from kiku.text import Word


@dataclass(slots=True)
class DueState:
    """One request whose frame has not come. One field is filled, the other is None."""

    finalize: FinalizeState | None
    change: ChangeState | None

    @classmethod
    def of(cls, work: FinalizeWork | ChangeWork) -> "DueState":
        """The state of a request that waits."""
        if isinstance(work, FinalizeWork):
            return cls(work.state, None)
        return cls(None, work.state)

    @property
    def at(self) -> int:
        """The frame before which it is done; ValueError if no field or both are filled."""
        if (self.finalize is None) == (self.change is None):
            raise ValueError("an impossible request")
        return self.change.at if self.finalize is None else self.finalize.at  # pyright: ignore[reportOptionalMemberAccess]


@dataclass(slots=True)
class SessionState:
    """All that a session remembers, in plain values. `Any` is what a part of it saves itself."""

    config: ModelConfig
    channel: int | None
    padded: bool
    prompted: bool
    input: Any
    waiting: NDArray[np.float32]
    """[S] samples that were converted and not taken."""
    emitter: Any
    tracker: Any
    endpointer: Any
    due: list[DueState]
    """Requests whose frame has not come, in the order of their frames."""
    decoding: DecodingOptions
    """How tokens are picked before all requests that wait."""
    num_frames: int
    """Frames that were heard."""
    levels: list[float]
    num_loud: int
    turn_time: float
    warned_at: float
    late: list[Word]
    warnings: list[StreamWarning]
    closed: bool
    events: list[Any]
    """Events that were not fetched, as dicts."""

    def check(self, config: ModelConfig, channel: int | None) -> None:
        """Raise StreamError for the state of another model or channel, ValueError for numbers that
        cannot be."""
        if self.config != config:
            raise StreamError(
                "the stream was saved with another model: load the model with which it was saved"
            )
        if self.channel != channel:
            raise StreamError(
                f"the stream was saved for channel {self.channel}, but this one is for channel "
                f"{channel}"
            )
        if not 0 <= self.num_frames <= MAX_STREAM_FRAMES or self.waiting.ndim != 1:
            raise ValueError("an impossible number of frames")
        if not 0 <= self.num_loud <= self.num_frames:
            raise ValueError("more loud frames than frames")

    def check_due(self, num_ready: int) -> None:
        """Raise ValueError for requests that are not what a session can have waiting.

        Args:
            num_ready: whole frames that wait to be taken.
        """
        last = self.num_frames
        if len(self.due) > 3 * MAX_REQUESTS:  # some are equal, and counted once
            raise ValueError("more requests than may wait")
        for one in self.due:
            if not last <= one.at <= self.num_frames + num_ready:
                raise ValueError("a request where there is no sound")
            last = one.at
            finalize = one.finalize
            if finalize is not None and not (
                finalize.rest.ndim == 1 and 1 <= len(finalize.requests) <= MAX_REQUESTS
            ):
                raise ValueError(
                    "a finalize without sound, or with an impossible number of requests"
                )
