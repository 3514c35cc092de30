"""Lines about refused clients; no keys in those of servers that run the application."""

import contextlib
import json
import logging
import subprocess
import sys
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import kiku
from kiku.serve.app import App
from kiku.serve.logs import RefusalLog, without_keys
from kiku.serve.service import Service
from kiku.serve.settings import Settings
from tests.serve.running import running


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("/v1/models?auth_id=sesame", "/v1/models?auth_id=..."),
     ("GET /x?a=1&auth_id=sesame&b=2 HTTP/1.1", "GET /x?a=1&auth_id=...&b=2 HTTP/1.1"),
     ("/x?auth%5Fid=sesame&auth_id=sesame", "/x?auth%5Fid=...&auth_id=..."),
     ("/x?auth_id=", "/x?auth_id=..."), ("/x?a=auth_id", "/x?a=auth_id"), ("", ""),
     ("auth_id=1", "auth_id=1"), ("/x?a=1&b=%20?", "/x?a=1&b=%20?")],
)  # fmt: skip
def test_addresses_lose_their_key_and_nothing_else(text: str, wanted: str):
    assert without_keys(text) == wanted


class Atoms(dict[str, Any]):
    """As hypercorn gives the parts of a line."""

    def __getitem__(self, name: str) -> Any:
        return super().get(name, "-")


PATH = "/api/stream?auth_id=sesame&session=a"


@pytest.mark.parametrize(
    ("name", "form", "given"),
    [("uvicorn.access", '%s - "%s %s HTTP/%s" %d', ("1.2.3.4:5", "GET", PATH, "1.1", 200)),
     ("uvicorn.error", '%s - "WebSocket %s" [accepted]', (("1.2.3.4", 5), PATH)),
     ("granian.access", "%(addr)s %(query_string)s %(path)s",
      ({"addr": "1.2.3.4", "query_string": b"?auth_id=sesame&session=a", "path": "/"},)),
     ("hypercorn.access", "%(h)s %(r)s %(none)s", (Atoms(h="1.2.3.4", r=f"GET {PATH} 2"),)),
     ("uvicorn.error", f"1.2.3.4 {PATH}", ())],
)  # fmt: skip
def test_servers_write_none(
    demo: kiku.Recognizer, name: str, form: str, given: tuple[Any, ...],
    caplog: pytest.LogCaptureFixture,
):  # fmt: skip
    App(Service(Settings(), demo))
    logger = logging.getLogger(name)
    with caplog.at_level(logging.INFO, name):
        logger.addHandler(caplog.handler)
        try:
            logger.info(form, *given)
        finally:
            logger.removeHandler(caplog.handler)
    line = caplog.records[0].getMessage()
    assert "sesame" not in line
    assert "session=a" in line
    assert "1.2.3.4" in line
    assert App(Service(Settings(), demo)) is not None
    assert len({id(one) for one in logger.filters}) == len(logger.filters)  # once for all of them


def test_refusals_have_a_line_each_and_do_not_fill_the_disk(caplog: pytest.LogCaptureFixture):
    refusals = RefusalLog()
    with caplog.at_level(logging.DEBUG, "kiku"):
        for number in range(500):
            refusals.add(401, "/a b\n\udc80 status=200" + "x" * 200, f"id-{number}", "1.2.3.4")
    levels = [one.levelno for one in caplog.records]
    assert levels == [logging.INFO] * 100 + [logging.DEBUG] * 400
    told = caplog.messages[0].split()
    assert told[0] == "refused"
    assert told[1].startswith("path=/a%20b%0A%3F%20status%3D200xxx")
    assert len(told[1]) < 130
    assert told[2:] == ["id=id-0", "owner=1.2.3.4", "status=401"]


def test_each_refused_client_has_a_line(demo: kiku.Recognizer, caplog: pytest.LogCaptureFixture):
    key = {"authorization": "Bearer sesame"}
    with caplog.at_level(logging.INFO, "kiku"), running(demo, api_key=("sesame",)) as service:

        async def take() -> Any:
            return service.service.permit(4)

        def knock(path: str, headers: dict[str, str]) -> None:
            url = service.ws + path
            with contextlib.suppress(InvalidStatus), connect(url, additional_headers=headers):
                pass

        httpx.get(service.http + "/v1/models", headers={"authorization": "Bearer open"})
        knock("/api/stream", {})
        knock("/nowhere", key)
        knock("/v1/listen?channels=x", key)
        held = service.call(take)
        knock("/v1/listen?encoding=linear16&sample_rate=16000", key)
        knock("/api/asr-streaming", key)
        service.loop.call_soon_threadsafe(held.release)
        httpx.get(service.http + "/ready", headers=key)
    lines = [one.args for one in caplog.records if one.msg.startswith("refused ")]
    told = [(one["path"], one["status"]) for one in lines if isinstance(one, dict)]
    assert told == [
        ("/v1/models", 401), ("/api/stream", 401), ("/nowhere", 404), ("/v1/listen", 400),
        ("/v1/listen", 503), ("/api/asr-streaming", 503),
    ]  # fmt: skip
    assert [one["owner"] for one in lines if isinstance(one, dict)][:2] == ["127.0.0.1"] * 2
    assert len({one["id"] for one in lines if isinstance(one, dict)}) == 6


_LINES = """
import logging, warnings
from kiku.serve import logs
from kiku.serve.forms import FormError, FormReader
from kiku.serve.settings import Settings

logs.set_up(Settings(log_format="json"))
logging.getLogger("kiku.serve").info("ours, %(a)s", {"a": 1})
logging.getLogger("another.package").warning("theirs")
logging.getLogger("another.package").info("of no interest")
warnings.warn("old")
try:
    FormReader("multipart/form-data; boundary=X").feed(b"--X, no form")
except FormError:
    print("refused")
"""


def test_all_that_is_logged_is_json_where_that_is_asked_for():
    done = subprocess.run([sys.executable, "-c", _LINES], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "refused\n")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    ours, theirs, old = lines  # and nothing of a form that a client has damaged
    assert (ours["message"], ours["a"], ours["level"]) == ("ours, 1", 1, "info")
    assert (theirs["message"], theirs["level"]) == ("theirs", "warning")
    assert "old" in old["message"]
