"""Requests for a socket's path that ask for no socket, as from a proxy that drops Upgrade."""

from typing import Any

import httpx
import pytest

from kiku.serve.app import SOCKETS
from tests.serve.running import Running

HINT = "connect as a WebSocket; a proxy in between must pass Upgrade on"


def message_of(path: str, answer: httpx.Response) -> str:
    """What is said, in the form of the path's protocol."""
    body: dict[str, Any] = answer.json()
    if path.endswith("/listen"):
        assert set(body) == {"err_code", "err_msg", "request_id"}
        assert answer.headers["dg-error"] == body["err_msg"]
        return body["err_msg"]
    if path.startswith("/v1/"):
        assert set(body["error"]) == {"message", "type", "param", "code"}
        return body["error"]["message"]
    return body["error"]


@pytest.mark.parametrize("path", sorted(SOCKETS))
def test_a_socket_without_upgrade_is_told_what_is_missing(service: Running, path: str) -> None:
    answer = httpx.get(f"{service.http}{path}?intent=transcription")
    assert answer.status_code == 426
    assert answer.headers["upgrade"] == "websocket"
    assert answer.headers["connection"].lower() == "upgrade"
    assert message_of(path, answer) == HINT
    assert httpx.head(service.http + path).status_code == 426


@pytest.mark.parametrize("method", ["PUT", "POST", "OPTIONS"])
@pytest.mark.parametrize("path", sorted(SOCKETS))
def test_another_method_is_told_which_there_are(service: Running, path: str, method: str) -> None:
    takes_posts = path in ("/api/asr-streaming", "/api/stream", "/v1/listen")
    answer = httpx.request(method, service.http + path)
    if method == "POST" and takes_posts:
        assert answer.status_code == (204 if path == "/api/stream" else 400)  # an empty recording
        return
    assert answer.status_code == 405
    assert answer.headers["allow"] == ("GET, POST" if takes_posts else "GET")
    assert HINT in message_of(path, answer)
