"""How clients are refused over HTTP, whatever their protocol."""

import asyncio
from contextlib import suppress

import msgspec
from starlette.responses import Response

from kiku.errors import KikuError
from kiku.serve.admission import Busy
from kiku.serve.protocols.interface import Refusal
from kiku.serve.wire import Receive, Scope, SendMessage, has_all

_LINGER_S = 5.0
"""Seconds that a client that is refused while it sends may send on: most clients read the answer
only when they have sent all, or learn that nobody listens."""


def unavailable(error: KikuError) -> Refusal:
    """The refusal of a busy service."""
    after_s = error.retry_after_s if isinstance(error, Busy) else 5
    return Refusal(503, {"error": str(error)}, {"Retry-After": str(after_s)})


class Refused(Response):
    """A refusal that is sent at once, even while the client is still sending."""

    def __init__(self, refusal: Refusal) -> None:
        body, kind = refusal.body, "text/plain"
        if not isinstance(body, str):
            body, kind = msgspec.json.encode(body), "application/json"
        super().__init__(body, refusal.status, refusal.headers, kind)

    async def __call__(self, scope: Scope, receive: Receive, send: SendMessage) -> None:
        """See ASGI."""
        if has_all(scope):
            return await super().__call__(scope, receive, send)
        headers = [*self.raw_headers, (b"connection", b"close")]
        head = {"type": "http.response.start", "status": self.status_code, "headers": headers}
        with suppress(OSError):  # the client has left
            await send(head)
            await send({"type": "http.response.body", "body": self.body, "more_body": True})
            await linger(receive)
            await send({"type": "http.response.body", "body": b""})


async def linger(receive: Receive) -> None:
    """Read on and drop what comes, until the body of a request has ended or its client has left,
    but not for long. A connection that is closed over unread bytes loses the answer."""
    with suppress(TimeoutError, Busy):
        async with asyncio.timeout(_LINGER_S):
            while (await receive()).get("more_body", False):
                pass
