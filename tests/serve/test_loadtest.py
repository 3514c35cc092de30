"""Clients who speak in real time report what the service did."""

import asyncio
import json
import socket
from typing import Any

import numpy as np
import pytest

import kiku
from kiku.cli import main
from kiku.errors import ConfigError
from kiku.serve import loadtest
from kiku.serve.loadtest import DIALECTS, Load, LoadReport
from tests.serve.clients import samples_of
from tests.serve.conftest import EXAMPLES
from tests.serve.running import Running, running

DIGITS = EXAMPLES / "digits.wav"
SHORT = samples_of(DIGITS)[: 24_000 * 2]


@pytest.mark.parametrize("protocol", ["kyutai", "kiku", "deepgram"])
def test_words_are_counted_and_timed(service: Running, demo: kiku.Recognizer, protocol: str):
    text = demo.transcribe(SHORT, rate=24_000).text
    load = Load(service.http, protocol, [SHORT])
    report = asyncio.run(load.run(2, 0.1))
    assert report.errors == []
    assert report.busy == 0
    assert [one for _, one in report.texts] == [text, text]
    assert report.words == 2 * len(text.split())
    assert len(report.latency) == report.words
    assert min(report.latency) > 0.2  # the model's own delay is 0.5 s
    figures = report.to_dict()
    assert figures["latency"]["p50"] <= figures["latency"]["p99"]


def test_the_surplus_is_counted_as_busy(demo: kiku.Recognizer):
    with running(demo) as service:
        held = [service.service.permit() for _ in range(3)]
        load = Load(service.ws, "kyutai", [samples_of(DIGITS)[:24_000]])
        report = asyncio.run(load.run(2, 0.1))
        for one in held:
            service.loop.call_soon_threadsafe(one.release)
    assert report.busy == 1
    assert report.errors == []
    assert len(report.texts) == 1


def test_who_is_refused_comes_again_a_second_later(demo: kiku.Recognizer):
    with running(demo) as service:
        held = [service.service.permit() for _ in range(4)]
        load = Load(service.ws, "kyutai", [samples_of(DIGITS)[:24_000]])
        report = asyncio.run(load.run(1, 1.5))
        for one in held:
            service.loop.call_soon_threadsafe(one.release)
    assert 1 <= report.busy <= 4  # at once, it would be hundreds
    assert report.errors == []


def test_a_service_that_is_not_there_is_an_error():
    load = Load("ws://127.0.0.1:9", "kyutai", [np.zeros(1_920, np.float32)])
    assert asyncio.run(load.run(1, 0.1)).errors


class Enough(Exception):
    """Raised by the third wait."""


def count_waits(monkeypatch: pytest.MonkeyPatch, where: Any) -> list[float]:
    """The waits before somebody comes again; the third ends the test."""
    again_s, sleep, waits = 0.0321, asyncio.sleep, list[float]()

    async def slept(seconds: float) -> None:
        if seconds == again_s:
            waits.append(seconds)
            if len(waits) == 3:
                raise Enough
        await sleep(seconds)

    assert where.AGAIN_S == 1.0
    monkeypatch.setattr(where, "AGAIN_S", again_s)
    monkeypatch.setattr(asyncio, "sleep", slept)
    return waits


def test_who_is_not_heard_comes_again_a_second_later(monkeypatch: pytest.MonkeyPatch):
    num_visits, waits = 0, count_waits(monkeypatch, loadtest)
    visit = Load._visit

    async def visited(self: Load, *given: Any) -> bool:
        nonlocal num_visits
        num_visits += 1
        assert num_visits == len(waits) + 1
        return await visit(self, *given)

    monkeypatch.setattr(Load, "_visit", visited)
    with pytest.raises(Enough):
        asyncio.run(Load("ws://127.0.0.1:9", "kyutai", [np.zeros(1_920, np.float32)]).run(1, 600))


@pytest.mark.parametrize(
    ("url", "said"),
    [("127.0.0.1:9", "ws://HOST:PORT"), ("ftp://x", "ws://HOST:PORT"), ("ws://", "ws://HOST:PORT"),
     ("ws://x:port", "ws://HOST:PORT"), ("", "ws://HOST:PORT")],
)  # fmt: skip
def test_an_address_that_cannot_be_is_told_at_once(url: str, said: str):
    with pytest.raises(ConfigError, match=said):
        Load(url, "kyutai", [SHORT])


def test_a_key_in_an_address_is_not_told_again():
    with pytest.raises(ConfigError, match="ws://x'") as told:
        Load("ws://x?auth_id=sesame", "kyutai", [SHORT])
    assert "sesame" not in str(told.value)


def test_what_will_not_change_is_told_at_once(
    demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch
):
    with running(demo, api_key=("sesame",)) as service:
        with pytest.raises(ConfigError, match="answered 401: the service does not know"):
            asyncio.run(Load(service.ws, "kyutai", [SHORT], "wrong").run(2, 600))
        with pytest.raises(ConfigError, match="answered 404"):
            asyncio.run(Load(f"{service.ws}/nowhere", "kyutai", [SHORT], "sesame").run(1, 600))

    def connect(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(loadtest, "connect", connect)
    with pytest.raises(ConfigError, match="cannot be found"):
        asyncio.run(Load("ws://x", "kyutai", [SHORT]).run(1, 600))


@pytest.mark.parametrize(
    ("seen", "said"),
    [(LoadReport(1, errors=["ConnectionRefusedError"]), "ConnectionRefusedError"),
     (LoadReport(1, words=3, busy=1), "slot"), (LoadReport(1), "no word")],
)  # fmt: skip
def test_nothing_is_found_where_nobody_is_heard(
    monkeypatch: pytest.MonkeyPatch, seen: LoadReport, said: str
):
    async def run(self: Load, streams: int, seconds: float) -> LoadReport:
        return seen

    monkeypatch.setattr(Load, "run", run)
    with pytest.raises(ConfigError, match=f"single client: .*{said}"):
        asyncio.run(Load("ws://x", "kyutai", [SHORT]).find(1.0, 4))


def test_the_most_in_real_time_are_found(monkeypatch: pytest.MonkeyPatch):
    async def run(self: Load, streams: int, seconds: float) -> LoadReport:
        return LoadReport(streams, words=1, latency=[0.5 if streams <= 5 else 2.0])

    monkeypatch.setattr(Load, "run", run)
    good, reports = asyncio.run(Load("ws://x", "kyutai", [SHORT]).find(1.0, 32))
    assert good == 5
    assert reports[0].streams == 1


def test_what_cannot_be_is_told():
    with pytest.raises(
        ConfigError, match=r"^'smtp' is not .* choose one of kiku, kyutai, deepgram$"
    ):
        Load("ws://x", "smtp", [np.zeros(1, np.float32)])
    with pytest.raises(ConfigError, match="no sound"):
        Load("ws://x", "kyutai", [])
    assert set(DIALECTS) == {"kiku", "kyutai", "deepgram"}


def test_the_command_prints_json(service: Running, capsys: pytest.CaptureFixture[str]):
    code = main(
        ["loadtest", "--audio", str(DIGITS), "--url", service.ws, "--protocol", "kyutai",
         "--seconds", "1", "--most-s", "2"]
    )  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert code == 0
    assert told["streams"] == 1
    assert told["words"] > 0
    assert main(["loadtest", "--url", service.ws]) == 1
    assert "--audio" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "seconds"),
    [("--most-s", "0"), ("--most-s", "-5"), ("--most-s", "nan"), ("--most-s", "inf"),
     ("--seconds", "inf")],
)  # fmt: skip
def test_a_time_that_cannot_be_is_told(
    capsys: pytest.CaptureFixture[str], option: str, seconds: str
):
    assert main(["loadtest", "--audio", str(DIGITS), "--url", "ws://127.0.0.1:9", option, seconds])
    told = capsys.readouterr().err
    assert f"{option} must be a number of seconds above 0, not {seconds}" in told


@pytest.mark.parametrize(
    ("environment", "given", "wanted"),
    [("one,two", [], "one"), (" ,two", [], "two"), (",", [], None),
     ("one,two", ["--key", "a,b"], "a,b")],
)  # fmt: skip
def test_of_the_services_keys_the_first_is_taken(
    monkeypatch: pytest.MonkeyPatch, environment: str, given: list[str], wanted: str | None
):
    async def run(self: Load, streams: int, seconds: float) -> LoadReport:
        header = self._headers.get("Authorization")
        assert header == (None if wanted is None else f"Bearer {wanted}")
        return LoadReport(1, words=1)

    monkeypatch.setattr(Load, "run", run)
    monkeypatch.setenv("KIKU_API_KEY", environment)
    assert main(["loadtest", "--audio", str(DIGITS), *given]) == 0
