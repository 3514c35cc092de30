"""What moshi-server answers over plain HTTP, asked of a running service."""

import asyncio
import io
import logging
import wave
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

import kiku
from kiku.serve.admission import Permit
from tests.serve.conftest import EXAMPLES
from tests.serve.deepgram_talk import pcm
from tests.serve.kyutai_types import checked_list
from tests.serve.running import Running, running

PATH = "/api/asr-streaming"
LONG_S = 60.0


def post(service: Running, content: "bytes | Iterator[bytes]", **headers: str) -> httpx.Response:
    return httpx.post(service.http + PATH, content=content, headers=headers, timeout=LONG_S)


@pytest.mark.parametrize("name", ["digits.wav", "answers.mp3", "directions.flac"])
def test_a_recording_is_answered_with_its_words(service: Running, demo: kiku.Recognizer, name: str):
    path = EXAMPLES / name
    answer = post(service, path.read_bytes())
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    wanted = demo.transcribe(path).words
    checked_list(answer.json())
    assert answer.json() == [
        message
        for word in wanted
        for message in (
            {"type": "Word", "text": word.text, "start_time": round(word.start, 3)},
            {"type": "EndWord", "stop_time": round(word.end, 3)},
        )
    ]


def test_of_several_channels_the_first_is_transcribed(service: Running, demo: kiku.Recognizer):
    data, rate = pcm(EXAMPLES / "digits.wav")
    left = np.frombuffer(data, np.int16)
    both = io.BytesIO()
    with wave.open(both, "wb") as file:
        file.setparams((2, 2, rate, 0, "NONE", ""))
        file.writeframes(np.stack([left, left[::-1]], axis=1).tobytes())
    words = [one["text"] for one in post(service, both.getvalue()).json() if one["type"] == "Word"]
    assert words == demo.transcribe(EXAMPLES / "digits.wav").text.split()


def test_a_recording_that_breaks_off_says_so_behind_its_words(service: Running):
    flac = (EXAMPLES / "directions.flac").read_bytes()
    answer = post(service, flac[: len(flac) * 2 // 3])
    assert answer.status_code == 200
    checked_list(answer.json())
    assert [one["type"] for one in answer.json()][-3:] == ["Word", "EndWord", "Error"]


@pytest.mark.parametrize("content", [b"", b"no sound at all" * 100])
def test_what_is_no_recording_is_refused(service: Running, content: bytes):
    answer = post(service, content)
    assert answer.status_code == 400
    assert "cannot be transcribed" in answer.json()["error"]


@pytest.mark.parametrize("is_stated", [True, False])
def test_what_is_too_long_is_refused_while_it_comes(demo: kiku.Recognizer, is_stated: bool):
    data = bytes(3_000_000)
    with running(demo, max_upload_bytes=100_000) as service:
        answer = post(service, data if is_stated else (data[i::3] for i in range(3)))
        assert answer.status_code == 413
        assert "100000" in answer.json()["error"]
        assert post(service, (EXAMPLES / "answers.mp3").read_bytes()[:90_000]).status_code == 200


def test_where_no_slot_comes_free_the_client_is_told_when_to_come_back(demo: kiku.Recognizer):
    with running(demo, queue_s=0.1) as service:

        async def take_all() -> list[Permit]:
            return [service.service.permit() for _ in range(4)]

        permits = service.call(take_all)
        sound = (EXAMPLES / "digits.wav").read_bytes()
        answer = post(service, sound)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        for permit in permits:
            service.loop.call_soon_threadsafe(permit.release)
        assert post(service, sound).status_code == 200


def test_a_client_that_leaves_gives_its_slot_back(
    service: Running, caplog: pytest.LogCaptureFixture
):
    async def visit() -> None:
        async with httpx.AsyncClient() as client:
            sound = (EXAMPLES / "answers.mp3").read_bytes()
            asking = asyncio.create_task(client.post(service.http + PATH, content=sound))
            async with asyncio.timeout(LONG_S):
                while not service.service.num_open:
                    await asyncio.sleep(0.01)
            asking.cancel()

    async def wait() -> None:
        async with asyncio.timeout(LONG_S):
            while service.service.num_open or service.service.admission.num_taken or not told():
                await asyncio.sleep(0.01)

    def told() -> list[str]:
        return [one for one in caplog.messages if "protocol=kyutai-file" in one]

    with caplog.at_level(logging.INFO):
        asyncio.run(visit())
        service.call(wait)
    (line,) = told()
    assert line.endswith("status=499")  # its work was not done to the end


def test_what_it_is(service: Running, demo: kiku.Recognizer):
    build = httpx.get(f"{service.http}/api/build_info").json()
    assert set(build) == {
        "build_timestamp", "build_date", "git_branch", "git_timestamp", "git_date", "git_hash",
        "git_describe", "rustc_host_triple", "rustc_version", "cargo_target_triple",
    }  # fmt: skip
    assert all(isinstance(value, str) and value for value in build.values())
    assert kiku.__version__ in build["git_describe"]


def test_its_slots_are_counted(demo: kiku.Recognizer):
    with running(demo) as service:

        async def take() -> Permit:
            return service.service.permit()

        for taken in range(3):
            (module,) = httpx.get(f"{service.http}/api/modules_info").json()
            assert module == {
                "type": "batched_asr", "path": PATH, "lm": demo.name, "audio_tokenizer": demo.name,
                "used_slots": str(taken), "total_slots": "4",
            }  # fmt: skip
            service.call(take)


def test_keys_are_wanted_here_too(demo: kiku.Recognizer):
    sound = (EXAMPLES / "digits.wav").read_bytes()
    with running(demo, api_key=("sesame",)) as service:
        assert post(service, sound).status_code == 401
        assert httpx.get(f"{service.http}/api/build_info").status_code == 401
        assert post(service, sound, **{"kyutai-api-key": "sesame"}).status_code == 200
