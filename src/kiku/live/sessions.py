"""The sessions of one live stream, used as if they were one: `StreamSessions`."""

from collections.abc import Callable, Sequence

from kiku.audio import ChannelChanges, Chunk
from kiku.errors import AudioError
from kiku.options import StreamOptions
from kiku.stream import DecodingChange, End, Event, FinalizeRequest, WordSession


class StreamSessions:
    """One session; or, where each channel is transcribed by itself, one for each channel.

    What changes a session goes to all of them or to none: their stream holds its lock while it
    calls such a method.
    """

    def __init__(
        self, each: Sequence[WordSession], options: StreamOptions, wake: Callable[[], None]
    ) -> None:
        """The sessions `each` of a stream with these options. `wake` is called when a session can
        be stepped again, because events were fetched."""
        self.each = each
        self.first = each[0]
        # Most streams have one session, which is asked after every frame.
        self._only = self.first if len(each) == 1 else None
        self._by_channel = options.channel == "each"
        channel = None if self._by_channel else self.first.input.channel
        self._channel = channel if isinstance(channel, int) else None
        # None: no sound with this channel has come.
        self._changes: ChannelChanges | None = None
        if self._channel is not None and self.first.duration > 0:  # a saved stream goes on
            self._changes = ChannelChanges(self._channel + 1, at_first=False)
        for session in each:
            session.on_room = wake

    @property
    def waiting_s(self) -> float:
        """Seconds of sound that wait to be processed, on the channel with most."""
        only = self._only
        return only.waiting_s if only is not None else max(one.waiting_s for one in self.each)

    @property
    def heard_s(self) -> float:
        """Seconds of sound that were processed on all channels."""
        only = self._only
        return only.heard_s if only is not None else min(one.heard_s for one in self.each)

    @property
    def done(self) -> bool:
        """Whether all slots are free again."""
        return all(one.done for one in self.each)

    @property
    def failure(self) -> Exception | None:
        """What the first of them that failed failed with."""
        return next((one.failure for one in self.each if one.failure is not None), None)

    @property
    def is_closed(self) -> bool:
        """Whether no more sound may come."""
        return self.first.is_closing or self.failure is not None

    # Sound and requests.

    def check_channels(self, chunk: Chunk) -> None:
        """Raise AudioError where each channel has a session, and the chunk has more or fewer."""
        count = len(self.each)
        if self._by_channel and chunk.num_channels != count:
            raise AudioError(
                f"samples of {chunk.num_channels} channels were pushed, but this stream "
                f"transcribes {count} channels separately: push this number together, [S, "
                f"{count}], or open another stream with "
                f"format=AudioFormat(channels={chunk.num_channels})"
            )

    def check_open(self, what: str) -> None:
        """Raise StreamClosed if nothing more may come, or what a session failed with.

        Args:
            what: what the caller tried, for the message: "sound was pushed".
        """
        for session in self.each:
            session.check_open(what)

    def push(self, chunk: Chunk) -> None:
        """Give sound to the sessions. Recordings are not checked, and may lose channels on their
        way: those are silent from there on."""
        if not self._by_channel:
            self.first.push(chunk if self._channel is None else self._one_channel(chunk))
            return
        for channel, session in enumerate(self.each):
            session.push(chunk.of_channel(channel))

    def _one_channel(self, chunk: Chunk) -> Chunk:
        """What the session of one channel is to hear. A channel that is missing from the beginning
        is refused when its session converts it."""
        channel, count = self._channel, chunk.num_channels
        assert channel is not None
        if channel < count:
            self._changes = self._changes or ChannelChanges(count)
        if channel < count or self._changes is None:
            return chunk
        warning = self._changes.look(chunk, self.first.duration)
        if warning is not None:
            self.first.warn(warning)
        return chunk.of_channel(channel)

    def finalize(self, request: FinalizeRequest) -> None:
        """Ask all sessions for the words that were begun. Raises QueueFull if one of them cannot
        take the request; then none does."""
        for session in self.each:
            session.check_finalize(request)
        for session in self.each:
            session.finalize(request)

    def change_decoding(self, change: DecodingChange) -> None:
        """Change how all sessions pick tokens. Raises QueueFull if one of them cannot take the
        change; then none does."""
        for session in self.each:
            session.check_change()
        for session in self.each:
            session.change_decoding(change)

    def close(self) -> None:
        """Say that no more sound comes. Raises what a session failed with."""
        for session in self.each:
            session.check_alive()
            session.close()

    # Events.

    def next_event(self) -> Event | None:
        """The next event that has come, from the first session that has one; of all sessions' ends
        only the last. None if there is none. Raises what a session failed with, after its events.
        """
        for session in self.each:
            while session.events:
                event = session.next_event()
                if event is None:  # another thread has taken it
                    break
                if isinstance(event, End) and self._others_go_on(session):
                    break
                return event
        for session in self.each:
            session.check_alive()
        return None

    def _others_go_on(self, session: WordSession) -> bool:
        """Whether another session still has events, or will have some."""
        return any(one is not session and (one.events or not one.has_ended) for one in self.each)

    @property
    def has_news(self) -> bool:
        """Whether there is an event, or none will come any more."""
        only = self._only
        if only is not None:
            return bool(only.events) or only.done or only.failure is not None
        return any(one.events for one in self.each) or self.has_ended

    @property
    def has_ended(self) -> bool:
        """Whether no event will come any more but those that wait."""
        only = self._only
        if only is not None:
            return only.done or only.failure is not None
        return self.done or self.failure is not None
