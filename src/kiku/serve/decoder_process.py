"""The process that decodes recordings from outside: a recording that breaks it, or makes it grow,
does not break the service.

It is started before there is anything to decode. The first line of its input says what to decode: a
file, or what follows on its input. It answers with messages (`HEAD`) on its output.
"""

import io
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kiku.audio import Chunk, StreamWarning, read_file
from kiku.errors import AudioError, TruncatedAudio

HEAD = struct.Struct("<BBHIQ")
"""Kind of message, kind of samples, channels, rate, and bytes (of a gap: its ticks) that follow."""

READY, SOUND, GAP, WARNING, END, CUT, REFUSED, HUNGRY = range(8)
"""Kinds of messages. CUT is a recording that ends too early, REFUSED one that cannot be read.

HUNGRY says that the process is about to read more of what is fed. In place of the size it has the
number of bytes read until then: their sound was sent before, but for what the format keeps back.
"""

DTYPES = ("<f4", "<i2", "<i4", "|u1")

_NICE = 5
"""Added to a decoder's niceness for a file: live streams come first."""

_JOIN_S = 0.5
"""Seconds of sound that are sent together; chunks of a file are joined until they are as long."""


class _Fed(io.FileIO):
    """The input that is fed; sends HUNGRY before it reads on."""

    out: BinaryIO | None = None
    _num_read = 0

    def readinto(self, buffer: Any, /) -> int:
        """See `io.RawIOBase`."""
        if self.out is not None:
            self.out.write(HEAD.pack(HUNGRY, 0, 0, 0, self._num_read))
            self.out.flush()
        count = super().readinto(buffer) or 0
        self._num_read += count
        return count


class _Recording(io.BufferedReader):
    """Bytes that messages call "the recording"."""

    name = "the recording"  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]


class _Upload(io.BufferedReader):
    """A file that messages call "the upload", whatever its path is."""

    name = "the upload"  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]


def main() -> None:
    """Decode one recording."""
    fed, out = _Fed(0), os.fdopen(os.dup(1), "wb")
    given = _Recording(fed)
    os.dup2(2, 1)  # what a library prints must not come among the messages
    out.write(HEAD.pack(READY, 0, 0, 0, 0))
    out.flush()
    line = given.readline()
    if not line:
        return
    job = json.loads(line)
    _limit(int(job["bytes"]))
    fed.out = None if job["path"] else out
    if job["path"] and hasattr(os, "nice"):  # what is fed may be live
        os.nice(_NICE)
    try:
        _decode(job, given, out)
    except BrokenPipeError:  # the service reads no further
        os._exit(0)


def _decode(job: dict[str, Any], given: BinaryIO, out: BinaryIO) -> None:
    def warn(warning: StreamWarning) -> None:
        _send_json(out, WARNING, [warning.kind, warning.message, warning.time])

    path = job["path"]
    try:
        file = _Upload(io.FileIO(path)) if path else given
        chunks = read_file(file, on_warning=warn, track=job["track"])
        # Sound that is fed may come as it is spoken: no chunk of it waits for the next.
        for chunk in _joined(chunks) if path else chunks:
            _send(out, chunk)
    except TruncatedAudio as error:
        _send_json(out, CUT, str(error))
    except AudioError as error:
        _send_json(out, REFUSED, str(error))
    except MemoryError:
        _send_json(out, REFUSED, "the recording needs more memory than it may use")
    else:
        out.write(HEAD.pack(END, 0, 0, 0, 0))
    out.flush()


def _joined(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """The same sound in longer pieces."""
    waiting: list[Chunk] = []
    broken: AudioError | None = None
    while True:
        try:
            chunk = next(chunks, None)
        except AudioError as error:  # the sound before it is sent first
            chunk, broken = None, error
        if waiting and (chunk is None or not _alike(waiting[0], chunk)):
            yield _one(waiting)
            waiting = []
        if chunk is None:
            break
        waiting.append(chunk)
        if sum(one.seconds for one in waiting) >= _JOIN_S:
            yield _one(waiting)
            waiting = []
    if broken is not None:
        raise broken


def _alike(one: Chunk, other: Chunk) -> bool:
    a, b = one.data, other.data
    if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray)):
        return False
    return (one.rate, a.dtype, a.shape[1:]) == (other.rate, b.dtype, b.shape[1:])


def _one(chunks: list[Chunk]) -> Chunk:
    first = chunks[0]
    if len(chunks) == 1:
        return first
    data = np.concatenate([np.asarray(chunk.data) for chunk in chunks])
    return Chunk(data, first.rate, len(data), first.num_channels)


def _send(out: BinaryIO, chunk: Chunk) -> None:
    data = chunk.data
    if data is None:
        out.write(HEAD.pack(GAP, 0, 0, chunk.rate, chunk.num_samples))
    else:
        array = np.ascontiguousarray(data)
        kind = DTYPES.index(array.dtype.str)
        out.write(HEAD.pack(SOUND, kind, chunk.num_channels, chunk.rate, array.nbytes))
        out.write(array.data)
    out.flush()


def _send_json(out: BinaryIO, kind: int, value: Any) -> None:
    data = json.dumps(value).encode()
    out.write(HEAD.pack(kind, 0, 0, 0, len(data)) + data)
    out.flush()


def _limit(num_bytes: int) -> None:
    """Allow the process `num_bytes` more memory than it has now, no written file and no core."""
    try:
        import resource
    except ImportError:  # Windows knows no such limits
        return
    held = 0
    status = Path("/proc/self/statm")
    if status.exists():
        held = int(status.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (held + num_bytes, held + num_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
