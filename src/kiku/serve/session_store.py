"""Stores of sessions, from which another process can go on with them: what every store promises.

A store holds, for each name, a generation and some named values. The process that began a session
or claimed it last owns it, and shows so by the generation; the writes of all others are refused.
Stores know nothing of sound or words. Their calls wait for disks and networks: they are made in
threads of their own (see `session_keeper`).
"""

import hashlib
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from kiku.errors import ConfigError

MAX_VALUE_BYTES = 2**28
"""Bytes of one value, at most: a saved stream of the 1B model has 200 MB."""


class StoreDown(Exception):
    """The store does not answer, or cannot do what it is asked for; the message says why."""


class Outcome(Enum):
    """What became of a write."""

    KEPT = "kept"
    TAKEN = "taken"
    """Another process owns the session; nothing was written."""
    UNKNOWN = "unknown"
    """The store has no such session, or has forgotten it; nothing was written."""


@dataclass(frozen=True, slots=True)
class Write:
    """Values of a session that are to be kept from now on."""

    name: str
    generation: int
    values: Mapping[str, bytes]
    """Values to add, or to put in the place of those of the same name."""
    drop: Collection[str]
    """Names of values that are not needed any more."""
    ttl_s: float
    """Seconds without a write after which the session is forgotten."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A session that the caller owns from now on, and its values. They come from outside, and are
    not checked yet."""

    generation: int
    values: Mapping[str, bytes]


class SessionStore(Protocol):
    """Every call may raise StoreDown, and may be made from any thread."""

    def begin(self, name: str, ttl_s: float) -> int:
        """Own a new session, and forget what was stored under its name. Returns its generation,
        which is above all earlier ones."""
        ...

    def claim(self, name: str, ttl_s: float) -> Claim | None:
        """Own a session that another process began. Returns None if there is none, if nothing was
        written of it, or if its last write is longer ago than its `ttl_s`. Of two processes that
        claim a session the later one owns it."""
        ...

    def write(self, writes: Sequence[Write]) -> list[Outcome]:
        """Do all of these writes, each wholly or not at all."""
        ...

    def remove(self, name: str, generation: int, ttl_s: float) -> None:
        """Forget the values of a session that has ended, if this generation still owns it. The
        store remembers for some time that the session existed, so that an earlier owner learns that
        he does not own it."""
        ...

    def sweep(self, ttl_s: float) -> None:
        """Forget the sessions whose time is over, also those of processes that were killed. Called
        every few seconds. A session that cannot be read is forgotten when it was not written to for
        `ttl_s`."""
        ...

    def close(self) -> None:
        """Close what the store holds open."""
        ...


def name_of(owner: str, session: str) -> str:
    """The name of an owner's session in a store: letters and digits that reveal neither."""
    text = f"{len(owner)}:{owner}{session}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def next_generation(last: int) -> int:
    """A generation above `last`, and above those of a session that the store has forgotten, as it
    counts microseconds."""
    return max(last + 1, time.time_ns() // 1000)


def open_store(address: str) -> SessionStore:
    """The store at an address: redis://HOST:PORT/DB (or rediss://, unix://), or a folder's path.

    Raises:
        ConfigError: the address is not that of a store, or the folder cannot be used.
        MissingExtra: the client of Redis is not installed.
    """
    scheme = address.partition("://")[0].lower() if "://" in address else ""
    if scheme in ("redis", "rediss", "unix"):
        from kiku.serve.session_stores.redis import RedisStore

        return RedisStore(address)
    if scheme or not address:
        seen = "an address of another kind" if scheme else "empty"  # a password may be in it
        raise ConfigError(
            "--session-store must be redis://HOST:PORT (rediss:// with TLS, unix://PATH) or the "
            f"path of a folder, but is {seen}"
        )
    from kiku.serve.session_stores.folder import FolderStore

    return FolderStore(Path(address))
