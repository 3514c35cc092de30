"""Two replicas behind nginx and HAProxy, with the files of deploy/ and TLS: all protocols pass, and
nobody loses a word where a replica drains or dies."""

import asyncio
import base64
import importlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlencode

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

import kiku
from kiku.serve.loadtest import DIALECTS, Load
from kiku.serve.loadtest_sessions import SessionLoad, SessionReport
from tests.conftest import ROOT
from tests.serve.clients import PATIENCE_S, RATE, kyutai, patient_connect, samples_of
from tests.serve.wyoming_sdk import AsyncTcpClient, AudioStart, AudioStop, chunk

pytestmark = pytest.mark.heavy

DIGITS = ROOT / "examples" / "digits.wav"
SAMPLES = samples_of(DIGITS)
PCM = (SAMPLES * 32_767).astype("<i2").tobytes()
OPTIONS = ("--threads", "1", "--slots", "4", "--allowed-origin", "https://speech.example.org")
RAW = {"encoding": "linear16", "sample_rate": RATE}


@pytest.fixture(scope="module")
def local_fleet() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("local_fleet")


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def balancer(request: pytest.FixtureRequest, local_fleet: ModuleType) -> str:
    if local_fleet.found(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


@pytest.fixture(scope="module")
def text() -> str:
    return kiku.load("demo", slots=1).transcribe(DIGITS).text


@pytest.fixture
def made(
    balancer: str, local_fleet: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """Starts a fleet with more options; clients of this process know its certificate."""
    with ExitStack() as stack:

        def start(*options: str) -> Any:
            more = {"wyoming": balancer == "haproxy", "watched": balancer == "nginx"}
            opened = local_fleet.fleet(balancer, tmp_path, *OPTIONS, *options, **more)
            fleet = stack.enter_context(opened)
            monkeypatch.setenv("SSL_CERT_FILE", str(fleet.certificate))
            return fleet

        yield start


def own(fleet: Any, **query: Any) -> ClientConnection:
    """A socket of kiku's own, greeted."""
    given = {"encoding": "s16le", "rate": RATE, **query}
    made = patient_connect(
        f"{fleet.wss}/api/stream?{urlencode(given)}", compression=None, legacy=True
    )
    return made


def message(client: ClientConnection, kind: str) -> dict[str, Any]:
    """The next message of a kind."""
    while (told := json.loads(client.recv(PATIENCE_S)))["type"] != kind:
        pass
    return told


def rest(client: ClientConnection) -> str:
    """Say that no more comes: the words up to the end."""
    client.send('{"type": "close"}')
    words: list[str] = []
    while (told := json.loads(client.recv(PATIENCE_S)))["type"] != "end":
        if told["type"] == "word":
            words.append(told["text"])
    return " ".join(words)


def test_every_protocol_passes(made: Callable[..., Any], text: str):
    fleet = made()
    for name in DIALECTS:
        report = asyncio.run(Load(fleet.https, name, [SAMPLES]).run(1, 0.1))
        assert (report.errors, report.busy) == ([], 0), name
        assert [told for _, told in report.texts] == [text], name
    assert realtime(fleet) == text
    assert flux(fleet) == text
    with httpx.Client(base_url=fleet.https, verify=fleet.tls, timeout=60) as client:
        answer = client.post(
            "/v1/audio/transcriptions", files={"file": DIGITS.read_bytes()},
            data={"model": "whisper-1"},
        )  # fmt: skip
        assert answer.json()["text"] == text
        assert client.get("/").status_code == 200
        assert client.get("/metrics").status_code == 404
    if fleet.wyoming_port is not None:
        assert asyncio.run(wyoming(fleet.wyoming_port)) == text


def realtime(fleet: Any) -> str:
    with patient_connect(
        f"{fleet.wss}/v1/realtime?intent=transcription", compression=None
    ) as client:
        turn = {"audio": {"input": {"turn_detection": None}}, "type": "transcription"}
        client.send(json.dumps({"type": "session.update", "session": turn}))
        sound = base64.b64encode(PCM).decode()
        client.send(json.dumps({"type": "input_audio_buffer.append", "audio": sound}))
        client.send(json.dumps({"type": "input_audio_buffer.commit"}))
        done = "conversation.item.input_audio_transcription.completed"
        return message(client, done)["transcript"].strip()


def flux(fleet: Any) -> str:
    query = urlencode({"model": "flux-general-en", **RAW})
    turns: dict[int, str] = {}
    with patient_connect(f"{fleet.wss}/v2/listen?{query}", compression=None) as client:
        client.send(PCM)
        client.send('{"type": "CloseStream"}')
        try:
            while True:
                told = json.loads(client.recv(PATIENCE_S))
                if told["type"] == "TurnInfo" and told["transcript"]:
                    turns[told["turn_index"]] = told["transcript"]
        except ConnectionClosed:
            return " ".join(turns.values())


async def wyoming(port: int) -> str:
    async with AsyncTcpClient("127.0.0.1", port) as client:
        await client.write_event(AudioStart(RATE, 2, 1).event())
        await client.write_event(chunk(PCM, RATE).event())
        await client.write_event(AudioStop().event())
        while (event := await client.read_event()) is not None:
            if event.type == "transcript":
                return event.data["text"]
    return ""


def test_pages_of_other_hosts_are_refused(made: Callable[..., Any]):
    fleet = made()
    with own(fleet) as client:
        message(client, "ready")
    address = f"{fleet.wss}/api/stream"
    with patient_connect(address, origin="https://speech.example.org") as client:
        message(client, "ready")
    with (
        pytest.raises(InvalidStatus) as refused,
        patient_connect(address, origin="https://evil.example"),
    ):
        pass
    assert refused.value.response.status_code == 403


def test_sockets_are_spread_and_the_surplus_is_told(made: Callable[..., Any]):
    fleet = made()
    with ExitStack() as stack:
        for _ in range(4):
            message(stack.enter_context(own(fleet)), "ready")
        assert [one.slots_used for one in fleet.replicas] == [2, 2]
        for _ in range(4):
            message(stack.enter_context(own(fleet)), "ready")
        assert [one.slots_used for one in fleet.replicas] == [4, 4]
        with pytest.raises(InvalidStatus) as refused, own(fleet):
            pass
        assert refused.value.response.status_code == 503
        assert int(refused.value.response.headers["Retry-After"]) > 0


def test_a_new_stream_goes_to_the_replica_with_the_fewest(
    made: Callable[..., Any], local_fleet: ModuleType
):
    fleet = made()
    first = fleet.replicas[0]
    with ExitStack() as others, ExitStack() as firsts, ExitStack() as late:
        for _ in range(4):
            before = first.slots_used
            client = own(fleet)
            message(client, "ready")
            (firsts if first.slots_used > before else others).enter_context(client)
        assert [one.slots_used for one in fleet.replicas] == [2, 2]
        firsts.close()
        local_fleet.wait_until(lambda: first.slots_used == 0, "the end of two streams")
        time.sleep(0.5)  # until the balancer has seen it, too
        for _ in range(2):  # in turn they would go to one each
            message(late.enter_context(own(fleet)), "ready")
        assert [one.slots_used for one in fleet.replicas] == [2, 2]


def test_limits_are_those_of_the_clients_own_addresses(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("KIKU_MAX_CONNECTIONS_PER_KEY", "1")  # at each replica
    fleet = made()
    address = f"{fleet.wss}/api/stream"

    def come(source: str, stack: ExitStack) -> None:
        said = {"X-Forwarded-For": "192.0.2.7"}  # which is not believed from outside
        place = patient_connect(address, source_address=(source, 0), additional_headers=said)
        message(stack.enter_context(place), "ready")

    with ExitStack() as stack:
        for source in ("127.0.0.2", "127.0.0.3"):
            for _ in fleet.replicas:
                come(source, stack)
            with pytest.raises(InvalidStatus) as refused:
                come(source, stack)
            assert b"too many connections" in refused.value.response.body


def test_a_full_replica_is_passed_over(made: Callable[..., Any]):
    fleet = made()
    first = fleet.replicas[0]
    with ExitStack() as stack:
        address = first.http.replace("http", "ws", 1)
        for _ in range(4):  # past the balancer, which counts none of them
            stack.enter_context(patient_connect(f"{address}/api/stream"))
        for _ in range(4):
            message(stack.enter_context(own(fleet)), "ready")
        assert [one.slots_used for one in fleet.replicas] == [4, 4]


def test_a_client_that_was_cut_comes_back_to_the_replica_that_waits(
    made: Callable[..., Any], text: str
):
    fleet = made()
    half = len(PCM) // 2
    for i in range(4):  # by chance it would be 1 in 16
        with own(fleet, session=f"cut-{i}") as client:
            message(client, "ready")
            client.send(PCM[:half])
            words = [message(client, "word")["text"]]
            client.socket.shutdown(socket.SHUT_RDWR)
        with own(fleet, session=f"cut-{i}", after=0) as client:
            assert message(client, "ready")["taken_bytes"] == half
            client.send(PCM[half:])
            told = rest(client)
        assert told == text
        assert told.startswith(words[0])


def drained(fleet: Any, balancer: str, local_fleet: ModuleType) -> Any:
    """One replica is asked to end, and the balancer knows."""
    first = fleet.replicas[0]
    first.drain()
    local_fleet.wait_until(lambda: not first.is_ready, "the drain")
    if balancer == "nginx":
        listed = fleet.certificate.parent / "kiku-replicas.conf"
        local_fleet.wait_until(lambda: "down" in listed.read_text(), "kiku-ready.sh")
    time.sleep(1.5)  # HAProxy asks once a second
    return first


def test_a_replica_that_drains_finishes_its_sockets_and_gets_no_others(
    made: Callable[..., Any], balancer: str, local_fleet: ModuleType, text: str
):
    fleet = made("--drain-s", "60")
    half = len(PCM) // 2
    with own(fleet) as one, own(fleet) as two:
        for client in (one, two):
            message(client, "ready")
            client.send(PCM[:half])
        assert [replica.slots_used for replica in fleet.replicas] == [1, 1]
        first = drained(fleet, balancer, local_fleet)
        # Kyutai's clients, too: whoever drains refuses before the upgrade.
        with kyutai(fleet.wss) as late, kyutai(fleet.wss) as later, kyutai(fleet.wss) as last:
            for client in (late, later, last):
                assert client.receive()["type"] == "Ready"
            late.speak(SAMPLES)
            assert late.finish() == text
        assert first.slots_used == 1
        for client in (one, two):
            client.send(PCM[half:])
            assert rest(client) == text
    assert first.wait() == 0
    assert "Traceback" not in first.log
    first.start()
    local_fleet.wait_until(lambda: first.is_ready, "the restart")
    time.sleep(2.5)
    with own(fleet) as one, own(fleet) as two:
        for client in (one, two):
            message(client, "ready")
        assert [replica.slots_used for replica in fleet.replicas] == [1, 1]


def through(fleet: Any, how: str, clients: int = 4) -> tuple[SessionReport, Any]:
    """Clients who come back speak while a replica is drained or killed, and which it was: one that
    has streams, as nginx may have sent all to the other."""
    sound = np.tile(SAMPLES, 2)
    load = SessionLoad(fleet.https, [sound])
    chosen: list[Any] = []

    def disturb() -> None:
        chosen.append(max(fleet.replicas, key=lambda one: one.slots_used))
        getattr(chosen[0], how)()

    async def run() -> SessionReport:
        await load.listen()
        thread = threading.Timer(len(sound) / RATE / 2, disturb)
        thread.start()
        report = await load.run(clients, 0.1)
        await asyncio.to_thread(thread.join)
        return report

    return asyncio.run(run()), chosen[0]


def test_who_is_cut_at_the_deadline_goes_on_at_the_other_replica(made: Callable[..., Any]):
    fleet = made("--drain-s", "0.5")
    report, ended = through(fleet, "drain")
    assert ended.wait() == 0
    assert report.cuts > 0
    assert (report.lost, report.different, report.errors) == (0, 0, [])


def test_who_is_cut_by_a_kill_goes_on_at_the_other_replica(made: Callable[..., Any]):
    fleet = made()
    report, _ = through(fleet, "kill")
    assert report.cuts > 0
    assert (report.lost, report.different, report.errors) == (0, 0, [])


@pytest.mark.parametrize("how", ["drain", "kill"])
def test_with_a_store_a_session_goes_on_at_the_other_replica(
    made: Callable[..., Any], tmp_path: Path, how: str
):
    fleet = made("--drain-s", "0.5", "--session-store", str(tmp_path / "sessions"))
    report, _ = through(fleet, how)
    assert report.cuts > 0
    assert (report.resumed, report.begun_again) == (report.cuts, 0)
    assert (report.lost, report.different, report.errors) == (0, 0, [])


def test_without_a_replica_clients_are_told_to_come_back(made: Callable[..., Any], balancer: str):
    fleet = made()
    for one in fleet.replicas:
        one.kill()
    time.sleep(2.5)
    with pytest.raises(InvalidStatus) as refused, own(fleet):
        pass
    if balancer == "haproxy":
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["Retry-After"] == "5"
    else:
        assert refused.value.response.status_code == 502
