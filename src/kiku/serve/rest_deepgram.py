"""Deepgram's endpoint for recordings: `POST /v1/listen` with the recording as the body."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from kiku.errors import AudioError, ConfigError, NoFreeSlot, OutputError
from kiku.options import AudioFormat
from kiku.serve.admission import Busy
from kiku.serve.protocols.deepgram_query import FileQuery, busy, file_query, refusal, unsupported
from kiku.serve.protocols.deepgram_rest import answer
from kiku.serve.protocols.deepgram_sound import written_header
from kiku.serve.protocols.interface import ClientRequest, Refusal, in_a_header
from kiku.serve.refusals import Refused
from kiku.serve.service import Service
from kiku.serve.upload_counters import LEFT, UploadCounters
from kiku.serve.uploads import (
    NO_ROOM,
    NO_ROOM_RETRY_S,
    STALLED,
    Encoded,
    TooLarge,
    UploadedFile,
    body,
    transcript_headers,
    while_there,
)
from kiku.serve.wire import Gone, request_of
from kiku.transcription import Transcript

_LOG = logging.getLogger(__name__)

_PROTOCOL = "deepgram-file"

_BUSY_S = 5
"""Seconds after which a client is asked to come back, if nothing better is known."""

_Answer = tuple[bytes, Transcript]
"""The body, and the transcript that it was made of."""


@dataclass(frozen=True, slots=True)
class _Upload:
    """A recording that has come whole."""

    path: Path
    sha256: str


def deepgram_routes(service: Service) -> list[BaseRoute]:
    """The route to which recordings are sent."""

    async def listen(http: HttpRequest) -> Response:
        request = request_of(http.scope, http.scope["kiku.id"])
        counters = UploadCounters(service, _PROTOCOL, http.scope)
        try:
            document, transcript = await _listen(service, http, request, counters)
        except Gone as gone:
            response = Response(status_code=LEFT)  # nobody reads it
            if gone.may_listen:
                response = Refused(refusal(request, STALLED, 408, "Request Timeout"))
            return counters.answered(response)
        except Exception as error:
            refused = _refusal_of(error, request)
            counters.failed(error, refused.status)
            return counters.answered(Refused(refused))
        headers = {"dg-request-id": request.id, **transcript_headers(transcript)}
        if transcript.problem is not None:  # the body has no place for it
            headers["dg-error"] = in_a_header(str(transcript.problem))
        response = Response(document, headers=headers, media_type="application/json")
        return counters.answered(response)

    return [Route("/v1/listen", listen, methods=["POST"])]


async def _listen(
    service: Service, http: HttpRequest, request: ClientRequest, counters: UploadCounters
) -> _Answer:
    query = file_query(request, service.card)
    if http.headers.get("content-type", "").startswith("application/json"):
        raise refusal(request, "this service does not fetch recordings from other addresses: "
                               "send the recording itself as the body")  # fmt: skip
    service.check_queue()
    pieces = body(http.headers, http.receive, service.settings.max_upload_bytes)
    async with _saved(pieces, query.raw, counters) as upload:
        work = _transcribe(service, upload, query, request, counters)
        return await while_there(http.receive, work)


def _refusal_of(error: Exception, request: ClientRequest) -> Refusal:
    """The answer to a client for an error."""
    match error:
        case Refusal():
            return error
        case TooLarge():
            why = f"{error}: send the recording in parts"
            return refusal(request, why, 413, "Payload Too Large")
        case Encoded():
            encoded = refusal(request, str(error), 415, "Unsupported Media Type")
            encoded.headers.update(error.headers)
            return encoded
        case Busy():
            return busy(request, error.retry_after_s, error.message)
        case NoFreeSlot():
            return busy(request, _BUSY_S)
        case OutputError():
            full = refusal(request, NO_ROOM, 503, "Service Unavailable")
            full.headers["Retry-After"] = str(NO_ROOM_RETRY_S)
            return full
        case ConfigError():
            return unsupported(request, error)
        case AudioError():
            return refusal(request, f"failed to process audio: {error}")
        case _:
            _LOG.error("a recording could not be transcribed", exc_info=error)
            why = "the request failed here: try again"
            return refusal(request, why, 500, "Internal Server Error")


async def _transcribe(
    service: Service,
    upload: _Upload,
    query: FileQuery,
    request: ClientRequest,
    counters: UploadCounters,
) -> _Answer:
    """The answer for a recording."""
    async with service.transcribe_upload(upload.path, query.options, _PROTOCOL) as transcription:
        async for _ in transcription:
            counters.num_words += 1
    transcript, channels = transcription.transcript, transcription.num_channels
    counters.heard(transcript)

    def document() -> bytes:
        fields = answer(
            transcript, query, request, service.card, sha256=upload.sha256, channels=channels
        )
        return msgspec.json.encode(fields)

    # For a recording of hours this takes longer than a socket may stand still.
    return await asyncio.to_thread(document), transcript


@asynccontextmanager
async def _saved(
    pieces: AsyncIterator[bytes], raw: AudioFormat | None, counters: UploadCounters
) -> AsyncGenerator[_Upload]:
    """The body of a request in a file, with the header that raw samples need; it is removed at the
    end of the context.

    Raises:
        KikuError: the body is empty or too long, or cannot be stored.
        Gone: the client has left, or (with `may_listen`) sends nothing more.
    """
    header = b""
    async with UploadedFile() as file:
        async for piece in pieces:
            counters.received(len(piece))
            if raw is not None and not file.num_bytes and not piece.startswith(b"RIFF"):
                header = written_header(raw, 0)  # written again when the length is known
                await file.write(header)
            await file.write(piece)
        num_bytes = file.num_bytes - len(header)
        if not num_bytes:
            raise AudioError("the body is empty: send the recording in it")
        await file.flush()
        if raw is not None and header:
            await file.overwrite(written_header(raw, num_bytes))
        yield _Upload(file.path, await asyncio.to_thread(_sha256_of, file.path, len(header)))


def _sha256_of(path: Path, begin: int) -> str:
    """Hash of a file from its byte `begin` on, in hexadecimal."""
    with path.open("rb") as file:
        file.seek(begin)
        return hashlib.file_digest(file, lambda: hashlib.sha256(usedforsecurity=False)).hexdigest()
