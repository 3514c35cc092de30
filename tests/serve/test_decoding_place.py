"""Words to expect that a client changes in mid-talk leave alone what it sent before, however much
of that is still to be heard."""

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.sync.client import connect

from tests.serve.clients import PATIENCE_S, samples_of
from tests.serve.conftest import EXAMPLES
from tests.serve.running import Running

MANY = 50
"""A stream takes 32 at a time."""

Samples = NDArray[np.float32]


def noisy() -> Samples:
    """[S] at 24 kHz: in such noise "go" is heard where it is expected. A second of silence brings
    the text of all words."""
    sound = samples_of(EXAMPLES / "digits.wav")
    noise = np.random.default_rng(1).standard_normal(len(sound)).astype(np.float32)
    copies = np.concatenate([(sound + 0.08 * noise).clip(-1, 1)] * 6)
    return np.concatenate([copies, np.zeros(24_000, np.float32)])


def pcm(samples: Samples) -> list[bytes]:
    data = (samples * 32_767).round().astype("<i2").tobytes()
    return [data[at : at + 48_000] for at in range(0, len(data), 48_000)]


def own(messages: Sequence[dict[str, Any]]) -> Sequence[str]:
    return [one["text"] for one in messages if one["type"] == "word"]


def nova(messages: Sequence[dict[str, Any]]) -> Sequence[str]:
    final = [one for one in messages if one["type"] == "Results" and one["is_final"]]
    return " ".join(one["channel"]["alternatives"][0]["transcript"] for one in final).split()


def flux(messages: Sequence[dict[str, Any]]) -> Sequence[str]:
    ends = [one for one in messages if one.get("event") == "EndOfTurn"]
    return " ".join(one["transcript"] for one in ends).split()


def talked(url: str, given: Sequence[str | bytes]) -> list[dict[str, Any]]:
    """What the service says until it hangs up."""
    with connect(url) as socket:
        for message in given:
            socket.send(message)
        return [json.loads(message) for message in socket]


@pytest.mark.parametrize(
    ("path", "change", "end", "words"),
    [
        ("api/stream?", {"type": "configure", "hotwords": ["go"]}, "close", own),
        ("v1/listen?model=nova-3&encoding=linear16&sample_rate=24000",
         {"type": "Configure", "keyterms": ["go"]}, "CloseStream", nova),
        ("v2/listen?model=flux-general-en&encoding=linear16&sample_rate=24000",
         {"type": "Configure", "keyterms": ["go"]}, "CloseStream", flux),
    ],
)  # fmt: skip
def test_what_was_sent_before_is_heard_as_before(
    service: Running,
    path: str,
    change: dict[str, Any],
    end: str,
    words: Callable[[Sequence[dict[str, Any]]], Sequence[str]],
) -> None:
    sound, url, close = pcm(noisy()), f"{service.ws}/{path}", json.dumps({"type": end})
    usual = words(talked(url, [*sound, close]))
    assert words(talked(url, [*sound, json.dumps(change), close])) == usual
    assert words(talked(url, [json.dumps(change), *sound, close])) != usual


def test_what_was_appended_before_an_update_is_heard_as_before(service: Running) -> None:
    def update(**given: Any) -> str:
        session = {"type": "transcription", "audio": {"input": given}}
        return json.dumps({"type": "session.update", "session": session})

    sound = [
        json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(part).decode()})
        for part in pcm(noisy())
    ]
    keywords = update(transcription={"model": "demo", "keywords": ["go"]})

    def said(*given: str) -> str:
        with connect(f"{service.ws}/v1/realtime?intent=transcription") as socket:
            for message in (update(turn_detection=None), *given):
                socket.send(message)
            socket.send('{"type": "input_audio_buffer.commit"}')
            while True:
                message = json.loads(socket.recv(PATIENCE_S))
                assert message["type"] != "error"
                if message["type"].endswith("transcription.completed"):
                    return message["transcript"]

    usual = said(*sound)
    assert said(*sound, keywords) == usual
    assert said(keywords, *sound) != usual


def test_more_changes_than_a_stream_takes_at_a_time_are_all_made(service: Running) -> None:
    sound = pcm(np.tile(samples_of(EXAMPLES / "digits.wav"), 15))
    changes = [
        json.dumps({"type": "configure", "temperature": (1 + i) / 10_000}) for i in range(MANY)
    ]
    messages = talked(f"{service.ws}/api/stream?", [*sound, *changes, '{"type": "close"}'])
    assert not [one for one in messages if one["type"] == "error"]
    assert messages[-1]["type"] == "end"
    assert own(messages)
