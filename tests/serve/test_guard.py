"""Keys, pages of other hosts, and how often a client may knock."""

import contextlib
import socket
from typing import Any

import httpx
import pytest

import kiku
from kiku.serve.guard import Guard
from kiku.serve.keys import Keys, key_of, subprotocol_of
from kiku.serve.protocols.interface import ClientRequest, Refusal
from kiku.serve.settings import Settings
from tests.serve.running import running
from tests.serve.talks import wait_for

KEY = "sésame-1"


def request(path: str = "/", query: tuple[tuple[str, str], ...] = (), offer: tuple[str, ...] = (),
            **headers: str) -> ClientRequest:  # fmt: skip
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ClientRequest(path, query, {"host": "127.0.0.1:8080", **named}, offer, "id-1")


def guard(*keys: str, **settings: Any) -> Guard:
    return Guard(Settings(**settings), Keys(keys))


WAYS = {
    "bearer": request(authorization=f"Bearer {KEY}"),
    "token": request(authorization=f"token {KEY}"),
    "kyutai": request(kyutai_api_key=KEY),
    "query": request(query=(("auth_id", KEY),)),
    "browser": request(offer=("token", KEY)),
    "openai browser": request(offer=("realtime", f"openai-insecure-api-key.{KEY}")),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_give_a_key_lets_in(way: str):
    assert key_of(WAYS[way]) == KEY
    assert guard("other", KEY).admit(WAYS[way], "a", is_socket=True)
    with pytest.raises(Refusal) as refusal:
        guard("other").admit(WAYS[way], "a", is_socket=True)
    assert refusal.value.status == 401


@pytest.mark.parametrize("key", [KEY, "k€y", "聞く", "voilà", "Ǆ"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("read_as", ["latin-1", "ascii"])
def test_a_key_beyond_ascii_is_known_by_the_bytes_that_came(key: str, encoding: str, read_as: str):
    """Servers read headers as Latin-1, or keep bytes beyond ASCII as they are."""
    try:
        bytes_given = key.encode(encoding)
    except UnicodeEncodeError:
        pytest.skip("no client can write it so")
    if (encoding, read_as) == ("latin-1", "ascii"):
        pytest.skip("browsers write no such subprotocol")
    given = bytes_given.decode(read_as, "surrogateescape")
    ways = [request(offer=("token", given))]
    if read_as == "latin-1":
        ways += [request(authorization=f"Bearer {given}"), request(kyutai_api_key=given)]
    for way in ways:
        owner = guard("other", key).admit(way, "a", is_socket=False)
        assert owner == guard(key).admit(request(query=(("auth_id", key),)), "b", is_socket=False)
        with pytest.raises(Refusal):
            guard("other", key[:-1], key + "x").admit(way, "a", is_socket=False)


@pytest.mark.parametrize(
    "one",
    [request(), request(authorization="Bearer "), request(authorization=f"Basic {KEY}"),
     request(kyutai_api_key=""), request(query=(("auth_id", ""),)), request(offer=("token",)),
     request(authorization=KEY)],
)  # fmt: skip
def test_without_a_key_nobody_comes_in(one: ClientRequest):
    with pytest.raises(Refusal) as refusal:
        guard(KEY).admit(one, "a", is_socket=False)
    assert refusal.value.status == 401
    assert KEY not in str(refusal.value)


def test_a_header_counts_before_the_query():
    both = request(query=(("auth_id", KEY),), kyutai_api_key="wrong")
    with pytest.raises(Refusal):
        guard(KEY).admit(both, "a", is_socket=False)


def test_without_keys_everybody_comes_in():
    assert guard().admit(request(), "1.2.3.4", is_socket=True) == "1.2.3.4"


def test_the_owner_is_not_the_key():
    owner = guard(KEY).admit(WAYS["bearer"], "1.2.3.4", is_socket=True)
    assert KEY not in owner
    assert owner == guard(KEY).admit(WAYS["query"], "5.6.7.8", is_socket=True)


def test_a_browser_is_given_one_of_its_subprotocols_and_never_its_key():
    assert subprotocol_of(WAYS["browser"]) == "token"
    assert subprotocol_of(WAYS["openai browser"]) == "realtime"
    assert subprotocol_of(request(offer=(KEY,))) is None


PAGES = {
    "no browser": ({}, True),
    "our own": ({"origin": "http://127.0.0.1:8080"}, True),
    "another port": ({"origin": "http://127.0.0.1:9090"}, False),
    "another host": ({"origin": "https://evil.example"}, False),
    "a file": ({"origin": "null"}, False),
    "a name that leads here": (
        {"origin": "http://evil.example:8080", "host": "evil.example:8080"}, False,
    ),
    "not an address": ({"origin": "http://[bad"}, False),
    "allowed": ({"origin": "https://good.example"}, True),
}  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("is_socket", [True, False])
def test_pages_of_other_hosts_stay_out(page: str, is_socket: bool):
    headers, may = PAGES[page]
    one = guard(allowed_origin=("https://good.example",))
    asked = request(**headers)
    if may:
        assert one.admit(asked, "a", is_socket=is_socket)
    else:
        with pytest.raises(Refusal) as refusal:
            one.admit(asked, "a", is_socket=is_socket)
        assert refusal.value.status == 403


def test_who_knocks_too_often_is_told_when_to_come_back():
    one = guard(max_requests_per_minute=3)
    for _ in range(3):
        one.admit(request(), "a", is_socket=False)
    one.admit(request(), "b", is_socket=False)
    with pytest.raises(Refusal) as refusal:
        one.admit(request(), "a", is_socket=False)
    assert refusal.value.status == 429
    assert 1 <= int(refusal.value.headers["Retry-After"]) <= 60


def test_connections_are_bounded_for_each_and_for_all():
    one = guard(max_connections=3, max_connections_per_key=2)
    with one.connection("a"), one.connection("a"):
        with pytest.raises(Refusal) as refusal:
            one.admit(request(), "a", is_socket=True)
        assert refusal.value.status == 503
        one.admit(request(), "b", is_socket=True)
        with one.connection("b"), pytest.raises(Refusal):
            one.admit(request(), "c", is_socket=True)
    one.admit(request(), "a", is_socket=True)


def test_who_tries_keys_is_told_when_to_come_back():
    one = guard(KEY, max_requests_per_minute=3)
    for i in range(3):
        with pytest.raises(Refusal) as refusal:
            one.admit(request(kyutai_api_key=f"guess {i}"), "a", is_socket=False)
        assert refusal.value.status == 401
    for way in (request(kyutai_api_key="guess"), request(), WAYS["bearer"]):  # also with the key
        with pytest.raises(Refusal) as refusal:
            one.admit(way, "a", is_socket=True)
        assert refusal.value.status == 429
        assert int(refusal.value.headers["Retry-After"]) >= 1
    assert one.admit(WAYS["bearer"], "b", is_socket=True)


def test_known_keys_are_not_counted_by_their_address():
    one = guard(KEY, "other", max_requests_per_minute=3)
    for key in (KEY, "other"):
        for _ in range(3):
            one.admit(request(kyutai_api_key=key), "a", is_socket=False)


DOORS = ["/v1/audio/transcriptions", "/v1/listen", "/api/asr-streaming"]


def test_uploads_take_the_place_of_connections(demo: kiku.Recognizer):
    """Those that are still being sent, too."""
    begun = b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000\r\n\r\n--x\r\n"
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(running(demo, max_connections=2))

        def send(door: str) -> socket.socket:
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", service.port), 60))
            raw.sendall(f"POST {door} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode() + begun)
            return raw

        for door in DOORS:
            held = [send(door), send(door)]
            wait_for(lambda: service.app.guard._open.total() == 2, 60)
            for other in DOORS:
                assert send(other).recv(4_096).startswith(b"HTTP/1.1 503"), (door, other)
            assert httpx.post(service.http + "/api/stream").status_code == 503
            assert httpx.get(service.http + "/metrics").status_code == 200
            for one in held:
                one.close()
            wait_for(lambda: service.app.guard._open.total() == 0, 60)
