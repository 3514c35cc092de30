"""The body of a request: bounded while it comes, and kept on disk. Also headers for what the body
of an answer has no place for.

Knows ASGI's messages and files; does not know what is in them.
"""

import asyncio
import logging
import os
import tempfile
import threading
from collections.abc import AsyncGenerator, Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from kiku.errors import KikuError, OutputError
from kiku.serve.protocols.interface import in_a_header
from kiku.serve.wire import IS_LATE, Gone, Receive
from kiku.transcription import Transcript

_LOG = logging.getLogger(__name__)

_PIECE_BYTES = 2**18
"""Bytes that are written to disk at a time."""


class TooLarge(KikuError):
    """A body is longer than it may be; what is left of it has not been read."""


class Encoded(KikuError):
    """A body has a Content-Encoding, which is not undone here; nothing of it has been read."""

    headers: Mapping[str, str] = {"Accept-Encoding": "identity"}
    """Headers of the answer to it."""


async def body(
    headers: Mapping[str, str], receive: Receive, max_bytes: int
) -> AsyncGenerator[bytes]:
    """The body of a request, piece by piece.

    Args:
        headers: of the request, by lower-case name.
        receive: where its messages come from.
        max_bytes: how long it may be.

    Raises:
        Encoded: the body has a Content-Encoding.
        TooLarge: the body is longer than `max_bytes`; raised at once if its Content-Length is.
        Gone: the client has left, or (with `may_listen`) sends nothing more.
    """
    codings = [one.strip().lower() for one in headers.get("content-encoding", "").split(",")]
    if any(one not in ("", "identity") for one in codings):
        named = headers["content-encoding"][:100]
        raise Encoded(
            f"a body with Content-Encoding: {named} is not supported: send it without encoding"
        )
    stated = headers.get("content-length", "")
    if stated.isascii() and stated.isdigit() and int(stated[:20]) > max_bytes:
        raise TooLarge(f"a body of {stated[:20]} bytes is longer than {max_bytes}")
    num_bytes, is_more = 0, True
    while is_more:
        message = await receive()
        if message["type"] != "http.request":
            raise Gone(may_listen=IS_LATE in message)
        piece: bytes = message.get("body", b"")
        num_bytes += len(piece)
        if num_bytes > max_bytes:
            raise TooLarge(f"a body is longer than {max_bytes} bytes")
        is_more = message.get("more_body", False)
        if piece:
            yield piece


NO_ROOM = "the upload cannot be stored now: try again later"
"""Message to a client for whose recording there is no room on the disk."""

NO_ROOM_RETRY_S = 30
"""Seconds after which such a client is asked to try again."""

STALLED = "the rest of the body did not arrive: send all of it, without long pauses"
"""Message to a client that is still there, and whose body has not come in time."""


def transcript_headers(transcript: Transcript) -> dict[str, str]:
    """Headers of an answer that say what was wrong with the sound, and why the recording breaks
    off."""
    headers: dict[str, str] = {}
    if transcript.warnings:
        warnings = "; ".join(f"{one.kind}: {one.message}" for one in transcript.warnings)
        headers["x-kiku-warnings"] = in_a_header(warnings)
    if transcript.problem is not None:
        headers["x-kiku-problem"] = in_a_header(str(transcript.problem))
    return headers


T = TypeVar("T")


async def while_there(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Do the work, unless the client leaves, and return its result. Call this after the whole body
    has come.

    Raises:
        Gone: the client has left, and the work was stopped.
    """
    doing = asyncio.create_task(work)
    watching = asyncio.create_task(_left(receive))
    try:
        await asyncio.wait({doing, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise Gone
    finally:
        doing.cancel()
        watching.cancel()
        await asyncio.gather(doing, watching, return_exceptions=True)
    return doing.result()


async def _left(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


class UploadedFile:
    """A file for a recording that comes from a client. It is removed at the end of the context, in
    every case. Only the executor's threads write to it."""

    def __init__(self) -> None:
        """Make an empty file in the folder for temporary files. Raises OutputError if that
        fails."""
        try:
            number, name = tempfile.mkstemp(prefix="kiku-upload-")
        except OSError as error:
            raise _no_room(error, tempfile.gettempdir()) from error
        self.path = Path(name)
        self.num_bytes = 0
        """Bytes of the recording that have come."""
        self._file = os.fdopen(number, "wb", buffering=0)
        self._lock = threading.Lock()  # a write whose caller was cancelled may still go on
        self._waiting: list[bytes] = []
        self._num_waiting = 0

    async def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            OutputError: there is no room for them.
        """
        self.num_bytes += len(data)
        self._num_waiting += len(data)
        self._waiting.append(data)
        if self._num_waiting >= _PIECE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Write all that has come to disk. Raises as `write`."""
        waiting, self._waiting, self._num_waiting = self._waiting, [], 0
        if waiting:
            await asyncio.to_thread(self._write, waiting)

    async def overwrite(self, begin: bytes) -> None:
        """Write other bytes over the first ones, when all has come. Raises as `write`."""
        await self.flush()
        await asyncio.to_thread(self._write, [begin], 0)

    def _write(self, pieces: list[bytes], position: int | None = None) -> None:
        with self._lock:
            if self._file.closed:
                return
            try:
                if position is not None:
                    self._file.seek(position)
                left = memoryview(b"".join(pieces))
                while left:
                    left = left[self._file.write(left) :]
            except OSError as error:
                raise _no_room(error, self.path.parent) from error

    def _remove(self) -> None:
        with self._lock:
            self._file.close()
            self.path.unlink(missing_ok=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self._remove)  # it goes on if this is cancelled


def _no_room(error: OSError, folder: Path | str) -> OutputError:
    why = f"the upload cannot be stored ({error.strerror or error}): make room in {folder}"
    _LOG.warning("%s", why)  # its client is told nothing of the folder
    return OutputError(why)
