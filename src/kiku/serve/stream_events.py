"""The events of one stream on their way to its protocol.

    the stream -> what the client knows is left out -> counted, noted for other processes -> actions

Knows the talk's stream and protocol; does not know its connection, or what the actions do.
"""

from collections.abc import Sequence

from kiku.live import AsyncStream
from kiku.serve.client_progress import Overlap
from kiku.serve.protocols.interface import Action, LiveProtocol
from kiku.serve.session_recorder import SessionRecorder
from kiku.serve.talk_counters import TalkCounters
from kiku.stream import End, Event


class StreamEvents:
    """Waits for a stream's events, and gives the actions that its protocol makes of them."""

    def __init__(
        self,
        stream: AsyncStream,
        protocol: LiveProtocol,
        counters: TalkCounters,
        recorder: SessionRecorder | None,
        overlap: Overlap | None,
    ) -> None:
        """Start before the first event.

        Args:
            stream: whose events they are.
            protocol: makes actions of them.
            counters: count them.
            recorder: notes them for other processes, if it is given.
            overlap: leaves out those that the client knows, if another process began the talk.
        """
        self._stream, self._protocol, self._counters = stream, protocol, counters
        self._recorder, self._overlap = recorder, overlap
        self.heard_s = 0.0
        """Seconds of sound whose events have all been given."""
        self.has_ended = False
        """Whether the last event has been given."""

    async def wait(self) -> list[Event]:
        """The next events, which `actions` takes; they may be none where the stream is done, or has
        heard more. Raises what the stream has failed with."""
        if self._protocol.wants_progress:
            return await self._stream.progress(self.heard_s)
        return await self._stream.batch()

    def actions(self, first: Sequence[Event]) -> list[Action]:
        """What the protocol does at these events, and at those that have come since."""
        stream, protocol, recorder = self._stream, self._protocol, self._recorder
        # Read before the events are fetched: they are then all that belong to `heard_s`, and a
        # stream that is done has no more.
        is_done, self.heard_s = stream.done, stream.heard_s
        events = list(first)
        try:
            events += stream.poll()
        except Exception:  # it is raised again once these have been sent
            is_done = False
        waiting_s = stream.waiting_s
        if self._overlap is not None:
            note = None if recorder is None else recorder.note_event
            events = self._overlap.of(events, self.heard_s, note)
        actions = list[Action]()
        for event in events:
            actions += protocol.event(event, waiting_s)
            self._counters.count_event(event)
            if recorder is not None:
                recorder.note_event(event)
            self.has_ended = self.has_ended or isinstance(event, End)
        if protocol.wants_progress and not self.has_ended:
            actions += protocol.progress(self.heard_s, waiting_s)
        self.has_ended = self.has_ended or (not events and is_done)
        return actions
