"""Uploads that are compressed for their way."""

import gzip
from typing import Any

import httpx
import pytest

from tests.serve.conftest import EXAMPLES
from tests.serve.running import Running

DIGITS = (EXAMPLES / "digits.wav").read_bytes()

FORM = {"files": {"file": ("digits.wav", DIGITS)}, "data": {"model": "whisper-1"}}
PATHS: dict[str, dict[str, Any]] = {
    "/v1/audio/transcriptions": FORM,
    "/v1/listen": {"content": DIGITS},
    "/api/asr-streaming": {"content": DIGITS},
}


def post(service: Running, path: str, coding: str, *, zipped: bool) -> httpx.Response:
    request = httpx.Request("POST", service.http + path, **PATHS[path])
    data = request.read()
    headers = {"content-encoding": coding}
    if "content-type" in request.headers:
        headers["content-type"] = request.headers["content-type"]
    data = gzip.compress(data) if zipped else data
    return httpx.post(service.http + path, content=data, headers=headers, timeout=60)


@pytest.mark.parametrize("path", PATHS)
def test_a_compressed_body_is_named_and_not_taken_for_sound(service: Running, path: str) -> None:
    for coding in ("gzip", "identity, GZip"):
        answer = post(service, path, coding, zipped=True)
        assert answer.status_code == 415
        assert answer.headers["accept-encoding"] == "identity"
        assert f"Content-Encoding: {coding} is not supported: send it" in answer.text
        assert ("dg-error" in answer.headers) == (path == "/v1/listen")
        assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_is_called_identical_is_heard(service: Running, path: str) -> None:
    answer = post(service, path, "identity", zipped=False)
    assert answer.status_code == 200
    assert "seven" in answer.text
