"""Deepgram's endpoint for recordings: `POST /v1/listen` with the recording as the body."""

import asyncio
import hashlib
import logging
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from kiku.errors import AudioError, ConfigError, KikuError
from kiku.options import AudioFormat
from kiku.serve.admission import Busy
from kiku.serve.protocols.deepgram_query import FileQuery, busy, file_query, refusal, unsupported
from kiku.serve.protocols.deepgram_rest import answer
from kiku.serve.protocols.deepgram_sound import written_header
from kiku.serve.protocols.interface import ClientRequest, Refusal, in_a_header
from kiku.serve.refusals import Refused
from kiku.serve.service import Service
from kiku.serve.uploads import STALLED, Encoded, TooLarge, body, transcript_headers, while_there
from kiku.serve.wire import Gone, request_of
from kiku.transcription import Transcript

_LOG = logging.getLogger(__name__)

_PROTOCOL = "deepgram-file"

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
        try:
            document, transcript = await _listen(service, http, request)
        except (ClientDisconnect, Gone):
            return Response(status_code=499)  # nobody reads it
        except Refusal as refused:
            return Refused(refused)
        headers = {"dg-request-id": request.id, **transcript_headers(transcript)}
        if transcript.problem is not None:  # the body has no place for it
            headers["dg-error"] = in_a_header(str(transcript.problem))
        return Response(document, headers=headers, media_type="application/json")

    return [Route("/v1/listen", listen, methods=["POST"])]


async def _listen(service: Service, http: HttpRequest, request: ClientRequest) -> _Answer:
    try:
        query = file_query(request, service.card)
        if http.headers.get("content-type", "").startswith("application/json"):
            raise refusal(request, "this service does not fetch recordings from other addresses: "
                                   "send the recording itself as the body")  # fmt: skip
        service.check_queue()
        max_bytes = service.settings.max_upload_bytes
        async with _saved(http, max_bytes, query.raw, request) as upload:
            return await while_there(http.receive, _transcribe(service, upload, query, request))
    except TooLarge as error:
        why = f"{error}: send the recording in parts"
        raise refusal(request, why, 413, "Payload Too Large") from error
    except Encoded as error:
        encoded = refusal(request, str(error), 415, "Unsupported Media Type")
        encoded.headers.update(error.headers)
        raise encoded from error
    except Busy as error:
        raise busy(request, error.retry_after_s, error.message) from error
    except ConfigError as error:
        raise unsupported(request, error) from error
    except AudioError as error:
        raise refusal(request, f"failed to process audio: {error}") from error
    except KikuError as error:
        _LOG.warning("%s: the recording could not be transcribed: %s", request.id, error)
        raise refusal(request, str(error), 500, "Internal Server Error") from error


async def _transcribe(
    service: Service, upload: _Upload, query: FileQuery, request: ClientRequest
) -> _Answer:
    """The answer for a recording."""
    async with service.transcribe_upload(upload.path, query.options, _PROTOCOL) as transcription:
        async for _ in transcription:
            pass
    transcript, channels = transcription.transcript, transcription.num_channels

    def document() -> bytes:
        fields = answer(
            transcript, query, request, service.card, sha256=upload.sha256, channels=channels
        )
        return msgspec.json.encode(fields)

    # For a recording of hours this takes longer than a socket may stand still.
    return await asyncio.to_thread(document), transcript


@asynccontextmanager
async def _saved(
    http: HttpRequest, max_bytes: int, raw: AudioFormat | None, request: ClientRequest
) -> AsyncGenerator[_Upload]:
    """The body of a request in a file, which is removed at the end of the context.

    Raises:
        TooLarge: the body is longer than `max_bytes` bytes.
        AudioError: the body is empty.
        Refusal: the rest of the body does not come, or the client has left before its end.
    """
    folder = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="kiku-upload-")
    try:
        path = Path(folder.name) / "recording"
        file = _Saved(path, raw)
        try:
            async for piece in body(http.headers, http.receive, max_bytes):
                await asyncio.to_thread(file.write, piece)
        except Gone:
            raise refusal(request, STALLED, 408, "Request Timeout") from None
        finally:
            await asyncio.to_thread(file.close)
        if not file.num_bytes:
            raise AudioError("the body is empty: send the recording in it")
        yield _Upload(path, file.sha256)
    finally:
        await asyncio.to_thread(folder.cleanup)


class _Saved:
    """Writes a recording into a file, with the header that raw samples need."""

    def __init__(self, path: Path, raw: AudioFormat | None) -> None:
        self._file = path.open("wb")
        self._raw, self._digest = raw, hashlib.sha256(usedforsecurity=False)
        self.num_bytes = 0

    def write(self, piece: bytes) -> None:
        """Write the next bytes."""
        if not self.num_bytes and self._raw is not None:
            if piece.startswith(b"RIFF"):
                self._raw = None  # it has a header of its own
            else:
                self._file.write(written_header(self._raw, 0))  # written again by `close`
        self.num_bytes += len(piece)
        self._digest.update(piece)
        self._file.write(piece)

    def close(self) -> None:
        """Write the header with the length that is known now, and close the file."""
        if self._raw is not None and self.num_bytes:
            self._file.seek(0)
            self._file.write(written_header(self._raw, self.num_bytes))
        self._file.close()

    @property
    def sha256(self) -> str:
        """Hash of the bytes that have come, in hexadecimal."""
        return self._digest.hexdigest()
