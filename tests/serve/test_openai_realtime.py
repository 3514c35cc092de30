"""OpenAI's Realtime transcription with the `openai` SDK against a service with the demo model."""

import asyncio
import base64
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import AsyncOpenAI, OpenAI
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

import kiku
from kiku.audio import read_chunks
from tests.serve.conftest import EXAMPLES
from tests.serve.realtime_clients import Told
from tests.serve.recordings import g711
from tests.serve.running import Running, running

PATIENCE_S = 120.0
INTENT = {"intent": "transcription"}
RECORDINGS = ["answers.mp3", "digits.wav", "directions.flac"]
CHUNK = 2_401  # bytes: 50 ms, as frameworks send, and half a sample
SILENCE_S = 4.0

# The SDK's own use of websockets.
pytestmark = pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager")


def pcm_of(path: Path) -> bytes:
    """16-bit samples at 24 kHz."""
    samples = np.concatenate(list(read_chunks(path, 24_000)))
    return (samples * 32_767).round().astype("<i2").tobytes()


def chunks_of(data: bytes) -> list[str]:
    return [base64.b64encode(data[at : at + CHUNK]).decode() for at in range(0, len(data), CHUNK)]


def words_of(demo: kiku.Recognizer, data: bytes) -> str:
    """What the model makes of it alone."""
    return demo.transcribe(np.frombuffer(data, "<i2"), rate=24_000).text


def session(**input: Any) -> Any:
    return {"type": "transcription", "audio": {"input": input}}


def client_of(service: Running) -> OpenAI:
    # Its own http address becomes the socket's.
    return OpenAI(base_url=f"{service.http}/v1", api_key="none", max_retries=0)


def until(connection: Any, told: Told, kind: str) -> dict[str, Any]:
    """Receive up to the next message of a kind; each is checked as it comes."""
    while True:
        raw = connection.recv_bytes()
        one = told.take(raw.decode())
        if one["type"].endswith(kind):
            return one


@pytest.mark.parametrize("name", RECORDINGS)
def test_commits_by_hand_have_the_words_of_the_recording(
    service: Running, demo: kiku.Recognizer, name: str
) -> None:
    told, sound = Told(), pcm_of(EXAMPLES / name)
    with client_of(service).realtime.connect(extra_query=INTENT) as connection:
        until(connection, told, "session.created")
        connection.session.update(session=session(turn_detection=None))
        until(connection, told, "session.updated")
        for _ in range(2):
            for chunk in chunks_of(sound):
                connection.input_audio_buffer.append(audio=chunk)
            connection.input_audio_buffer.append(audio=base64.b64encode(bytes(48_000)).decode())
            connection.input_audio_buffer.commit()
        done = [until(connection, told, "completed") for _ in range(2)]
    expected = words_of(demo, sound)
    assert expected
    assert done[0]["transcript"] == expected
    assert told.types.count("input_audio_buffer.committed") == 2
    assert not told.errors
    seconds = len(sound) / 48_000 + 1
    assert done[1]["usage"] == {"type": "duration", "seconds": pytest.approx(seconds, abs=0.002)}


def test_turns_commit_by_themselves_and_have_all_words_between_them(
    service: Running, demo: kiku.Recognizer
) -> None:
    sound = b"".join(pcm_of(EXAMPLES / name) + silence(SILENCE_S) for name in RECORDINGS)
    told = Told()

    async def talk() -> None:
        client = AsyncOpenAI(base_url=f"{service.http}/v1", api_key="none")
        async with client.realtime.connect(model="whisper-1", extra_query=INTENT) as connection:
            await connection.session.update(
                session=session(
                    transcription={"model": "whisper-1", "language": "en", "prompt": "x"},
                    turn_detection={"type": "semantic_vad", "eagerness": "low"},
                    noise_reduction={"type": "near_field"},
                )
            )
            for chunk in chunks_of(sound):
                await connection.input_audio_buffer.append(audio=chunk)
            await connection.input_audio_buffer.commit()
            async with asyncio.timeout(PATIENCE_S):
                while told.messages[-1:] == [] or not is_last(told, len(sound)):
                    told.take((await connection.recv_bytes()).decode())

    asyncio.run(talk())
    texts = [text for text in told.transcripts.values() if text]
    assert len(texts) >= len(RECORDINGS)
    assert " ".join(texts) == words_of(demo, sound)
    told.assert_all_answered()
    for item, text in told.transcripts.items():
        kinds = told.of(item)
        assert kinds[-4:] == ["buffer.committed", "added", "done", "transcription.completed"]
        if text:
            assert kinds[0] == "buffer.speech_started"
            assert kinds[-5] == "buffer.speech_stopped"
    assert not told.errors


def silence(seconds: float) -> bytes:
    return bytes(int(seconds * 24_000) * 2)


def is_last(told: Told, num_bytes: int) -> bool:
    """Whether all sound was committed and answered."""
    seconds = sum(one["usage"]["seconds"] for one in told.messages if "usage" in one)
    return seconds > num_bytes / 48_000 - 0.05


def test_the_beta_by_its_own_sdk(service: Running, demo: kiku.Recognizer) -> None:
    told, sound = Told(beta=True), pcm_of(EXAMPLES / "digits.wav")
    client = OpenAI(
        base_url=f"{service.http}/v1", websocket_base_url=f"{service.ws}/v1", api_key="none"
    )
    with client.beta.realtime.connect(model="whisper-1", extra_query=INTENT) as connection:
        until(connection, told, "transcription_session.created")
        connection.transcription_session.update(
            session={
                "input_audio_format": "pcm16",
                "input_audio_transcription": {"model": "whisper-1", "language": "en"},
                "turn_detection": {"type": "server_vad", "silence_duration_ms": 1_500},
            }
        )
        for chunk in chunks_of(sound + silence(SILENCE_S)):
            connection.input_audio_buffer.append(audio=chunk)
        done = until(connection, told, "completed")
    assert done["transcript"] == words_of(demo, sound)
    assert told.of(done["item_id"])[-3:] == [
        "buffer.committed",
        "created",
        "transcription.completed",
    ]
    assert not told.errors


@pytest.mark.parametrize(("kind", "law"), [("audio/pcmu", "mulaw"), ("audio/pcma", "alaw")])
def test_telephone_sound(service: Running, demo: kiku.Recognizer, kind: str, law: str) -> None:
    told, path = Told(), EXAMPLES / "digits.wav"
    samples = np.concatenate(list(read_chunks(path, 8_000)))
    sound = g711((samples * 32_767).round().astype(np.int16), f"pcm_{law}", 8_000)
    with client_of(service).realtime.connect(extra_query=INTENT) as connection:
        connection.session.update(session=session(turn_detection=None, format={"type": kind}))
        connection.input_audio_buffer.append(audio=base64.b64encode(sound).decode())
        connection.input_audio_buffer.commit()
        done = until(connection, told, "completed")
    assert done["transcript"] == demo.transcribe(path).text
    assert done["usage"]["seconds"] == pytest.approx(len(sound) / 8_000, abs=0.001)


def test_mistakes_are_told_and_the_session_goes_on(service: Running, demo: kiku.Recognizer) -> None:
    told, sound = Told(), pcm_of(EXAMPLES / "digits.wav")
    with client_of(service).realtime.connect(extra_query=INTENT) as connection:
        connection.session.update(session=session(turn_detection=None))
        connection.send({"type": "response.create", "event_id": "a"})
        connection.send({"type": "input_audio_buffer.commit", "event_id": "b"})
        connection.send({"type": "input_audio_buffer.append", "audio": "?", "event_id": "c"})
        for chunk in chunks_of(sound):
            connection.input_audio_buffer.append(audio=chunk)
        connection.input_audio_buffer.commit()
        done = until(connection, told, "completed")
    assert [one["event_id"] for one in told.errors] == ["a", "b", "c"]
    assert done["transcript"] == words_of(demo, sound)


def test_a_change_and_a_clear_in_the_middle(service: Running, demo: kiku.Recognizer) -> None:
    told, sound = Told(), pcm_of(EXAMPLES / "digits.wav")
    with client_of(service).realtime.connect(extra_query=INTENT) as connection:
        connection.session.update(session=session(turn_detection=None))
        for chunk in chunks_of(sound):
            connection.input_audio_buffer.append(audio=chunk)
        connection.input_audio_buffer.clear()
        for chunk in chunks_of(sound):
            connection.input_audio_buffer.append(audio=chunk)
        connection.session.update(session=session(turn_detection={"type": "semantic_vad"}))
        for chunk in chunks_of(sound + silence(SILENCE_S)):
            connection.input_audio_buffer.append(audio=chunk)
        done = [until(connection, told, "completed") for _ in range(2)]
    expected = words_of(demo, sound)
    assert [one["transcript"] for one in done] == [expected, expected]
    assert not told.errors


def test_a_model_that_is_not_here_is_refused_before_the_upgrade(service: Running) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{service.ws}/v1/realtime?intent=transcription&model=gpt-realtime")
    assert refused.value.response.status_code == 404
    assert b"model_not_found" in refused.value.response.body


def test_a_full_service_says_when_to_come_again() -> None:
    with running(kiku.load("demo", slots=1)) as service:
        address = f"{service.ws}/v1/realtime?intent=transcription"
        with connect(address, compression=None), pytest.raises(InvalidStatus) as refused:
            connect(address)
    response = refused.value.response
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert b"server_busy" in response.body


def test_an_idle_connection_completes_the_item_that_is_open(demo: kiku.Recognizer) -> None:
    told, sound = Told(), pcm_of(EXAMPLES / "digits.wav")[: int(5.3 * 48_000)]
    with (
        running(demo, idle_s=0.5) as service,
        connect(f"{service.ws}/v1/realtime?intent=transcription", compression=None) as socket,
    ):
        told.take(str(socket.recv(PATIENCE_S)))
        audio = base64.b64encode(sound).decode()
        socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
        with suppress(ConnectionClosed):
            while True:
                told.take(str(socket.recv(PATIENCE_S)))
        assert socket.close_code == 1000
        assert socket.close_reason == "nothing was received for 0.5 seconds"
    assert " ".join(told.transcripts.values()) == "seven three zero one nine four"
    told.assert_all_answered()


def test_a_service_that_ends_answers_every_commit_and_says_goodbye() -> None:
    told = Told()
    with running(kiku.load("demo", slots=1), drain_s=0.0) as service:
        socket = connect(f"{service.ws}/v1/realtime?intent=transcription", compression=None)
        told.take(str(socket.recv(PATIENCE_S)))
        audio = base64.b64encode(bytes(48_000 * 120)).decode()
        socket.send(
            '{"type":"session.update","session":{"audio":{"input":{"turn_detection":null}}}}'
        )
        told.take(str(socket.recv(PATIENCE_S)))
        for _ in range(2):
            socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
            socket.send('{"type":"input_audio_buffer.commit"}')
        socket.send('{"type":"x"}')
        assert told.take(str(socket.recv(PATIENCE_S)))["type"] == "error"
    with suppress(ConnectionClosed):
        while True:
            told.take(str(socket.recv(PATIENCE_S)))
    assert socket.close_code == 1012
    assert len(told.transcripts) + len(told.failed) == 2
    told.assert_all_answered()
