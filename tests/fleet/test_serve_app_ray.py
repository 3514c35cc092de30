"""The adapter on a local Ray with HAProxy: two replicas, their sockets, the surplus, their end.

Wants the package `ray[serve]`, and minutes."""

import asyncio
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

import kiku
from kiku.serve.loadtest_sessions import SessionLoad
from tests.conftest import ROOT
from tests.serve.clients import samples_of

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]

DIGITS = ROOT / "examples" / "digits.wav"
SAMPLES = samples_of(DIGITS)
PCM = (SAMPLES * 32_767).astype("<i2").tobytes()
SLOTS, REPLICAS, DRAIN_S = 2, 2, 5
PATIENCE_S = 120.0


class Cluster:
    """A local Ray in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.http, self.ws = f"http://127.0.0.1:{self.port}", f"ws://127.0.0.1:{self.port}"
        # HAProxy's sockets want short paths.
        self._place = tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp")
        place = self._place.name
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAIN_S),
            "RAY_SERVE_HAPROXY_STARTUP_TIMEOUT_S": "180",
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{place}/haproxy.cfg",
            "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{place}/admin.sock",
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": place,
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{place}/server-state",
        }
        environment.pop("RAY_USAGE_STATS_ENABLED", None)
        self._log = (folder / "ray.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "fleet" / "ray_serve_driver.py"),
             str(self.port), str(REPLICAS), str(SLOTS)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env=environment,
        )  # fmt: skip

    def expect(self, word: str) -> None:
        """Wait until it says so."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip() == word:
                return
        raise AssertionError(Path(self._log.name).read_text()[-3000:])

    def tell(self, word: str) -> None:
        """Have it do something; back when that is done."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        self.expect("done")

    def close(self) -> None:
        """End it, and all of Ray with it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE_S)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            self._log.close()
            self._place.cleanup()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("ray"))
    try:
        made.expect("up")
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def text() -> str:
    return kiku.load("demo", slots=1).transcribe(DIGITS).text


def own(cluster: Cluster) -> ClientConnection:
    return connect(
        f"{cluster.ws}/api/stream?rate=24000", compression=None, open_timeout=20, legacy=True
    )


def patiently(cluster: Cluster) -> ClientConnection:
    """A client that comes back as long as it is refused: HAProxy may not know all replicas yet."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return own(cluster)
        except InvalidStatus as refused:
            if refused.response.status_code != 503 or time.monotonic() > until:
                raise
        time.sleep(0.5)


def message(client: ClientConnection, kind: str) -> dict[str, Any]:
    while (told := json.loads(client.recv(PATIENCE_S)))["type"] != kind:
        pass
    return told


@pytest.mark.timeout(600)
def test_sockets_stay_with_their_replica_and_the_surplus_is_told(cluster: Cluster, text: str):
    half = len(PCM) // 2
    with ExitStack() as stack:
        clients = [stack.enter_context(patiently(cluster)) for _ in range(SLOTS * REPLICAS)]
        for client in clients:
            message(client, "ready")
            client.send(PCM[:half])
        for _ in range(3):
            with pytest.raises(InvalidStatus) as refused, own(cluster):
                pass
            assert refused.value.response.status_code == 503
            assert int(refused.value.response.headers["Retry-After"]) > 0
            assert b"slots are taken" in refused.value.response.body
        for client in clients:
            client.send(PCM[half:])
            client.send('{"type": "close"}')
        for client in clients:
            words: list[str] = []
            while (told := json.loads(client.recv(PATIENCE_S)))["type"] != "end":
                words += [told["text"]] if told["type"] == "word" else []
            assert " ".join(words) == text


@pytest.mark.timeout(900)
def test_clients_of_replicas_that_are_replaced_lose_nothing(cluster: Cluster):
    # Longer than a replica drains: whoever speaks as it begins to is cut, but for the last words.
    load = SessionLoad(cluster.http, [np.tile(SAMPLES, 3)])
    asyncio.run(load.listen())
    reports = []
    for _ in range(3):
        again = threading.Thread(target=cluster.tell, args=("again",))
        again.start()
        reports.append(asyncio.run(load.run(2, 5.0)))
        while again.is_alive():
            reports.append(asyncio.run(load.run(2, 5.0)))
        again.join()
        if any(one.cuts for one in reports):
            break
    assert sum(one.cuts for one in reports) > 0
    assert [(one.lost, one.different, one.errors) for one in reports] == [(0, 0, [])] * len(reports)
    assert sum(one.resumed for one in reports) > 0  # by the session store


@pytest.mark.timeout(600)
def test_a_replica_that_ends_closes_with_1012(cluster: Cluster):
    with own(cluster) as client:
        message(client, "ready")
        client.send(PCM)
        message(client, "word")
        cluster.tell("delete")
        with pytest.raises(ConnectionClosed) as closed:
            message(client, "end")
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
