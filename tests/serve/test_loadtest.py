"""Clients who speak in real time report what the service did."""

import asyncio
import json

import numpy as np
import pytest

import kiku
from kiku.cli import main
from kiku.errors import ConfigError
from kiku.serve.loadtest import DIALECTS, Load
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


def test_what_cannot_be_is_told():
    with pytest.raises(ConfigError, match="kiku, kyutai, deepgram"):
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
