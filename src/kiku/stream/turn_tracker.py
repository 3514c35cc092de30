"""The turns of one session: which times and words its endpointer is given, and when."""

from collections.abc import Sequence
from typing import Any

from kiku.stream.session_setup import SessionSetup
from kiku.text import Endpointer, TurnEvent, Word


class TurnTracker:
    """Feeds the endpointer of a session, if turns are asked for.

    Words may be emitted between two frames; the endpointer gets them with the next frame.
    """

    def __init__(self, setup: SessionSetup) -> None:
        """Stand before the first frame."""
        policy, config = setup.options.turn_policy, setup.config
        self.endpointer: Endpointer | None = None
        """None if no turns are asked for."""
        if policy is not None:
            rate, delay_s = config.frame_rate, config.text_delay_s
            self.endpointer = Endpointer(
                policy, frame_rate=rate, delay_s=delay_s, channel=setup.channel
            )
        self.time = 0.0
        """Latest second that the endpointer was given."""
        self.late: list[Word] = []
        """Words that were emitted since the last frame."""

    def push(
        self,
        time: float,
        heads: Sequence[float] | None,
        level: float,
        words: Sequence[Word],
        word_open: bool,
    ) -> Sequence[TurnEvent]:
        """The events of turns after the frame that ends at `time`; see `Endpointer.push`."""
        if self.late:
            words, self.late = [*self.late, *words], []
        if self.endpointer is None:
            return ()
        if time > self.time:  # otherwise a finalize has reported a later time
            self.time = time
        return self.endpointer.push(self.time, heads, level, words, word_open)

    def finalized(self, time: float, words: Sequence[Word]) -> Sequence[TurnEvent]:
        """The events of turns after a finalize: all words before `time` are known."""
        if self.endpointer is None:
            return ()
        self.time = max(self.time, time)
        return self.endpointer.finalized(time, words)

    def finish(self, time: float, words: Sequence[Word]) -> Sequence[TurnEvent]:
        """The last events of turns, with the last words of the stream, which ends at `time`."""
        if self.endpointer is None:
            return ()
        words = [*self.late, *words]
        events = self.endpointer.finalized(time, words) if words else []
        return events + self.endpointer.finish(max(0.0, time))

    def restore(self, endpointer: Any, time: float, late: list[Word]) -> None:
        """Go on where `endpointer` was saved, if both sessions report turns."""
        if self.endpointer is not None and endpointer is not None:
            self.endpointer.restore(endpointer)
        self.time, self.late = time, late
