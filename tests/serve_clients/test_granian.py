"""The application under granian, in place of uvicorn."""

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import kiku
from tests.serve.clients import kyutai, samples_of
from tests.serve_clients.spoken import PATIENCE_S, RECORDINGS, ROOT

if importlib.util.find_spec("granian") is None:
    pytest.skip("granian is not installed: make clients does that", allow_module_level=True)

KEY = "sesame-open"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where granian answers; it ends with 0, and logs no error."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    log = tmp_path_factory.mktemp("granian") / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "granian", "--interface", "asgi", "--factory", "--no-access-log",
             "--host", "127.0.0.1", "--port", str(port), "kiku.serve.app:app"],
            stdout=out, stderr=subprocess.STDOUT,
            env={**os.environ, "KIKU_API_KEY": KEY, "KIKU_SLOTS": "2", "KIKU_DRAIN_S": "1"},
        )  # fmt: skip
    try:
        wait_until_ready(f"127.0.0.1:{port}", process, log)
        yield f"127.0.0.1:{port}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0, log.read_text()
        said = log.read_text()
        assert "Traceback" not in said
        assert KEY not in said
    finally:
        process.kill()
        process.wait()


def wait_until_ready(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://{address}/ready").status_code == 200:
                return
        time.sleep(0.05)
    pytest.fail(f"granian did not start:\n{log.read_text()}")


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_socket_has_all_words(address: str, demo: kiku.Recognizer, name: str) -> None:
    samples = samples_of(ROOT / "examples" / name)
    with kyutai(f"ws://{address}", f"?auth_id={KEY}") as client:
        client.speak(samples)
        assert client.finish() == demo.transcribe(samples, rate=24_000).text
    assert {one["type"] for one in client.messages} <= {
        "Ready", "Step", "Word", "EndWord", "Marker",
    }  # fmt: skip


@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.parametrize("stream", ["false", "true"])
def test_an_upload_has_all_words(
    address: str, demo: kiku.Recognizer, name: str, stream: str
) -> None:
    path = ROOT / "examples" / name
    answer = httpx.post(
        f"http://{address}/v1/audio/transcriptions",
        headers={"Authorization": f"Bearer {KEY}"}, files={"file": path.read_bytes()},
        data={"model": "demo", "response_format": "text", "stream": stream}, timeout=PATIENCE_S,
    )  # fmt: skip
    assert answer.status_code == 200
    text = demo.transcribe(path).text
    if stream == "true":
        assert answer.text.count('"transcript.text.delta"') == len(text.split())
        assert f'"text":"{text}"' in answer.text
    else:
        assert answer.text.strip() == text


@pytest.mark.parametrize("path", ["/api/asr-streaming", "/v1/listen", "/v1/realtime"])
def test_a_socket_without_its_key_is_refused(address: str, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused, connect(f"ws://{address}{path}"):
        pass
    assert refused.value.response.status_code == 401
    assert b"the API key is missing or not known" in (refused.value.response.body or b"")


def test_a_full_service_says_when_to_come_again(address: str) -> None:
    query = f"?auth_id={KEY}"
    with kyutai(f"ws://{address}", query) as one, kyutai(f"ws://{address}", query) as other:
        assert [client.receive()["type"] for client in (one, other)] == ["Ready", "Ready"]
        with pytest.raises(InvalidStatus) as refused, connect(f"ws://{address}/v1/listen{query}"):
            pass
    assert refused.value.response.status_code == 503
    assert int(refused.value.response.headers["Retry-After"]) >= 1
