"""The ASGI application: every path of the service, for uvicorn, granian or a Ray Serve ingress.

Sockets go straight to `sockets`; requests go through the guard to Starlette's routes.
"""

import asyncio
import logging
import os
import uuid
from collections.abc import Mapping

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from kiku.errors import KikuError
from kiku.serve import rest
from kiku.serve.admission import Busy
from kiku.serve.guard import Guard
from kiku.serve.logs import hide_keys
from kiku.serve.metrics import CONTENT_TYPE
from kiku.serve.page import FOLDER, Page, page_routes
from kiku.serve.protocols.deepgram import DeepgramProtocol
from kiku.serve.protocols.deepgram_flux import FluxProtocol
from kiku.serve.protocols.interface import Refusal
from kiku.serve.protocols.kyutai import KyutaiProtocol
from kiku.serve.protocols.openai_realtime import RealtimeProtocol
from kiku.serve.protocols.own import OwnProtocol
from kiku.serve.protocols.refusal_forms import in_form
from kiku.serve.refusals import Refused, unavailable
from kiku.serve.rest_deepgram import deepgram_routes
from kiku.serve.rest_kyutai import kyutai_routes
from kiku.serve.service import Service
from kiku.serve.settings import Settings, warn_of_unknown_names
from kiku.serve.sockets import MakeProtocol, Sockets
from kiku.serve.upgrade import no_socket
from kiku.serve.wire import (
    HAS_ALL,
    IS_LATE,
    OWNER,
    AsgiMessage,
    Receive,
    Scope,
    SendMessage,
    address_of,
    has_all,
    request_of,
)

_LOG = logging.getLogger("kiku.serve")

OPEN_PATHS = frozenset({"/health", "/ready"})
"""Paths that need no key; the files of the page need none either."""

OWN_PATH = "/api/stream"

SOCKETS: Mapping[str, MakeProtocol] = {
    "/api/asr-streaming": KyutaiProtocol,
    OWN_PATH: OwnProtocol,
    "/v1/realtime": RealtimeProtocol,
    "/v1/listen": DeepgramProtocol,
    "/v2/listen": FluxProtocol,
}
"""The protocol of each WebSocket path."""

EXTRA_METHODS = {"/api/asr-streaming": ("POST",), OWN_PATH: ("POST",), "/v1/listen": ("POST",)}
"""HTTP methods that are also answered at the path of a socket."""


class App:
    """An ASGI application around a service."""

    def __init__(self, service: Service) -> None:
        """Wrap a service; its model is loaded as the application starts, if it is not yet."""
        self.service = service
        self.guard = Guard(service.settings, service.keys)
        self.sockets = Sockets(service, self.guard, SOCKETS)
        self._page = Page()
        self._http = Starlette(routes=[*page_routes(self._page), *_routes(service)])
        self._loading: asyncio.Task[None] | None = None
        self._is_awaited = False  # a caller of `loaded` gets its error
        hide_keys()

    async def __call__(self, scope: Scope, receive: Receive, send: SendMessage) -> None:
        """See ASGI."""
        if scope["type"] == "websocket":
            await self.sockets.answer(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: SendMessage) -> None:
        scope["kiku.id"] = id = str(uuid.uuid4())
        path: str = scope["path"]
        if path not in OPEN_PATHS and not path.startswith(FOLDER):
            try:
                request = request_of(scope, id)
                owner = self.guard.admit(
                    request, address_of(scope), is_socket=path == OWN_PATH,
                    stays=path == OWN_PATH or not has_all(scope),
                )  # fmt: skip
                if path in SOCKETS and scope["method"] not in EXTRA_METHODS.get(path, ()):
                    raise no_socket(path, scope["method"], EXTRA_METHODS.get(path, ()))
            except Refusal as refusal:
                self.service.metrics.errors.labels("refused", str(refusal.status)).inc()
                self.guard.refusals.add(refusal.status, path, id, address_of(scope))
                if path == "/" and refusal.status == 401:  # the page asks for the key
                    return await self._page.front(401, refusal.headers)(scope, receive, send)
                return await Refused(in_form(refusal, path, id))(scope, receive, send)
            scope[OWNER] = owner
            with self.guard.connection(owner):
                return await self._http(scope, self._patient(scope, receive), send)
        await self._http(scope, receive, send)

    def _patient(self, scope: Scope, receive: Receive) -> Receive:
        """`receive` for a body: each piece must come in time, else the client counts as gone. It
        raises Busy if the service ends first."""
        is_told = False

        async def take() -> AsgiMessage:
            nonlocal is_told
            if HAS_ALL in scope:  # the caller waits for the client to leave
                return await receive()
            try:
                async with asyncio.timeout(self.service.settings.body_s):
                    if is_told:  # read on, so that the client sees the answer
                        message = await receive()
                    else:
                        async with self.service.until_end():
                            message = await receive()
            except Busy:
                is_told = True
                raise
            except TimeoutError:
                return {"type": "http.disconnect", IS_LATE: True}
            if not message.get("more_body", False):
                scope[HAS_ALL] = True
            return message

        return take

    async def _live(self, receive: Receive, send: SendMessage) -> None:
        """The application's start and end."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.start()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.drain()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def start(self) -> None:
        """Begin to load the model, if it is not there; until then clients are refused."""
        self.service.decoders.prepare()
        self.sockets.start()
        if not self.service.is_loaded and self._loading is None:
            self._loading = asyncio.create_task(asyncio.to_thread(self.service.load))
            self._loading.add_done_callback(self._has_loaded)

    def _has_loaded(self, loading: asyncio.Task[None]) -> None:
        """Log why the model cannot be loaded, unless a caller of `loaded` gets the error."""
        error = None if loading.cancelled() else loading.exception()
        if error is not None and not self._is_awaited:
            unexpected = None if isinstance(error, KikuError) else error
            _LOG.error("the model cannot be loaded: %s", error, exc_info=unexpected)

    async def loaded(self) -> None:
        """Wait for the model. Raises what keeps it from being loaded."""
        self._is_awaited = True
        self.start()
        if self._loading is not None:
            await self._loading

    async def drain(self, seconds: float | None = None) -> None:
        """End: take no new stream, let open ones go on for `seconds`, then break off the rest."""
        service = self.service
        service.is_draining = True
        left_s = service.settings.drain_s if seconds is None else seconds
        while service.num_open and left_s > 0:
            await asyncio.sleep(0.1)
            left_s -= 0.1
        service.break_off()
        await self.sockets.end_all()
        await service.decoders.close()


def app() -> App:
    """The application as the environment (`KIKU_*`) sets it: for runners that are given a name,
    `uvicorn --factory kiku.serve.app:app`."""
    warn_of_unknown_names(os.environ)
    return App(Service(Settings.gathered({}, os.environ)))


def _routes(service: Service) -> list[BaseRoute]:
    async def health(request: HttpRequest) -> Response:
        if service.is_dead:
            return JSONResponse({"status": service.why_not_ready}, 503)
        if service.has_failed:  # a new process may have more luck
            return JSONResponse({"status": "no model"}, 503)
        return JSONResponse({"status": "ok"})

    async def ready(request: HttpRequest) -> Response:
        why = service.why_not_ready
        admission = service.admission if service.is_loaded else None
        body = {
            "ready": why is None,
            "reason": why,
            "slots": 0 if admission is None else admission.num_slots,
            "slots_used": 0 if admission is None else admission.num_taken,
        }
        return JSONResponse(body, 200 if why is None else 503)

    async def probe(request: HttpRequest) -> Response:
        """Answer as a socket would be answered now; browsers do not show that to a page."""
        try:
            service.permit().release()
        except Busy as busy:
            return Refused(unavailable(busy))
        return Response(status_code=204)

    async def metrics(request: HttpRequest) -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    return [
        Route("/health", health),
        Route("/ready", ready),
        Route("/metrics", metrics),
        Route(OWN_PATH, probe, methods=["POST"]),
        *kyutai_routes(service),
        *deepgram_routes(service),
        *rest.routes(service),
    ]
