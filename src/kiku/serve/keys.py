"""Checks clients' keys: in headers, in the query, and in the subprotocols of browsers' sockets."""

import hashlib
import hmac
from collections.abc import Collection

from kiku.serve.protocols.interface import ClientRequest

_OPENAI_KEY = "openai-insecure-api-key."

KEY_PARAMETER = "auth_id"
"""The parameter of the query that may hold the key."""


class Keys:
    """Knows the keys as hashes, and compares them in constant time."""

    def __init__(self, keys: Collection[str]) -> None:
        """Accept these keys; an empty collection lets every client in."""
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def admits(self, request: ClientRequest) -> bool:
        """Whether the client may come in."""
        if not self._digests:
            return True
        given = key_of(request)
        if given is None:
            return False
        digest = _digest(given)
        found = False
        for known in self._digests:  # all of them, so that the time taken reveals nothing
            found |= hmac.compare_digest(known, digest)
        return found

    def owner(self, request: ClientRequest, address: str) -> str:
        """The owner of a request, for limits: the start of its key's hash, or its address."""
        given = key_of(request) if self._digests else None
        return address if given is None else _digest(given).hex()[:12]


def key_of(request: ClientRequest) -> str | None:
    """The key that a client gives, or None."""
    scheme, _, rest = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() in ("bearer", "token") and rest.strip():
        return rest.strip()
    header = request.headers.get("kyutai-api-key")
    if header is not None:
        return header
    offered = list(request.subprotocols)
    for i, name in enumerate(offered):
        if name.startswith(_OPENAI_KEY):
            return name.removeprefix(_OPENAI_KEY)
        if name in ("token", "bearer") and i + 1 < len(offered):
            return offered[i + 1]
    return request.first(KEY_PARAMETER)


def subprotocol_of(request: ClientRequest) -> str | None:
    """The subprotocol to accept if the client's offer carries its key, else None. A browser gives
    up a socket whose server accepted none of the offered ones."""
    for name in request.subprotocols:
        if name in ("token", "bearer", "realtime"):
            return name
    return None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
