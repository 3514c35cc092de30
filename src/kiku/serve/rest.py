"""OpenAI's REST interface: requests in, answers out; all under `/v1` that no other protocol takes.

Knows ASGI, files and the service; `protocols.openai_rest` knows what fields and answers mean.
"""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from starlette.routing import BaseRoute, Route

from kiku.errors import (
    AudioError,
    ConfigError,
    NoFreeSlot,
    OutputError,
    TruncatedAudio,
    VocabularyError,
)
from kiku.serve.admission import Busy
from kiku.serve.forms import FormError, FormReader
from kiku.serve.protocols import openai_rest
from kiku.serve.protocols.interface import Refusal
from kiku.serve.protocols.openai_rest import TranscriptEvents, TranscriptionRequest
from kiku.serve.refusals import linger
from kiku.serve.service import Service
from kiku.serve.upload_counters import LEFT, UploadCounters
from kiku.serve.upload_transcription import UploadTranscription
from kiku.serve.uploads import (
    NO_ROOM,
    NO_ROOM_RETRY_S,
    Encoded,
    TooLarge,
    UploadedFile,
    body,
    transcript_headers,
    while_there,
)
from kiku.serve.wire import AsgiMessage, Gone, Receive, Scope, SendMessage, has_all, request_of
from kiku.transcription import Transcript

_LOG = logging.getLogger("kiku.serve")

_BUSY_S = 30
"""Seconds after which a client is asked to try again if nothing better is known."""

_GET = ("GET", "HEAD")


def routes(service: Service) -> list[BaseRoute]:
    """The routes of OpenAI's REST interface. The last one answers everything under `/v1`: put
    routes of other protocols before it."""

    def route(path: str, methods: Sequence[str], answer: "_Answer") -> Route:
        return Route(path, _Endpoint(service, methods, answer))

    nowhere = _Endpoint(service, None, _nowhere)
    return [
        route("/v1/audio/transcriptions", ("POST",), _transcribe),
        route("/v1/models", _GET, _list_models),
        route("/v1/models/{name:path}", _GET, _find_model),
        Route("/v1", nowhere),
        Route("/v1/{rest:path}", nowhere),
    ]


@dataclass(slots=True)
class _Exchange:
    """One request and its answer."""

    service: Service
    scope: Scope
    receive: Receive
    _send: SendMessage
    headers: Mapping[str, str]
    counters: UploadCounters
    status: int | None = None
    """Status of the answer, once it has begun."""
    outcome: int | None = None
    """Status for the log, where that of the answer says too little: it began, and then failed."""
    is_upload: bool = False
    """Whether it has a line in the log."""

    async def send_message(self, message: AsgiMessage) -> None:
        """Send a part of the answer.

        Raises:
            Gone: the client has left, or takes nothing.
        """
        self.counters.sent(len(message.get("body", b"")))
        try:
            async with asyncio.timeout(self.service.settings.write_s):
                await self._send(message)
        except (OSError, TimeoutError):
            raise Gone from None

    async def start(self, status: int, kind: str, headers: Mapping[str, str]) -> None:
        """Begin the answer."""
        self.status = status
        given = {"content-type": kind, "x-request-id": self.scope.get("kiku.id", ""), **headers}
        pairs = [(key.encode(), value.encode("latin-1", "replace")) for key, value in given.items()]
        await self.send_message({"type": "http.response.start", "status": status, "headers": pairs})

    async def answer(
        self, status: int, kind: str, data: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send the whole answer."""
        await self.start(status, kind, {"content-length": str(len(data)), **(headers or {})})
        await self.send_message({"type": "http.response.body", "body": data})

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with an error, at once, even while the client is still sending."""
        data = msgspec.json.encode(refusal.body)
        kind = "application/json"
        if has_all(self.scope):
            return await self.answer(refusal.status, kind, data, refusal.headers)
        headers = {"content-length": str(len(data)), "connection": "close", **refusal.headers}
        await self.start(refusal.status, kind, headers)
        await self.send_message({"type": "http.response.body", "body": data, "more_body": True})
        await linger(self.receive)
        await self.send_message({"type": "http.response.body", "body": b""})


_Answer = Callable[[_Exchange], Awaitable[None]]


class _Endpoint:
    """An ASGI application that answers some methods (None: any), and reports errors in OpenAI's
    form."""

    def __init__(self, service: Service, methods: Sequence[str] | None, answer: _Answer) -> None:
        self._service, self._methods, self._answer = service, methods, answer

    async def __call__(self, scope: Scope, receive: Receive, send: SendMessage) -> None:
        headers = request_of(scope, "").headers
        counters = UploadCounters(self._service, openai_rest.NAME, scope)
        exchange = _Exchange(self._service, scope, receive, send, headers, counters)
        method: str = scope["method"]
        try:
            if self._methods is not None and method not in self._methods:
                raise openai_rest.wrong_method(method, scope["path"], self._methods)
            await self._answer(exchange)
        except Gone as gone:
            if gone.may_listen:
                with suppress(Gone):
                    await exchange.refuse(openai_rest.too_slow())
            else:
                exchange.outcome = LEFT
        except Exception as error:
            refusal = _refusal_of(error)
            counters.failed(error, refusal.status)
            if exchange.status is None:
                with suppress(Gone):
                    await exchange.refuse(refusal)
        finally:
            if exchange.is_upload:
                counters.log(exchange.outcome or exchange.status or LEFT)


def _refusal_of(error: Exception) -> Refusal:
    """The answer to a client for an error."""
    match error:
        case Refusal():
            return error
        case FormError():
            return openai_rest.error(400, f"{error.field or 'body'}: {error}", param=error.field)
        case Busy():
            return openai_rest.busy(error.retry_after_s, error.message)
        case NoFreeSlot():
            return openai_rest.busy(_BUSY_S)
        case AudioError():
            message = f"file: {error}"
            return openai_rest.error(400, message, param="file", code="invalid_file")
        case OutputError():
            return openai_rest.error(503, NO_ROOM, headers={"retry-after": str(NO_ROOM_RETRY_S)})
        case _:
            _LOG.error("a request failed", exc_info=error)
            return openai_rest.error(500, "the request failed here: try again")


# Transcriptions.


async def _transcribe(exchange: _Exchange) -> None:
    exchange.is_upload = True
    exchange.service.check_queue()
    async with UploadedFile() as upload:
        request = await _request(exchange, upload)
        work = _stream if request.stream else _document
        await while_there(exchange.receive, work(exchange, request, upload.path))


async def _request(exchange: _Exchange, upload: UploadedFile) -> TranscriptionRequest:
    """Read a request to its end; its file goes into `upload`.

    Raises:
        Refusal: it asks for what is not available.
        FormError: its body is no form.
        Gone: its client has left.
    """
    max_bytes = exchange.service.settings.max_upload_bytes
    try:
        pieces = body(exchange.headers, exchange.receive, max_bytes)
        form = FormReader(exchange.headers.get("content-type"))
        async for piece in pieces:
            exchange.counters.received(len(piece))
            await upload.write(form.feed(piece))
    except TooLarge:
        raise openai_rest.too_large(max_bytes) from None
    except Encoded as error:
        code = "unsupported_encoding"
        raise openai_rest.error(415, str(error), code=code, headers=error.headers) from None
    form.end()
    request = TranscriptionRequest.of(form.fields, exchange.service.card)
    if not form.num_files:
        raise openai_rest.error(400, "the field file is missing: send a recording", param="file")
    if not upload.num_bytes:
        raise openai_rest.error(
            400, "the file is empty: send a recording", param="file", code="invalid_file"
        )
    await upload.flush()
    return request


async def _document(exchange: _Exchange, request: TranscriptionRequest, path: Path) -> None:
    """Answer in one piece."""
    async with _transcription(exchange, request, path) as transcription:
        async for _ in transcription:
            exchange.counters.num_words += 1
    transcript = _whole(exchange, transcription.transcript)
    encode = _encoder(exchange.service)
    data, kind = await asyncio.to_thread(openai_rest.document, request, transcript, encode)
    await exchange.answer(200, kind, data, transcript_headers(transcript))


async def _stream(exchange: _Exchange, request: TranscriptionRequest, path: Path) -> None:
    """Answer in events, as words are decided."""
    events, service = TranscriptEvents(request), exchange.service
    try:
        async with _transcription(exchange, request, path) as transcription:
            await exchange.start(
                200, "text/event-stream; charset=utf-8",
                {"cache-control": "no-cache", "x-accel-buffering": "no"},
            )  # fmt: skip
            async for word in transcription:
                exchange.counters.num_words += 1
                event = {"type": "http.response.body", "body": events.word(word), "more_body": True}
                await exchange.send_message(event)
        transcript = _whole(exchange, transcription.transcript)
        num_frames = math.ceil(transcript.duration * service.recognizer.config.frame_rate)
        last = await asyncio.to_thread(events.done, num_frames, _encoder(service))
    except Gone:
        raise
    except Exception as error:
        if exchange.status is None:
            raise
        refusal = _refusal_of(error)
        exchange.counters.failed(error, refusal.status)
        exchange.outcome = refusal.status
        last = events.failed(refusal)
    await exchange.send_message({"type": "http.response.body", "body": last})


@asynccontextmanager
async def _transcription(
    exchange: _Exchange, request: TranscriptionRequest, path: Path
) -> AsyncGenerator[UploadTranscription]:
    """As `Service.transcribe_upload`; a refusal of what the model cannot do names its parameter."""
    try:
        async with exchange.service.transcribe_upload(
            path, request.options, openai_rest.NAME
        ) as transcription:
            yield transcription
    except ConfigError as error:
        param = "keywords" if request.options.decoding.hotwords else None
        raise openai_rest.error(400, f"{param or 'request'}: {error}", param=param) from error


def _whole(exchange: _Exchange, transcript: Transcript) -> Transcript:
    """Check that a transcript is worth an answer: of a whole recording, or one that breaks off.

    Raises:
        AudioError: the rest of the recording was there, and could not be heard.
    """
    exchange.counters.heard(transcript)
    problem = transcript.problem
    if problem is not None and not isinstance(problem, TruncatedAudio):
        raise problem
    return transcript


def _encoder(service: Service) -> openai_rest.Encode:
    """A function that gives the tokens of a text; none if the vocabulary cannot spell it."""
    vocabulary = service.recognizer.vocabulary

    def encode(text: str) -> list[int]:
        try:
            return vocabulary.encode(text)
        except VocabularyError:
            return []

    return encode


# Models, and all other paths.


async def _list_models(exchange: _Exchange) -> None:
    await _send_json(exchange, openai_rest.model_list(exchange.service.card))


async def _find_model(exchange: _Exchange) -> None:
    name: str = exchange.scope["path_params"]["name"]
    card = exchange.service.card
    if not card.answers_to(name):
        raise openai_rest.unknown_model(name)
    await _send_json(exchange, openai_rest.model_object(card))


async def _send_json(exchange: _Exchange, value: Mapping[str, Any]) -> None:
    await exchange.answer(200, "application/json", msgspec.json.encode(value))


async def _nowhere(exchange: _Exchange) -> None:
    raise openai_rest.unknown_url(exchange.scope["method"], exchange.scope["path"])
