"""What every store of sessions promises, tried on a folder and on Redis."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kiku.errors import ConfigError, MissingExtra
from kiku.serve.session_store import (
    Outcome,
    SessionStore,
    StoreDown,
    Write,
    name_of,
    open_store,
)
from kiku.serve.session_stores.folder import FolderStore
from tests.serve.redis_server import free_port, needs_redis, redis_server

NAME = name_of("somebody", "one")
TTL_S = 60.0
NO_UTF_8 = b'{"generation":1,"expires":1,"files":{"a\xff":"1-1"}}'


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as address:
        yield address


@pytest.fixture(params=["folder", pytest.param("redis", marks=needs_redis)])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], SessionStore]]:
    """Makes stores that are the same one, as several processes have it."""
    address = str(tmp_path) if request.param == "folder" else request.getfixturevalue("redis")
    made: list[SessionStore] = []

    def one() -> SessionStore:
        made.append(open_store(address))
        return made[-1]

    yield one
    for store in made:
        store.close()


def write(store: SessionStore, generation: int, drop: tuple[str, ...] = (), **values: bytes) -> Any:
    (outcome,) = store.write([Write(NAME, generation, values, drop, TTL_S)])
    return outcome


def test_what_was_written_is_claimed(make: Callable[[], SessionStore]):
    a, b = make(), make()
    generation = a.begin(NAME, TTL_S)
    assert write(a, generation, one=b"1", two=bytes(range(256))) is Outcome.KEPT
    assert write(a, generation, ("one",), two=b"", three=b"3" * 100_000) is Outcome.KEPT
    claim = b.claim(NAME, TTL_S)
    assert claim is not None
    assert claim.values == {"two": b"", "three": b"3" * 100_000}
    assert claim.generation > generation


def test_the_last_who_claims_owns_it(make: Callable[[], SessionStore]):
    a, b, c = make(), make(), make()
    first = a.begin(NAME, TTL_S)
    assert write(a, first, v=b"a") is Outcome.KEPT
    second, third = b.claim(NAME, TTL_S), c.claim(NAME, TTL_S)
    assert second is not None
    assert third is not None
    assert first < second.generation < third.generation
    assert second.values == third.values == {"v": b"a"}
    assert write(a, first, v=b"late") is Outcome.TAKEN
    assert write(b, second.generation, v=b"late") is Outcome.TAKEN
    assert write(c, third.generation, ("v",), w=b"c") is Outcome.KEPT
    a.remove(NAME, first, TTL_S)  # which is nobody's business any more
    claim = a.claim(NAME, TTL_S)
    assert claim is not None
    assert claim.values == {"w": b"c"}


def test_who_begins_takes_it_from_who_had_it(make: Callable[[], SessionStore]):
    a, b = make(), make()
    first = a.begin(NAME, TTL_S)
    write(a, first, v=b"a")
    second = b.begin(NAME, TTL_S)
    assert second > first
    assert write(a, first, v=b"late") is Outcome.TAKEN
    assert b.claim(NAME, TTL_S) is None  # nothing is in it yet


def test_what_has_ended_is_not_claimed_and_its_owners_learn_it(make: Callable[[], SessionStore]):
    a, b = make(), make()
    first = a.begin(NAME, TTL_S)
    write(a, first, v=b"a")
    claim = b.claim(NAME, TTL_S)
    assert claim is not None
    b.remove(NAME, claim.generation, TTL_S)
    assert a.claim(NAME, TTL_S) is None
    assert write(a, first, v=b"late") is Outcome.TAKEN
    assert write(b, claim.generation, v=b"late") is Outcome.TAKEN


def test_names_that_nobody_began_are_unknown(make: Callable[[], SessionStore]):
    store = make()
    other = name_of("somebody", "else")
    assert store.claim(other, TTL_S) is None
    assert store.write([Write(other, 1, {"v": b""}, (), TTL_S)]) == [Outcome.UNKNOWN]
    store.remove(other, 1, TTL_S)


def test_one_that_is_refused_keeps_no_other_from_being_written(make: Callable[[], SessionStore]):
    store = make()
    names = [name_of("somebody", str(i)) for i in range(3)]
    generations = [store.begin(name, TTL_S) for name in names]
    store.begin(names[1], TTL_S)
    outcomes = store.write(
        [Write(name, g, {"v": name.encode()}, (), TTL_S)
         for name, g in zip(names, generations, strict=True)]
    )  # fmt: skip
    assert outcomes == [Outcome.KEPT, Outcome.TAKEN, Outcome.KEPT]
    claim = store.claim(names[2], TTL_S)
    assert claim is not None
    assert claim.values == {"v": names[2].encode()}


def test_sessions_are_forgotten_in_time(make: Callable[[], SessionStore]):
    store = make()
    generation = store.begin(NAME, 0.05)
    store.write([Write(NAME, generation, {"v": b"x"}, (), 0.05)])
    time.sleep(0.1)
    if isinstance(store, FolderStore):
        store.sweep(TTL_S)
        assert not list(store._folder.glob("[0-9a-f]*"))
    assert store.claim(NAME, TTL_S) is None
    # And it is not taken for the same when it comes again.
    assert store.begin(NAME, TTL_S) > generation


def test_claims_from_many_threads_are_one_after_the_other(make: Callable[[], SessionStore]):
    store = make()
    write(store, store.begin(NAME, TTL_S), v=b"x")
    found: list[int] = []

    def claim() -> None:
        for _ in range(5):
            one = store.claim(NAME, TTL_S)
            assert one is not None
            assert one.values == {"v": b"x"}
            found.append(one.generation)

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(set(found)) == 20
    assert write(store, max(found), v=b"y") is Outcome.KEPT


def test_names_tell_nothing_and_do_not_collide():
    assert name_of("ab", "c") != name_of("a", "bc")
    assert name_of("a", "../../x").isalnum()


@pytest.mark.parametrize("address", ["", "http://x", "s3://bucket", "redis://[bad"])
def test_addresses_that_cannot_be_are_told(address: str, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises((ConfigError, MissingExtra)):
        open_store(address)


@pytest.mark.parametrize(
    "address",
    ["redis://:my/secret@host:6379/0", "redis://:my?secret@host:6379/0", "redis://:12#secret@host",
     "redis://user:12/secret@host:6379", "redis://user:12?secret@host/0", "redis://:my@host:secret/0",
     "redis+tls://:secret@host/0", "REDIS+TLS://secret", "redis://:secret@[host/0",
     "redis://:secret@host/0?socket_timeout=secret"],
)  # fmt: skip
def test_no_password_is_told(address: str):
    with pytest.raises((ConfigError, MissingExtra)) as told:
        open_store(address)
    for part in ("secret", "my", "12"):
        assert part not in str(told.value)
    if not isinstance(told.value, MissingExtra):
        assert "redis://HOST:PORT" in str(told.value)


@needs_redis
@pytest.mark.parametrize(
    "address",
    ["redis://:se%2Fcret@host:6379/0", "redis://user:a%40b@host", "rediss://host/1?ssl_cert_reqs=none",
     "unix://user:secret@/run/redis.sock?db=1", "unix:///a@b/redis.sock"],
)  # fmt: skip
def test_addresses_of_redis_are_taken(address: str):
    open_store(address).close()


def test_without_the_client_of_redis_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "redis", None)
    with pytest.raises(MissingExtra, match=r"session store in Redis.*'\.\[fleet\]"):
        open_store("redis://127.0.0.1:1/0")


@needs_redis
def test_a_redis_that_is_not_there_is_down():
    store = open_store(f"redis://127.0.0.1:{free_port()}/0")
    for call in (
        lambda: store.begin(NAME, 1.0),
        lambda: store.claim(NAME, 1.0),
        lambda: store.write([Write(NAME, 1, {}, (), 1.0)]),
        lambda: store.remove(NAME, 1, 1.0),
    ):
        with pytest.raises(StoreDown, match="Redis"):
            call()
    store.close()


# A folder's own.


def test_a_folder_that_cannot_be_used_is_told_at_the_start(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="sessions cannot be stored in"):
        FolderStore(tmp_path / "file")


@pytest.mark.parametrize(
    "index",
    [b"", b"{", b"[]", NO_UTF_8, b'{"generation": "x", "expires": 0}', bytes(100), b"[" * 100_000,
     b'{"generation": 1, "expires": 9e9, "files": {"v": "../../secret"}}',
     b'{"generation": 1, "expires": 9e9, "files": {"v": "/etc/passwd"}}'],
)  # fmt: skip
def test_an_index_that_cannot_be_read_is_no_session(tmp_path: Path, index: bytes):
    store = FolderStore(tmp_path / "store")
    (tmp_path / "secret").write_text("secret")
    generation = store.begin(NAME, TTL_S)
    (tmp_path / "store" / NAME / "index").write_bytes(index)
    assert store.claim(NAME, TTL_S) is None
    assert write(store, generation, v=b"") is Outcome.UNKNOWN
    assert write(store, store.begin(NAME, TTL_S), v=b"1") is Outcome.KEPT


def damage(path: Path, index: bytes | str | None) -> None:
    """Put something else in the place of an index."""
    path.unlink()
    if index == "link":
        path.symlink_to(path.parent.parent)
    elif index == "folder":
        path.mkdir()
    elif index == "pipe":
        os.mkfifo(path)
    elif index == "huge":
        with path.open("wb") as file:
            file.truncate(2**28 + 1)
    elif isinstance(index, bytes):
        path.write_bytes(index)


def num_descriptors() -> int:
    """Of this process; 0 where that cannot be known."""
    path = Path("/proc/self/fd")
    return len(os.listdir(path)) if path.exists() else 0


needs_pipes = pytest.mark.skipif(os.name == "nt", reason="the system has none")
PIPE = pytest.param("pipe", marks=needs_pipes)
DAMAGED = [b"", b"{", NO_UTF_8, None, "link", "folder", "huge", PIPE]


@pytest.mark.parametrize("index", DAMAGED)
def test_a_damaged_session_keeps_no_other_from_being_kept(
    tmp_path: Path, index: bytes | str | None
):
    store = FolderStore(tmp_path / "store")
    names = sorted(name_of("somebody", str(i)) for i in range(5))
    generations = [store.begin(name, TTL_S) for name in names]
    damage(tmp_path / "store" / names[2] / "index", index)
    outcomes = store.write(
        [Write(name, g, {"v": b"x"}, (), TTL_S) for name, g in zip(names, generations, strict=True)]
    )
    assert outcomes == [Outcome.KEPT] * 2 + [Outcome.UNKNOWN] + [Outcome.KEPT] * 2
    num_open = num_descriptors()
    for _ in range(100):
        assert store.claim(names[2], TTL_S) is None
    assert num_descriptors() < num_open + 50
    store.remove(names[2], generations[2], TTL_S)
    # And it is begun again.
    (outcome,) = store.write(
        [Write(names[2], store.begin(names[2], TTL_S), {"v": b"y"}, (), TTL_S)]
    )
    assert outcome is Outcome.KEPT
    claim = store.claim(names[2], TTL_S)
    assert claim is not None
    assert claim.values == {"v": b"y"}


@pytest.mark.parametrize("index", DAMAGED)
def test_a_damaged_session_keeps_no_other_from_being_swept(
    tmp_path: Path, index: bytes | str | None
):
    store = FolderStore(tmp_path / "store")
    names = [name_of("somebody", str(i)) for i in range(5)]
    for name in names:
        store.begin(name, -1.0)
    damage(tmp_path / "store" / names[2] / "index", index)
    store.sweep(TTL_S)
    assert [one.name for one in (tmp_path / "store").glob("[0-9a-f]*")] == [names[2]]


@needs_pipes
def test_a_pipe_that_somebody_holds_open_is_no_index(tmp_path: Path):
    store = FolderStore(tmp_path)
    generation = store.begin(NAME, TTL_S)
    damage(tmp_path / NAME / "index", "pipe")
    held = os.open(tmp_path / NAME / "index", os.O_RDWR)
    try:
        assert store.claim(NAME, TTL_S) is None
        assert write(store, generation, v=b"x") is Outcome.UNKNOWN
    finally:
        os.close(held)


def test_a_disk_that_cannot_be_read_is_no_damaged_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = FolderStore(tmp_path)
    generation = store.begin(NAME, TTL_S)

    def fail(*given: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("kiku.serve.session_stores.folder._read_private", fail)
    with pytest.raises(StoreDown, match="input/output error"):
        write(store, generation, v=b"x")


@pytest.mark.parametrize("index", DAMAGED)
def test_what_cannot_be_read_is_swept_when_it_is_old(tmp_path: Path, index: bytes | str | None):
    store = FolderStore(tmp_path / "store")
    write(store, store.begin(NAME, 0.01), v=b"speech")
    folder = tmp_path / "store" / NAME
    damage(folder / "index", index)
    store.sweep(TTL_S)
    assert folder.exists()  # perhaps it is being written at this moment
    old = time.time() - TTL_S - 1
    os.utime(folder, (old, old))
    store.sweep(2 * TTL_S)
    assert folder.exists()
    store.sweep(TTL_S)
    assert not folder.exists()


def test_links_are_not_followed(tmp_path: Path):
    store = FolderStore(tmp_path / "store")
    (tmp_path / "secret").write_text("secret")
    write(store, store.begin(NAME, TTL_S), v=b"x")
    (file,) = (tmp_path / "store" / NAME).glob("*-1")
    file.unlink()
    file.symlink_to(tmp_path / "secret")
    with pytest.raises(StoreDown):
        store.claim(NAME, TTL_S)


def test_a_write_that_is_cut_short_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = FolderStore(tmp_path)
    generation = store.begin(NAME, TTL_S)
    write(store, generation, v=b"old", w=b"old")

    def fail(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FolderStore, "_write_index", fail)
    with pytest.raises(StoreDown, match="no space left"):
        write(store, generation, ("w",), v=b"new")
    monkeypatch.undo()
    claim = store.claim(NAME, TTL_S)
    assert claim is not None
    assert claim.values == {"v": b"old", "w": b"old"}
