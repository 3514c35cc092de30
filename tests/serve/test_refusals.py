"""Every refusal at every door, in the form that the clients of its path read."""

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import msgpack
import pytest

import kiku
from kiku.serve.app import SOCKETS, App
from kiku.serve.protocols.interface import Refusal
from kiku.serve.protocols.refusal_forms import in_form
from kiku.serve.service import Service
from kiku.serve.settings import Settings

UPLOADS = ("/api/asr-streaming", "/v1/audio/transcriptions", "/v1/listen")
DOORS = [
    *(("websocket", path) for path in (*SOCKETS, "/v1/no/socket", "/v1/no/listen")),
    *(("POST", path) for path in (*UPLOADS, "/api/stream")),
    ("GET", "/v1/models"),
    ("GET", "/v2/listen"),
    ("GET", "/metrics"),
]
SLOTS = 4


@dataclass
class Answer:
    """What a client gets."""

    status: int
    headers: dict[str, str]
    body: bytes


async def ask(app: App, kind: str, path: str, query: str, **headers: str) -> Answer:
    """One request, without a server; the client leaves after it."""
    own = {"host": "127.0.0.1:8080", **({"content-length": "9"} if kind == "POST" else {})}
    scope = {
        "type": "websocket" if kind == "websocket" else "http", "http_version": "1.1",
        "method": kind, "path": path, "raw_path": b"", "query_string": query.encode(),
        "headers": [(k.encode(), v.encode()) for k, v in {**own, **headers}.items()],
        "client": ("1.2.3.4", 5), "server": ("127.0.0.1", 8080), "scheme": "http",
        "root_path": "", "subprotocols": [],
    }  # fmt: skip
    sent: list[Any] = []
    given = iter([{"type": "websocket.connect"}] if kind == "websocket" else [])
    gone = "websocket" if kind == "websocket" else "http"

    async def receive() -> Any:
        return next(given, {"type": f"{gone}.disconnect", "code": 1005})

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    if sent[0]["type"] == "websocket.accept":
        return Answer(101, {}, sent[1]["bytes"])
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], found, b"".join(one.get("body", b"") for one in sent[1:]))


def full(stack: ExitStack, app: App) -> None:
    stack.enter_context(app.service.permit(SLOTS))


def asked_before(stack: ExitStack, app: App) -> None:
    app.guard.admit_without_key("1.2.3.4")


def connected(stack: ExitStack, app: App) -> None:
    stack.enter_context(app.guard.connection("5.6.7.8"))


def draining(stack: ExitStack, app: App) -> None:
    app.service.is_draining = True


def nothing(stack: ExitStack, app: App) -> None:
    pass


@dataclass(frozen=True)
class Case:
    """Why clients are refused, and what they are told."""

    status: int
    said: str
    settings: dict[str, Any]
    but: tuple[tuple[str, str], ...] = ()
    """Doors at which they are not."""
    prepare: Callable[[ExitStack, App], None] = nothing
    headers: tuple[tuple[str, str], ...] = ()
    query: str = ""
    codes: tuple[str | None, str] = (None, "")
    """OpenAI's, and Deepgram's."""
    is_loaded: bool = True


REQUESTS = (("GET", "/v1/models"), ("GET", "/v2/listen"), ("GET", "/metrics"))
NOWHERE = (("websocket", "/v1/no/socket"), ("websocket", "/v1/no/listen"))
BUSY = ("server_busy", "Service Unavailable")
CASES = {
    "no key": Case(
        401, "the API key is missing", {"api_key": ("a",)},
        codes=("invalid_api_key", "INVALID_AUTH"),
    ),
    "another origin": Case(
        403, "the page at evil.example may not use this service", {},
        headers=(("origin", "https://evil.example"),), codes=(None, "Forbidden"),
    ),
    "too many requests": Case(
        429, "too many requests: try again in", {"max_requests_per_minute": 1},
        prepare=asked_before, codes=("rate_limit_exceeded", "TOO_MANY_REQUESTS"),
    ),
    "too many connections": Case(
        503, "too many connections: try again in 5 s", {"max_connections": 1}, REQUESTS,
        connected, codes=BUSY,
    ),
    "a long query": Case(
        400, "the query has more than 1000 parameters", {}, query="&".join(["a=b"] * 1_001),
        codes=(None, "Bad Request"),
    ),
    "full": Case(
        503, f"all {SLOTS} slots are taken: try again in", {"max_queue": 0},
        (*REQUESTS, *NOWHERE, ("websocket", "/api/asr-streaming")), full, codes=BUSY,
    ),
    "at its end": Case(
        503, "the service is shutting down: try again in 5 s", {}, (*REQUESTS, *NOWHERE), draining,
        codes=BUSY,
    ),
    "before the model": Case(
        503, "the model is being loaded: try again in 5 s", {},
        (("GET", "/v2/listen"), ("GET", "/metrics"), *NOWHERE), codes=BUSY, is_loaded=False,
    ),
}  # fmt: skip


def said_in_form(path: str, answer: Answer, codes: tuple[str | None, str]) -> str:
    """What is said, if the answer has the form that clients of the path read."""
    body = json.loads(answer.body)
    assert answer.headers["content-type"] == "application/json"
    if path in ("/v1/listen", "/v2/listen"):
        assert set(body) == {"err_code", "err_msg", "request_id"}
        assert body["err_code"] == codes[1]
        assert answer.headers["dg-error"] == body["err_msg"]
        assert answer.headers["dg-request-id"] == body["request_id"]
        assert body["request_id"]
        return body["err_msg"]
    assert set(body) == {"error"}
    error = body["error"]
    if path.startswith("/v1/"):
        kind = "server_error" if answer.status >= 500 else "invalid_request_error"
        assert error == {
            "message": error["message"], "type": kind, "param": None, "code": codes[0],
        }  # fmt: skip
        return error["message"]
    assert isinstance(error, str)
    return error


@pytest.mark.parametrize(
    ("door", "why"),
    [
        pytest.param(door, why, id=f"{' '.join(door)}: {why}")
        for why, case in CASES.items()
        for door in DOORS
        if door not in case.but
    ],
)
def test_a_refusal_has_the_form_of_its_path(
    demo: kiku.Recognizer, door: tuple[str, str], why: str
) -> None:
    case, (kind, path) = CASES[why], door

    async def play() -> Answer:
        settings = Settings(**case.settings)
        app = App(Service(settings, demo if case.is_loaded else None))
        with ExitStack() as stack:
            case.prepare(stack, app)
            return await ask(app, kind, path, case.query, **dict(case.headers))

    answer = asyncio.run(play())
    assert answer.status == case.status
    assert said_in_form(path, answer, case.codes).startswith(case.said)
    waits = answer.status in (429, 503)
    assert ("retry-after" in answer.headers) == waits
    assert not waits or int(answer.headers["retry-after"]) >= 1
    assert ("www-authenticate" in answer.headers) == (answer.status == 401)


def test_kyutais_clients_are_told_after_the_upgrade_that_it_is_full(demo: kiku.Recognizer) -> None:
    async def play() -> Answer:
        service = Service(Settings(), demo)
        with service.permit(SLOTS):
            return await ask(App(service), "websocket", "/api/asr-streaming", "")

    answer = asyncio.run(play())
    assert answer.status == 101
    assert msgpack.unpackb(answer.body) == {"type": "Error", "message": "no free channels"}


@pytest.mark.parametrize("path", [*SOCKETS, "/v1/models"])
def test_a_refusal_that_has_its_form_stays_as_it_is(path: str) -> None:
    once = in_form(Refusal(429, "too many", {"Retry-After": "3"}), path, "id-1")
    again = in_form(once, path, "id-2")
    assert again is once
    assert once.headers["Retry-After"] == "3"


def test_a_sentence_alone_becomes_an_error_too() -> None:
    plain = in_form(Refusal(403, "no"), "/v1/models", "id-1")
    assert plain.body == {
        "error": {"message": "no", "type": "invalid_request_error", "param": None, "code": None}
    }
