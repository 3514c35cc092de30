"""Sessions in Redis: a hash for each session, which Redis forgets by itself, and four scripts,
which make each call atomic."""

import importlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from kiku.errors import ConfigError, MissingExtra
from kiku.serve.session_store import Claim, Outcome, StoreDown, Write, next_generation

_KEY = "kiku:session:"
_VALUE = b"v:"
"""Prefix of the names of values, which are fields next to `g`, the generation."""

_CONNECT_S = 1.0
_ANSWER_S = 5.0

# The caller makes the generation from its clock; the script raises it if the clock is behind.
_NEXT = """
local function next_of(last)
  local wanted = tonumber(ARGV[1])
  if last and tonumber(last) >= wanted then wanted = tonumber(last) + 1 end
  return string.format('%.0f', wanted)
end
"""
_BEGIN = f"""{_NEXT}
local g = next_of(redis.call('HGET', KEYS[1], 'g'))
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'g', g)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return g
"""
_CLAIM = f"""{_NEXT}
local last = redis.call('HGET', KEYS[1], 'g')
if not last or redis.call('HLEN', KEYS[1]) < 2 then return false end
redis.call('HSET', KEYS[1], 'g', next_of(last))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('HGETALL', KEYS[1])
"""
_WRITE = """
local g = redis.call('HGET', KEYS[1], 'g')
if not g then return 'unknown' end
if g ~= ARGV[1] then return 'taken' end
local dropped = tonumber(ARGV[3])
for i = 4, 3 + dropped do redis.call('HDEL', KEYS[1], ARGV[i]) end
for i = 4 + dropped, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 'kept'
"""
_REMOVE = f"""{_NEXT}
local last = redis.call('HGET', KEYS[1], 'g')
if last ~= ARGV[3] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'g', next_of(last))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""


class RedisStore:
    """A `SessionStore` for any number of machines."""

    def __init__(self, address: str) -> None:
        """Take an address as Redis's client does; nothing connects to it before the first session.

        Raises:
            MissingExtra: the client is not installed.
            ConfigError: the address is not valid.
        """
        try:
            redis: Any = importlib.import_module("redis")
            retry: Any = importlib.import_module("redis.retry")
            backoff: Any = importlib.import_module("redis.backoff")
        except ImportError as error:
            raise MissingExtra("a session store in Redis", "fleet") from error
        self._problem: Any = redis.RedisError
        try:
            _check(address)
            self._redis: Any = redis.Redis.from_url(
                address, socket_connect_timeout=_CONNECT_S, socket_timeout=_ANSWER_S,
                retry=retry.Retry(backoff.NoBackoff(), 1), health_check_interval=30,
            )  # fmt: skip
        except (ValueError, TypeError):  # its text may have a part of the password
            raise ConfigError(
                "--session-store is not a valid address of Redis: write redis://HOST:PORT/0 or "
                "redis://:PASSWORD@HOST:PORT/0; in a password write %2F for /, %3F for ?, %23 "
                "for # and %40 for @"
            ) from None
        self._begin, self._claim, self._write, self._remove = map(
            self._redis.register_script, (_BEGIN, _CLAIM, _WRITE, _REMOVE)
        )

    @contextmanager
    def _errors_as_store_down(self) -> Generator[None]:
        try:
            yield
        except (self._problem, OSError) as error:
            raise StoreDown(f"Redis: {error}") from error

    def begin(self, name: str, ttl_s: float) -> int:
        """See `SessionStore`."""
        with self._errors_as_store_down():
            return int(self._begin([_KEY + name], [next_generation(0), _ms(ttl_s)]))

    def claim(self, name: str, ttl_s: float) -> Claim | None:
        """See `SessionStore`."""
        with self._errors_as_store_down():
            found = self._claim([_KEY + name], [next_generation(0), _ms(ttl_s)])
        if not found:
            return None
        fields: dict[bytes, bytes] = dict(zip(found[::2], found[1::2], strict=True))
        values = {
            field.removeprefix(_VALUE).decode("utf-8", "replace"): value
            for field, value in fields.items()
            if field.startswith(_VALUE)
        }
        return Claim(int(fields[b"g"]), values)

    def write(self, writes: Sequence[Write]) -> list[Outcome]:
        """See `SessionStore`; all of them in one round trip."""
        with self._errors_as_store_down():
            pipe = self._redis.pipeline(transaction=False)
            for one in writes:
                given: list[Any] = [one.generation, _ms(one.ttl_s), len(one.drop)]
                given += [_field(name) for name in one.drop]
                for name, data in one.values.items():
                    given += [_field(name), data]
                self._write([_KEY + one.name], given, client=pipe)
            return [Outcome(answer.decode()) for answer in pipe.execute()]

    def remove(self, name: str, generation: int, ttl_s: float) -> None:
        """See `SessionStore`."""
        with self._errors_as_store_down():
            given = [next_generation(generation), _ms(ttl_s), generation]
            self._remove([_KEY + name], given)

    def sweep(self, ttl_s: float) -> None:
        """See `SessionStore`; Redis does it by itself."""

    def close(self) -> None:
        """See `SessionStore`."""
        with suppress(self._problem, OSError):
            self._redis.close()


def _check(address: str) -> None:
    """Raise ValueError for an address whose password has a character that ends it too early: what
    follows would be taken for a path, and what comes before for a host, which errors name."""
    parts = urlsplit(address)
    is_path = parts.scheme == "unix"
    rest = ("" if is_path else parts.path) + parts.query + parts.fragment
    if "@" in rest or parts.fragment:
        raise ValueError


def _field(name: str) -> bytes:
    return _VALUE + name.encode()


def _ms(seconds: float) -> int:
    return max(1, round(1000 * seconds))
