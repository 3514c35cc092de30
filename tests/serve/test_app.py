"""The application by itself, as any ASGI server runs it."""

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

import kiku
from kiku.audio import read_chunks
from kiku.calibration import Calibration
from kiku.errors import CheckpointError, ConfigError, StreamError
from kiku.scheduler import Scheduler
from kiku.serve import decoder as decoder_module
from kiku.serve import server as server_module
from kiku.serve.app import App
from kiku.serve.app import app as from_environment
from kiku.serve.protocols.interface import ClientRequest
from kiku.serve.protocols.kyutai import KyutaiProtocol
from kiku.serve.server import listening_socket, make_server
from kiku.serve.service import Service
from kiku.serve.settings import Settings
from kiku.serve.talk import Talk
from kiku.serve.wire import IS_LATE
from tests.serve.clients import kyutai, samples_of
from tests.serve.conftest import EXAMPLES
from tests.serve.running import running
from tests.serve.talks import wait_for

HOST = [(b"host", b"127.0.0.1:8080")]


async def get(
    app: App, path: str, *headers: tuple[bytes, bytes]
) -> tuple[int, dict[str, str], Any]:
    """One request, without a server: status, headers and body."""
    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "path": path, "raw_path": b"",
        "query_string": b"", "headers": [*HOST, *headers], "client": ("1.2.3.4", 5),
        "server": ("127.0.0.1", 8080), "scheme": "http", "root_path": "",
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    body = b"".join(one.get("body", b"") for one in sent[1:])
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    is_json = found["content-type"].startswith("application/json")
    return sent[0]["status"], found, json.loads(body) if is_json else body.decode()


async def knock(app: App, path: str) -> list[Any]:
    """A request for a socket, without a server: what is sent back."""
    scope = {
        "type": "websocket", "path": path, "query_string": b"", "headers": HOST,
        "subprotocols": [], "client": None,
    }  # fmt: skip
    sent: list[Any] = []
    given = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1005}])

    async def receive() -> Any:
        return next(given)

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def test_before_the_model_is_there_clients_are_told_to_wait():
    async def play() -> None:
        app = App(Service(Settings()))
        assert (await get(app, "/health"))[0] == 200
        status, _, body = await get(app, "/ready")
        assert (status, body["reason"]) == (503, "loading")
        refused, _ = await knock(app, "/api/asr-streaming")
        assert refused["status"] == 503
        assert dict(refused["headers"])[b"retry-after"]
        assert app.service.metrics.text()

    asyncio.run(play())


def test_the_lifespan_loads_the_model_and_ends_what_is_open(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KIKU_SLOTS", "2")
    monkeypatch.setenv("KIKU_DRAIN_S", "0")

    async def play() -> None:
        app = from_environment()
        messages: asyncio.Queue[Any] = asyncio.Queue()
        told: asyncio.Queue[Any] = asyncio.Queue()
        living = asyncio.create_task(app({"type": "lifespan"}, messages.get, told.put))
        await messages.put({"type": "lifespan.startup"})
        assert await told.get() == {"type": "lifespan.startup.complete"}
        await app.loaded()
        assert app.service.admission.num_slots == 2
        assert (await get(app, "/ready"))[0] == 200
        accepted, ready, *_ = await knock(app, "/api/asr-streaming")
        assert accepted["type"] == "websocket.accept"
        assert b"Ready" in ready["bytes"]
        await messages.put({"type": "lifespan.shutdown"})
        assert await told.get() == {"type": "lifespan.shutdown.complete"}
        await living
        assert (await get(app, "/ready"))[2]["reason"] == "draining"

    asyncio.run(play())


def test_another_runner_is_told_what_is_named_as_a_setting_and_is_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("KIKU_SLOT", "2")
    from_environment()
    assert "KIKU_SLOT is set, but is not a setting of kiku serve; did you mean" in caplog.text


def test_a_model_that_cannot_be_loaded_is_told(caplog: pytest.LogCaptureFixture):
    async def play() -> None:
        app = App(Service(Settings(model="/no/such/model")))
        with pytest.raises(CheckpointError):
            await app.loaded()
        await app.service.decoders.close()

    asyncio.run(play())
    assert not caplog.text  # who waits says it


def test_a_runner_of_the_application_is_told_that_there_is_no_model(
    caplog: pytest.LogCaptureFixture,
):
    async def play() -> None:
        app = App(Service(Settings(model="/no/such/model")))
        messages: asyncio.Queue[Any] = asyncio.Queue()
        told: asyncio.Queue[Any] = asyncio.Queue()
        living = asyncio.create_task(app({"type": "lifespan"}, messages.get, told.put))
        await messages.put({"type": "lifespan.startup"})
        await told.get()
        assert app._loading is not None
        await asyncio.wait([app._loading])
        status, _, body = await get(app, "/ready")
        assert (status, body["reason"][:26]) == (503, "the model cannot be loaded")
        assert (await get(app, "/health"))[0] == 503
        refused, answer = await knock(app, "/api/asr-streaming")
        assert refused["status"] == 503
        assert b"cannot be loaded" in answer["body"]
        await messages.put({"type": "lifespan.shutdown"})
        await living

    asyncio.run(play())
    (line,) = [one for one in caplog.records if one.levelname == "ERROR"]
    assert line.getMessage().startswith("the model cannot be loaded: ")
    assert "/no/such/model" in line.getMessage()
    assert line.exc_info is None


def test_a_model_that_does_not_come_forward_is_not_ready(
    demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch
):
    async def play() -> None:
        app = App(Service(Settings(), demo))

        def since(seconds: float) -> None:
            began = time.perf_counter() - seconds
            monkeypatch.setattr(Scheduler, "round_began", began)

        since(5)
        assert (await get(app, "/ready"))[0] == 200
        since(11)
        status, _, body = await get(app, "/ready")
        assert status == 503
        assert (await get(app, "/health"))[0] == 200
        since(61)
        assert (await get(app, "/health"))[0] == 503
        assert "no step" in body["reason"]

    asyncio.run(play())


def test_a_model_of_which_every_step_fails_is_not_ready(
    demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch
):
    """As of a GPU after an error of its own."""
    engine = demo.scheduler.engine

    def broken(*_: object) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    def fail() -> None:
        with pytest.raises(RuntimeError, match="illegal"):
            demo.transcribe(np.zeros(24_000, np.float32), rate=24_000)

    async def status(app: App, path: str) -> int:
        return (await get(app, path))[0]

    async def play() -> None:
        app = App(Service(Settings(), demo))
        monkeypatch.setattr(engine, "step", broken)
        for _ in range(2):
            fail()
            assert await status(app, "/ready") == 200, "it may have been the stream's own fault"
        fail()
        assert [await status(app, path) for path in ("/ready", "/health")] == [503, 503]
        monkeypatch.undo()
        demo.transcribe(np.zeros(24_000, np.float32), rate=24_000)
        assert [await status(app, path) for path in ("/ready", "/health")] == [200, 200]

    asyncio.run(play())


@pytest.mark.parametrize("is_dead", [True, False])
def test_a_process_whose_model_is_dead_ends(
    demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch, is_dead: bool
):
    monkeypatch.setattr(server_module, "_LOOK_S", 0.01)
    app = App(Service(Settings(port=0), demo))
    server = make_server(app)
    sock = listening_socket("127.0.0.1", 0)

    async def play() -> None:
        serving = asyncio.create_task(server_module._serve(app, server, sock, None, None))
        while not server.started:
            await asyncio.sleep(0.01)
        if is_dead:
            monkeypatch.setattr(demo.scheduler.steps, "num_failed", 3)
        else:
            server.begin_end()
        await serving

    with sock:
        if not is_dead:
            asyncio.run(play())
            return
        with pytest.raises(StreamError, match="the last 3 steps of the model failed"):
            asyncio.run(play())


@pytest.mark.parametrize("way", ["asked before", "signal at the start", "second signal"])
def test_a_signal_before_it_serves_ends_it_in_order(
    demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch, way: str
):
    """A second one does not wait for clients; the decoder that was started ahead ends all the
    same."""
    app = App(Service(Settings(port=0), demo))
    server, started, start = make_server(app), list[Any](), decoder_module._start

    async def noted() -> Any:
        started.append(await start())
        return started[-1]

    monkeypatch.setattr(decoder_module, "_start", noted)
    asked: list[str] = []
    server.asked_to_end = lambda: not asked.append(way) and way == "asked before"
    if way != "asked before":
        server.handle_exit(signal.SIGTERM, None)
    if way == "second signal":
        app.service.count_open()  # the end waits for this one

    async def play() -> None:
        serving = asyncio.create_task(server_module._serve(app, server, sock, None, None))
        if way == "second signal":
            while not started:
                await asyncio.sleep(0.01)
            assert not server.force_exit
            server.handle_exit(signal.SIGTERM, None)
        await serving

    with listening_socket("127.0.0.1", 0) as sock:
        asyncio.run(play())
    assert app.service.is_draining
    assert server.force_exit == (way == "second signal")
    assert asked == [way]  # from then on, signals are handled here
    assert all(one.returncode is not None for one in started)


def test_metrics_count_steps_and_slots(demo: kiku.Recognizer):
    async def play() -> None:
        service = Service(Settings(), demo)
        app = App(service)
        with service.permit():
            await asyncio.to_thread(demo.transcribe, "examples/digits.wav")
            _, headers, text = await get(app, "/metrics")
        assert headers["content-type"].startswith("text/plain")
        figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
        assert float(figures["kiku_slots"]) == 4
        assert float(figures["kiku_slots_used"]) == 1
        assert float(figures["kiku_frames_total"]) > 40
        assert float(figures["kiku_step_seconds_count"]) > 0
        assert float(figures["kiku_real_time_factor"]) > 0
        with service.permit(4):
            waiting = asyncio.create_task(service.admission.wait(1, 60.0))
            await asyncio.sleep(0)
            _, _, text = await get(app, "/metrics")
            assert "kiku_queue 1.0" in text.splitlines()
        (await waiting).release()

    asyncio.run(play())


def test_metrics_of_a_stream(demo: kiku.Recognizer):
    with running(demo) as service:
        with kyutai(service.ws) as client:
            client.speak(samples_of(EXAMPLES / "digits.wav"))
            assert client.finish()
        wait_for(lambda: not service.service.num_open)
        lines = service.service.metrics.text().decode().splitlines()
    figures = {key: float(value) for key, value in (
        line.replace('{protocol="kyutai"}', "").rsplit(" ", 1) for line in lines if line[0] != "#"
    )}  # fmt: skip
    assert figures["kiku_connections_total"] == 1
    assert figures["kiku_open_connections"] == 0
    assert figures["kiku_first_word_seconds_count"] == 1
    assert figures["kiku_first_word_seconds_sum"] > 0
    assert figures["kiku_final_word_seconds_count"] == 1
    assert figures["kiku_final_word_seconds_sum"] > 0
    assert figures["kiku_received_bytes_total"] > 100_000
    assert figures["kiku_sent_bytes_total"] > 100
    assert figures["kiku_slots_used"] == figures["kiku_queue"] == 0


@pytest.mark.parametrize("is_stuck", [True, False])
def test_sound_that_waits_is_seen_without_words(demo: kiku.Recognizer, is_stuck: bool):
    service = Service(Settings(), demo)
    talk = Talk(service, KyutaiProtocol(ClientRequest("/"), service.card), "a", "id")
    talk._stream = MagicMock(waiting_s=7.0 if is_stuck else 0.0)

    def figure(name: str) -> float:
        lines = service.metrics.text().decode().splitlines()
        start = f'kiku_lag_seconds_{name}{{protocol="kyutai"}} '
        return sum(float(one.removeprefix(start)) for one in lines if one.startswith(start))

    for num_received in (0, 10, 10):
        talk.counters.num_received = num_received
        talk.check_client(1.0)
        talk.counters.flush()
    assert (figure("count"), figure("sum")) == ((3, 21.0) if is_stuck else (1, 0.0))


def test_a_calibration_corrects_what_all_clients_get(
    demo: kiku.Recognizer, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    halves = Calibration(kind="temperature", temperature=1000.0, model="other")
    halves.save(tmp_path / "c.json")
    sound = next(iter(read_chunks(Path("examples/digits.wav"), 24000)))

    async def play() -> list[float]:
        service = Service(Settings(calibration=tmp_path / "c.json"), demo)
        with service.permit():
            stream = await service.open(kiku.StreamOptions())
            await stream.push(sound)
            await stream.close()
            words = [one async for one in stream.events() if isinstance(one, kiku.Word)]
        await service.decoders.close()
        return [word.probability for word in words]

    assert asyncio.run(play()) == pytest.approx([0.5], abs=0.01)
    assert "measured with the model other, and says nothing about demo" in caplog.text
    with pytest.raises(ConfigError, match=r"none\.json cannot be read"):  # before a model is loaded
        Service(Settings(calibration=tmp_path / "none.json"))


def test_a_body_that_does_not_come_is_a_client_that_left(demo: kiku.Recognizer):
    async def play() -> None:
        app = App(Service(Settings(body_s=0.05), demo))

        async def never() -> Any:
            await asyncio.sleep(3_600)

        assert await app._patient({}, never)() == {"type": "http.disconnect", IS_LATE: True}

        pieces = iter([{"type": "http.request", "more_body": True}, {"type": "http.request"}])

        async def some() -> Any:
            return next(pieces)

        take = app._patient({}, some)
        assert (await take())["more_body"]
        assert await take() == {"type": "http.request"}
        # It is over: whoever asks again waits for the client to leave, for as long as it stays.
        app = App(Service(Settings(body_s=0.01), demo))
        wholes = iter([{"type": "http.request"}])

        async def whole() -> Any:
            for one in wholes:
                return one
            await asyncio.sleep(0.1)
            return {"type": "http.disconnect", "late": True}

        take = app._patient({}, whole)
        await take()
        assert await take() == {"type": "http.disconnect", "late": True}

    asyncio.run(play())
