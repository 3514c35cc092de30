"""The balancers of deploy/: an upload reaches its replica as it is sent, and no key is logged."""

import importlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

BEGINNING = 200_000
"""Of the body, that is sent at first."""

ARRIVES = 100_000
"""Of it, that must be there; some may be on its way."""


class Replica(threading.Thread):
    """Says that it is ready, and counts what comes of an upload."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.door = socket.create_server(("127.0.0.1", 0))
        self.port = self.door.getsockname()[1]
        self.has_come = threading.Event()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.door.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(ConnectionError):  # who asks whether it is ready may hang up
            count, is_upload = 0, False
            while data := connection.recv(65_536):
                is_upload = is_upload or data.startswith(b"POST")
                if not is_upload:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    return
                count += len(data)
                if count > ARRIVES:
                    self.has_come.set()


@pytest.fixture
def local_fleet(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("local_fleet")


@contextmanager
def before(local_fleet: Any, balancer: str, folder: Path, replica: Replica) -> Iterator[Any]:
    """A balancer before one replica that is named twice; its output is in `balancer.log`."""
    if local_fleet.found(balancer) is None:
        replica.door.close()
        pytest.skip(f"{balancer} is not installed")
    replica.start()
    certificate, listen = local_fleet.make_certificate(folder), local_fleet.free_port()
    make = getattr(local_fleet, f"{balancer}_command")
    with (folder / "balancer.log").open("wb") as log:
        process = subprocess.Popen(make(folder, listen, [replica.port] * 2), stdout=log, stderr=log)
    fleet = local_fleet.Fleet([], listen, certificate)
    try:
        local_fleet.wait_until(lambda: local_fleet.answers(fleet), "the start of the balancer")
        yield fleet
    finally:
        process.terminate()
        process.wait()
        replica.door.close()


@pytest.mark.parametrize("balancer", ["nginx", "haproxy"])
def test_an_upload_is_passed_on_as_it_comes(balancer: str, local_fleet: Any, tmp_path: Path):
    replica = Replica()
    with (
        before(local_fleet, balancer, tmp_path, replica) as fleet,
        socket.create_connection(("127.0.0.1", fleet.port)) as plain,
        fleet.tls.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        client.sendall(
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: 9000000\r\n\r\n" + bytes(BEGINNING)
        )
        assert isinstance(client, ssl.SSLSocket)
        assert replica.has_come.wait(20), "nothing came before the whole was sent"


@pytest.mark.parametrize("balancer", ["nginx", "haproxy"])
def test_no_key_is_logged(balancer: str, local_fleet: Any, tmp_path: Path):
    replica = Replica()
    with before(local_fleet, balancer, tmp_path, replica) as fleet:
        assert fleet.get("/api/asr-streaming?auth_id=SECRET").status_code == 200
        replica.door.shutdown(socket.SHUT_RDWR)  # what fails is logged, too
        assert fleet.get("/api/build_info?auth_id=SECRET").status_code in (502, 503)
    logs = "".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert "GET /api/asr-streaming " in logs
    assert "GET /api/build_info " in logs
    assert "SECRET" not in logs
