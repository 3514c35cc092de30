"""OpenAI's Realtime transcription without a socket: a stream that says what its sound spells."""

import base64
import json
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.beta.realtime import transcription_session_update_param as beta_param
from openai.types.realtime.realtime_transcription_session_create_request_param import (
    RealtimeTranscriptionSessionCreateRequestParam,
)
from typing_extensions import get_type_hints, is_typeddict

import kiku
from kiku.audio import read_chunks
from kiku.errors import ConfigError, NoFreeSlot, StreamError
from kiku.options import TurnPolicy
from kiku.serve.protocols import openai_realtime_pending
from kiku.serve.protocols.interface import (
    Action,
    Actions,
    ClientRequest,
    Decode,
    FinalizeStream,
    Hangup,
    ModelCard,
    Open,
    Push,
    Refusal,
    Send,
    ServerEnds,
)
from kiku.serve.protocols.openai_realtime import IDLE_S, PARAMETERS, RealtimeProtocol
from kiku.serve.protocols.openai_realtime_messages import LOGPROBS, MAX_APPEND
from kiku.serve.protocols.openai_realtime_pending import MAX_HELD
from kiku.stream import Finalized
from kiku.text import TurnEnd, TurnStart, Word
from tests.serve.conftest import EXAMPLES
from tests.serve.realtime_clients import Told

CARD = ModelCard("demo", ("whisper-1", "gpt-4o-*transcribe*"), ("en",))
BETA = {"openai-beta": "realtime=v1"}
LAG = 2
"""Words by which the stream's text is behind its sound."""


class Stream:
    """Four bytes of its sound spell a word, by its number; 999 ends a turn."""

    def __init__(self, options: Any) -> None:
        self.options = options
        self.bytes_per_s = 8_000 if options.format.encoding in ("mulaw", "alaw") else 48_000
        self.sound = b""
        self.num_told = 0
        self.in_turn = False
        self.events: deque[Any] = deque()

    def push(self, data: bytes) -> None:
        self.sound += data
        self._tell(len(self.sound) // 4 - LAG)

    def finalize(self, tag: str | None) -> None:
        self._tell(len(self.sound) // 4)
        self.events.append(Finalized(len(self.sound) / self.bytes_per_s, None, tag))

    def _tell(self, count: int) -> None:
        while self.num_told < count:
            at, end = self.num_told * 4, self.num_told * 4 + 4
            self.num_told += 1
            number = int.from_bytes(self.sound[at:end], "big")
            start, stop = at / self.bytes_per_s, end / self.bytes_per_s
            turns = self.options.turns is not None
            if number == 999:
                if turns and self.in_turn:
                    self.events.append(TurnEnd(stop, 1.0))
                self.in_turn = False
                continue
            if turns and not self.in_turn and number % 2:  # a turn may begin behind its word
                self.events.append(TurnStart(start))
            self.events.append(Word(str(number), start, stop, 0.5))
            if turns and not self.in_turn and not number % 2:
                self.events.append(TurnStart(start))
            self.in_turn = True


class Client:
    """A client, and the one who does what the protocol wants, both step by step."""

    def __init__(self, protocol: RealtimeProtocol | None = None, *, beta: bool = False) -> None:
        self.protocol = protocol or realtime(headers=BETA if beta else {})
        self.told = Told(beta=beta)
        self.code: int | None = None
        self.decoded: list[Any] = []
        self.opened: list[Any] = []
        self.asks: deque[Action] = deque()
        assert self.protocol.initial_open is not None
        self.stream: Stream | None = Stream(self.protocol.initial_open.options)
        self._next = 0
        self._do(self.protocol.begin())

    def _do(self, actions: Actions) -> None:
        for action in actions:
            if isinstance(action, Send):
                assert self.code is None
                assert isinstance(action.data, str)
                self.told.take(action.data)
            elif isinstance(action, Hangup):
                self.code = action.code
            else:
                self.asks.append(action)

    def work(self) -> None:
        """Do the next thing that was asked of the stream."""
        if not self.asks:
            return
        match self.asks.popleft():
            case Open(options):
                self.stream = Stream(options)
                self.opened.append(options)
                self._do(self.protocol.opened())
            case Push(samples) if self.stream is not None:
                self.stream.push(bytes(samples))  # pyright: ignore[reportArgumentType]
            case FinalizeStream(tag, cut) if self.stream is not None:
                assert cut
                self.stream.finalize(tag)
            case Decode(options):
                if not all(one.text.isascii() for one in options.phrases):
                    return self.reject(ConfigError("it cannot be spelled"))
                self.decoded.append(options)
                self._do(self.protocol.decoded())
            case _:
                pass

    def listen(self) -> None:
        """Hear the next event of the stream."""
        if self.stream is not None and self.stream.events:
            self._do(self.protocol.event(self.stream.events.popleft(), 0.0))

    def settle(self) -> None:
        """Do and hear everything."""
        while self.code is None and (self.asks or (self.stream and self.stream.events)):
            self.work()
            self.listen()

    def fail(self, error: Exception) -> None:
        self.stream = None
        self._do(self.protocol.failed(error))

    def reject(self, error: Exception) -> None:
        self._do(self.protocol.rejected(error))

    def raw(self, message: str | bytes) -> None:
        self._do(self.protocol.received(message))

    def send(self, type: str, **fields: Any) -> str:
        """Send a message; its id."""
        self._next += 1
        id = f"c{self._next}"
        self.raw(json.dumps({"type": type, "event_id": id, **fields}))
        return id

    def say(self, *numbers: int) -> None:
        self.append(spelled(*numbers))

    def append(self, data: bytes) -> None:
        self.send("input_audio_buffer.append", audio=base64.b64encode(data).decode())

    def commit(self) -> str:
        return self.send("input_audio_buffer.commit")

    def clear(self) -> str:
        return self.send("input_audio_buffer.clear")

    def update(self, **input: Any) -> str:
        return self.send(
            "session.update", session={"type": "transcription", "audio": {"input": input}}
        )

    @property
    def session(self) -> dict[str, Any]:
        """As it was told last."""
        return next(one["session"] for one in reversed(self.told.messages) if "session" in one)

    @property
    def transcripts(self) -> list[str]:
        return list(self.told.transcripts.values())


def spelled(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "big") for number in numbers)


def silence(seconds: float) -> bytes:
    return spelled(999) * int(12_000 * seconds)


def realtime(
    query: Sequence[tuple[str, str]] = (("intent", "transcription"),),
    headers: Mapping[str, str] | None = None,
    subprotocols: tuple[str, ...] = (),
    card: ModelCard = CARD,
) -> RealtimeProtocol:
    return RealtimeProtocol(
        ClientRequest("/v1/realtime", tuple(query), headers or {}, subprotocols, "5f0a-11"), card
    )


# The handshake.


def test_an_alias_is_let_in_and_another_model_is_not_found() -> None:
    assert realtime([("intent", "transcription"), ("model", "gpt-4o-mini-transcribe")])
    assert realtime([("model", "demo")])
    with pytest.raises(Refusal) as refused:
        realtime([("model", "gpt-realtime")])
    assert refused.value.status == 404
    error: Any = refused.value.body["error"]  # pyright: ignore[reportArgumentType]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "gpt-realtime" in error["message"]


def test_another_intent_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        realtime([("intent", "conversation")])
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("headers", "subprotocols"),
    [(BETA, ()), ({}, ("realtime", "openai-insecure-api-key.K", "openai-beta.realtime-v1"))],
)
def test_the_beta_is_asked_for_in_two_ways(
    headers: dict[str, str], subprotocols: tuple[str, ...]
) -> None:
    sent = realtime(headers=headers, subprotocols=subprotocols).begin()[0]
    assert isinstance(sent, Send)
    assert json.loads(sent.data)["type"] == "transcription_session.created"


# The session.


def test_a_session_is_told_whole_and_again_after_each_update() -> None:
    client = Client()
    created = client.session
    assert created["type"] == "transcription"
    assert created["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24_000}
    assert created["audio"]["input"]["transcription"] == {"model": "demo"}
    assert created["audio"]["input"]["turn_detection"] == {
        "type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300,
        "silence_duration_ms": 500,
    }  # fmt: skip
    client.update(transcription={"model": "whisper-1", "language": "en", "prompt": "hm"})
    client.update(noise_reduction={"type": "near_field"}, transcription={"language": "en-GB"})
    client.update(turn_detection={"type": "semantic_vad", "eagerness": "low"})
    sound = client.session["audio"]["input"]
    assert sound["transcription"] == {"model": "whisper-1", "language": "en-GB", "prompt": "hm"}
    assert sound["noise_reduction"] == {"type": "near_field"}
    assert sound["turn_detection"] == {"type": "semantic_vad", "eagerness": "low"}
    client.update(turn_detection=None, noise_reduction=None)
    assert client.session["audio"]["input"]["turn_detection"] is None
    assert client.session["audio"]["input"]["noise_reduction"] is None
    assert client.told.types.count("session.updated") == 4
    assert not client.told.errors


def test_a_session_that_was_told_can_be_sent_back() -> None:
    client = Client()
    client.update(transcription={"keywords": ["Kiku"]}, turn_detection=None)
    told = client.session
    client.send("session.update", session=told)
    assert client.session == told
    assert not client.told.errors


def test_the_beta_has_flat_names() -> None:
    client = Client(beta=True)
    client.send(
        "transcription_session.update",
        session={
            "input_audio_format": "g711_ulaw",
            "input_audio_transcription": {"model": "gpt-4o-transcribe", "language": "en"},
            "input_audio_noise_reduction": {"type": "far_field"},
            "turn_detection": {"type": "server_vad", "silence_duration_ms": 700},
            "include": ["item.input_audio_transcription.logprobs"],
        },
    )
    session = client.session
    assert client.told.types[-1] == "transcription_session.updated"
    assert session["input_audio_format"] == "g711_ulaw"
    assert session["input_audio_transcription"]["model"] == "gpt-4o-transcribe"
    assert session["turn_detection"]["silence_duration_ms"] == 700
    assert session["turn_detection"]["threshold"] == 0.5
    client.settle()
    assert client.opened[-1].format.encoding == "mulaw"
    client.say(1, 3, 999, 8, 8)
    client.settle()
    item = client.told.committed[0]
    assert client.told.of(item) == [
        "buffer.speech_started", "transcription.delta", "transcription.delta",
        "buffer.speech_stopped", "buffer.committed", "created", "transcription.completed",
    ]  # fmt: skip
    assert not client.told.errors


@pytest.mark.parametrize(
    ("kind", "encoding", "rate"),
    [("audio/pcm", "s16le", 24_000), ("audio/pcmu", "mulaw", 8_000), ("audio/pcma", "alaw", 8_000)],
)
def test_three_formats(kind: str, encoding: str, rate: int) -> None:
    client = Client()
    client.update(format={"type": kind}, turn_detection=None)
    client.settle()
    format = client.opened[-1].format
    assert (format.encoding, format.sample_rate) == (encoding, rate)
    assert client.session["audio"]["input"]["format"]["type"] == kind


MISTAKES = [
    ({"format": {"type": "audio/pcm", "rate": 16_000}}, "session.audio.input.format.rate"),
    ({"format": {"type": "audio/opus"}}, "session.audio.input.format.type"),
    ({"transcription": {"model": "gpt-5"}}, "session.audio.input.transcription.model"),
    ({"transcription": {"language": "ja"}}, "session.audio.input.transcription.language"),
    ({"transcription": {"languages": ["ja", "de"]}}, "session.audio.input.transcription.languages"),
    ({"transcription": {"language": 5}}, "session.audio.input.transcription.language"),
    ({"transcription": {"keywords": [""]}}, "session.audio.input.transcription.keywords"),
    ({"transcription": {"keywords": ["a"] * 1001}}, "session.audio.input.transcription.keywords"),
    ({"transcription": {"temperature": 1}}, "session.audio.input.transcription.temperature"),
    ({"turn_detection": {"type": "psychic"}}, "session.audio.input.turn_detection.type"),
    ({"turn_detection": {"threshold": 1.5}}, "session.audio.input.turn_detection.threshold"),
    ({"turn_detection": {"silence_duration_ms": -1}},
     "session.audio.input.turn_detection.silence_duration_ms"),
    ({"noise_reduction": {"type": "lunar"}}, "session.audio.input.noise_reduction.type"),
]  # fmt: skip


@pytest.mark.parametrize(("input", "param"), MISTAKES)
def test_a_mistake_is_named_and_changes_nothing(input: dict[str, Any], param: str) -> None:
    client = Client()
    client.update(transcription={"keywords": ["Kiku"]}, turn_detection=None)
    before = client.session
    # What is good beside the mistake is not taken either.
    id = client.update(**{"noise_reduction": {"type": "near_field"}, **input})
    (error,) = client.told.errors
    assert (error["event_id"], error["param"]) == (id, param)
    assert client.told.types[-1] == "error"
    client.update()
    assert client.session == before
    client.settle()
    client.say(1, 2)
    client.commit()
    client.settle()
    assert client.transcripts == ["1 2"]


def test_what_a_session_keeps_and_tells_again_has_an_end() -> None:
    client = Client()
    before = client.session
    for id, told, code in (("x" * 513, None, "string_above_max_length"),
                           ("x" * 512, "x" * 512, "invalid_value")):  # fmt: skip
        client.raw(json.dumps({"type": "nothing", "event_id": id}))
        error = client.told.messages[-1]["error"]
        assert (error["event_id"], error["code"]) == (told, code)
    for kept in ({"prompt": "x" * 2**17}, {"language": "en-" + "x" * 257},
                 {"languages": ["en"] * 101}, {"model": "whisper-" + "x" * 257}):  # fmt: skip
        client.update(transcription=kept)
        assert len(client.told.messages[-1]["error"]["message"]) < 1_000
    client.update(transcription={"prompt": "x" * 2**16})
    assert client.session["audio"]["input"]["transcription"]["prompt"] == "x" * 2**16
    assert client.session["audio"]["input"]["format"] == before["audio"]["input"]["format"]


@pytest.mark.parametrize("beta", [False, True])
def test_no_language_and_whole_numbers_with_a_point_are_understood(beta: bool) -> None:
    client = Client(beta=beta)
    heard: dict[str, Any] = {"language": ""}
    turns = {"type": "server_vad", "silence_duration_ms": 700.0, "prefix_padding_ms": 99.6}
    if beta:
        session = {"input_audio_transcription": heard, "turn_detection": turns}
        client.send("transcription_session.update", session=session)
    else:
        client.update(
            transcription={**heard, "languages": ["", " "]},
            turn_detection={**turns, "idle_timeout_ms": 5e3},
            format={"type": "audio/pcm", "rate": 24e3},
        )
    assert not client.told.errors  # and what is told again is checked by the SDK
    told = client.session if beta else client.session["audio"]["input"]
    assert told["turn_detection"]["silence_duration_ms"] == 700
    assert told["turn_detection"]["prefix_padding_ms"] == 100
    client.settle()
    assert client.opened[-1].turns.silence_s == 0.7


def test_a_language_is_one_of_several() -> None:
    client = Client()
    client.update(transcription={"languages": ["fr", "en"]})
    assert not client.told.errors


@pytest.mark.parametrize("type", ["realtime", "", "Transcription"])
def test_a_session_that_gives_responses_is_a_mistake(type: str) -> None:
    client = Client()
    id = client.send("session.update", session={"type": type})
    assert [error["event_id"] for error in client.told.errors] == [id]


@pytest.mark.parametrize(
    "type",
    ["response.create", "response.cancel", "conversation.item.create", "conversation.item.delete",
     "conversation.item.retrieve", "conversation.item.truncate", "output_audio_buffer.clear",
     "input_audio_buffer.comit", "", None, 5, ["a"]],
)  # fmt: skip
def test_what_a_transcription_session_has_not_is_an_error_and_nothing_else(type: Any) -> None:
    client = Client()
    id = client.send(type)
    assert client.told.types == ["session.created", "error"]
    assert client.told.errors[0]["event_id"] == id
    assert client.code is None
    assert not client.asks


def test_keywords_become_hotwords_at_once_and_in_each_stream_to_come() -> None:
    client = Client()
    client.update(transcription={"keywords": ["Kiku", "Mimi"]})
    client.settle()
    assert [one.text for one in client.decoded[-1].phrases] == ["Kiku", "Mimi"]
    assert not client.opened
    client.update(turn_detection=None)
    client.settle()
    assert [one.text for one in client.decoded[-1].phrases] == ["Kiku", "Mimi"]
    assert len(client.decoded) == 2
    client.update(transcription={"keywords": []})
    client.settle()
    assert client.decoded[-1].is_plain


def test_keywords_that_the_model_cannot_expect_are_the_clients_mistake() -> None:
    client = Client()
    client.update(transcription={"keywords": ["Kiku"], "language": "en"})
    client.settle()
    id = client.update(transcription={"keywords": ["☃"]})
    client.settle()
    (error,) = client.told.errors
    assert error["event_id"] == id
    assert error["param"] == "session.audio.input.transcription.keywords"
    assert client.code is None
    client.update()
    assert client.session["audio"]["input"]["transcription"] == {
        "model": "demo", "language": "en", "keywords": ["Kiku"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "holds"),
    [(["☃", "Mimi"], "Mimi"), (["Mimi", "☃"], "Mimi"), (["☃", "é"], "Kiku")],
)
def test_of_keywords_that_wait_for_another_stream_each_is_answered_by_itself(
    given: list[str], holds: str
) -> None:
    client = Client()
    client.update(transcription={"keywords": ["Kiku"]})
    client.say(1)
    client.settle()
    client.update(turn_detection=None)  # which needs another stream, after the last words
    ids = [client.update(transcription={"keywords": [word]}) for word in given]
    client.settle()
    assert len(client.opened) == 1
    refused = [id for id, word in zip(ids, given, strict=True) if not word.isascii()]
    assert [error["event_id"] for error in client.told.errors] == refused
    assert [one.text for one in client.decoded[-1].phrases] == [holds]
    client.update(turn_detection={"type": "semantic_vad"})
    client.settle()
    assert len(client.opened) == 2
    assert [one.text for one in client.decoded[-1].phrases] == [holds]
    assert client.session["audio"]["input"]["transcription"]["keywords"] == [holds]
    assert len(client.told.errors) == len(refused)


def test_keywords_that_a_stream_which_failed_did_not_answer_are_asked_of_the_next() -> None:
    client = Client()
    client.update(transcription={"keywords": ["Kiku"]})
    client.settle()
    client.say(1)
    client.settle()
    client.update(transcription={"keywords": ["Mimi"]})
    client.asks.clear()  # it has failed before it came to that
    client.fail(StreamError("a fault"))
    client.settle()
    words = [[one.text for one in options.phrases] for options in client.decoded]
    assert words == [["Kiku"], ["Kiku"], ["Mimi"]]


# Turns.


def policy(**turn_detection: Any) -> TurnPolicy:
    client = Client()
    client.update(turn_detection=turn_detection)
    client.settle()
    options = client.opened[-1] if client.opened else client.protocol.initial_open.options  # pyright: ignore[reportOptionalMemberAccess]
    assert isinstance(options.turns, TurnPolicy)
    return options.turns


def test_eagerness_is_ours() -> None:
    for eagerness in ("low", "medium", "high"):
        assert policy(type="semantic_vad", eagerness=eagerness) == TurnPolicy.of(eagerness)
    assert policy(type="semantic_vad", eagerness="auto") == TurnPolicy.of("medium")
    assert policy(type="semantic_vad") == TurnPolicy.of("medium")


def test_a_longer_silence_is_waited_for_and_a_higher_threshold_takes_more_for_silence() -> None:
    short = policy(type="server_vad", silence_duration_ms=200)
    long = policy(type="server_vad", silence_duration_ms=2_500)
    assert (short.silence_s, long.silence_s) == (0.2, 2.5)
    assert (short.head, long.head) == (0, 2)
    assert long.hold_s == 0.5
    assert long.longest_s > 2.5
    assert long.text_silence_s > 2.5
    low, usual, high = (policy(type="server_vad", threshold=t) for t in (0.0, 0.5, 1.0))
    assert low.margin_db < usual.margin_db == TurnPolicy().margin_db < high.margin_db
    assert low.on > usual.on == TurnPolicy().on > high.on
    for silence_ms in (0, 500, 10_000, 60_000):
        policy(type="server_vad", silence_duration_ms=silence_ms, threshold=1.0)


def test_short_silences_act_alike_and_a_long_one_is_waited_for(demo: kiku.Recognizer) -> None:
    sound = np.concatenate(list(read_chunks(EXAMPLES / "digits.wav", 24_000)))
    pause = np.zeros(24_000, np.float32)
    sound = np.concatenate([sound[:45_600], pause, sound[45_600:], pause, pause, pause])

    def ends(silence_ms: int) -> list[float]:
        turns = policy(type="server_vad", silence_duration_ms=silence_ms)
        with demo.stream(kiku.StreamOptions(turns=turns)) as stream:
            stream.push(sound)
            stream.close()
            return [event.time for event in stream.events() if isinstance(event, TurnEnd)]

    short = ends(200)
    assert ends(500) == short
    (first, last), [waited_for] = short, ends(2_500)
    assert first < 3.0 < last < waited_for


def test_items_come_in_order_with_one_id_each() -> None:
    client = Client()
    client.say(1, 3, 999, 5, 7, 999, 8, 8, 8)
    client.settle()
    first, second = client.told.committed
    for item in (first, second):
        assert client.told.of(item) == [
            "buffer.speech_started", "transcription.delta", "transcription.delta",
            "buffer.speech_stopped", "buffer.committed", "added", "done",
            "transcription.completed",
        ]  # fmt: skip
    assert client.transcripts == ["1 3", "5 7"]
    assert [one["delta"] for one in client.told.messages if "delta" in one][:2] == ["1", " 3"]


def test_usage_is_the_length_of_the_items_sound() -> None:
    client = Client()
    client.update(turn_detection=None)
    for seconds in (1.5, 0.25):
        client.append(silence(seconds))
        client.commit()
    client.settle()
    usages = [one["usage"] for one in client.told.messages if "usage" in one]
    assert usages == [{"type": "duration", "seconds": 1.5}, {"type": "duration", "seconds": 0.25}]


@pytest.mark.parametrize("is_heard", [False, True])
def test_sound_that_was_cleared_is_not_used(is_heard: bool) -> None:
    client = Client()
    client.update(turn_detection=None)
    client.append(silence(1.5))
    client.commit()
    client.append(silence(10))
    if is_heard:
        client.settle()
    client.clear()
    client.append(silence(0.25))
    client.commit()
    client.settle()
    usages = [one["usage"]["seconds"] for one in client.told.messages if "usage" in one]
    assert usages == [1.5, 0.25]


def test_places_grow_over_all_streams_of_a_connection() -> None:
    client = Client()
    client.update(turn_detection={"type": "server_vad", "prefix_padding_ms": 0})
    client.settle()
    client.append(silence(1.0) + spelled(1, 3, 999, 2, 2, 2))
    client.settle()
    client.update(turn_detection={"type": "server_vad", "silence_duration_ms": 900})
    client.settle()
    client.append(silence(1.0) + spelled(5, 999, 2, 2, 2))
    client.settle()
    starts = [one["audio_start_ms"] for one in client.told.messages if "audio_start_ms" in one]
    ends = [one["audio_end_ms"] for one in client.told.messages if "audio_end_ms" in one]
    assert starts[0] < 1_010
    assert max(starts[1:]) >= 1_000
    assert ends == sorted(ends)
    assert ends[-1] >= 2_000


def test_speech_begins_earlier_by_its_padding() -> None:
    def start(padding_ms: int) -> int:
        client = Client()
        client.update(turn_detection={"type": "server_vad", "prefix_padding_ms": padding_ms})
        client.settle()
        client._do(client.protocol.received(append(bytes(96_000))))
        client.asks.clear()
        client._do(client.protocol.event(TurnStart(1.5), 0.0))
        return client.told.messages[-1]["audio_start_ms"]

    assert (start(0), start(400), start(5_000)) == (1_500, 1_100, 0)


def append(data: bytes) -> str:
    return json.dumps(
        {"type": "input_audio_buffer.append", "audio": base64.b64encode(data).decode()}
    )


def test_a_commit_by_hand_in_the_middle_of_a_turn_parts_it() -> None:
    client = Client()
    client.say(1, 3)
    client.commit()
    client.say(5, 7, 999, 8, 8)
    client.settle()
    assert client.transcripts[:2] == ["1 3", "5 7"]
    for item in client.told.committed[:2]:
        assert client.told.of(item)[0] == "buffer.speech_started"


def test_a_commit_that_ends_the_turn_too_is_one_item() -> None:
    client = Client()
    client.say(1, 3, 999)
    client.commit()
    client.settle()
    assert client.transcripts == ["1 3"]


# Commits and clears.


def test_without_turns_only_commits_part_items() -> None:
    client = Client()
    client.update(turn_detection=None)
    client.say(1, 3, 999, 5)
    client.settle()
    assert not client.told.committed
    client.commit()
    client.say(7)
    client.commit()
    client.settle()
    assert client.transcripts == ["1 3 5", "7"]
    assert not any("speech" in kind for kind in client.told.types)


def test_an_empty_commit_is_an_error() -> None:
    client = Client()
    client.update(turn_detection=None)
    ids = [client.commit()]
    client.say(1)
    client.commit()
    ids.append(client.commit())
    client.settle()
    ids.append(client.commit())
    client.say(2)
    client.clear()
    ids.append(client.commit())
    client.settle()
    assert [error["event_id"] for error in client.told.errors] == ids
    assert {error["code"] for error in client.told.errors} == {"input_audio_buffer_commit_empty"}
    assert client.transcripts == ["1"]


def test_silence_is_an_empty_transcript() -> None:
    client = Client()
    client.update(turn_detection=None)
    client.append(spelled(999, 999))
    client.commit()
    client.settle()
    assert client.transcripts == [""]


def test_clear_forgets_what_was_not_committed() -> None:
    client = Client()
    client.update(turn_detection=None)
    client.say(1, 2)
    client.commit()
    client.say(3, 4, 5, 6)
    client.settle()
    client.clear()
    client.say(7)
    client.commit()
    client.settle()
    assert client.transcripts == ["1 2", "7"]
    assert client.told.types.count("input_audio_buffer.cleared") == 1


def test_clear_leaves_a_commit_that_is_not_answered_yet() -> None:
    client = Client()
    client.update(turn_detection=None)
    client.say(1, 2)
    client.commit()
    client.say(3)
    client.clear()
    client.say(4)
    client.commit()
    client.settle()
    assert client.transcripts == ["1 2", "4"]


def test_clear_while_a_change_is_made_tells_no_more_of_what_it_forgot() -> None:
    client = Client()
    client.update(turn_detection=None)
    client.settle()
    client.say(1, 2)
    client.update(format={"type": "audio/pcmu"})
    client.clear()
    client.settle()
    assert not any("delta" in one for one in client.told.messages)
    client.say(3)
    client.commit()
    client.settle()
    assert client.transcripts == ["3"]


def test_clear_of_nothing_keeps_the_stream() -> None:
    client = Client()
    client.clear()
    client.settle()
    assert not client.opened
    assert client.told.types[-1] == "input_audio_buffer.cleared"


def test_many_commits_at_once_are_all_answered() -> None:
    client = Client()
    client.update(turn_detection=None)
    client.settle()
    for number in range(100):
        client.say(number)
        client.commit()
    client.settle()
    assert client.transcripts == [str(number) for number in range(100)]


# Changes.


def test_a_change_before_any_sound_opens_at_once() -> None:
    client = Client()
    client.update(turn_detection=None)
    assert [type(ask) for ask in client.asks] == [Open]


def test_an_update_that_changes_no_stream_opens_none() -> None:
    client = Client()
    client.update(transcription={"language": "en"}, noise_reduction={"type": "near_field"})
    assert not client.asks


def test_a_change_in_the_middle_loses_no_word() -> None:
    client = Client()
    client.update(turn_detection=None)
    client.settle()
    client.say(1, 2, 3)
    client.update(format={"type": "audio/pcma"})
    client.say(4, 5)
    client.update(format={"type": "audio/pcm"})
    client.say(6)
    client.commit()
    client.settle()
    assert client.transcripts == ["1 2 3 4 5 6"]
    assert [one.format.encoding for one in client.opened] == ["s16le", "alaw", "s16le"]


def test_a_change_of_turns_in_a_turn_ends_it() -> None:
    client = Client()
    client.say(1, 3, 5)
    client.update(turn_detection={"type": "semantic_vad"})
    client.say(7, 9, 999, 2, 2)
    client.settle()
    assert client.transcripts[:2] == ["1 3 5", "7 9"]


def test_turning_turns_off_ends_speech_and_keeps_the_words_for_the_commit() -> None:
    client = Client()
    client.say(1, 3, 5)
    client.work()
    client.listen()
    client.listen()
    client.update(turn_detection=None)
    client.settle()
    assert client.told.types[-1] == "input_audio_buffer.speech_stopped"
    client.say(7)
    client.commit()
    client.settle()
    assert client.transcripts == ["1 3 5 7"]


def test_a_change_holds_for_the_sound_behind_it() -> None:
    client = Client()
    client.say(1, 3, 999, 5, 7)
    client.update(turn_detection=None)  # before anything was heard
    client.say(9, 999, 11)
    client.commit()
    client.settle()
    assert client.transcripts == ["1 3", "5 7 9 11"]
    first, _ = client.told.committed
    assert client.told.of(first)[0] == "buffer.speech_started"


def test_a_stream_without_turns_fails_as_one_before_its_first_word() -> None:
    client = Client()
    client.say(1, 3, 999, 8, 8)
    client.update(turn_detection=None)
    client.settle()
    client.say(5)
    client.settle()
    client.fail(StreamError("broken"))
    assert client.told.types.count("input_audio_transcription.failed") == 0  # nothing is committed
    client.settle()
    client.commit()
    client.settle()
    assert list(client.told.failed) == client.told.committed[1:]
    assert len(client.told.failed) == 1


def test_what_is_told_beside_words_changes_where_the_client_changed_it() -> None:
    client = Client()
    client.say(1, 3)
    client.send("session.update", session={"type": "transcription", "include": [LOGPROBS]})
    client.say(5)
    client.update(turn_detection={"type": "server_vad", "prefix_padding_ms": 0})
    client.append(silence(1))
    client.say(7, 999, 8, 8)
    client.settle()
    deltas = {one["delta"]: "logprobs" in one for one in client.told.messages if "delta" in one}
    assert deltas == {"1": False, " 3": False, " 5": True, "7": True}
    starts = [one["audio_start_ms"] for one in client.told.messages if "audio_start_ms" in one]
    assert starts[1] >= 1_000  # and not 300 ms before


def test_turns_that_go_off_and_on_again_end_one_turn_once() -> None:
    client = Client()
    client.say(1, 3, 5, 7)
    client.work()
    client.listen()
    client.listen()
    client.update(turn_detection=None)
    client.listen()
    client.update(turn_detection={"type": "server_vad"})
    client.say(9, 999, 8, 8)
    client.settle()  # nobody begins twice, as is looked after each message
    assert client.transcripts == ["1 3 5 7", "9"]
    starts = [client.told.of(item).count("buffer.speech_started") for item in client.told.committed]
    assert starts == [1, 1]


@pytest.mark.parametrize("commits", [False, True])
def test_who_speaks_is_told_to_have_stopped_where_the_sound_is_cleared(commits: bool) -> None:
    client = Client()
    client.say(1, 3, 5, 7)
    client.work()
    client.listen()
    client.listen()
    assert client.told.types[-1] == "input_audio_transcription.delta"
    if commits:
        client.commit()
        client.say(9, 11, 13, 15)
    client.clear()
    client.settle()
    kinds = [one.rpartition(".")[2] for one in client.told.types]
    assert kinds.count("speech_started") == kinds.count("speech_stopped") == 1
    assert not commits or client.transcripts == ["1 3 5 7"]
    if not commits:
        assert kinds[-2:] == ["speech_stopped", "cleared"]


def test_what_waits_for_a_change_is_bounded() -> None:
    client = Client()
    client.update(turn_detection=None)
    client.say(1, 2)
    sizes = [MAX_APPEND] * (MAX_HELD // MAX_APPEND) + [MAX_HELD % MAX_APPEND]
    for size in sizes:
        assert not client.protocol.is_full
        client.append(bytes(size))
    assert client.protocol.is_full  # so that nothing more is read
    client.say(3)  # what had come is taken all the same
    client.asks.popleft()
    client._do(client.protocol.opened())
    assert not client.protocol.is_full
    pushed = [len(ask.samples) for ask in client.asks if isinstance(ask, Push)]
    assert sum(pushed) == MAX_HELD + 12
    assert not client.told.errors


def test_messages_that_wait_for_a_change_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 200
    assert most < openai_realtime_pending.MAX_WAITING
    monkeypatch.setattr(openai_realtime_pending, "MAX_WAITING", most)
    client = Client()
    client.update(turn_detection=None)
    for _ in range(most // 2):
        assert not client.protocol.is_full
        client.say(1)
        client.commit()
    assert client.protocol.is_full
    client.settle()
    assert client.transcripts == ["1"] * (most // 2)


# Sound.


def test_sound_may_be_cut_anywhere() -> None:
    client = Client()
    client.update(turn_detection=None)
    data = spelled(1, 2, 3)
    for at in range(0, len(data), 5):
        client.append(data[at : at + 5])
    client.commit()
    client.settle()
    assert client.transcripts == ["1 2 3"]


@pytest.mark.parametrize("audio", ["?", "AAA", "A", "é", 5, None, ["AAAA"], "AA A"])
def test_what_is_no_base64_is_an_error(audio: Any) -> None:
    client = Client()
    id = client.send("input_audio_buffer.append", audio=audio)
    (error,) = client.told.errors
    assert (error["event_id"], error["param"]) == (id, "audio")
    client.say(1, 999, 2, 2, 2)
    client.settle()
    assert client.transcripts[0] == "1"


def test_too_much_at_once_is_an_error() -> None:
    client = Client()
    client.append(bytes(MAX_APPEND))
    assert not client.told.errors
    client.append(bytes(MAX_APPEND + 3))
    (error,) = client.told.errors
    assert error["param"] == "audio"
    assert str(MAX_APPEND) in error["message"]


def test_a_wav_file_is_no_sound() -> None:
    client = Client()
    client.append(b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(40))
    (error,) = client.told.errors
    assert "WAV" in error["message"]
    assert not client.asks


# How sure.


def test_logprobs_spell_the_deltas_and_the_transcript() -> None:
    client = Client()
    client.send(
        "session.update",
        session={"type": "transcription", "include": ["item.input_audio_transcription.logprobs"]},
    )
    client.say(1, 3, 999, 2, 2)
    client.settle()
    done = next(one for one in client.told.messages if "transcript" in one)
    assert "".join(one["token"] for one in done["logprobs"]) == done["transcript"] == "1 3"
    assert bytes(done["logprobs"][1]["bytes"]) == b" 3"
    assert done["logprobs"][0]["logprob"] == pytest.approx(-0.693, abs=1e-3)
    deltas = [one for one in client.told.messages if "delta" in one and one["item_id"]]
    assert deltas[0]["logprobs"] == done["logprobs"][:1]
    plain = Client()
    plain.say(1, 999, 2, 2)
    plain.settle()
    assert not any("logprobs" in one for one in plain.told.messages)


# When something goes wrong.


def test_a_stream_that_fails_is_told_of_and_the_session_goes_on() -> None:
    client = Client()
    client.update(turn_detection=None)
    client.settle()
    client.say(1, 2)
    client.commit()
    client.say(3)
    while client.asks:
        client.work()
    client.fail(RuntimeError("the engine is ill"))
    assert "the engine is ill" in next(iter(client.told.failed.values()))
    client.settle()
    client.commit()
    client.say(4)
    client.commit()
    client.settle()
    client.told.assert_all_answered()
    assert len(client.told.failed) == 2  # the 3 was lost
    assert client.transcripts == ["4"]
    assert not client.told.errors
    assert client.code is None


def test_a_turn_in_which_the_stream_fails_fails() -> None:
    client = Client()
    client.say(1, 3, 5)
    client.settle()
    client.fail(StreamError("gone"))
    assert client.told.of(client.told.committed[0])[-5:] == [
        "buffer.speech_stopped", "buffer.committed", "added", "done", "transcription.failed",
    ]  # fmt: skip
    client.settle()
    client.say(7, 999, 2, 2)
    client.settle()
    assert client.transcripts == ["7"]


def test_a_stream_that_fails_before_any_sound_ends_the_connection() -> None:
    client = Client()
    client.fail(RuntimeError("the engine is ill"))
    assert client.code == 1011


@pytest.mark.parametrize(
    ("error", "code"), [(NoFreeSlot("full"), 1013), (RuntimeError("ill"), 1011)]
)
def test_a_stream_that_cannot_be_replaced_ends_the_connection(error: Exception, code: int) -> None:
    client = Client()
    client.update(turn_detection=None)
    client.say(1)
    client.commit()
    client.asks.clear()
    client.fail(error)
    client.told.assert_all_answered()
    assert len(client.told.failed) == 1
    assert client.code == code


def test_when_the_service_ends_every_commit_is_answered() -> None:
    client = Client()
    client.update(turn_detection=None)
    client.settle()
    client.say(1)
    client.commit()
    client.update(format={"type": "audio/pcmu"})
    client.say(2)
    client.commit()
    client.fail(ServerEnds("the service is shutting down"))
    client.told.assert_all_answered()
    assert len(client.told.failed) == 2
    assert client.code == 1012


def test_a_silent_client_of_a_service_that_ends_is_told_nothing_more() -> None:
    client = Client()
    client.say(999, 999, 999)
    client.settle()
    client.fail(ServerEnds("the service is shutting down"))
    assert client.told.types == ["session.created"]
    assert client.code == 1012


def test_sound_that_is_not_taken_makes_its_item_fail() -> None:
    client = Client()
    client.update(turn_detection=None)
    client.say(1)
    client.reject(StreamError("no room"))
    client.commit()
    client.settle()
    assert len(client.told.failed) == 1
    client.say(2)
    client.commit()
    client.settle()
    assert client.transcripts == ["2"]


def test_a_finalize_that_is_not_taken_fails_its_commit() -> None:
    client = Client()
    client.update(turn_detection=None)
    client.settle()
    client.say(1)
    client.commit()
    client.work()
    client.asks.popleft()
    client.reject(StreamError("too many wait"))
    client.told.assert_all_answered()
    assert len(client.told.failed) == 1


def test_an_idle_connection_is_closed_after_a_quarter_of_an_hour() -> None:
    client = Client()
    assert client.protocol.quiet_after_s == (IDLE_S,) == (900.0,)
    client._do(client.protocol.quiet(900.0))
    assert client.code == 1000


@pytest.mark.parametrize("turns", [True, False])
def test_who_is_silent_is_told_what_was_heard_before_the_goodbye(turns: bool) -> None:
    client = Client()
    if not turns:
        client.update(turn_detection=None)
        client.settle()
    client.append(spelled(3) + spelled(5))
    client.settle()
    client._do(client.protocol.idle("it is over"))
    assert client.code is None
    client._do(client.protocol.quiet(IDLE_S))  # both at once
    client.settle()
    assert client.code == 1000
    # What is committed by hand stays open, but its words are told.
    assert client.transcripts == (["3 5"] if turns else [])
    deltas = [one["delta"] for one in client.told.messages if one["type"].endswith(".delta")]
    assert "".join(deltas).split() == ["3", "5"]
    client.told.assert_all_answered()


def test_a_stream_that_fails_at_the_end_makes_no_item_of_nothing() -> None:
    client = Client()
    client.append(spelled(3) + spelled(999))
    client.settle()
    client._do(client.protocol.idle("it is over"))
    num_items = len(client.told.committed)
    client._do(client.protocol.failed(ServerEnds("it ends")))
    assert client.code == 1012
    assert len(client.told.committed) == num_items


# Clients of frameworks.


def test_as_livekit_speaks() -> None:
    client = Client(realtime([("intent", "transcription"), ("model", "gpt-4o-mini-transcribe")]))
    client.update(
        format={"type": "audio/pcm", "rate": 24_000},
        transcription={"model": "gpt-4o-mini-transcribe", "prompt": "", "language": "en"},
        turn_detection={"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 600,
                        "silence_duration_ms": 350},
        noise_reduction=None,
    )  # fmt: skip
    for number in (1, 3, 999, 5, 999, 8, 8, 8):
        client.append(spelled(number) + spelled(999) * 2)
        client.settle()
    assert client.transcripts[:2] == ["1", "3"]
    # It takes the socket from its pool and updates it again.
    client.update(transcription={"model": "gpt-4o-mini-transcribe"}, noise_reduction=None)
    assert not client.told.errors


def test_as_pipecat_speaks() -> None:
    client = Client(realtime(headers={"authorization": "Bearer K"}))
    assert client.told.types == ["session.created"]
    client.update(
        format={"type": "audio/pcm", "rate": 24_000},
        transcription={"model": "gpt-4o-transcribe", "language": "en"},
        turn_detection=None,
    )
    client.settle()
    for words in ([1, 2], [3]):
        client.say(*words)
        client.commit()
        client.settle()
    assert client.transcripts == ["1 2", "3"]
    assert not client.told.errors
    assert not any("speech" in kind for kind in client.told.types)


# Whatever comes.

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
_TYPES = st.sampled_from(
    ["session.update", "transcription_session.update", "input_audio_buffer.append",
     "input_audio_buffer.commit", "input_audio_buffer.clear", "response.create", "x"]
)  # fmt: skip
_NEAR = st.fixed_dictionaries(
    {"type": _TYPES | _JSON, "event_id": st.text(max_size=5)},
    optional={
        "audio": _JSON,
        "session": _JSON
        | st.fixed_dictionaries(
            {},
            optional={
                "type": st.just("transcription") | _JSON, "include": _JSON,
                "turn_detection": _JSON, "input_audio_format": _JSON,
                "audio": st.fixed_dictionaries(
                    {}, optional={"input": st.dictionaries(
                        st.sampled_from(["format", "transcription", "turn_detection"]), _JSON)},
                ),
            },
        ),
    },
)  # fmt: skip


@given(st.lists(st.text() | st.binary(max_size=40) | _JSON.map(json.dumps), max_size=8))
def test_any_text_is_at_most_a_mistake(messages: list[str | bytes]) -> None:
    client = Client()
    for message in messages:
        client.raw(message)
        client.settle()
    assert client.code is None
    assert {*client.told.types[1:]} <= {"error"}


@given(st.lists(_NEAR, max_size=8))
def test_any_json_is_done_or_a_mistake_that_names_it(messages: list[dict[str, Any]]) -> None:
    client = Client()
    for message in messages:
        before = len(client.told.errors)
        client.raw(json.dumps(message))
        for error in client.told.errors[before:]:
            assert error["event_id"] == message["event_id"]
        client.settle()
    client.told.assert_all_answered()
    assert client.code is None


@pytest.mark.parametrize("message", ["[" * 100_000, '{"session":' * 5_000, "{", "\ud800", b"\xff"])
def test_json_that_cannot_be_read_is_a_mistake(message: str | bytes) -> None:
    client = Client()
    client.raw(message)
    assert len(client.told.errors) == 1


_TURNS = st.sampled_from([None, {"type": "server_vad"}, {"type": "semantic_vad"}])
_FORMATS = st.sampled_from(["audio/pcm", "audio/pcmu", "audio/pcma"])
_STEPS = st.one_of(
    st.tuples(st.just("say"), st.lists(st.sampled_from([1, 2, 3, 4, 999]), max_size=5)),
    st.tuples(st.sampled_from(["commit", "clear", "work", "listen", "work", "listen"]), st.none()),
    st.tuples(st.just("format"), _FORMATS),
    st.tuples(st.just("keywords"), st.lists(st.sampled_from(["a", "b"]), max_size=1)),
)


@settings(max_examples=100)
@given(st.lists(_STEPS, max_size=40))
def test_without_turns_each_commit_has_exactly_its_words(steps: list[tuple[str, Any]]) -> None:
    client = Client()
    client.update(turn_detection=None)
    pending: list[str] | None = None
    expected: list[str] = []
    for step, value in steps:
        if step == "say":
            client.say(*value)
            if value:
                pending = [*(pending or ()), *(str(one) for one in value if one != 999)]
        elif step == "commit":
            client.commit()
            if pending is not None:
                expected.append(" ".join(pending))
            pending = None
        elif step == "clear":
            client.clear()
            pending = None
        else:
            _other(client, step, value)
    client.settle()
    assert client.transcripts == expected
    assert {error["code"] for error in client.told.errors} <= {"input_audio_buffer_commit_empty"}


def _other(client: Client, step: str, value: Any) -> None:
    if step == "format":
        client.update(format={"type": value})
    elif step == "turns":
        client.update(turn_detection=value)
    elif step == "keywords":
        client.update(transcription={"keywords": value})
    elif step == "work":
        client.work()
    else:
        client.listen()


@settings(max_examples=60)
@given(st.lists(_STEPS | st.tuples(st.just("turns"), _TURNS), max_size=40))
def test_with_turns_no_word_is_lost_or_told_twice(steps: list[tuple[str, Any]]) -> None:
    client = Client()
    said: list[str] = []
    for step, value in steps:
        if step == "say":
            client.say(*value)
            said += [str(one) for one in value if one != 999]
        elif step == "commit":
            client.commit()
        elif step != "clear":
            _other(client, step, value)
    client.say(7)
    client.commit()
    client.settle()
    client.told.assert_all_answered()
    assert " ".join(" ".join(client.transcripts).split()) == " ".join([*said, "7"])
    assert not client.told.failed


@settings(max_examples=100)
@given(
    st.lists(
        _STEPS | st.tuples(st.just("turns"), _TURNS) | st.tuples(st.just("fail"), st.none()),
        max_size=40,
    )
)
def test_whatever_fails_every_commit_is_answered(steps: list[tuple[str, Any]]) -> None:
    client = Client()
    num_commits = 0
    for step, value in steps:
        if client.code is not None:
            break
        errors = len(client.told.errors)
        if step == "say":
            client.say(*value)
        elif step == "commit":
            client.commit()
            num_commits += len(client.told.errors) == errors
        elif step == "clear":
            client.clear()
        elif step == "fail":
            client.fail(StreamError("gone"))
        else:
            _other(client, step, value)
    client.settle()
    client.told.assert_all_answered()
    assert len(client.told.committed) >= num_commits


# Parameters.


def names_of(kind: Any, prefix: str = "") -> set[str]:
    """Every name that a typed dictionary of the SDK knows, with dots between."""
    names: set[str] = set()
    for name, hint in get_type_hints(kind, include_extras=False).items():
        inner = [one for one in _parts(hint) if is_typeddict(one)]
        names |= {f"{prefix}{name}"} if not inner else set()
        for one in inner:
            names |= names_of(one, f"{prefix}{name}.")
    return names


def _parts(hint: Any) -> list[Any]:
    parts = [hint]
    for one in get_args(hint):
        parts += _parts(one)
    return parts


KNOWN = {one.name for one in PARAMETERS}

_FLAT = {
    "input_audio_format": "audio.input.format.type",
    "input_audio_noise_reduction.": "audio.input.noise_reduction.",
    "input_audio_transcription.": "audio.input.transcription.",
    "turn_detection.": "audio.input.turn_detection.",
    "client_secret.": "client_secret",
}


def test_every_parameter_of_the_sdk_is_known() -> None:
    names = names_of(RealtimeTranscriptionSessionCreateRequestParam)
    assert "audio.input.turn_detection.eagerness" in names
    assert names <= KNOWN
    ours = {name for name in KNOWN if not name.startswith("?")} - {"modalities", "client_secret"}
    assert ours == names


def test_every_parameter_of_the_beta_is_known() -> None:
    for name in names_of(beta_param.Session):
        known = [
            today + (name.removeprefix(flat) if today.endswith(".") else "")
            for flat, today in _FLAT.items()
            if name.startswith(flat)
        ]
        assert set(known or [name]) <= KNOWN
