"""Deepgram's SDK, sync and async, against a running service: live, in turns, and recordings."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
import websockets.exceptions

import kiku
from kiku.serve.protocols import deepgram
from tests.serve.conftest import EXAMPLES
from tests.serve.deepgram_sdk import (
    ApiError,
    AsyncDeepgramClient,
    DeepgramClient,
    DeepgramClientEnvironment,
)
from tests.serve.deepgram_talk import (
    CLOSE,
    LiveConversation,
    flux,
    heard,
    listen,
    pcm,
    text_of,
    words_of,
)
from tests.serve.deepgram_types import V1, V2, checked, checked_answer
from tests.serve.recordings import g711
from tests.serve.running import Running, running

# The SDK's own websockets client is deprecated by websockets.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

RECORDINGS = ["answers.mp3", "digits.wav", "directions.flac"]
DIGITS = "seven three zero one nine four"
STEP = 6_400


def environment(service: Running) -> DeepgramClientEnvironment:
    """Where the SDK finds the service."""
    return DeepgramClientEnvironment(
        base=service.http, production=service.ws, agent=service.ws, agent_rest=service.http
    )


@contextmanager
def client(service: Running, key: str = "any") -> Generator[DeepgramClient]:
    """The SDK's client; it leaves its connections open, if they are its own."""
    with httpx.Client(timeout=60) as connections:
        yield DeepgramClient(
            api_key=key, environment=environment(service), httpx_client=connections
        )


@asynccontextmanager
async def async_client(service: Running) -> AsyncGenerator[AsyncDeepgramClient]:
    """The other one."""
    async with httpx.AsyncClient(timeout=60) as connections:
        yield AsyncDeepgramClient(
            api_key="any", environment=environment(service), httpx_client=connections
        )


@contextmanager
def live(service: Running, key: str = "any", **query: Any) -> Generator[Any]:
    """A socket of `/v1/listen`."""
    given = {"model": "nova-3", "encoding": "linear16", "sample_rate": 16_000, **query}
    with client(service, key) as one, one.listen.v1.connect(**given) as door:
        yield door


class Tap:
    """Stands before the SDK's socket and keeps the messages as they came."""

    def __init__(self, socket: Any) -> None:
        self._websocket = socket._websocket
        self.raw: list[str] = []
        socket._websocket = self

    def __iter__(self) -> Iterator[str]:
        for message in self._websocket:
            self.raw.append(message)
            yield message

    async def __aiter__(self) -> AsyncIterator[str]:
        async for message in self._websocket:
            self.raw.append(message)
            yield message

    def send(self, data: Any) -> Any:
        """Pass it on; None, or what is to be awaited."""
        return self._websocket.send(data)

    def checked(self, known: Any) -> list[dict[str, Any]]:
        """The messages, each found to be as the SDK's types want it."""
        return [checked(one, known) for one in self.raw]


def talk(service: Running, messages: list[bytes | str], **query: Any) -> list[dict[str, Any]]:
    """What `/v1/listen` says to these messages and `CloseStream`."""
    given = {"encoding": None, "sample_rate": None, **query}
    with live(service, **given) as door:
        tap = Tap(door)
        for one in messages:
            tap.send(one)
        door.send_close_stream()
        parsed = list(door)
    messages_in = tap.checked(V1)
    assert [type(one) for one in parsed] == [V1[one["type"]] for one in messages_in]
    assert messages_in[-1]["type"] == "Metadata"
    return messages_in


def finals(messages: list[dict[str, Any]], channel: int = 0) -> list[dict[str, Any]]:
    """The results that are final."""
    return [
        one
        for one in messages
        if one["type"] == "Results" and one["is_final"] and one["channel_index"][0] == channel
    ]


def said(messages: list[dict[str, Any]], channel: int = 0) -> str:
    """All that was said, as text."""
    texts = [text_of(one) for one in finals(messages, channel)]
    return " ".join(text for text in texts if text)


def parts(sound: bytes, step: int = STEP) -> list[bytes | str]:
    """Sound in messages."""
    return [sound[at : at + step] for at in range(0, len(sound), step)]


# Live.


@pytest.mark.parametrize("recording", RECORDINGS)
def test_words_live(service: Running, demo: kiku.Recognizer, recording: str) -> None:
    sound, rate = pcm(EXAMPLES / recording)
    expected = demo.transcribe(np.frombuffer(sound, np.int16), rate=rate)
    messages = talk(
        service, parts(sound), encoding="linear16", sample_rate=rate, interim_results=True,
        vad_events=True, utterance_end_ms=1000, smart_format=True, tag=["a", "b"],
    )  # fmt: skip
    assert words_of(finals(messages)) == heard(expected.words)
    kinds = {one["type"] for one in messages}
    assert {"Results", "SpeechStarted", "Metadata"} <= kinds
    assert any(not one["is_final"] for one in messages if one["type"] == "Results")
    assert messages[-1]["duration"] == pytest.approx(len(sound) / 2 / rate, abs=2e-3)


def with_gaps(sound: bytes, rate: int) -> bytes:
    """The digits with a long pause behind the third, and behind the last."""
    middle = int(2.8 * rate) * 2
    return sound[:middle] + bytes(5 * rate) + sound[middle:] + bytes(5 * rate)


def utterance_ends(messages: list[dict[str, Any]]) -> list[float]:
    return [one["last_word_end"] for one in messages if one["type"] == "UtteranceEnd"]


def spans(messages: list[dict[str, Any]]) -> list[tuple[float, float, str, bool]]:
    """Of results that are final: from where to where, and what they say."""
    return [
        (one["start"], one["duration"], text_of(one), one["speech_final"])
        for one in finals(messages)
    ]


@pytest.mark.parametrize("endpointing", ["false", "true"])
@pytest.mark.parametrize("gap_ms", ["1000", "2000", None])
def test_results_of_sound_sent_at_once_are_those_of_sound_that_is_spoken(
    service: Running, demo: kiku.Recognizer, gap_ms: str | None, endpointing: str
) -> None:
    sound, rate = pcm(EXAMPLES / "digits.wav")
    query = {"sample_rate": str(rate), "endpointing": endpointing}
    if gap_ms is not None:
        query["utterance_end_ms"] = gap_ms
    sound = with_gaps(sound, rate)
    spoken = LiveConversation(demo, listen(**query))
    spoken.hear(sound, rate // 25)
    spoken.end(CLOSE)
    wanted = utterance_ends(spoken.messages), spans(spoken.messages)
    assert len(wanted[0]) == (0 if gap_ms is None else 2)
    assert len(wanted[1]) >= 2
    for step in (STEP, len(sound)):
        messages = talk(service, parts(sound, step), encoding="linear16", **query)
        assert (utterance_ends(messages), spans(messages)) == wanted
        for one in finals(messages):
            end = one["start"] + one["duration"]
            for _, begins, ends in words_of([one]):
                assert one["start"] - 2e-3 <= begins <= ends <= end + 2e-3


@pytest.mark.parametrize(
    "query",
    [
        {"eot_threshold": "1.0", "eot_timeout_ms": "1000"},
        {"eager_eot_threshold": "0.4"},
        {"eager_eot_threshold": "0.4", "eot_timeout_ms": "500"},
    ],
)
def test_turns_of_sound_sent_at_once_are_those_of_sound_that_is_spoken(
    service: Running, demo: kiku.Recognizer, query: dict[str, str]
) -> None:
    sound, rate = pcm(EXAMPLES / "digits.wav")
    query = {"sample_rate": str(rate), **query}
    sound = with_gaps(sound, rate)

    def turns(messages: list[dict[str, Any]]) -> list[tuple[str, ...]]:
        return [
            tuple(
                one.get(key) for key in
                ("event", "transcript", "trigger", "audio_window_start", "audio_window_end")
            )
            for one in messages
            if one["type"] == "TurnInfo"
        ]  # fmt: skip

    spoken = LiveConversation(demo, flux(**query))
    spoken.hear(sound, rate // 25)
    spoken.end(CLOSE)
    wanted = turns(spoken.messages)
    ended = [one[1] for one in wanted if one[0] == "EndOfTurn"]
    assert len(ended) >= 2
    assert " ".join(ended) == "seven three zero one nine four"
    for step in (STEP, len(sound)):
        with (
            client(service) as one,
            one.listen.v2.connect(model="flux-general-en", encoding="linear16", **query) as door,
        ):
            tap = Tap(door)
            for part in parts(sound, step):
                tap.send(part)
            door.send_close_stream()
            for _ in door:
                pass
        assert turns(tap.checked(V2)) == wanted


def test_words_live_async(service: Running, demo: kiku.Recognizer) -> None:
    sound, rate = pcm(EXAMPLES / "digits.wav")
    expected = demo.transcribe(np.frombuffer(sound, np.int16), rate=rate)

    async def work() -> Tap:
        query = dict(model="nova-3", encoding="linear16", sample_rate=rate)
        async with async_client(service) as one, one.listen.v1.connect(**query) as door:
            tap = Tap(door)
            for part in parts(sound):
                await door.send_media(part)
            await door.send_close_stream()
            async for _ in door:
                pass
        return tap

    messages = asyncio.run(work()).checked(V1)
    assert words_of(finals(messages)) == heard(expected.words)
    assert messages[-1]["type"] == "Metadata"


def test_finalize_keep_alive_and_configure(service: Running) -> None:
    sound, rate = pcm(EXAMPLES / "digits.wav")
    pause = int(2.8 * rate) * 2
    configure = '{"type":"Configure","keyterms":["nine"],"features":null}'
    with live(service, sample_rate=rate, keyterm=["four"]) as door:
        tap = Tap(door)
        for one in [*parts(sound[:pause]), '{"type":"KeepAlive"}', "what?", configure]:
            tap.send(one)
        door.send_finalize()
        for message in door:
            if getattr(message, "from_finalize", False):
                break
        for one in parts(sound[pause:]):
            tap.send(one)
        door.send_close_stream()
        for _ in door:
            pass
    messages = tap.checked(V1)
    kinds = [one["type"] for one in messages]
    assert kinds.count("Error") == 1
    assert messages[kinds.index("ConfigureSuccess")]["keyterms"] == ["nine"]
    ends = [one["from_finalize"] for one in finals(messages)]
    assert ends.count(True) == 1
    before = finals(messages)[: ends.index(True) + 1]
    assert " ".join(filter(None, map(text_of, before))) == "seven three zero"
    assert said(messages) == DIGITS


def linear32(samples: np.ndarray) -> bytes:
    return (samples.astype(np.float32) / 32_768).astype("<f4").tobytes()


def opus_packets(samples: np.ndarray) -> list[bytes]:
    """Packets of 20 ms."""
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 16_000, "mono", "s16"
    encoder.time_base = Fraction(1, 16_000)
    found: list[bytes] = []
    for at in range(0, len(samples) - 319, 320):
        frame = _frame(samples[at : at + 320], at)
        found += [bytes(one) for one in encoder.encode(frame)]
    return found + [bytes(one) for one in encoder.encode(None)]


def _frame(samples: np.ndarray, at: int = 0) -> Any:
    frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
    frame.sample_rate, frame.pts, frame.time_base = 16_000, at, Fraction(1, 16_000)
    return frame


@pytest.mark.parametrize("encoding", ["linear32", "mulaw", "alaw", "opus"])
def test_encodings(service: Running, encoding: str) -> None:
    samples = np.frombuffer(pcm(EXAMPLES / "digits.wav")[0], np.int16)
    messages: list[bytes | str]
    if encoding == "linear32":
        messages = parts(linear32(samples), 5_001)
    elif encoding == "opus":
        messages = list(opus_packets(samples))
    else:
        messages = parts(g711(samples, f"pcm_{encoding}", 16_000), 1_001)
    assert said(talk(service, messages, encoding=encoding, sample_rate=16_000)) == DIGITS


@pytest.mark.parametrize("recording", RECORDINGS)
def test_a_recording_on_the_socket(service: Running, demo: kiku.Recognizer, recording: str) -> None:
    expected = demo.transcribe(EXAMPLES / recording)
    query = {"encoding": "flac"} if recording.endswith("flac") else {}
    messages = talk(service, parts((EXAMPLES / recording).read_bytes(), 4_001), **query)
    assert words_of(finals(messages)) == heard(expected.words)


def test_a_socket_for_a_recording_may_be_closed_without_one(service: Running) -> None:
    assert [one["type"] for one in talk(service, [])] == ["Metadata"]


def test_ogg_opus_on_the_socket(service: Running, tmp_path: Path) -> None:
    path = tmp_path / "digits.ogg"
    with av.open(str(path), "w") as out, av.open(str(EXAMPLES / "digits.wav")) as source:
        stream = out.add_stream("libopus", rate=48_000, layout="mono")
        for frame in source.decode(audio=0):
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    messages = talk(service, parts(path.read_bytes(), 999), encoding="ogg-opus")
    assert said(messages) == DIGITS


def test_a_wav_header_on_a_raw_socket(service: Running, demo: kiku.Recognizer) -> None:
    file = (EXAMPLES / "digits.wav").read_bytes()
    expected = demo.transcribe(EXAMPLES / "digits.wav")
    right = talk(service, parts(file), encoding="linear16", sample_rate=16_000)
    assert words_of(finals(right)) == heard(expected.words)
    wrong = talk(service, parts(file), encoding="linear16", sample_rate=48_000)
    assert words_of(finals(wrong)) == heard(expected.words)


def test_channels_apart(service: Running, demo: kiku.Recognizer) -> None:
    both = _both_channels()
    expected = demo.transcribe(both, kiku.StreamOptions(channel="each"), rate=16_000)
    messages = talk(
        service, parts(both.tobytes()), encoding="linear16", sample_rate=16_000, channels=2,
        multichannel=True,
    )  # fmt: skip
    for channel in (0, 1):
        assert words_of(finals(messages, channel)) == heard(expected.words, channel)
    assert messages[-1]["channels"] == 2


def _both_channels() -> np.ndarray:
    found = [
        np.frombuffer(pcm(EXAMPLES / one)[0], np.int16) for one in ("digits.wav", "answers.mp3")
    ]
    both = np.zeros((max(map(len, found)), 2), np.int16)
    for index, samples in enumerate(found):
        both[: len(samples), index] = samples
    return both


def test_a_client_that_falls_silent_is_left(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deepgram, "IDLE_S", 0.3)
    sound, rate = pcm(EXAMPLES / "digits.wav")
    with live(service, sample_rate=rate) as door:
        tap = Tap(door)
        for one in parts(sound):
            tap.send(one)
        with pytest.raises(websockets.exceptions.ConnectionClosedError) as closed:
            list(door)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason[:8]) == (1011, "NET-0001")
    messages = tap.checked(V1)
    assert said(messages) == DIGITS
    assert [one["variant"] for one in messages if one["type"] == "Error"] == ["NET-0001"]


# Turns.


def test_turns(service: Running) -> None:
    sound, rate = pcm(EXAMPLES / "digits.wav")
    sound = sound + bytes(int(2.5 * rate) * 2) + sound
    query = dict(model="flux-general-en", encoding="linear16", eager_eot_threshold=0.4)
    with (
        client(service) as one,
        one.listen.v2.connect(**query, sample_rate=rate) as door,
    ):
        tap = Tap(door)
        for one in parts(sound):
            tap.send(one)
        door.send_configure({"type": "Configure", "keyterms": ["nine"]})
        door.send_force_end_turn()
        door.send_close_stream()
        parsed = list(door)
    messages = tap.checked(V2)
    assert [type(one) for one in parsed] == [V2[one["type"]] for one in messages]
    assert [one["sequence_id"] for one in messages] == list(range(len(messages)))
    ends = [one for one in messages if one.get("event") == "EndOfTurn"]
    assert [one["transcript"] for one in ends] == [DIGITS, DIGITS]
    assert "ConfigureSuccess" in [one["type"] for one in messages]


def test_turns_async(service: Running) -> None:
    sound, rate = pcm(EXAMPLES / "answers.mp3")

    async def work() -> Tap:
        query = dict(
            model="flux-general-en", encoding="linear16", sample_rate=rate, eot_timeout_ms=3_000
        )
        async with async_client(service) as one, one.listen.v2.connect(**query) as door:
            tap = Tap(door)
            for part in parts(sound):
                await door.send_media(part)
            await door.send_close_stream()
            async for _ in door:
                pass
        return tap

    messages = asyncio.run(work()).checked(V2)
    assert messages[0]["type"] == "Connected"
    ends = [one for one in messages if one.get("event") == "EndOfTurn"]
    assert [one["transcript"] for one in ends] == ["yes no go stop yes start no stop"]


# Who is not let in.


def test_what_cannot_be_is_refused_at_the_handshake(service: Running) -> None:
    for path in ("v1", "v2"):
        with pytest.raises(websockets.exceptions.InvalidStatus) as told:
            _knock(service, path, redact="numbers")
        response = told.value.response
        assert response.status_code == 400
        assert "redact" in response.headers["dg-error"]
        body = json.loads(response.body or b"")
        assert body["request_id"] == response.headers["dg-request-id"]
        assert "redact" in body["err_msg"]
        with pytest.raises(websockets.exceptions.InvalidStatus) as told:
            _knock(service, path, keyterm="日本")
        assert told.value.response.headers["dg-error"].startswith("keyterm: the model's vocabulary")


def _knock(service: Running, path: str, **query: Any) -> None:
    with client(service) as one:
        listen: Any = one.listen.v1 if path == "v1" else one.listen.v2
        with listen.connect(model="nova-3", encoding="linear16", sample_rate=16_000, **query):
            pass


def test_busy_is_told_before_the_upgrade(service: Running) -> None:
    with live(service, channels=4, multichannel=True):
        for path in ("v1", "v2"):
            with pytest.raises(websockets.exceptions.InvalidStatus) as told:
                _knock(service, path)
            assert told.value.response.status_code == 503
            assert int(told.value.response.headers["Retry-After"]) > 0
            assert told.value.response.headers["dg-error"]


def test_keys(demo: kiku.Recognizer) -> None:
    with running(demo, api_key=("secret",)) as service:
        with pytest.raises(websockets.exceptions.InvalidStatus) as told:
            _knock(service, "v1")
        assert told.value.response.status_code == 401
        assert told.value.response.headers["dg-error"]
        assert told.value.response.headers["dg-request-id"]
        with client(service) as one, pytest.raises(ApiError) as refused:
            one.listen.v1.media.transcribe_file(request=b"x")
        assert refused.value.status_code == 401
        headers = refused.value.headers or {}
        assert headers["dg-request-id"] == refused.value.body["request_id"]
        with live(service, "secret") as door:
            door.send_close_stream()
            assert [message.type for message in door] == ["Metadata"]


# Recordings.


def posted(service: Running, data: bytes, **query: Any) -> httpx.Response:
    """What a recording is answered."""
    return httpx.post(f"{service.http}/v1/listen", params=query, content=data, timeout=60)


@pytest.mark.parametrize("recording", RECORDINGS)
def test_words_of_recordings(service: Running, demo: kiku.Recognizer, recording: str) -> None:
    data = (EXAMPLES / recording).read_bytes()
    expected = demo.transcribe(EXAMPLES / recording)
    with client(service) as one:
        told = one.listen.v1.media.transcribe_file(
            request=data, model="nova-3", utterances=True, paragraphs=True, smart_format=True,
            tag=["mine"],
        )  # fmt: skip
    [channel] = told.results.channels
    assert channel.alternatives[0].transcript == expected.text
    body = checked_answer(
        posted(service, data, utterances="true", paragraphs="true", tag="mine").text
    )
    alternative = body["results"]["channels"][0]["alternatives"][0]
    assert words_of([{"channel": {"alternatives": [alternative]}}]) == heard(expected.words)
    assert body["metadata"]["duration"] == pytest.approx(expected.duration, abs=2e-3)
    assert body["metadata"]["tags"] == ["mine"]
    assert len(body["metadata"]["sha256"]) == 64
    utterances = body["results"]["utterances"]
    assert " ".join(one["transcript"] for one in utterances) == expected.text
    paragraphs = alternative["paragraphs"]
    assert paragraphs["transcript"].split() == expected.text.split()
    assert sum(one["num_words"] for one in paragraphs["paragraphs"]) == len(expected)


def test_words_of_a_recording_async(service: Running, demo: kiku.Recognizer) -> None:
    data = (EXAMPLES / "digits.wav").read_bytes()

    async def work() -> Any:
        async with async_client(service) as one:
            return await one.listen.v1.media.transcribe_file(request=data, model="nova-3")

    told = asyncio.run(work())
    assert told.results.channels[0].alternatives[0].transcript == DIGITS


def test_raw_samples_as_a_recording(service: Running) -> None:
    sound, _ = pcm(EXAMPLES / "digits.wav")
    both = _both_channels().tobytes()
    for data, query in [
        (sound, {"encoding": "linear16", "sample_rate": 16_000}),
        ((EXAMPLES / "digits.wav").read_bytes(), {"encoding": "linear16", "sample_rate": 8_000}),
        (both, {"encoding": "linear16", "sample_rate": 16_000, "channels": 2,
                "multichannel": "true", "utterances": "true"}),
    ]:  # fmt: skip
        body = checked_answer(posted(service, data, **query).text)
        told = [one["alternatives"][0]["transcript"] for one in body["results"]["channels"]]
        assert told[0] == DIGITS
        assert body["metadata"]["channels"] == len(told) == query.get("channels", 1)
    assert told[1] == "yes no go stop yes start no stop"
    assert {one["channel"] for one in body["results"]["utterances"]} == {0, 1}


def test_recordings_that_cannot_be_heard(service: Running) -> None:
    with client(service) as one:
        media = one.listen.v1.media
        with pytest.raises(ApiError) as told:
            media.transcribe_file(request=b"no recording at all")
        assert told.value.status_code == 400
        assert {"err_code", "err_msg", "request_id"} == set(told.value.body)
        with pytest.raises(ApiError) as told:
            media.transcribe_url(url="https://example.org/a.wav")
        assert "does not fetch" in told.value.body["err_msg"]
        with pytest.raises(ApiError) as told:
            media.transcribe_file(request=b"x", summarize="v2")
        assert "summarize" in told.value.body["err_msg"]
        with pytest.raises(ApiError) as told:
            media.transcribe_file(
                request=Path(EXAMPLES / "digits.wav").read_bytes(), keyterm="日本"
            )
        assert told.value.body["err_msg"].startswith("keyterm: the model's vocabulary")
    empty = posted(service, b"")
    assert (empty.status_code, empty.json()["err_code"]) == (400, "Bad Request")
    assert empty.headers["dg-request-id"] == empty.json()["request_id"]


def test_silence_has_no_words(service: Running) -> None:
    silence = bytes(32_000)
    body = checked_answer(posted(service, silence, encoding="linear16", sample_rate=16_000,
                                 paragraphs="true", utterances="true").text)  # fmt: skip
    alternative = body["results"]["channels"][0]["alternatives"][0]
    assert (alternative["transcript"], alternative["words"]) == ("", [])
    assert body["results"]["utterances"] == []


def test_recordings_that_are_too_long(demo: kiku.Recognizer) -> None:
    with running(demo, max_upload_bytes=1_000) as service:
        told = posted(service, bytes(2_000))
        assert (told.status_code, told.json()["err_code"]) == (413, "Payload Too Large")

        def pieces() -> Iterator[bytes]:
            yield from [bytes(600)] * 4

        told = httpx.post(f"{service.http}/v1/listen", content=pieces())
        assert told.status_code == 413


def test_a_recording_that_ends_too_early_says_so(service: Running) -> None:
    data = (EXAMPLES / "directions.flac").read_bytes()
    told = posted(service, data[: len(data) // 2])
    assert told.status_code == 200
    assert told.headers["dg-error"]
    assert checked_answer(told.text)["metadata"]["duration"] > 1


def test_a_recording_that_finds_no_slot_is_told_to_come_later(demo: kiku.Recognizer) -> None:
    data = (EXAMPLES / "digits.wav").read_bytes()
    with running(demo, max_queue=0) as service, live(service, channels=4, multichannel=True):
        told = posted(service, data)
        assert told.status_code == 503
        wait_s = int(told.headers["Retry-After"])
        assert told.json()["err_msg"] == f"all 4 slots are taken: try again in {wait_s} s"
        assert told.json()["request_id"] == told.headers["dg-request-id"]


def test_work_stops_where_the_client_leaves(service: Running) -> None:
    hour = bytes([0xFF]) * (3_600 * 8_000)
    head = (
        "POST /v1/listen?encoding=mulaw HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Length: {len(hour)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(head.encode() + hour)
        assert _within(60.0, lambda: service.service.num_open == 1)
    assert _within(8.0, lambda: service.service.num_open == 0)
    assert service.service.admission.num_taken == 0


def _within(seconds: float, done: Callable[[], bool]) -> bool:
    """Whether something comes about in time; generously."""
    ends = time.monotonic() + seconds
    while not done() and time.monotonic() < ends:
        time.sleep(0.02)
    return done()
