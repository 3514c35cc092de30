"""An upload reaches its replica while it is sent: the balancers of deploy/ keep none of it."""

import importlib
import socket
import ssl
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from types import ModuleType

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


@pytest.mark.parametrize("balancer", ["nginx", "haproxy"])
def test_an_upload_is_passed_on_as_it_comes(
    balancer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    local_fleet: ModuleType = importlib.import_module("local_fleet")
    if local_fleet.found(balancer) is None:
        pytest.skip(f"{balancer} is not installed")
    replica = Replica()
    replica.start()
    certificate, listen = local_fleet.make_certificate(tmp_path), local_fleet.free_port()
    make = getattr(local_fleet, f"{balancer}_command")
    process = subprocess.Popen(
        make(tmp_path, listen, [replica.port] * 2),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    fleet = local_fleet.Fleet([], listen, certificate)
    try:
        local_fleet.wait_until(lambda: local_fleet.answers(fleet), "the start of the balancer")
        with (
            socket.create_connection(("127.0.0.1", listen)) as plain,
            fleet.tls.wrap_socket(plain, server_hostname="localhost") as client,
        ):
            client.sendall(
                b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Length: 9000000\r\n\r\n" + bytes(BEGINNING)
            )
            assert isinstance(client, ssl.SSLSocket)
            assert replica.has_come.wait(20), "nothing came before the whole was sent"
    finally:
        process.terminate()
        process.wait()
        replica.door.close()
