"""kiku's own protocol: strict about what it is told, and everything that a stream says comes."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosedOK, InvalidStatus
from websockets.sync.client import connect

import kiku
from kiku.audio import StreamWarning
from kiku.errors import AudioError, ConfigError, NoFreeSlot, StreamClosed
from kiku.serve.protocols.interface import (
    Actions,
    ClientRequest,
    Close,
    Decode,
    FinalizeStream,
    Hangup,
    ModelCard,
    Push,
    PushGap,
    Refusal,
    Send,
    ServerEnds,
)
from kiku.serve.protocols.own import PARAMETERS, OwnProtocol
from kiku.stream import End, Finalized, Pause, WordEnd, event_from_dict
from kiku.text import Partial, TurnEnd, TurnStart, Word
from tests.serve.clients import PATIENCE_S, samples_of
from tests.serve.conftest import EXAMPLES
from tests.serve.running import Running

CARD = ModelCard("demo", languages=("en",), version="1")
DIGITS = EXAMPLES / "digits.wav"


def protocol(**query: Any) -> OwnProtocol:
    pairs = [(name, one) for name, value in query.items()
             for one in (value if isinstance(value, list) else [value])]  # fmt: skip
    return OwnProtocol(ClientRequest("/api/stream", tuple(pairs)), CARD)


def told(actions: Actions) -> list[dict[str, Any]]:
    return [json.loads(one.data) for one in actions if isinstance(one, Send)]


def test_the_query_says_how_the_sound_is_and_what_is_told():
    first = protocol(
        encoding="mulaw", rate="8000", channels="2", channel="each", turns="high",
        partials="true", pauses="true", hotwords=["seven", "nine"], temperature="0.5",
    ).initial_open  # fmt: skip
    options = first.options
    assert (options.format.encoding, options.format.sample_rate) == ("mulaw", 8_000)
    assert (options.format.channels, options.channel) == (2, "each")
    assert options.turn_policy == kiku.TurnPolicy.of("high")
    assert options.partials
    assert options.pauses
    assert [one.text for one in options.decoding.phrases] == ["seven", "nine"]
    assert options.decoding.temperature == 0.5
    assert not first.container
    plain = protocol().initial_open.options
    assert (plain.format.encoding, plain.format.sample_rate) == ("s16le", None)
    assert plain.turn_policy is None
    assert protocol(container="true").initial_open.container
    assert protocol(channel="1", channels="2").initial_open.options.channel == 1


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"encoding": "mp3"}, "encoding"),
        ({"rate": "fast"}, "rate"),
        ({"rate": "0"}, "sample_rate"),
        ({"channels": "0"}, "channels"),
        ({"turns": "often"}, "turns"),
        ({"partials": "yes"}, "partials"),
        ({"temperature": "-1"}, "temperature"),
        ({"hotwords": " "}, "hotword"),
        ({"channel": "left"}, "channel"),
        ({"channel": "1" * 5_000}, "channel"),
        ({"channel": "1" * 5_000, "channels": "2"}, "channel"),
        ({"rate": "9" * 5_000}, "rate"),
        ({"channels": "9" * 5_000}, "channels"),
        ({"temperature": "9" * 5_000}, "temperature"),
        ({"colour": "red"}, "colour is not a known parameter"),
        ({"options": "recovery"}, "options must be a JSON object"),
        ({"options": "[" * 5_000}, "options must be a JSON object"),
        ({"options": '{"max_queue_s": 1e9}'}, "options cannot have 'max_queue_s'"),
        ({"options": '{"' + "x" * 5_000 + '": 1}'}, "options cannot have"),
        ({"options": '{"decoding": {"num_codebook": 4}}'}, "did you mean 'num_codebooks'"),
    ],
)
def test_a_query_that_cannot_be_is_refused_by_name(query: dict[str, str], said: str):
    with pytest.raises(Refusal) as refused:
        protocol(**query)
    assert refused.value.status == 400
    assert len(str(refused.value)) < 1_000
    assert said in json.dumps(refused.value.body)


def test_further_options_are_those_of_python_and_parameters_come_first() -> None:
    further = {
        "decoding": {"num_codebooks": 4, "top_k": 5, "temperature": 0.5, "hotwords": ["six"]},
        "turns": {"silence_s": 1.5}, "recovery": False,
    }  # fmt: skip
    options = protocol(options=json.dumps(further)).initial_open.options
    assert (
        options.to_dict()
        == kiku.StreamOptions.from_dict({**further, "format": options.format.to_dict()}).to_dict()
    )
    typed = protocol(
        options=json.dumps(further), turns="high", temperature="0", hotwords="one"
    ).initial_open.options
    assert typed.turn_policy == kiku.TurnPolicy.of("high")
    assert (typed.decoding.num_codebooks, typed.decoding.temperature) == (4, 0.0)
    assert [one.text for one in typed.decoding.phrases] == ["one"]
    assert typed.recovery is None


ELSEWHERE = {"after", "told", "generation", "auth_id"}
"""Read where a session is found again, and where keys are looked at."""


@pytest.mark.parametrize("name", [one.name for one in PARAMETERS if one.name not in ELSEWHERE])
def test_every_parameter_is_read(name: str):
    values = {"encoding": "f32le", "rate": "8000", "channels": "2", "channel": "each",
              "turns": "low", "temperature": "1", "hotwords": "a", "session": "s",
              "options": '{"recovery": false}'}  # fmt: skip
    asked, plain = protocol(**{name: values.get(name, "true")}), protocol()
    assert (asked.initial_open, asked.session) != (plain.initial_open, plain.session)


def test_commands():
    one = protocol(hotwords="seven")
    (push,) = one.received(b"\1\2")
    assert isinstance(push, Push)
    assert push.samples == b"\1\2"
    assert one.received('{"type":"finalize","tag":"x","cut":false}') == [FinalizeStream("x", False)]
    assert one.received('{"type":"finalize"}') == [FinalizeStream(None, True)]
    assert one.received('{"type":"close"}') == [Close()]
    assert one.received('{"type":"gap","seconds":2}') == [PushGap(2.0)]
    (decode,) = one.received('{"type":"configure","temperature":1}')
    assert isinstance(decode, Decode)
    assert decode.options.temperature == 1.0
    assert [word.text for word in decode.options.phrases] == ["seven"]
    assert one.decoded() == ()
    (decode,) = one.received('{"type":"configure","hotwords":[]}')
    assert isinstance(decode, Decode)
    assert decode.options.phrases == ()
    assert decode.options.temperature == 1.0  # what is not named stays
    (decode,) = one.received('{"type":"configure","decoding":{"num_codebooks":4,"top_k":5}}')
    assert isinstance(decode, Decode)
    assert (decode.options.num_codebooks, decode.options.top_k) == (4, 5)
    assert decode.options.temperature == 1.0
    (error,) = told(one.received('{"type":"configure","decoding":{"top":5}}'))
    assert "'top'" in error["message"]


def asked(one: OwnProtocol, **given: Any) -> tuple[list[str], float]:
    """The words to expect and the temperature that a `configure` asks for."""
    (decode,) = one.received(json.dumps({"type": "configure", **given}))
    assert isinstance(decode, Decode)
    return [word.text for word in decode.options.phrases], decode.options.temperature


def test_what_was_refused_is_not_asked_again():
    one = protocol(hotwords="seven")
    for refusal in (ConfigError("cannot be spelled"), StreamClosed("the end")):
        assert asked(one, hotwords=["聞く"]) == (["聞く"], 0.0)
        assert told(one.rejected(refusal))
        assert asked(one, temperature=0.0) == (["seven"], 0.0)
        assert one.decoded() == ()


def test_damaged_sound_refuses_no_options():
    one = protocol()
    assert asked(one, hotwords=["seven"]) == (["seven"], 0.0)
    assert told(one.rejected(AudioError("damaged")))  # a recording, which is read meanwhile
    assert one.decoded() == ()
    assert asked(one, temperature=1.0) == (["seven"], 1.0)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '{"type":"stop"}', '{"type":"finalize","tags":1}',
     '{"type":"gap"}', '{"type":"configure","temperature":-1}',
     '{"type":"configure","hotwords":""}',
     '{"type":"configure","hotwords":[""]}'],
)  # fmt: skip
def test_a_command_that_cannot_be_is_told_and_the_talk_goes_on(text: str):
    one = protocol()
    (error,) = told(one.received(text))
    assert error["type"] == "error"
    assert error["message"]
    assert one.received('{"type":"close"}') == [Close()]


@pytest.mark.parametrize(
    "command",
    [{"type": "finalize", "tag": "x" * 257}, {"type": "x" * 10**6},
     {"type": "close", "x" * 10**6: 1}, {"type": "configure", "hotwords": [" " * 10**6]}],
)  # fmt: skip
def test_nothing_long_that_a_client_writes_is_kept_or_told_again(command: dict[str, Any]):
    one = protocol()
    (error,) = told(one.received(json.dumps(command)))
    assert error["type"] == "error"
    assert len(error["message"]) < 1_000
    assert one.received(json.dumps({"type": "finalize", "tag": "x" * 256})) == [
        FinalizeStream("x" * 256)
    ]


def test_the_name_of_a_session_has_an_end():
    assert protocol(session="x" * 256).session == "x" * 256
    with pytest.raises(Refusal, match="256 characters, not 257"):
        protocol(session="x" * 257)


EVENTS = [
    Word("one", 0.1234567, 0.5, 0.9),
    WordEnd(0.5),
    Partial("tw", 1.0),
    Pause(1.04, (0.1, 0.2)),
    TurnStart(0.08),
    TurnEnd(2.0, 1.0),
    Finalized(2.0, Partial("th", 1.9), "x"),
    StreamWarning("silent", "nothing is heard", 3.0),
    End(4.0),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda one: type(one).__name__)
def test_every_event_comes_as_it_is(event: Any):
    actions = protocol().event(event, 0.5)
    (message,) = told(actions)
    read = event_from_dict(message)
    assert type(read) is type(event)
    if isinstance(event, Word):
        assert message["start"] == 0.123
    else:
        assert read == event
    assert [one for one in actions if isinstance(one, Hangup)] == (
        [Hangup(1000)] if isinstance(event, End) else []
    )


def test_the_lag_is_told_now_and_then():
    one = protocol()
    found = [told(one.progress(i * 0.08, 0.3)) for i in range(1, 26)]
    assert [len(messages) for messages in found].count(1) == 3
    assert next(m for m in found if m) == [{"type": "lag", "waiting_s": 0.3, "heard_s": 0.56}]


def test_greetings_and_lag_are_not_counted():
    one = protocol(session="s")
    (ready,) = one.resumed(1.5)
    assert isinstance(ready, Send)
    assert not ready.counted
    assert json.loads(ready.data)["taken_s"] == 1.5
    begun, one = told(one.begin())[0], protocol(session="s")
    assert (begun["resumed"], begun["count"], "generation" in begun) == (False, 0, False)
    one.found(3, 17)
    resumed = told(one.resumed(0.0))[0]
    assert (resumed["resumed"], resumed["count"], resumed["generation"]) == (True, 3, 17)
    (lag,) = one.progress(1.0, 0.0)
    assert isinstance(lag, Send)
    assert not lag.counted
    (word,) = one.event(EVENTS[0], 0.0)
    assert isinstance(word, Send)
    assert word.counted


@pytest.mark.parametrize(
    ("error", "code"),
    [(ServerEnds("ending"), 1012), (NoFreeSlot("full"), 1013), (RuntimeError("broken"), 1011)],
)
def test_a_talk_that_is_over_says_why(error: Exception, code: int):
    *_, hangup = actions = protocol().failed(error)
    assert told(actions) == [{"type": "error", "message": str(error)}]
    assert hangup == Hangup(code, str(error))


def test_a_mistake_does_not_end_the_talk():
    assert told(protocol().rejected(AudioError("no"))) == [{"type": "error", "message": "no"}]


@given(st.text() | st.binary())
def test_whatever_comes_is_answered(message: str | bytes):
    for action in protocol().received(message):
        assert isinstance(action, Push | Send | FinalizeStream | Close | PushGap | Decode)


def int16(path: Any) -> bytes:
    return (samples_of(path) * 32_767).astype("<i2").tobytes()


def messages_of(socket: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while not found or found[-1]["type"] != "end":
        found.append(json.loads(socket.recv(PATIENCE_S)))
    with pytest.raises(ConnectionClosedOK):
        socket.recv(PATIENCE_S)
    return found


def test_against_a_service(service: Running, demo: kiku.Recognizer):
    wanted = demo.transcribe(DIGITS)
    with connect(f"{service.ws}/api/stream?turns=medium&partials=true") as socket:
        data = int16(DIGITS)
        for first in range(0, len(data), 3_001):  # halves of samples, too
            socket.send(data[first : first + 3_001])
        socket.send('{"type":"nonsense"}')
        socket.send('{"type":"close"}')
        found = messages_of(socket)
    assert found[0]["type"] == "ready"
    words = [one for one in found if one["type"] == "word"]
    assert [one["text"] for one in words] == [word.text for word in wanted]
    assert [one["start"] for one in words] == [round(word.start, 3) for word in wanted]
    kinds = {one["type"] for one in found}
    assert {"partial", "turn_start", "lag", "error", "end"} <= kinds
    assert found[-1]["type"] == "end"


def test_a_recording_as_it_is(service: Running, demo: kiku.Recognizer):
    path = EXAMPLES / "directions.flac"
    with connect(f"{service.ws}/api/stream?container=true") as socket:
        data = path.read_bytes()
        for first in range(0, len(data), 4_000):
            socket.send(data[first : first + 4_000])
        socket.send('{"type":"close"}')
        found = messages_of(socket)
    words = [one["text"] for one in found if one["type"] == "word"]
    assert words == [word.text for word in demo.transcribe(path)]


def test_what_the_model_cannot_do_is_refused_before_the_upgrade(service: Running):
    for query in ("hotwords=%E8%81%9E", "channels=5&channel=each", "encoding=mp3"):
        with pytest.raises(InvalidStatus) as refused, connect(f"{service.ws}/api/stream?{query}"):
            pass
        assert refused.value.response.status_code == 400, query
        assert b"error" in (refused.value.response.body or b"")


def test_a_hotword_counts(service: Running):
    sound = (np.zeros(24_000) + 0).astype("<i2").tobytes()
    with connect(f"{service.ws}/api/stream?hotwords=seven") as socket:
        socket.send(sound)
        socket.send('{"type":"configure","hotwords":["nine"],"temperature":0}')
        socket.send('{"type":"gap","seconds":1}')
        socket.send('{"type":"close"}')
        found = messages_of(socket)
    assert found[-1] == {"type": "end", "duration": 2.0}
    assert not [one for one in found if one["type"] == "error"]


def test_a_client_that_was_cut_off_comes_back(service: Running, demo: kiku.Recognizer):
    wanted = demo.transcribe(DIGITS)
    data = int16(DIGITS)
    half = len(data) // 4 * 2 + 1  # in the middle of a sample
    words: list[dict[str, Any]] = []
    with connect(f"{service.ws}/api/stream?session=own&turns=high") as socket:
        assert json.loads(socket.recv(PATIENCE_S))["taken_s"] == 0
        socket.send(data[:half])
        num_events = 0
        while not words:
            message = json.loads(socket.recv(PATIENCE_S))
            num_events += message["type"] != "lag"
            words += [message] if message["type"] == "word" else []
        socket.socket.shutdown(2)
    with connect(f"{service.ws}/api/stream?session=own&after={num_events}&turns=high") as socket:
        ready = json.loads(socket.recv(PATIENCE_S))
        assert ready["taken_bytes"] == half
        assert ready["taken_s"] == pytest.approx(half / 48_000, abs=1e-3)
        socket.send(data[half:])
        socket.send('{"type":"close"}')
        words += [one for one in messages_of(socket) if one["type"] == "word"]
    assert [one["text"] for one in words] == [word.text for word in wanted]
    assert [one["start"] for one in words] == [round(word.start, 3) for word in wanted]
