"""A recording that a client has sent, on its way through a decoder and a slot.

It is a stream among the others. Its sound is pushed as fast as the scheduler takes it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kiku.audio import ChannelChanges, Chunk, StreamWarning
from kiku.errors import AudioError, KikuError
from kiku.live import AsyncStream
from kiku.options import AudioFormat, StreamOptions
from kiku.serve.admission import Permit
from kiku.serve.decoder import DecoderProcess
from kiku.stream import End
from kiku.text import Word
from kiku.transcription import Transcript, by_time

if TYPE_CHECKING:
    from kiku.serve.service import Service

_UPLOAD_AHEAD_S = 20.0
"""Seconds of an upload's sound that wait for the model."""

_LOOK_S = 5.0
"""Seconds that a look at the channels may take, before a slot is waited for; recordings that give
no sound must not hold up the others."""


class UploadTranscription:
    """A recording that is being transcribed."""

    def __init__(self, service: "Service", source: Path, options: StreamOptions) -> None:
        """Only `Service.transcribe_upload` makes these."""
        self._service, self._source, self._options = service, source, options
        self._decoder: DecoderProcess | None = None
        self._words: list[Word] = []
        self._warnings: list[StreamWarning] = []
        self._problem: AudioError | None = None
        self._failure: Exception | None = None
        self._duration = 0.0
        self.num_channels = 1
        """Number of channels that are heard, each by itself."""
        self._permit: Permit | None = None
        self._stream: AsyncStream | None = None
        self._feeding: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Wait for a slot, read the beginning of the sound, and open the stream."""
        service, options = self._service, self._options
        admission, queue_s = service.admission, service.settings.queue_s
        clock = asyncio.get_running_loop().time
        asked_at = clock()
        if options.channel == "each" and admission.is_full:
            admission.check_queue(ahead=service.num_looking)
            service.num_looking += 1
            try:
                await self._check_channels(min(queue_s, _LOOK_S))
            finally:
                service.num_looking -= 1
        # A decoder is a process, so recordings that wait have none.
        left_s = max(0.0, queue_s - (clock() - asked_at))
        self._permit = await admission.wait(1, left_s)
        left_s = max(0.0, queue_s - (clock() - asked_at))
        self._decoder = await service.decoders.decode(self._source, track=options.track)
        chunks = self._decoder.chunks()
        first = await anext(chunks, None)
        channels = 1 if first is None else max(1, first.num_channels)
        # A gap before the sound has no channels of its own.
        each = options.channel == "each"
        options = replace(
            options,
            format=AudioFormat(channels=channels) if each else AudioFormat(),
            max_queue_s=_UPLOAD_AHEAD_S,
            when_full="block",
            rate_check=options.signal_checks if options.rate_check is None else options.rate_check,
        )
        self.num_channels = count = options.num_sessions(channels)
        if count > 1:
            self._permit = await admission.exchange(self._permit, count, left_s)
        self._stream = await service.open(options, recorded=True)
        self._feeding = asyncio.create_task(self._feed(first, chunks, self._stream))

    async def _check_channels(self, timeout_s: float) -> None:
        """Look how many channels the recording has, so that it does not wait for slots that there
        will never be. Raises ConfigError for that, else as `start`. If it cannot be seen within
        `timeout_s`, it is seen when there is a slot."""
        service, options = self._service, self._options
        try:
            async with asyncio.timeout(timeout_s), service.looks:
                decoder = await service.decoders.decode(self._source, track=options.track)
                try:
                    async with aclosing(decoder.chunks()) as chunks:
                        first = await anext(chunks, None)
                finally:
                    await decoder.close()
        except TimeoutError:
            return
        if first is not None:
            service.admission.check_count(options.num_sessions(first.num_channels))

    async def _feed(
        self, first: Chunk | None, chunks: AsyncIterator[Chunk], stream: AsyncStream
    ) -> None:
        """Push the sound as fast as it is taken."""
        most_s, given_s = self._service.settings.max_upload_s, 0.0
        changes, begun_s = ChannelChanges(self.num_channels), first.seconds if first else 0.0
        try:
            if first is not None:
                await stream.push_chunk(first)
            async for chunk in chunks:
                if self._options.channel == "each" and (
                    warning := changes.look(chunk, begun_s + given_s)
                ):
                    self._warnings.append(warning)
                given_s += chunk.seconds
                if given_s > most_s:
                    self._problem = AudioError(
                        f"the recording is longer than {most_s:g} seconds: send it in parts"
                    )
                    break
                await stream.push_chunk(chunk)
        except AudioError as error:
            self._problem = error
        except Exception as error:  # a failed stream's events say so, too
            self._failure = error
        with suppress(KikuError):
            await stream.close()

    def __aiter__(self) -> AsyncIterator[Word]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[Word]:
        assert self._stream is not None
        while True:
            for event in await self._stream.batch():
                match event:
                    case Word():
                        self._words.append(event)
                        yield event
                    case StreamWarning():
                        self._warnings.append(event)
                    case End(duration):
                        self._duration = duration
                        self._finish()
                        return
                    case _:
                        pass

    def _finish(self) -> None:
        """Raise the error of a recording of which there is no transcript at all."""
        if self._problem is not None and self._duration == 0:
            raise self._problem
        if self._failure is not None:
            raise self._failure

    @property
    def heard_s(self) -> float:
        """Seconds that were heard until now."""
        return 0.0 if self._stream is None else self._stream.heard_s

    @property
    def transcript(self) -> Transcript:
        """All that was said; whole once the words have been iterated over."""
        words = tuple(sorted(self._words, key=by_time))
        of_file = [] if self._decoder is None else self._decoder.warnings
        warnings = sorted([*self._warnings, *of_file], key=lambda warning: warning.time)
        name = self._service.card.name
        return Transcript(words, self._duration, tuple(warnings), self._problem, name)

    async def close(self) -> None:
        """Stop, however far it has come."""
        if self._feeding is not None:
            self._feeding.cancel()
            with suppress(asyncio.CancelledError):
                await self._feeding
        if self._stream is not None:
            self._stream.stop()
        if self._permit is not None:
            self._permit.release()
        if self._decoder is not None:
            await self._decoder.close()
