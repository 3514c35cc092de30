"""Recordings from outside -> chunks of sound, decoded in processes of their own.

Lives in one event loop; see `decoder_process` for what happens in those processes.
"""

import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from kiku.audio import Chunk, StreamWarning
from kiku.engine.choice import usable_threads
from kiku.errors import AudioError, TruncatedAudio
from kiku.serve.admission import shutting_down
from kiku.serve.decoder_process import (
    CUT,
    DTYPES,
    END,
    GAP,
    HEAD,
    HUNGRY,
    READY,
    REFUSED,
    SOUND,
    WARNING,
)

_LOG = logging.getLogger(__name__)

PATIENCE_S = 60.0
"""Seconds after which a decoder that gives nothing is stopped, if it has something to decode."""

_BEGIN = """
import os
if hasattr(os, "nice"):
    os.nice(5)
    os.setpgid(0, 0)
from kiku.serve.decoder_process import main
main()
"""
"""What a decoder runs. The service and its live streams come before it on a busy machine, before
its imports begin. A Ctrl-C in the service's terminal does not reach it. It does not begin a session
of its own: Linux may give each session the same share of the processors, whatever the niceness of
its processes (sched(7), autogroup)."""

_START_S = 120.0
"""Seconds a process may take to begin; one that takes longer never will."""

_STARTS = max(2, usable_threads() // 4)
"""Decoders that start at the same time: each computes for a quarter of a second, beside live
streams."""

_PIPE_BYTES = 2**16
"""Bytes of what a client sends that may wait for the decoder."""

_MESSAGE_BYTES = 2**28
"""Bytes of a message, at most; no chunk is longer."""


_ENDED = (ConnectionError, RuntimeError)
"""What writing to a process that has ended raises; the second is uvloop's."""


class DecoderProcesses:
    """Starts decoders, always one ahead, as starting one takes a quarter of a second."""

    def __init__(self, memory_bytes: int) -> None:
        """Start none yet; each may use `memory_bytes` of memory."""
        self._memory_bytes = memory_bytes
        self._starts = asyncio.Semaphore(_STARTS)
        self._spare: asyncio.Task[asyncio.subprocess.Process] | None = None
        self._closed = False

    def prepare(self) -> None:
        """Start a process ahead, if there is none."""
        if self._spare is None and not self._closed:
            self._spare = asyncio.create_task(self._start())

    async def _start(self) -> asyncio.subprocess.Process:
        async with self._starts:
            return await _start()

    async def decode(
        self, path: Path | None = None, *, track: int | None = None
    ) -> "DecoderProcess":
        """A decoder of a file, or of what is fed to it."""
        while True:
            if self._closed:
                raise shutting_down()
            self.prepare()
            spare, self._spare = self._spare, None
            assert spare is not None
            try:
                process = await spare
            except asyncio.CancelledError:
                if spare.done() and not spare.cancelled() and spare.exception() is None:
                    await _end(spare.result())  # it was ready in this very moment
                raise
            finally:
                self.prepare()
            if process.returncode is None:  # the system may have ended it while it waited
                break
            await _end(process)
        job = {"path": None if path is None else str(path), "track": track,
               "bytes": self._memory_bytes}  # fmt: skip
        return DecoderProcess(process, job)

    async def close(self) -> None:
        """Stop the process that was started ahead."""
        self._closed = True
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.cancel()  # one that starts ends itself
            (process,) = await asyncio.gather(spare, return_exceptions=True)
            if not isinstance(process, BaseException):
                await _end(process)


class DecoderProcess:
    """One recording being decoded."""

    def __init__(self, process: asyncio.subprocess.Process, job: dict[str, Any]) -> None:
        """Only `DecoderProcesses.decode` makes decoders."""
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._in, self._out = process, process.stdin, process.stdout
        self._is_fed = job["path"] is None
        self._num_fed = self._num_read = 0
        self._has_ended = False
        self._news = asyncio.Event()
        """Set when the process has sent a message, or nothing more is read from it."""
        self._write(json.dumps(job).encode() + b"\n")
        self.warnings: list[StreamWarning] = []
        """What is wrong with the recording, though it can be decoded."""

    async def feed(self, data: bytes) -> None:
        """The next bytes of the recording; waits until they are wanted."""
        self._write(data)
        with suppress(*_ENDED):
            await self._in.drain()

    def _write(self, data: bytes) -> None:
        self._num_fed += len(data)
        with suppress(*_ENDED):  # `chunks` says why
            self._in.write(data)

    async def settled(self) -> None:
        """Wait until the sound of all that was fed has been taken from `chunks`, or no more of it
        comes. Another task must iterate over `chunks` meanwhile."""
        while self._num_read < self._num_fed and not self._has_ended:
            self._news.clear()
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._news.wait()
            except TimeoutError:  # a damaged recording keeps it busy
                return

    def end(self) -> None:
        """No more bytes come."""
        self._in.close()

    async def chunks(self) -> AsyncGenerator[Chunk]:
        """The sound, in the recording's own samples.

        Raises:
            AudioError: the recording cannot be read.
            TruncatedAudio: after the last chunk: the recording ends too early.
        """
        if not self._is_fed:
            self.end()
        try:
            async for chunk in self._messages():
                yield chunk
        finally:
            self._has_ended = True
            self._news.set()

    async def _messages(self) -> AsyncIterator[Chunk]:
        while True:
            kind, dtype, channels, rate, size = await self._head()
            self._news.set()
            if kind == HUNGRY:
                self._num_read = size
                continue
            if kind == GAP:
                yield Chunk(None, rate, size, 0)
                continue
            data = await self._out.readexactly(min(size, _MESSAGE_BYTES)) if size else b""
            if kind == SOUND:
                array = np.frombuffer(data, DTYPES[dtype])
                planes = array.reshape(-1, channels) if channels > 1 else array
                yield Chunk(planes, rate, len(planes), channels)
            elif kind == WARNING:
                name, message, time = json.loads(data)
                self.warnings.append(StreamWarning(name, message, time))
            elif kind == CUT:
                raise TruncatedAudio(json.loads(data))
            elif kind == REFUSED:
                raise AudioError(json.loads(data))
            elif kind == END:
                return

    async def _head(self) -> tuple[int, int, int, int, int]:
        """Read the head of the next message."""
        try:
            if self._is_fed:  # a client may pause for as long as he likes
                head = await self._out.readexactly(HEAD.size)
            else:
                async with asyncio.timeout(PATIENCE_S):
                    head = await self._out.readexactly(HEAD.size)
        except TimeoutError:
            raise AudioError(
                f"the recording gave no sound in {PATIENCE_S:g} s of decoding: it is damaged; "
                "copy or convert it"
            ) from None
        except asyncio.IncompleteReadError:
            code = await self._process.wait()
            _LOG.warning("a decoder process for a recording ended with %s", code)
            raise AudioError(
                "the recording breaks its decoder, or needs more memory than it may use: copy or "
                "convert it"
            ) from None
        return HEAD.unpack(head)

    async def close(self) -> None:
        """Stop decoding, however far it has come."""
        self._has_ended = True
        self._news.set()
        await _end(self._process)


async def _start() -> asyncio.subprocess.Process:
    """Start a process, and wait until it is ready for its job."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _BEGIN,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=_PIPE_BYTES, env=_environment(),
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_START_S):
            head = HEAD.unpack(await process.stdout.readexactly(HEAD.size))
        assert head[0] == READY
    except BaseException:
        await _end(process)
        raise
    return process


def _environment() -> dict[str, str]:
    """The service's environment without its secrets; one thread, as many decoders run at once."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("KIKU_")}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill a process, and wait until nothing of it is left."""
    with suppress(ProcessLookupError):
        process.kill()
    # Bytes that nobody has read keep the pipes open, and `wait` waits for the pipes, too. There is
    # no public way to close them. The transport's own `close` asks the system whether the process
    # has ended, and the system answers once: asyncio, which waits for that answer, then logs
    # "Unknown child process pid".
    transport: asyncio.SubprocessTransport | None = getattr(process, "_transport", None)
    for number in (0, 1):
        pipe = None if transport is None else transport.get_pipe_transport(number)
        if pipe is not None:
            pipe.close()
    await process.wait()
