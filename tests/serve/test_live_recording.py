"""Recordings that come on a socket: what is wrong with them is told as of any other sound."""

import json
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from websockets.sync.client import connect

from tests.serve.clients import PATIENCE_S
from tests.serve.conftest import EXAMPLES
from tests.serve.recordings import OPUS_RATE, opus, silence
from tests.serve.running import Running

MONO, STEREO, THREE = (opus(silence(1.0, count)) for count in (1, 2, 3))


def told(service: Running, data: bytes, gap_s: float = 0.0, **query: Any) -> list[dict[str, Any]]:
    """What the service says of a recording, behind a gap, but for how far it is."""
    found: list[dict[str, Any]] = []
    query = {"container": "true", **query}
    with connect(f"{service.ws}/api/stream?{urlencode(query)}", max_queue=None) as socket:
        if gap_s:
            socket.send(json.dumps({"type": "gap", "seconds": gap_s}))
        for first in range(0, len(data), 2_000):
            socket.send(data[first : first + 2_000])
        socket.send('{"type":"close"}')
        while not found or found[-1]["type"] not in ("end", "error"):
            message = json.loads(socket.recv(PATIENCE_S))
            if message["type"] not in ("lag", "ready"):
                found.append(message)
    return found


def damaged(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in messages if one["type"] == "warning" and one["kind"] == "damaged"]


@pytest.mark.parametrize(
    ("query", "data", "says", "time"),
    [
        ({"channel": "each", "channels": 3}, (THREE + STEREO) * 2,
         "had 3 channels at first and has 2 channels from", 1.0),
        ({"channel": "each", "channels": 2}, MONO, "was declared to have 2 channels and has 1 "
                                                   "channel", 0.0),
        ({"channel": "each"}, STEREO, "those from 1 on are not transcribed", 0.0),
        ({"channel": 2}, THREE + STEREO, "those from 2 on are silent", 1.0),
        ({"channel": 1}, THREE + STEREO, None, 0.0),
        ({"channel": "each", "channels": 2}, STEREO + STEREO, None, 0.0),
        ({}, THREE + STEREO, None, 0.0),
    ],
)  # fmt: skip
def test_channels_that_come_go_or_are_missing_are_told_once(
    service: Running, query: dict[str, Any], data: bytes, says: str | None, time: float
):
    messages = told(service, data, **query)
    assert messages[-1]["type"] == "end", messages
    seconds = 1.0 * (data.count(b"OpusHead"))
    assert messages[-1]["duration"] == pytest.approx(seconds, abs=0.05)
    warnings = damaged(messages)
    assert len(warnings) == (says is not None)
    for one in warnings:
        assert says is not None
        assert says in one["message"]
        assert one["time"] == pytest.approx(time, abs=0.05)


def test_a_channel_that_was_never_there_is_an_error(service: Running):
    messages = told(service, MONO, channel=1)
    assert messages[-1]["type"] == "error"
    assert "channel 1 was asked for, but there is 1 channel:" in messages[-1]["message"]


def test_channels_that_cancel_each_other_are_told_and_heard(service: Running):
    tone = 0.2 * np.sin(np.arange(2 * OPUS_RATE) * (2 * np.pi * 300 / OPUS_RATE))
    messages = told(service, opus(np.stack([tone, -tone], axis=1)))
    kinds = [one["kind"] for one in messages if one["type"] == "warning"]
    assert "inverted" in kinds
    assert "silent" not in kinds


def test_what_the_decoder_finds_is_told_in_the_streams_time(service: Running):
    flac = (EXAMPLES / "directions.flac").read_bytes()
    middle = len(flac) // 2
    broken = flac[:middle] + bytes(4_000) + flac[middle + 4_000 :]
    warnings = service.service.metrics.warnings.labels("kiku", "damaged")
    before = warnings._value.get()
    plain, later = damaged(told(service, broken)), damaged(told(service, broken, gap_s=2.0))
    assert plain
    assert "damaged" in plain[0]["message"]
    assert [one["time"] for one in later] == pytest.approx([one["time"] + 2.0 for one in plain])
    assert warnings._value.get() == before + 2 * len(plain)


def test_flux_tells_what_the_decoder_finds(service: Running):
    flac = (EXAMPLES / "directions.flac").read_bytes()
    middle = len(flac) // 2
    found: list[dict[str, Any]] = []
    with connect(f"{service.ws}/v2/listen?model=flux-general-en", max_queue=None) as socket:
        socket.send(flac[:middle] + bytes(4_000) + flac[middle + 4_000 :])
        socket.send('{"type":"CloseStream"}')
        for message in socket:
            found.append(json.loads(message))
    assert "AUDIO_DAMAGED" in [one.get("code") for one in found if one["type"] == "Warning"]


def test_what_is_no_recording_is_an_error(service: Running):
    messages = told(service, b"this is no recording " * 1_000)
    assert messages[-1]["type"] == "error"
    assert "the recording" in messages[-1]["message"]
