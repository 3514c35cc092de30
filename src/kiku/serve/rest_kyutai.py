"""What moshi-server answers over plain HTTP: a recording in, its words out, and what it is.

POST /api/asr-streaming   a recording as the body -> a JSON list of Word and EndWord
GET  /api/build_info      what was built, and where
GET  /api/modules_info    the model, and how many of its slots are taken
"""

import asyncio
import logging
import platform
import sys

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

import kiku
from kiku.errors import AudioError, ConfigError, NoFreeSlot, OutputError, TruncatedAudio
from kiku.options import StreamOptions
from kiku.serve.admission import Busy
from kiku.serve.protocols.interface import ModelCard, Refusal
from kiku.serve.protocols.kyutai import word_messages
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

_LOG = logging.getLogger("kiku.serve")

_PATH = "/api/asr-streaming"
_PROTOCOL = "kyutai-file"

_Answer = tuple[bytes, dict[str, str]]
"""The body, and headers."""

_OPTIONS = StreamOptions(channel=0)
"""Of several channels moshi-server takes the first."""

_UNKNOWN = "unknown"

_BUSY_S = 5
"""Seconds after which a client is asked to come back, if nothing better is known."""


def kyutai_routes(service: Service) -> list[BaseRoute]:
    """The routes that moshi-server has besides its sockets."""

    async def transcribe(http: HttpRequest) -> Response:
        counters = UploadCounters(service, _PROTOCOL, http.scope)
        try:
            document, headers = await _transcribe(service, http, counters)
            response = Response(document, headers=headers, media_type="application/json")
        except Gone as gone:
            response = Response(status_code=LEFT)  # nobody reads it
            if gone.may_listen:
                response = Refused(Refusal(408, {"error": STALLED}))
        except Exception as error:
            refusal = _refusal_of(error)
            counters.failed(error, refusal.status)
            response = Refused(refusal)
        return counters.answered(response)

    async def build_info(http: HttpRequest) -> Response:
        return JSONResponse(_build_info())

    async def modules_info(http: HttpRequest) -> Response:
        try:
            return JSONResponse([_module_info(service)])
        except Busy as error:
            return Refused(_refusal_of(error))

    return [
        Route(_PATH, transcribe, methods=["POST"]),
        Route("/api/build_info", build_info),
        Route("/api/modules_info", modules_info),
    ]


async def _transcribe(service: Service, http: HttpRequest, counters: UploadCounters) -> _Answer:
    """The words of the recording in a request, and headers for what else there is to say.

    Raises:
        KikuError: the recording cannot be transcribed.
        Gone: the client has left, or (with `may_listen`) sends nothing more.
    """
    service.check_queue()
    headers = request_of(http.scope, "").headers
    async with UploadedFile() as upload:
        async for piece in body(headers, http.receive, service.settings.max_upload_bytes):
            counters.received(len(piece))
            await upload.write(piece)
        if not upload.num_bytes:
            raise AudioError("the body is empty: send the recording in it")
        await upload.flush()
        return await while_there(http.receive, _words(service, upload, counters))


async def _words(service: Service, upload: UploadedFile, counters: UploadCounters) -> _Answer:
    async with service.transcribe_upload(upload.path, _OPTIONS, _PROTOCOL) as transcription:
        async for _ in transcription:
            counters.num_words += 1
    transcript = transcription.transcript
    counters.heard(transcript)
    problem = transcript.problem
    if problem is not None and not isinstance(problem, TruncatedAudio):
        raise problem

    def document() -> bytes:
        messages = [message for word in transcript.words for message in word_messages(word)]
        if problem is not None:
            messages.append({"type": "Error", "message": str(problem)})
        return msgspec.json.encode(messages)

    # For a recording of hours this takes longer than a socket may stand still.
    return await asyncio.to_thread(document), transcript_headers(transcript)


def _refusal_of(error: Exception) -> Refusal:
    """The answer to a client for an error."""
    headers: dict[str, str] = {}
    match error:
        case TooLarge():
            status, text = 413, f"{error}: send the recording in parts"
        case Encoded():
            status, text, headers = 415, str(error), dict(error.headers)
        case Busy():
            status, text = 503, str(error)
            headers = {"Retry-After": str(error.retry_after_s)}
        case NoFreeSlot():
            status, text, headers = 503, str(error), {"Retry-After": str(_BUSY_S)}
        case OutputError():
            status, text, headers = 503, NO_ROOM, {"Retry-After": str(NO_ROOM_RETRY_S)}
        case AudioError() | ConfigError():
            status, text = 400, f"the recording cannot be transcribed: {error}"
        case _:
            _LOG.error("a recording could not be transcribed", exc_info=error)
            status, text = 500, "the request failed here: try again"
    return Refusal(status, {"error": text}, headers)


# What this is.


def _build_info() -> dict[str, str]:
    """moshi-server's keys. Nothing was compiled here: what a compiler would know is unknown."""
    return {
        "build_timestamp": _UNKNOWN,
        "build_date": _UNKNOWN,
        "git_branch": _UNKNOWN,
        "git_timestamp": _UNKNOWN,
        "git_date": _UNKNOWN,
        "git_hash": _UNKNOWN,
        "git_describe": f"kiku {kiku.__version__}",
        "rustc_host_triple": f"{platform.machine() or _UNKNOWN}-{sys.platform}",
        "rustc_version": f"none: Python {platform.python_version()}",
        "cargo_target_triple": f"{platform.machine() or _UNKNOWN}-{sys.platform}",
    }


def _module_info(service: Service) -> dict[str, str]:
    """The one module there is; all its values are texts, as moshi-server's are. Raises Busy."""
    card: ModelCard = service.card
    return {
        "type": "batched_asr",
        "path": _PATH,
        "lm": card.name,
        "audio_tokenizer": card.name,
        "used_slots": str(service.admission.num_taken),
        "total_slots": str(service.admission.num_slots),
    }
