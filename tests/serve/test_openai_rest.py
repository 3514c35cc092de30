"""OpenAI's REST interface: the SDK against a running service, and clients who mean no good."""

import asyncio
import io
import json
import os
import socket
import tempfile
import threading
import time
import wave
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types import Model
from openai.types.audio import (
    Transcription,
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionVerbose,
)

import kiku
from kiku.errors import StreamError
from kiku.serve import rest
from kiku.serve.app import App
from kiku.serve.service import Service
from kiku.serve.settings import Settings
from tests.serve.conftest import EXAMPLES
from tests.serve.openai_strict import strictly
from tests.serve.running import Running, running

DIGITS = EXAMPLES / "digits.wav"
ANSWERS = EXAMPLES / "answers.mp3"
DIRECTIONS = EXAMPLES / "directions.flac"
URL = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def heard(demo: kiku.Recognizer) -> dict[Path, kiku.Transcript]:
    """What the model hears in each recording, without a service."""
    return {path: demo.transcribe(path) for path in (DIGITS, ANSWERS, DIRECTIONS)}


@pytest.fixture(scope="module")
def client(service: Running) -> Generator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.http}/v1", api_key="none", max_retries=0) as one:
        yield one


@pytest.fixture(scope="module")
def small(demo: kiku.Recognizer) -> Generator[Running]:
    """A service that takes uploads of 200 kB only, and lets nothing wait."""
    with running(demo, max_upload_bytes=200_000, max_queue=0) as one:
        yield one


@pytest.fixture(autouse=True)
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """Where uploads lie: nothing of them is left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    until(lambda: not os.listdir(tmp_path))


def until(true: Any, seconds: float = 60.0) -> None:
    """Wait for something that should happen soon."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def sound(seconds: float) -> bytes:
    """A recording of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, 16_000, 0, "NONE", ""))
        out.writeframes(bytes(int(seconds * 16_000) * 2))
    return file.getvalue()


def post(service: Running, *, file: Any = DIGITS, **fields: str) -> httpx.Response:
    """A transcription, without the SDK."""
    content: Any = file.read_bytes() if isinstance(file, Path) else file
    files = None if content is None else {"file": ("x.wav", content)}
    return httpx.post(service.http + URL, data={"model": "demo", **fields}, files=files, timeout=60)


def error_of(response: httpx.Response) -> dict[str, Any]:
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert response.headers["content-type"] == "application/json"
    return error


# The SDK.


@pytest.mark.parametrize("path", [DIGITS, ANSWERS, DIRECTIONS])
def test_json_says_the_words(
    client: openai.OpenAI, heard: dict[Path, kiku.Transcript], path: Path
) -> None:
    with path.open("rb") as file:
        found = client.audio.transcriptions.create(file=file, model="whisper-1")
    assert found.text == heard[path].text
    assert found.usage is not None
    assert found.usage.to_dict() == {
        "type": "duration", "seconds": pytest.approx(heard[path].duration, abs=0.1),
    }  # fmt: skip


@pytest.mark.parametrize("format", ["text", "srt", "vtt"])
def test_plain_formats(
    client: openai.OpenAI, heard: dict[Path, kiku.Transcript], format: Any
) -> None:
    found: Any = client.audio.transcriptions.create(
        file=DIGITS, model="demo", response_format=format
    )
    expected = heard[DIGITS]
    texts = {"text": expected.text, "srt": expected.to_srt(), "vtt": expected.to_vtt()}
    assert found == texts[format]


@pytest.mark.parametrize(
    ("wanted", "words", "segments"),
    [(openai.omit, False, True), (["word"], True, False), (["word", "segment"], True, True)],
)
def test_verbose_json(
    client: openai.OpenAI, heard: dict[Path, kiku.Transcript], wanted: Any, words: bool,
    segments: bool,
) -> None:  # fmt: skip
    raw = client.audio.transcriptions.with_raw_response.create(
        file=DIGITS, model="demo", response_format="verbose_json", timestamp_granularities=wanted,
        language="en", prompt="digits", temperature=0,
    )  # fmt: skip
    found, expected = strictly(TranscriptionVerbose, raw.content), heard[DIGITS]
    assert (found.words is not None, found.segments is not None) == (words, segments)
    assert found.text == expected.text
    assert found.duration == pytest.approx(5.714, abs=0.1)
    if found.words is not None:
        told = [(one.word, one.start, one.end) for one in found.words]
        assert told == [(one.text, round(one.start, 3), round(one.end, 3)) for one in expected]
    if found.segments is not None:
        assert "".join(one.text for one in found.segments).strip() == found.text
        assert all(one.tokens and one.avg_logprob <= 0 for one in found.segments)


@pytest.mark.parametrize("logprobs", [False, True])
def test_events(client: openai.OpenAI, heard: dict[Path, kiku.Transcript], logprobs: bool) -> None:
    *deltas, done = client.audio.transcriptions.create(
        file=ANSWERS, model="gpt-4o-transcribe", stream=True,
        include=["logprobs"] if logprobs else [],
    )  # fmt: skip
    said = [strictly(TranscriptionTextDeltaEvent, one.to_json()) for one in deltas]
    last = strictly(TranscriptionTextDoneEvent, done.to_json())
    assert "".join(one.delta for one in said) == last.text == heard[ANSWERS].text
    assert len(said) == len(heard[ANSWERS])
    assert last.usage is not None
    assert last.usage.input_tokens == pytest.approx(12.5 * heard[ANSWERS].duration, abs=1)
    assert (last.logprobs is not None) == logprobs


def test_words_come_as_they_are_decided(
    service: Running, demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The model goes on with the second half of a minute only when the first words are there.
    engine, received, heard = demo.scheduler.engine, threading.Event(), [0]
    was_there: list[bool] = []
    step = engine.step

    def patient_step(slots: Any, frames: Any, counts: Any) -> Any:
        heard[0] += len(frames)
        if heard[0] > 400 and not was_there:
            was_there.append(received.wait(30))
        return step(slots, frames, counts)

    monkeypatch.setattr(engine, "step", patient_step)
    with wave.open(str(DIGITS)) as file:
        params, frames = file.getparams(), file.readframes(10**9)
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams(params)
        file.writeframes(frames * 10)
    num_lines = 0
    with httpx.stream(
        "POST", service.http + URL, data={"model": "demo", "stream": "true"},
        files={"file": out.getvalue()}, timeout=60,
    ) as response:  # fmt: skip
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            num_lines += bool(line)
            received.set()
    assert num_lines > 20
    assert was_there == [True]


def test_what_is_sent_and_received_is_counted(service: Running) -> None:
    metrics = service.service.metrics
    sent, received = (one.labels("openai_rest")._value for one in (metrics.sent, metrics.received))
    refused = metrics.errors.labels("openai_rest", "404")._value
    before = sent.get(), received.get(), refused.get()
    answer = post(service)
    assert sent.get() - before[0] == len(answer.content)
    assert received.get() - before[1] > DIGITS.stat().st_size
    httpx.get(f"{service.http}/v1/nothing")
    assert refused.get() - before[2] == 1


def test_logprobs_in_json(client: openai.OpenAI, heard: dict[Path, kiku.Transcript]) -> None:
    raw = client.audio.transcriptions.with_raw_response.create(
        file=DIGITS, model="demo", include=["logprobs"]
    )
    found = strictly(Transcription, raw.content)
    assert found.logprobs is not None
    spelled = b"".join(bytes(map(int, one.bytes or [])) for one in found.logprobs)
    assert spelled.decode() == "".join(one.token or "" for one in found.logprobs) == found.text


def test_async(service: Running, heard: dict[Path, kiku.Transcript]) -> None:
    async def ask() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=f"{service.http}/v1", api_key="none") as client:
            whole, events = await asyncio.gather(
                client.audio.transcriptions.create(file=DIGITS, model="demo"),
                client.audio.transcriptions.create(file=DIRECTIONS, model="demo", stream=True),
            )
            said = [event async for event in events]
            return whole.text, said[-1].to_dict()["text"]  # pyright: ignore[reportReturnType]

    assert asyncio.run(ask()) == (heard[DIGITS].text, heard[DIRECTIONS].text)


@pytest.mark.parametrize("stream", [False, True])
def test_silence_gives_an_empty_text(service: Running, stream: bool) -> None:
    answer = post(service, file=sound(2), stream=str(stream).lower())
    assert answer.status_code == 200
    if not stream:
        assert strictly(Transcription, answer.content).text == ""
        return
    (only,) = answer.text.strip().split("\n\n")
    assert strictly(TranscriptionTextDoneEvent, only.removeprefix("data: ")).text == ""


def test_every_parameter_of_the_sdk_is_read(client: openai.OpenAI) -> None:
    found = client.audio.transcriptions.create(
        file=("lies.mp3", DIGITS.read_bytes(), "video/mp4"), model="demo", keywords=["seven"],
        chunking_strategy={"type": "server_vad", "threshold": 0.5, "silence_duration_ms": 100},
        include=["logprobs"], languages=["en", "de"], temperature=0, response_format="json",
        stream=False,
    )  # fmt: skip
    assert "seven" in found.text
    client.audio.transcriptions.create(
        file=DIGITS, model="demo", chunking_strategy="auto", temperature=0.1
    )


def test_models(client: openai.OpenAI) -> None:
    listed = client.models.with_raw_response.list()
    plain = json.loads(listed.content)
    assert plain["object"] == "list"
    (one,) = plain["data"]
    assert strictly(Model, json.dumps(one)).id == "demo"
    for name in ("demo", "whisper-1"):
        raw = client.models.with_raw_response.retrieve(name)
        assert strictly(Model, raw.content).id == "demo"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("kyutai/other-model")
    assert caught.value.code == "model_not_found"
    assert "kyutai/other-model" in caught.value.message


# Errors.


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "other"}, 404, "model"),
        ({"response_format": "diarized_json"}, 400, "response_format"),
        ({"temperature": "2"}, 400, "temperature"),
        ({"timestamp_granularities[]": "word"}, 400, "timestamp_granularities"),
        ({"known_speaker_names[]": "Ann"}, 400, "known_speaker_names"),
        ({"language": "fr"}, 400, "language"),
        ({"keywords[]": "日本"}, 400, "keywords"),
        ({"stream": "true", "keywords[]": "日本"}, 400, "keywords"),
        ({"file": None}, 400, "file"),
        ({"file": b""}, 400, "file"),
        ({"file": b"This is a text, and no recording.\n" * 100}, 400, "file"),
        ({"file": os.urandom(5_000), "stream": "true"}, 400, "file"),
        ({"prompt": "x" * 70_000}, 400, "prompt"),
    ],
)
def test_errors_name_what_is_at_fault(
    service: Running, fields: dict[str, Any], status: int, param: str
) -> None:
    if "file" in fields and fields["file"] is None:
        files: Any = {"model": (None, "demo")}
        answer = httpx.post(service.http + URL, files=files, timeout=60)
    else:
        answer = post(service, **fields)
    error = error_of(answer)
    assert (answer.status_code, error["param"]) == (status, param)
    assert answer.headers["x-request-id"]


def test_an_empty_file_is_called_so(service: Running) -> None:
    assert "empty" in error_of(post(service, file=b""))["message"]


def test_a_text_that_cannot_be_spelled_has_no_tokens(service: Running) -> None:
    encode = rest._encoder(service.service)  # pyright: ignore[reportPrivateUsage]
    assert list(encode("日本")) == []
    assert list(encode("seven")) == service.service.recognizer.vocabulary.encode("seven")


def test_the_sdk_raises_what_is_said(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.transcriptions.create(file=("x.wav", b"no sound"), model="demo")
    assert caught.value.param == "file"
    with pytest.raises(openai.NotFoundError) as lost:
        client.audio.transcriptions.create(file=DIGITS, model="llama-9")
    assert lost.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("POST", "/v1/audio/translations", 404),
        ("POST", "/v1/chat/completions", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/", 404),
        ("GET", URL, 405),
        ("OPTIONS", URL, 405),
        ("POST", "/v1/models", 405),
        ("DELETE", "/v1/models/demo", 405),
    ],
)
def test_other_paths_and_methods(service: Running, method: str, path: str, status: int) -> None:
    answer = httpx.request(method, service.http + path)
    assert answer.status_code == status
    assert error_of(answer)["type"] == "invalid_request_error"
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    ("kind", "content", "match"),
    [
        (None, b"", "Content-Type"),
        ("application/json", b'{"model": "demo"}', "Content-Type"),
        ("multipart/form-data", b"x", "boundary"),
        ("multipart/form-data; boundary=b", b"no form", "damaged"),
        ("multipart/form-data; boundary=b", b"--b\r\n", "ends before its last boundary"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nRIFF', "ends before its "
                                                                               "last boundary",
        ),
    ],
)  # fmt: skip
def test_bodies_that_are_no_forms(
    service: Running, kind: str | None, content: bytes, match: str
) -> None:
    headers = {} if kind is None else {"content-type": kind}
    answer = httpx.post(service.http + URL, content=content, headers=headers)
    assert answer.status_code == 400
    assert match in error_of(answer)["message"]


def test_a_recording_that_breaks_off(service: Running, heard: dict[Path, kiku.Transcript]) -> None:
    answer = post(service, file=DIGITS.read_bytes()[:100_000])
    assert answer.status_code == 200
    assert heard[DIGITS].text.startswith(answer.json()["text"][:10])
    assert answer.headers["x-kiku-problem"]


# Bounds.


def connection(service: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=60)


HEAD = (
    f"POST {URL} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
).encode()
PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'


def answered(sock: socket.socket) -> tuple[int, dict[str, Any]]:
    """The status and the body of an answer."""
    with sock.makefile("rb") as lines:
        status = int(lines.readline().split()[1])
        length = 0
        while (line := lines.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return status, json.loads(lines.read(length))


def test_a_length_that_is_too_large_is_refused_before_a_byte_comes(small: Running) -> None:
    with connection(small) as sock:
        sock.sendall(HEAD + b"Content-Length: 200001\r\n\r\n")
        status, body = answered(sock)
    assert (status, body["error"]["param"]) == (413, "file")


def test_a_body_without_a_length_is_refused_while_it_comes(small: Running) -> None:
    with connection(small) as sock:
        sock.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        piece = PART + bytes(250_000)
        sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))  # and no end
        status, body = answered(sock)
    assert (status, body["error"]["code"]) == (413, "request_too_large")


def test_the_sdk_is_told_of_what_is_too_large(small: Running) -> None:
    with openai.OpenAI(base_url=f"{small.http}/v1", api_key="x", max_retries=0) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            client.audio.transcriptions.create(file=bytes(30_000_000), model="demo")
        assert caught.value.status_code == 413
        assert client.audio.transcriptions.create(file=ANSWERS, model="demo").text


def test_a_length_beyond_all_bounds(small: Running) -> None:
    with connection(small) as sock:
        sock.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % 2**62)
        assert answered(sock)[0] == 413


def test_a_full_service_says_when_to_come_again(small: Running) -> None:
    async def take() -> Any:
        return small.service.permit(4)

    held = small.call(take)
    try:
        answer = post(small)
        assert answer.status_code == 503
        assert 1 <= int(answer.headers["retry-after"]) <= 120
        assert error_of(answer)["type"] == "server_error"
        with connection(small) as sock:  # before the recording is sent
            sock.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")
            assert answered(sock)[0] == 503
    finally:
        small.loop.call_soon_threadsafe(held.release)
    until(lambda: small.service.admission.num_taken == 0)
    assert post(small, file=ANSWERS).status_code == 200


def test_a_client_that_waits_in_the_queue_is_told_too(demo: kiku.Recognizer) -> None:
    with running(demo, queue_s=0.1) as one:

        async def take() -> Any:
            return one.service.permit(4)

        held = one.call(take)
        answer = post(one, stream="true")
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
        one.loop.call_soon_threadsafe(held.release)


def test_the_sdk_comes_again_when_it_is_told(demo: kiku.Recognizer) -> None:
    with running(demo, queue_s=0.1) as one:

        async def take() -> Any:
            return one.service.permit(4)

        held = one.call(take)
        threading.Timer(0.5, lambda: one.loop.call_soon_threadsafe(held.release)).start()
        with openai.OpenAI(base_url=f"{one.http}/v1", api_key="x", max_retries=20) as client:
            assert client.audio.transcriptions.create(file=ANSWERS, model="demo").text


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_stops_its_work(service: Running, stream: bool) -> None:
    name = "stream" if stream else "prompt"
    field = f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\ntrue\r\n'.encode()
    model = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ndemo\r\n'
    body = field + model + PART + sound(3_000) + b"\r\n--b--\r\n"
    with connection(service) as sock:
        sock.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        until(lambda: service.service.admission.num_taken == 1)
    until(lambda: service.service.admission.num_taken == 0, 20)
    assert service.service.num_open == 0


def test_who_leaves_while_sending_leaves_nothing(service: Running, uploads: Path) -> None:
    with connection(service) as sock:
        sock.sendall(HEAD + b"Content-Length: 900000\r\n\r\n" + PART + bytes(600_000))
        until(lambda: any(path.stat().st_size > 200_000 for path in uploads.iterdir()))
    until(lambda: not os.listdir(uploads))


def test_who_sends_too_slowly_is_cut_off(demo: kiku.Recognizer, uploads: Path) -> None:
    with running(demo, body_s=0.2) as one, connection(one) as sock:
        sock.sendall(HEAD + b"Content-Length: 900000\r\n\r\n" + PART)
        assert answered(sock)[0] == 408


def test_a_good_client_beside_bad_ones(
    service: Running, heard: dict[Path, kiku.Transcript]
) -> None:
    bad = [connection(service) for _ in range(10)]
    try:
        for i, sock in enumerate(bad):
            sock.sendall((HEAD + b"Content-Length: 900000\r\n\r\n" + PART)[: 40 + 30 * i])
        assert post(service).json()["text"] == heard[DIGITS].text
    finally:
        for sock in bad:
            sock.close()


def test_keys_are_asked_for_in_openais_form(demo: kiku.Recognizer) -> None:
    with running(demo, api_key=("right",)) as one:
        with openai.OpenAI(base_url=f"{one.http}/v1", api_key="wrong") as client:
            with pytest.raises(openai.AuthenticationError):
                client.models.list()
            with pytest.raises(openai.AuthenticationError):
                client.audio.transcriptions.create(file=DIGITS, model="demo")
        with openai.OpenAI(base_url=f"{one.http}/v1", api_key="right") as client:
            assert client.models.list().data[0].id == "demo"


def test_other_refusals_have_openais_form(demo: kiku.Recognizer) -> None:
    with running(demo, max_requests_per_minute=2) as one:
        answers = [httpx.get(f"{one.http}/v1/models") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        error_of(answers[-1])
        assert int(answers[-1].headers["retry-after"]) > 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_recording_that_is_too_long(demo: kiku.Recognizer, stream: bool) -> None:
    with running(demo, max_upload_s=2.0) as one:
        answer = post(one, stream=str(stream).lower())
    if stream:
        body = json.loads(answer.text.strip().split("\n\n")[-1].removeprefix("data: "))
        assert body["error"]["param"] == "file"
    else:
        assert (answer.status_code, error_of(answer)["param"]) == (400, "file")


class Breaks:
    """A recording in which the model fails after a word."""

    async def __aiter__(self) -> AsyncIterator[kiku.Word]:
        yield kiku.Word("Hello", 0.0, 0.5, 0.5)
        raise StreamError("a secret of the machine room")


@pytest.fixture
def broken(service: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    """A service whose model fails."""

    @asynccontextmanager
    async def hear(*_: Any) -> AsyncGenerator[Breaks]:
        yield Breaks()

    monkeypatch.setattr(service.service, "transcribe_upload", hear)
    return service


def test_a_failure_is_told_without_its_insides(broken: Running) -> None:
    answer = post(broken)
    assert (answer.status_code, error_of(answer)["type"]) == (500, "server_error")
    assert "secret" not in answer.text


def test_a_failure_amid_events_is_raised_by_the_sdk(broken: Running, client: openai.OpenAI) -> None:
    events = client.audio.transcriptions.create(file=DIGITS, model="demo", stream=True)
    assert next(events).to_dict()["delta"] == "Hello"
    with pytest.raises(openai.APIError, match="failed"):
        next(events)


def test_who_reads_nothing_gives_its_slot_back(demo: kiku.Recognizer) -> None:
    async def talk() -> None:
        app = App(Service(Settings(write_s=0.1), demo))
        request = httpx.Request(
            "POST", "http://x" + URL, data={"model": "demo", "stream": "true"},
            files={"file": DIGITS.read_bytes()},
        )  # fmt: skip
        message = {"type": "http.request", "body": request.read(), "more_body": False}
        messages, never = [message], asyncio.Event()
        sent: list[str] = []

        async def receive() -> Any:
            if not messages:
                await never.wait()
            return messages.pop()

        async def send(message: Any) -> None:
            sent.append(message["type"])
            if message["type"] == "http.response.body":
                await never.wait()

        headers = [(name.lower(), value) for name, value in request.headers.raw]
        scope = {"type": "http", "method": "POST", "path": URL, "raw_path": URL.encode(),
                 "root_path": "", "query_string": b"", "headers": headers}  # fmt: skip
        await app(scope, receive, send)
        assert sent == ["http.response.start", "http.response.body"]
        assert app.service.admission.num_taken == 0
        await app.drain(0)

    asyncio.run(talk())


def test_the_log_says_how_much_and_not_what(
    service: Running, heard: dict[Path, kiku.Transcript], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    answer = httpx.post(
        service.http + URL, data={"model": "demo", "prompt": "a private matter"},
        files={"file": ("private.wav", DIGITS.read_bytes())},
        headers={"authorization": "Bearer a-private-key"}, timeout=60,
    )  # fmt: skip
    ends = time.monotonic() + 30
    lines: list[str] = []
    while not lines:  # it is written behind the answer
        assert time.monotonic() < ends
        lines = [line for line in caplog.messages if line.startswith("upload ")]
    assert len(lines) == 1
    assert f"words={len(heard[DIGITS])} " in lines[0]
    assert f"id={answer.headers['x-request-id']} " in lines[0]
    assert lines[0].endswith("status=200")
    assert "private" not in caplog.text.lower()
    assert heard[DIGITS].text not in caplog.text


def test_the_log_has_the_text_where_it_is_wanted(
    demo: kiku.Recognizer, heard: dict[Path, kiku.Transcript], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with running(demo, log_text=True) as one:
        post(one)
    assert f"status=200 text={heard[DIGITS].text}" in caplog.text


def test_the_log_says_how_a_refusal_was_answered(
    service: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    answer = httpx.post(service.http + URL, data={"model": "demo"}, timeout=60)
    ends = time.monotonic() + 30
    lines: list[str] = []
    while not lines:  # it is written behind the answer
        assert time.monotonic() < ends
        lines = [line for line in caplog.messages if line.startswith("upload ")]
    assert answer.status_code == 400
    assert lines[0].endswith("status=400")
