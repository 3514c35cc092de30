"""One connection: a WebSocket, as an ASGI server gives it, and its request."""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import parse_qsl

from kiku.serve.protocols.interface import ClientRequest, Refusal

Scope = MutableMapping[str, Any]
AsgiMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]
SendMessage = Callable[[AsgiMessage], Awaitable[None]]


ANSWERED = "kiku.answered"
"""Key in a connection's scope of a future: whether the client has closed, too, before the
connection was lost. ASGI has no such thing; kiku's server adds it, and other servers do not."""

HAS_ALL = "kiku.has_all"
"""Key in a request's scope, set once the whole body has been read."""

OWNER = "kiku.owner"
"""Key in a request's scope of its owner, for the log."""

IS_LATE = "kiku.is_late"
"""Key in a message of ASGI, set if the client is there, and the next piece of its body is not."""

_MAX_FIELDS = 1_000
"""Number of parameters of a query, at most."""


class Gone(Exception):
    """The client has left."""

    def __init__(self, code: int = 1006, *, may_listen: bool = False) -> None:
        super().__init__(f"the connection ended with {code}")
        self.code = code
        self.may_listen = may_listen
        """Whether the client has only ended its side, and may still read."""


class Wire(Protocol):
    """What a talk needs of a connection."""

    async def receive(self) -> str | bytes:
        """The next message, as soon as there is one.

        Raises:
            Gone: there will be none.
        """
        ...

    async def send(self, data: str | bytes) -> None:
        """Send a message; waits while the client takes none. Raises Gone."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """End the connection; to call this twice does no harm."""
        ...

    async def is_answered(self) -> bool:
        """Whether the client has answered `close`, so that it has had all that was sent before.
        Waits until that is known; True if it cannot be known."""
        ...


class WebSocket:
    """A `Wire` over ASGI's messages."""

    def __init__(
        self, receive: Receive, send: SendMessage, answered: asyncio.Future[bool] | None = None
    ) -> None:
        """Wrap a connection that is not accepted yet; `answered` is the future of `ANSWERED`."""
        self._receive, self._send, self._answered = receive, send, answered
        self._is_closed = False

    async def accept(self, subprotocol: str | None, headers: dict[str, str]) -> None:
        """Accept the connection. Raises Gone."""
        await self._tell(
            {"type": "websocket.accept", "subprotocol": subprotocol, "headers": _encoded(headers)}
        )

    async def refuse(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """Answer the request for a socket with an HTTP response."""
        self._is_closed = True
        start = {"type": "websocket.http.response.start", "status": status,
                 "headers": _encoded(headers)}  # fmt: skip
        await self._send(start)
        await self._send({"type": "websocket.http.response.body", "body": body})

    async def receive(self) -> str | bytes:
        """See `Wire`."""
        message = await self._receive()
        if message["type"] == "websocket.receive":
            data = message.get("bytes")
            return message.get("text") or "" if data is None else data
        if message["type"] == "websocket.connect":
            return await self.receive()
        self._is_closed = True
        raise Gone(message.get("code", 1006))

    async def send(self, data: str | bytes) -> None:
        """See `Wire`."""
        kind = "text" if isinstance(data, str) else "bytes"
        await self._tell({"type": "websocket.send", kind: data})

    async def _tell(self, message: AsgiMessage) -> None:
        if self._is_closed:
            raise Gone
        try:
            await self._send(message)
        # ASGI raises OSError for a client that has left; uvicorn raises RuntimeError for one that
        # left before it was accepted, as for a mistake of ours.
        except (OSError, RuntimeError):
            self._is_closed = True
            raise Gone from None

    async def close(self, code: int, reason: str) -> None:
        """See `Wire`."""
        if not self._is_closed:
            self._is_closed = True
            # A reason has 123 bytes at most.
            short = reason.encode()[:120].decode("utf-8", "ignore")
            with suppress(OSError):  # the client has left
                await self._send({"type": "websocket.close", "code": code, "reason": short})

    async def is_answered(self) -> bool:
        """See `Wire`."""
        return self._answered is None or await asyncio.shield(self._answered)


def request_of(scope: Scope, id: str) -> ClientRequest:
    """The request of a client. Raises Refusal if its query has too many parameters."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    try:
        query = parse_qsl(
            scope["query_string"].decode("latin-1"), keep_blank_values=True, errors="replace",
            max_num_fields=_MAX_FIELDS,
        )  # fmt: skip
    except ValueError:
        raise Refusal(
            400, {"error": f"the query has more than {_MAX_FIELDS} parameters: leave some out"}
        ) from None
    offered = tuple(scope.get("subprotocols") or ())
    return ClientRequest(scope["path"], tuple(query), headers, offered, id, time.time())


def has_all(scope: Scope) -> bool:
    """Whether nothing of a request's body is still to be read."""
    headers = {name.lower(): value for name, value in scope["headers"]}
    has_body = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
    return not has_body or HAS_ALL in scope


def address_of(scope: Scope) -> str:
    """The address that a client comes from, without its port."""
    client = scope.get("client")
    return str(client[0]) if client else "?"


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [
        (name.lower().encode(), value.encode("latin-1", "replace"))
        for name, value in headers.items()
    ]
