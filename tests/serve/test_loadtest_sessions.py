"""Clients who come back after a cut count what they lost, and lose nothing themselves."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.server import serve

import kiku
from kiku.cli import main
from kiku.errors import ConfigError
from kiku.serve import loadtest_sessions
from kiku.serve.loadtest_sessions import SessionLoad, SessionReport
from tests.serve.clients import samples_of
from tests.serve.conftest import EXAMPLES
from tests.serve.running import Running, running
from tests.serve.test_loadtest import Enough, count_waits

DIGITS = EXAMPLES / "digits.wav"
SHORT = samples_of(DIGITS)[: 24_000 * 2]


@contextmanager
def cutter(port: int, cuts: int, after: int) -> Iterator[str]:
    """A proxy that cuts the first connections, but for one, when they have sent so many bytes."""
    door = socket.create_server(("127.0.0.1", 0))
    left = [None, *[after] * cuts]

    async def pump(reader: Any, writer: Any, most: int | None) -> None:
        count = 0
        while data := await reader.read(4096):
            count += len(data)
            if most is not None and count > most:
                writer.transport.abort()
                return
            writer.write(data)
        writer.close()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        most = left.pop(0) if left else None
        there, back = await asyncio.open_connection("127.0.0.1", port)
        up = asyncio.create_task(pump(reader, back, most))
        down = asyncio.create_task(pump(there, writer, None))
        await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
        for one in (back, writer):
            one.transport.abort()
        await asyncio.gather(up, down, return_exceptions=True)

    loop = asyncio.new_event_loop()

    async def serve() -> None:
        server = await asyncio.start_server(carry, sock=door)
        async with server:
            await ended.wait()

    ended = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(30)
        loop.close()


def test_without_a_cut_all_is_whole(service: Running, demo: kiku.Recognizer):
    load = SessionLoad(service.http, [SHORT])
    report = asyncio.run(load.run(2, 0.1))
    assert load.texts == {0: demo.transcribe(SHORT, rate=24_000).text}
    assert (report.sessions, report.whole, report.lost, report.different) == (2, 2, 0, 0)
    assert report.cuts == report.resumed == report.begun_again == 0
    assert report.words == 2 * len(load.texts[0].split())
    assert min(report.latency) > 0.2  # the model's own delay is 0.5 s


def test_a_session_that_the_service_knows_goes_on(service: Running):
    with cutter(service.port, cuts=1, after=40_000) as url:
        report = asyncio.run(SessionLoad(url, [SHORT]).run(1, 0.1))
    assert (report.cuts, report.resumed, report.begun_again) == (1, 1, 0)
    assert (report.lost, report.different) == (0, 0)
    assert len(report.back) == 1


def test_a_session_that_the_service_forgot_begins_again(
    demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch
):
    async def nobody(*_: Any) -> bool:
        return False

    # A service of its own: the session that was cut off holds its slot until its time is over.
    with running(demo) as service:
        monkeypatch.setattr(service.app.sockets, "_come_back", nobody)
        with cutter(service.port, cuts=1, after=90_000) as url:
            report = asyncio.run(SessionLoad(url, [SHORT]).run(1, 0.1))
    assert (report.cuts, report.resumed, report.begun_again) == (1, 0, 1)
    assert (report.lost, report.different) == (0, 0)


def test_texts_are_compared(service: Running):
    load = SessionLoad(service.http, [SHORT])
    load.texts = {0: "nobody said this"}
    report = asyncio.run(load.run(1, 0.1))
    assert (report.lost, report.different) == (0, 1)


def test_who_is_refused_tries_again(demo: kiku.Recognizer):
    with running(demo) as service:
        load = SessionLoad(service.http, [SHORT])
        asyncio.run(load.listen())
        held = [service.service.permit() for _ in range(4)]

        def release() -> None:
            for one in held:
                one.release()

        timer = threading.Timer(1.0, lambda: service.loop.call_soon_threadsafe(release))
        timer.start()
        report = asyncio.run(load.run(1, 0.1))
        timer.join()
    assert report.refused > 0
    assert (report.lost, report.different) == (0, 0)


def test_who_is_told_not_to_come_back_is_lost(demo: kiku.Recognizer):
    with running(demo, api_key=("sesame",)) as service:
        load = SessionLoad(service.http, [SHORT], "sesame")
        asyncio.run(load.listen())
        load.headers = {}
        report = asyncio.run(load.run(1, 0.1))
        with pytest.raises(ConfigError, match="401"):
            asyncio.run(SessionLoad(service.http, [SHORT]).listen())
    assert (report.sessions, report.lost) == (1, 1)
    assert report.to_dict()["first_errors"] == ["the service answered 401"]


def test_a_service_that_takes_connections_and_says_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(loadtest_sessions, "_GREET_S", 0.05)
    monkeypatch.setattr(loadtest_sessions, "_PATIENCE_S", 0.2)

    async def play() -> None:
        ends = asyncio.Event()

        async def silent(_: Any) -> None:
            await ends.wait()

        async with serve(silent, "127.0.0.1", 0) as server, asyncio.timeout(60):
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(ConfigError, match="could not reconnect"):
                await SessionLoad(f"ws://127.0.0.1:{port}", [SHORT]).run(1, 0.1)
            ends.set()

    asyncio.run(play())


def test_who_is_lost_begins_again_a_second_later(monkeypatch: pytest.MonkeyPatch):
    num_lost, waits = 0, count_waits(monkeypatch, loadtest_sessions)

    async def lost(self: loadtest_sessions._Client) -> None:
        nonlocal num_lost
        num_lost += 1
        assert num_lost == len(waits) + 1

    monkeypatch.setattr(loadtest_sessions._Client, "speak", lost)
    load = SessionLoad("ws://127.0.0.1:9", [SHORT])
    load.texts = {0: ""}
    with pytest.raises(Enough):
        asyncio.run(load.run(1, 600))


def test_what_cannot_be_is_told():
    with pytest.raises(ConfigError, match="no sound"):
        SessionLoad("ws://x", [])
    with pytest.raises(ConfigError, match="ws://HOST:PORT"):
        SessionLoad("127.0.0.1:9", [SHORT])
    assert SessionReport(1).to_dict()["latency"] is None


def test_the_command_prints_json(service: Running, capsys: pytest.CaptureFixture[str]):
    options = ["--audio", str(DIGITS), "--url", service.ws, "--seconds", "1", "--most-s", "1"]
    assert main(["loadtest", "--come-back", *options]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["sessions"], told["lost"], told["different"]) == (1, 0, 0)
    for wrong in (["--find"], ["--protocol", "kyutai"]):
        assert main(["loadtest", "--come-back", *wrong, *options]) == 1
        assert "--come-back" in capsys.readouterr().err


def test_sound_is_kept_as_it_is_sent():
    load = SessionLoad("http://x/", [np.zeros(10, np.float32)])
    assert load.url == "ws://x"
    assert load.sounds == [bytes(20)]
