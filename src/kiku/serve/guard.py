"""What every client meets first: keys, allowed web pages, limits of requests and connections."""

import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from urllib.parse import urlsplit

from kiku.serve.keys import Keys
from kiku.serve.logs import RefusalLog
from kiku.serve.protocols.interface import ClientRequest, Refusal
from kiku.serve.settings import Settings, is_loopback

_MINUTE_S = 60.0

_MAX_OWNERS = 10_000
"""Number of owners whose requests are counted; with more, all counts begin again."""


class Guard:
    """Lets clients in, and counts them."""

    def __init__(self, settings: Settings, keys: Keys) -> None:
        """Start with no connection."""
        self._settings, self._keys = settings, keys
        self._open: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()
        self._counted_since = 0.0
        self.refusals = RefusalLog()

    def admit(
        self, request: ClientRequest, address: str, *, is_socket: bool, stays: bool = True
    ) -> str:
        """The owner of a request, if its client may come in.

        Args:
            request: of the client.
            address: where it comes from.
            is_socket: whether it asks for a socket.
            stays: whether its connection may stay open: a socket, or a request with a body.

        Raises:
            Refusal: 401 without a key that is known, 403 from a web page of another host, 429 for
                too many requests, or too many without such a key, 503 for too many connections.
        """
        without_key = f"without a key: {address}"
        # Before the key is looked at, so that nobody can try one key after the other.
        self._check_rate(without_key)
        if not self._keys.admits(request):
            self._requests[without_key] += 1
            raise Refusal(
                401, {"error": "the API key is missing or not known"},
                {"WWW-Authenticate": "Bearer"},
            )  # fmt: skip
        if is_socket or "origin" in request.headers:
            self._check_origin(request)
        owner = self._keys.owner(request, address)
        self._count(owner)
        if stays:
            self._check_room(owner)
        return owner

    def admit_without_key(self, address: str) -> None:
        """As `admit`, for a client whose protocol has no keys.

        Raises:
            Refusal: as `admit`, but for the key.
        """
        self._count(address)
        self._check_room(address)

    def _check_origin(self, request: ClientRequest) -> None:
        """Refuse a page of another host that uses a visitor's browser to reach this service."""
        origin = request.headers.get("origin")
        if origin is None or origin in self._settings.allowed_origin:
            return
        try:
            parts = urlsplit(origin)
            host, same = parts.hostname, parts.netloc == request.headers.get("host")
            # A page could pass as ours if its host's name resolved to our address.
            named = urlsplit("//" + request.headers.get("host", "")).hostname
        except ValueError:
            host, same, named = None, False, None
        if not same or (is_loopback(self._settings.host) and not is_loopback(named or "")):
            raise Refusal(
                403,
                {"error": f"the page at {host or 'an unknown address'} may not use this service: "
                          "--allowed-origin allows it"},
            )  # fmt: skip

    def _count(self, owner: str) -> None:
        self._check_rate(owner)
        self._requests[owner] += 1

    def _check_rate(self, owner: str) -> None:
        """Refuse another request if there were as many in this minute as there may be."""
        now = time.monotonic()
        if now - self._counted_since > _MINUTE_S or len(self._requests) > _MAX_OWNERS:
            self._requests.clear()
            self._counted_since = now
        if self._requests[owner] >= self._settings.max_requests_per_minute:
            left_s = max(1, round(self._counted_since + _MINUTE_S - now))
            raise Refusal(
                429, {"error": f"too many requests: try again in {left_s} s"},
                {"Retry-After": str(left_s)},
            )  # fmt: skip

    def _check_room(self, owner: str) -> None:
        settings = self._settings
        if (
            self._open.total() >= settings.max_connections
            or self._open[owner] >= settings.max_connections_per_key
        ):
            raise Refusal(
                503, {"error": "too many connections: try again in 5 s"}, {"Retry-After": "5"}
            )

    @contextmanager
    def connection(self, owner: str) -> Generator[None]:
        """Count a connection for as long as it is open."""
        self._open[owner] += 1
        try:
            yield
        finally:
            self._open[owner] -= 1
            if not self._open[owner]:
                del self._open[owner]
