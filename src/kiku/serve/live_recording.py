"""A recording that is decoded while its client sends it on a socket, for a stream that was opened
before any of it was there.

So the stream may expect other channels than the recording has, at first or later on; the client is
warned where that is so. Knows no socket and no protocol.
"""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

from kiku.audio import ChannelChanges, Chunk, StreamWarning
from kiku.errors import AudioError
from kiku.live import AsyncStream
from kiku.options import StreamOptions
from kiku.serve.decoder import DecoderProcess


class LiveRecording:
    """One recording on its way from a decoder to a stream."""

    def __init__(
        self, decoder: DecoderProcess, stream: AsyncStream, options: StreamOptions
    ) -> None:
        """Begin with nothing decoded; `options` are the stream's."""
        self._decoder, self._stream, self._options = decoder, stream, options
        self._changes: ChannelChanges | None = None
        self._is_begun = False
        self._given_s = 0.0
        self._num_told = 0

    async def parts(self) -> AsyncIterator[Chunk | StreamWarning]:
        """The recording's sound, and the warnings about it, each at its place. The caller pushes or
        sends each one before it asks for the next.

        Raises:
            AudioError: the recording cannot be read, or not to its end.
        """
        broken: AudioError | None = None
        try:
            async for chunk in self._decoder.chunks():
                for warning in self._found():
                    yield warning
                warning = self._look(chunk)
                if warning is not None:
                    yield warning
                self._given_s += chunk.seconds
                yield self._heard_of(chunk)
        except AudioError as error:
            broken = error
        for warning in self._found():
            yield warning
        if broken is not None:
            raise broken

    def _found(self) -> Iterator[StreamWarning]:
        """What the decoder has found since the last call, in the stream's time."""
        before_s = self._stream.duration - self._given_s  # gaps that the client has sent
        found = self._decoder.warnings[self._num_told :]
        self._num_told += len(found)
        for warning in found:
            yield replace(warning, time=warning.time + before_s)

    def _look(self, chunk: Chunk) -> StreamWarning | None:
        """The warning about the channels of the next sound, if there is one."""
        channel, count = self._options.channel, chunk.num_channels
        if chunk.data is None or channel == "mix":
            return None
        if not self._is_begun:
            self._is_begun = True
            self._begin(count)
        if isinstance(channel, int) and channel < count:
            return None  # others may come and go
        return None if self._changes is None else self._changes.look(chunk, self._stream.duration)

    def _begin(self, count: int) -> None:
        """Watch for changes of the channels, of which the recording has `count` at first."""
        channel, wanted = self._options.channel, self._options.format.channels
        if channel == "each":
            self._changes = ChannelChanges(wanted, at_first=count == wanted)
        elif isinstance(channel, int) and channel < count:
            self._changes = ChannelChanges(count)

    def _heard_of(self, chunk: Chunk) -> Chunk:
        """The part of a chunk that the stream takes. The stream itself refuses a channel that was
        not there at first, and skips missing ones if it hears each channel."""
        channel = self._options.channel
        if self._changes is None or not isinstance(channel, int):
            return chunk
        return chunk.of_channel(channel)
