"""The way in of a session: from what the client gave to frames, each request at its frame.

Runs in the driver's thread; other threads may ask how much sound there is. Knows nothing of tokens,
words or events.
"""

import math
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kiku.audio import AudioInput, Chunk, FrameQueue, StreamWarning
from kiku.config import TAIL_S
from kiku.serial import MAX_INT
from kiku.stream.inbox import Inbox
from kiku.stream.session_setup import SessionSetup
from kiku.stream.session_state import SessionState
from kiku.stream.work import (
    ChangeWork,
    DecodingChange,
    FinalizeRequest,
    FinalizeState,
    FinalizeWork,
)


class FrameSource:
    """Frames of one client's sound, with silence around it, and the requests between them."""

    __slots__ = (
        "_inbox", "_last_decoding", "_setup", "_uneven_s", "broken", "closed", "due", "frames",
        "input", "num_frames", "num_taken", "warnings",
    )  # fmt: skip

    def __init__(self, setup: SessionSetup, inbox: Inbox) -> None:
        """A source that has taken nothing; the silence before the sound is ready."""
        config, options = setup.config, setup.options
        channel = options.channel if setup.channel is None else setup.channel
        self._setup, self._inbox = setup, inbox
        # The input counts sound exactly; the inbox adds up what each chunk seems to be, which is a
        # little off where bytes end within a sample. By how much, when it was last looked at.
        self._uneven_s = 0.0
        self.input = AudioInput(
            config.sample_rate,
            options.format,
            channel="mix" if channel == "each" else channel,
            checks=options.signal_checks,
            rate_check=bool(options.rate_check),
            start_s=options.start_s,
            end_s=options.end_s,
        )
        self.frames = FrameQueue(config.frame_size)
        """Samples that were converted and not taken."""
        self.frames.push(np.zeros(int(setup.prefix_s * config.sample_rate), np.float32))
        self.num_frames = 0
        """Frames that were taken. The model has heard all but those of the step under way."""
        self.due: deque[FinalizeWork | ChangeWork] = deque()
        """Requests whose frame has not come, in the order of their frames."""
        self._last_decoding = options.decoding  # after all that is due
        self.warnings: deque[StreamWarning] = deque()
        """Warnings of sound that may not have been heard yet, in the order of their times."""
        self.num_taken = 0
        """Items that were ever taken from the inbox."""
        self.closed = False
        """Whether no more sound is converted: it has come to its end or was dropped, or the session
        failed."""
        self.broken: Exception | None = None
        """Why the sound could not be converted any further. It is raised when all sound before that
        place has been heard, with the silence after it."""

    def pending(self, most: int) -> int | FinalizeWork | ChangeWork | None:
        """How many frames may be taken now, or the request that comes first; None at the end.

        Args:
            most: frames for which sound is converted, if so much waits.

        Raises:
            Exception: `broken`, at its place.
        """
        frames, items = self.frames, self._inbox.items
        enough = most * frames.frame_size
        if items and frames.num_samples < enough:
            self.convert(enough)
        ready = frames.num_samples // frames.frame_size
        if self.due:
            before = self.due[0].state.at - self.num_frames
            if before <= 0:
                return self.due[0]
            ready = min(ready, before)
        if ready or not self.closed:
            return ready
        if self.broken is not None:
            raise self.broken
        return None if not items else 0

    def convert(self, enough: int, most: int | None = None) -> None:
        """Take items from the inbox until `enough` samples wait; at most `most` items, and none
        behind sound that cannot be converted."""
        inbox, frames = self._inbox, self.frames
        while inbox.items and frames.num_samples < enough and most != 0 and self.broken is None:
            most = None if most is None else most - 1
            item = inbox.items.popleft()
            self.num_taken += 1
            if isinstance(item, Chunk):
                inbox.is_converting = True
                try:
                    frames.push(self.input.feed(item))
                except Exception as error:
                    self._break_off(error)
                else:
                    inbox.converted_s += item.num_samples / item.rate
                inbox.is_converting = False
                self._note_warnings()
            elif isinstance(item, FinalizeRequest):
                self._add_finalize(item)
            elif isinstance(item, DecodingChange):
                self._add_change(item)
            elif isinstance(item, StreamWarning):
                self.warnings.append(item)
            else:
                self._add_end()

    @property
    def num_given(self) -> int:
        """Items that were ever put into the inbox."""
        return self.num_taken + len(self._inbox.items)

    def convert_before(self, num_given: int, most: int) -> bool:
        """Take at most `most` of the first `num_given` items; whether none of these is left that
        can be converted."""
        self.convert(MAX_INT, max(0, min(most, num_given - self.num_taken)))
        is_last = self.num_taken >= num_given or not self._inbox.items
        return is_last or self.broken is not None

    def _break_off(self, error: Exception) -> None:
        """End the sound here. What was converted before may still wait to be heard, so the error
        has its place behind that."""
        self.broken = error
        if self.input.duration and not self.closed:
            self._add_end()
        self.closed = True

    def _note_warnings(self) -> None:
        # They are emitted when the decoder has come to their time, however the sound was cut.
        if self.input.untold:
            self.warnings += self.input.warnings()

    def _add_finalize(self, request: FinalizeRequest) -> None:
        at, time = self._next_at, self.end_s
        last = self.due[-1] if self.due else None
        if isinstance(last, FinalizeWork) and last.merges(at, time, request):
            self._inbox.finalizes.done += 1
            return
        rest = np.concatenate([self.frames.rest(), self.input.tail()])
        state = FinalizeState(at, rest, time, [request])
        self.due.append(FinalizeWork(state, self._setup.config))

    def _add_change(self, change: DecodingChange) -> None:
        if change.decoding == self._last_decoding:  # tokens are picked so already
            self._inbox.changes.done += 1
            return
        self.due.append(ChangeWork(self._next_at, change))
        self._last_decoding = change.decoding

    @property
    def _next_at(self) -> int:
        """The frame in which the converted sound ends: the same whether the frames before it wait
        or have been heard."""
        return self.num_frames + self.frames.num_ready

    def _add_end(self) -> None:
        config = self._setup.config
        self.frames.push(self.input.end())
        self._note_warnings()
        self.closed = True
        if self._setup.padded:
            self.frames.pad()
            num_frames = math.ceil((config.text_delay_s + TAIL_S) * config.frame_rate)
            self.frames.push(np.zeros(num_frames * config.frame_size, np.float32))

    def take(self, num_frames: int) -> Sequence[NDArray[np.float32]]:
        """The samples of the next frames, in pieces [S] that nobody may write into."""
        self.num_frames += num_frames
        return self.frames.take(num_frames)

    @property
    def may_go_on(self) -> bool:
        """Whether more may be pending now, without a new item from the client."""
        frames = self.frames
        return (
            frames.num_samples >= frames.frame_size
            or bool(self._inbox.items or self.due)
            or self.closed
        )

    @property
    def end_s(self) -> float:
        """Second of the client's sound at which the converted sound ends."""
        duration, end_s = self.input.duration, self.input.end_s
        return duration if end_s is None else min(duration, end_s)

    @property
    def duration(self) -> float:
        """Seconds of sound that the client has pushed so far. Any thread may ask."""
        inbox = self._inbox
        converted_s, pushed_s = inbox.converted_s, inbox.pushed_s
        if not inbox.is_converting:
            counted_s = self.input.duration
            # If the driver converted nothing meanwhile, no chunk is in one sum and not in the
            # other.
            if not inbox.is_converting and inbox.converted_s == converted_s:
                self._uneven_s = counted_s - converted_s
                return counted_s + max(0.0, pushed_s - converted_s)
        return pushed_s + self._uneven_s

    @property
    def waiting_s(self) -> float:
        """Seconds of sound that wait to be heard; what does not fill a frame is not counted, be it
        converted or not. So this never becomes less by a conversion that nobody is told of."""
        inbox, frames, frame_s = self._inbox, self.frames, self._setup.frame_s
        given_s = inbox.pushed_s - inbox.converted_s
        ready_s = frames.num_samples // frames.frame_size * frame_s
        return ready_s + given_s if given_s >= frame_s else ready_s

    def drop(self) -> None:
        """Forget all that waits; no more frames come."""
        self.closed = True
        self._inbox.items.clear()
        self.frames.clear()
        self.due.clear()

    def restore(self, state: SessionState) -> None:
        """Go on where the state was saved.

        Raises:
            ValueError: requests that cannot wait there; other errors for damaged parts.
        """
        config, inbox = self._setup.config, self._inbox
        self.input = AudioInput.restore(state.input)
        self.frames.clear()
        self.frames.push(state.waiting)
        self.num_frames = state.num_frames
        self._last_decoding = state.decoding
        state.check_due(self.frames.num_ready)
        for one in state.due:
            if one.change is not None:
                decoding = one.change.decoding
                change = DecodingChange.of(decoding, self._setup.vocabulary, config)
                self.due.append(ChangeWork(one.at, change))
                self._last_decoding = decoding
                inbox.changes.made += 1
            elif one.finalize is not None:
                self.due.append(FinalizeWork(one.finalize, config))
                inbox.finalizes.made += 1
        self.warnings.extend(state.warnings)
        self.closed = state.closed
        if state.closed:
            inbox.closed_by = "close()"
        inbox.pushed_s = inbox.converted_s = self.input.duration
