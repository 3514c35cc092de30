"""Where sessions are kept so that another process can go on with them: what every store promises.

A store holds, for each name, a generation and some named values. Whoever began a session or
claimed it last owns it, and knows so by the generation; the writes of all others are refused.
Stores know nothing of sound or words. Their calls wait for disks and networks: they are made in
threads of their own (see `keeper`).
"""

import hashlib
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from kiku.errors import ConfigError

MOST_BYTES = 2**28
"""Of one value: a saved stream of the 1B has 200 MB."""


class StoreDown(Exception):
    """The store does not answer, or cannot do what it is asked for; the message says why."""


class Outcome(Enum):
    """What became of a write."""

    KEPT = "kept"
    TAKEN = "taken"
    """Somebody else owns the session now; nothing was written."""
    UNKNOWN = "unknown"
    """The store has no such session (any more); nothing was written."""


@dataclass(frozen=True, slots=True)
class Write:
    """Values of a session that are to be kept from now on."""

    name: str
    generation: int
    values: Mapping[str, bytes]
    """Added, or put in the place of those of the same name."""
    drop: Collection[str]
    """Names of values that are not needed any more."""
    ttl_s: float
    """The session is forgotten if nothing is written for so long."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A session that is owned from now on, and what is known of it. The values are outside
    bytes."""

    generation: int
    values: Mapping[str, bytes]


class SessionStore(Protocol):
    """Every call may raise StoreDown, and may be made from any thread."""

    def begin(self, name: str, ttl_s: float) -> int:
        """Own a new session, and forget what was there under its name; its generation, which is
        above all that were there."""
        ...

    def claim(self, name: str, ttl_s: float) -> Claim | None:
        """Own a session that somebody else began; None where there is none, where nothing was
        written of it, or not for longer than it was to live. Of two that claim it the later one
        owns it."""
        ...

    def write(self, writes: Sequence[Write]) -> list[Outcome]:
        """Keep all of these; each wholly or not at all."""
        ...

    def remove(self, name: str, generation: int, ttl_s: float) -> None:
        """Forget the values of a session that has ended, if this generation still owns it. That it
        was there is known for some time: an owner before this one learns that it is not his."""
        ...

    def sweep(self, ttl_s: float) -> None:
        """Forget the sessions whose time is over, also those of processes that were killed; called
        every few seconds. What cannot be read goes when it was not written to for `ttl_s`."""
        ...

    def close(self) -> None:
        """Give back what the store holds open."""
        ...


def name_of(owner: str, session: str) -> str:
    """The name of an owner's session: of letters and digits, and it tells neither of them."""
    text = f"{len(owner)}:{owner}{session}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def next_generation(last: int) -> int:
    """A generation above `last`, and above those of a session that the store has forgotten: it
    counts microseconds."""
    return max(last + 1, time.time_ns() // 1000)


def open_store(address: str) -> SessionStore:
    """The store at an address: redis://HOST:PORT/DB (or rediss://, unix://), or a folder's path.

    Raises:
        ConfigError: it is no address of a store, or the folder cannot be used.
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
            f"path of a folder, and is {seen}"
        )
    from kiku.serve.session_stores.folder import FolderStore

    return FolderStore(Path(address))
