"""What clients of a service that is killed count as lost, and as unlike."""

import asyncio
import importlib
import json
from typing import Any

import msgpack
import numpy as np
import pytest

from tests.conftest import ROOT

ALONE = [("one", 1.0), ("two", 4.0), ("three", 8.0), ("four", 12.0)]


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("serve_kill")


def test_words_around_what_was_lost_are_not_compared(kill: Any) -> None:
    assert kill.outside(ALONE, []) == "one two three four"
    assert kill.outside(ALONE, [(4.5, 7.5)]) == "one four"


def test_what_was_told_before_it_was_lost_is_not_lost(kill: Any) -> None:
    heard = [("one", 1.0), ("two", 4.1), ("four", 12.0)]
    assert kill.num_lost(ALONE, heard, [(3.0, 9.0)]) == 1
    assert kill.num_lost(ALONE, heard, [(3.0, 7.0)]) == 0


@pytest.mark.parametrize(("keeps", "taken_s"), [(True, 2.0), (False, 2.0), (False, 0.0)])
def test_a_client_goes_on_where_the_service_says(kill: Any, keeps: bool, taken_s: float) -> None:
    async def play() -> Any:
        seen, sound = kill.Seen(), np.zeros(10 * kill.RATE, np.float32)
        client = kill.Client("ws://nowhere", "kiku", sound, seen, keeps=keeps)
        client._greeted(0)
        client._began -= 5.0  # so long it has spoken
        client._sent = 3 * kill.RATE
        client._received(json.dumps({"type": "word", "text": "one", "start": 0.5, "end": 0.8}))
        client._greeted(round(taken_s * kill.RATE))
        return client, seen

    client, seen = asyncio.run(play())
    assert client._sent == taken_s * kill.RATE
    assert (seen.resumed, seen.begun_again) == ((1, 0) if taken_s else (0, 1))
    assert client._count == (1 if taken_s else 0)
    assert len(client.words) == 1
    assert seen.lost_s == ([] if keeps else [3.0 - taken_s])
    assert [hole[0] for hole in client.holes] == ([] if keeps else [taken_s])
    assert all(hole[1] >= 5.0 for hole in client.holes)


def test_a_word_of_kyutais_whose_end_was_not_told_comes_again(kill: Any) -> None:
    def told(**message: Any) -> bytes:
        return msgpack.packb(message)

    async def play() -> Any:
        client = kill.Client("ws://nowhere", "kyutai", np.zeros(10), kill.Seen(), keeps=True)
        client._greeted(0)
        for message in (
            told(type="Word", text="one", start_time=0.5), told(type="EndWord", stop_time=0.8),
            told(type="Step", step_idx=1, prs=[], buffered_pcm=0),
            told(type="Word", text="two", start_time=1.0),
        ):  # fmt: skip
            client._received(message)
        client._greeted(5)
        for message in (
            told(type="Word", text="too", start_time=1.0), told(type="EndWord", stop_time=1.3),
            told(type="Word", text="three", start_time=2.0),
        ):  # fmt: skip
            client._received(message)
        return client

    client = asyncio.run(play())
    assert [text for text, _ in client.words] == ["one", "too", "three"]
    assert client._count == 6


def test_who_keeps_his_sound_and_begins_anew_is_told_all_words_again(kill: Any) -> None:
    async def play() -> Any:
        client = kill.Client("ws://nowhere", "kiku", np.zeros(10), kill.Seen(), keeps=True)
        client._greeted(0)
        client._received(json.dumps({"type": "word", "text": "one", "start": 0.5, "end": 0.8}))
        client._greeted(0)
        return client

    client = asyncio.run(play())
    assert client.words == []
    assert client._count == 0
