"""Checks clients' keys: in headers, in the query, and in the subprotocols of browsers' sockets."""

import hashlib
import hmac
from collections.abc import Collection
from contextlib import suppress

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
        return self._known(request) is not None

    def _known(self, request: ClientRequest) -> bytes | None:
        """The hash of the request's key, if that is one of these."""
        given = key_of(request)
        digests = [] if given is None else _digests_of(given)
        found: bytes | None = None
        for digest in digests:
            for known in self._digests:  # all of them, so that the time taken reveals nothing
                if hmac.compare_digest(known, digest):
                    found = known
        return found

    def owner(self, request: ClientRequest, address: str) -> str:
        """The owner of a request that was let in, for limits: the start of its key's hash, or its
        address."""
        known = self._known(request) if self._digests else None
        return address if known is None else known.hex()[:12]


def key_of(request: ClientRequest) -> str | None:
    """The key that a client gives, or None."""
    scheme, _, rest = request.headers.get("authorization", "").partition(" ")
    # Of other blanks one may be the last byte of a letter.
    if scheme.lower() in ("bearer", "token") and (key := rest.strip(" \t")):
        return key
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


def _digests_of(given: str) -> list[bytes]:
    """The hashes that a given key may have: of its letters, and of the bytes of which a header was
    read as Latin-1, as most clients write letters beyond ASCII in UTF-8."""
    found = [_digest(given)]
    if not given.isascii():
        with suppress(UnicodeEncodeError):  # it was not read so
            found.append(hashlib.sha256(given.encode("latin-1")).digest())
    return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
