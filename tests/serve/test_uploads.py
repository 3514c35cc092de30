"""Recordings from outside: decoded in a process of their own, heard beside live streams."""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import socket
import tempfile
import threading
import time
import wave
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import httpx
import numpy as np
import pytest

import kiku
from kiku.errors import AudioError, TruncatedAudio
from kiku.options import AudioFormat, StreamOptions
from kiku.serve import decoder as decoder_module
from kiku.serve import rest_deepgram, rest_kyutai, upload_transcription
from kiku.serve.admission import Busy
from kiku.serve.decoder import DecoderProcesses
from kiku.serve.protocols.deepgram_sound import written_header
from kiku.serve.rest_deepgram import _saved
from kiku.serve.service import Service, languages_of
from kiku.serve.settings import Settings
from kiku.serve.uploads import transcript_headers
from kiku.transcription import by_time
from tests.audio.sounds import voice
from tests.serve.conftest import EXAMPLES
from tests.serve.recordings import opus, silence
from tests.serve.running import Running, running
from tests.serve.talks import wait_for

PATIENCE_S = 60.0
MEMORY = 2**30
ANSWERS, DIGITS = EXAMPLES / "answers.mp3", EXAMPLES / "digits.wav"


def service_of(demo: kiku.Recognizer, **settings: Any) -> Service:
    return Service(Settings(**settings), demo)


async def heard_by(service: Service, path: Path, **options: Any) -> kiku.Transcript:
    async with service.transcribe_upload(path, StreamOptions(**options), "test") as heard:
        words = [word async for word in heard]
    assert sorted(words, key=by_time) == list(heard.transcript.words)
    return heard.transcript


def play(work: Callable[[], Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(PATIENCE_S):
            return await work()

    return asyncio.run(bounded())


def wav(path: Path, samples: np.ndarray, rate: int = 16_000) -> Path:
    """Write [S, C] int16."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.[mwf][pal]*")), ids=lambda one: one.name)
def test_the_words_are_those_of_the_library(demo: kiku.Recognizer, path: Path):
    service = service_of(demo)

    async def work() -> kiku.Transcript:
        try:
            return await heard_by(service, path)
        finally:
            await service.decoders.close()

    found, wanted = play(work), demo.transcribe(path)
    assert found.words == wanted.words
    assert found.duration == pytest.approx(wanted.duration, abs=1e-6)
    assert found.problem is None
    assert found.model == wanted.model
    assert service.admission.num_taken == service.num_open == 0


def test_uploads_wait_in_the_queue_and_the_surplus_is_told(demo: kiku.Recognizer):
    service = service_of(demo, max_queue=1)

    async def work() -> list[Any]:
        held = [service.permit() for _ in range(4)]
        waiting = [asyncio.create_task(heard_by(service, DIGITS)) for _ in range(2)]
        done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        held[0].release()
        found = await asyncio.gather(*done, *pending, return_exceptions=True)
        for one in held:
            one.release()
        await service.decoders.close()
        return found

    busy, transcript = play(work)
    assert isinstance(busy, Busy)
    assert transcript.text == demo.transcribe(DIGITS).text
    assert service.admission.num_taken == 0


def test_recordings_that_wait_have_no_process(
    demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch
):
    service, num_started = service_of(demo, max_queue=3), 0
    start = decoder_module._start

    async def counted() -> Any:
        nonlocal num_started
        num_started += 1
        return await start()

    monkeypatch.setattr(decoder_module, "_start", counted)

    async def work() -> list[Any]:
        held = service.permit(4)
        tasks = [asyncio.create_task(heard_by(service, DIGITS)) for _ in range(20)]
        refused, waiting = await asyncio.wait(tasks, timeout=0.1)
        assert (len(refused), len(waiting)) == (17, 3)
        assert num_started == 0
        for one in waiting:
            one.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        held.release()
        await heard_by(service, DIGITS)
        assert 0 < num_started <= 2  # one is kept ahead
        await service.decoders.close()
        return [one for one in found if isinstance(one, Busy)]

    assert len(play(work)) == 17
    assert service.admission.num_taken == service.num_open == 0


def test_channels_that_never_fit_are_refused_without_waiting(demo: kiku.Recognizer, tmp_path: Path):
    rng = np.random.default_rng(0)
    six, two = (
        wav(tmp_path / f"{count}.wav", rng.integers(-99, 99, (8_000, count)).astype(np.int16))
        for count in (6, 2)
    )
    query = {"multichannel": "true"}
    with running(demo) as service, ThreadPoolExecutor() as pool:
        address, held = f"{service.http}/v1/listen", service.service.permit(4)
        told = httpx.post(address, params=query, content=six.read_bytes(), timeout=PATIENCE_S)
        assert told.status_code == 400
        assert told.json()["err_msg"].startswith("multichannel: 6 channels that are transcribed")
        assert service.service.admission.num_taken == 4
        content = two.read_bytes()
        waits = pool.submit(httpx.post, address, params=query, content=content, timeout=PATIENCE_S)
        wait_for(lambda: service.service.admission.num_waiting == 1)
        service.loop.call_soon_threadsafe(held.release)
        assert len(waits.result().json()["results"]["channels"]) == 2


def test_few_decoders_start_at_the_same_time(monkeypatch: pytest.MonkeyPatch):
    num_starting = most = 0

    async def slow() -> Any:
        nonlocal num_starting, most
        num_starting += 1
        most = max(most, num_starting)
        await asyncio.sleep(0.01)
        num_starting -= 1
        return MagicMock(returncode=None)

    monkeypatch.setattr(decoder_module, "_start", slow)
    monkeypatch.setattr(decoder_module, "_STARTS", 2)

    async def work() -> None:
        decoders = DecoderProcesses(MEMORY)
        await asyncio.gather(*(decoders.decode(DIGITS) for _ in range(12)))
        decoders.prepare()

    play(work)
    assert most == 2


def test_after_the_end_no_decoder_starts_and_none_is_left_by_who_gave_up(
    monkeypatch: pytest.MonkeyPatch,
):
    ended: list[Any] = []

    async def start() -> Any:
        await asyncio.sleep(0.01)
        return MagicMock(returncode=None)

    async def end(process: Any) -> None:
        ended.append(process)

    monkeypatch.setattr(decoder_module, "_start", start)
    monkeypatch.setattr(decoder_module, "_end", end)

    async def work() -> None:
        decoders = DecoderProcesses(MEMORY)
        decoders.prepare()
        spare = decoders._spare
        assert spare is not None
        spare.add_done_callback(lambda _: asking.cancel())  # before it hears of the process
        asking = asyncio.create_task(decoders.decode())
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert ended == [spare.result()]
        await decoders.close()
        with pytest.raises(Busy, match="shutting down"):
            await decoders.decode()

    play(work)


def test_looks_at_channels_are_bounded_in_number_and_time(
    demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch
):
    service = service_of(demo)
    service.admission._max_queue = 1

    async def never(*_: Any, **__: Any) -> Any:
        await asyncio.sleep(PATIENCE_S)

    monkeypatch.setattr(service.decoders, "decode", never)
    monkeypatch.setattr(upload_transcription, "_LOOK_S", 0.05)

    async def upload() -> None:
        options = StreamOptions(channel="each")
        async with service.transcribe_upload(DIGITS, options, "test"):
            pass

    async def work() -> None:
        held = service.permit(service.admission.num_slots)
        with held:
            first = asyncio.create_task(upload())
            await asyncio.sleep(0)
            with pytest.raises(Busy):  # one that looks counts as one that waits
                await upload()
            assert service.admission.num_waiting == 0
            while not service.admission.num_waiting:  # the look has taken too long
                await asyncio.sleep(0.01)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
        assert service.num_looking == 0

    play(work)


def test_each_channel_takes_a_slot(demo: kiku.Recognizer, tmp_path: Path):
    one, two = (np.concatenate(list(kiku.audio.read_chunks(path, 16_000))) for path in
                (ANSWERS, DIGITS))  # fmt: skip
    size = max(len(one), len(two))
    both = np.zeros((size, 2), np.int16)
    both[: len(one), 0] = (one * 32_767).clip(-32_768, 32_767)
    both[: len(two), 1] = (two * 32_767).clip(-32_768, 32_767)
    path = wav(tmp_path / "both.wav", both)
    service = service_of(demo)

    async def work() -> kiku.Transcript:
        try:
            options = StreamOptions(channel="each")
            async with service.transcribe_upload(path, options, "test") as heard:
                assert service.admission.num_taken == 2
                async for _ in heard:
                    pass
            return heard.transcript
        finally:
            await service.decoders.close()

    found, wanted = play(work), demo.transcribe(path, StreamOptions(channel="each"))
    assert found.words == wanted.words
    assert {word.channel for word in found.words} == {0, 1}


def test_channels_that_come_later_are_told(demo: kiku.Recognizer, tmp_path: Path):
    path = tmp_path / "chained.opus"
    path.write_bytes(opus(silence(1.0)) + opus(silence(1.0, 2)))
    service = service_of(demo)

    async def work() -> kiku.Transcript:
        try:
            return await heard_by(service, path, channel="each")
        finally:
            await service.decoders.close()

    found, wanted = play(work), demo.transcribe(path, StreamOptions(channel="each"))
    for transcript in (found, wanted):
        (told,) = [one for one in transcript.warnings if one.kind == "damaged"]
        assert "1 channel at first and has 2 channels from" in told.message
        assert told.time == pytest.approx(1.0, abs=0.02)


def test_leaving_stops_the_work_and_frees_the_slot(demo: kiku.Recognizer, tmp_path: Path):
    long = wav(tmp_path / "long.wav", np.zeros((16_000 * 3_600, 1), np.int16))
    service = service_of(demo)

    async def work() -> None:
        async with service.transcribe_upload(long, StreamOptions(), "test") as heard:
            while heard.heard_s < 1.0:
                await asyncio.sleep(0.01)
        assert heard.heard_s < 3_600
        assert service.admission.num_taken == 0
        while demo.free_slots < 4:
            await asyncio.sleep(0.01)
        await service.decoders.close()

    play(work)


def test_a_recording_that_is_too_long_keeps_its_beginning(demo: kiku.Recognizer):
    service = service_of(demo, max_upload_s=3.0)

    async def work() -> kiku.Transcript:
        try:
            return await heard_by(service, ANSWERS)
        finally:
            await service.decoders.close()

    found = play(work)
    assert isinstance(found.problem, AudioError)
    assert "longer than 3 seconds" in str(found.problem)
    assert 0 < found.duration <= 4.0
    assert found.words
    assert found.words == demo.transcribe(ANSWERS).words[: len(found.words)]


def test_a_cut_recording_keeps_its_beginning_and_says_so(demo: kiku.Recognizer, tmp_path: Path):
    whole = DIGITS.read_bytes()
    cut = tmp_path / "cut.wav"
    cut.write_bytes(whole[: len(whole) // 2])
    service = service_of(demo)

    async def work() -> kiku.Transcript:
        try:
            return await heard_by(service, cut)
        finally:
            await service.decoders.close()

    found = play(work)
    assert isinstance(found.problem, TruncatedAudio)
    assert str(tmp_path) not in str(found.problem)
    assert "the upload ends early" in str(found.problem)
    with pytest.warns(UserWarning, match="ends early"):
        wanted = demo.transcribe(cut)
    assert found.words == wanted.words  # to the last sample there is
    assert found.duration == pytest.approx(wanted.duration, abs=1e-6)


@pytest.mark.parametrize("content", [b"", b"no sound here " * 99, bytes(2_000)])
def test_what_is_no_recording_is_told_without_its_place(
    demo: kiku.Recognizer, tmp_path: Path, content: bytes
):
    path = tmp_path / "x.wav"
    path.write_bytes(content)
    service = service_of(demo)

    async def work() -> None:
        with pytest.raises(AudioError, match="the upload") as refused:
            await heard_by(service, path)
        assert str(tmp_path) not in str(refused.value)
        await service.decoders.close()

    play(work)
    assert service.admission.num_taken == service.num_open == 0


async def chunks_of(decoder: Any) -> list[np.ndarray]:
    return [np.asarray(chunk.data) async for chunk in decoder.chunks()]


class TestDecoders:
    """Bytes as they come give the same sound as a file."""

    @pytest.mark.parametrize("step", [30, 1_000, 10**6])
    @pytest.mark.parametrize("name", ["digits.wav", "directions.flac"])
    def test_fed_and_read_are_alike(self, name: str, step: int):
        path = EXAMPLES / name
        data = path.read_bytes()[: 30_000 if step == 30 else None]
        fed: list[np.ndarray] = []

        async def work() -> list[np.ndarray]:
            decoders = DecoderProcesses(MEMORY)
            decoder = await decoders.decode()

            async def feed() -> None:
                for first in range(0, len(data), step):
                    await decoder.feed(data[first : first + step])
                decoder.end()

            feeding = asyncio.create_task(feed())
            with contextlib.suppress(TruncatedAudio):  # where only the beginning was fed
                async for chunk in decoder.chunks():
                    fed.append(np.asarray(chunk.data))
            await feeding
            await decoder.close()
            whole = await decoders.decode(path)
            read = await chunks_of(whole)
            await whole.close()
            await decoders.close()
            return read

        read = np.concatenate(play(work))
        found = np.concatenate(fed)
        assert len(found) == len(read) if step > 30 else 0 < len(found) < len(read)
        np.testing.assert_array_equal(found, read[: len(found)])

    @pytest.mark.parametrize("ends", ["hungry", "ends", "dies"])
    def test_what_was_fed_is_settled_when_its_sound_has_come(self, ends: str):
        data = (EXAMPLES / "digits.wav").read_bytes()
        num_bytes = 0

        async def work() -> None:
            decoders = DecoderProcesses(MEMORY)
            decoder = await decoders.decode()

            async def take() -> None:
                nonlocal num_bytes
                async for chunk in decoder.chunks():
                    await asyncio.sleep(0)
                    num_bytes += np.asarray(chunk.data).nbytes

            taking = asyncio.create_task(take())
            await decoder.feed(data)
            if ends == "ends":
                decoder.end()
            elif ends == "dies":
                decoder._process.kill()
            async with asyncio.timeout(PATIENCE_S):
                await decoder.settled()
            taken = num_bytes
            await decoder.close()
            with contextlib.suppress(AudioError):
                await taking
            await decoders.close()
            assert num_bytes == taken

        play(work)
        sound = len(data) - data.index(b"data") - 8
        assert ends == "dies" or num_bytes == sound

    def test_a_decoder_gives_way_to_the_service_and_its_death_is_told(self, tmp_path: Path):
        long = wav(tmp_path / "long.wav", np.zeros((4_000_000, 1), np.int16))

        async def work() -> None:
            decoders = DecoderProcesses(MEMORY)
            decoder = await decoders.decode()
            pid = decoder._process.pid
            ours, its = (os.getpriority(os.PRIO_PROCESS, one) for one in (0, pid))
            assert its == min(19, ours + 5)  # it is fed, which may be live
            file = await decoders.decode(long)
            await anext(file.chunks())
            assert os.getpriority(os.PRIO_PROCESS, file._process.pid) == min(19, ours + 10)
            await file.close()
            assert os.getpgid(pid) == pid  # no Ctrl-C reaches it
            assert os.getsid(pid) == os.getsid(0)  # so that its niceness counts
            decoder._process.kill()
            with pytest.raises(AudioError, match="breaks its decoder"):
                await chunks_of(decoder)
            await decoder.close()
            await decoders.close()

        play(work)

    def test_memory_is_bounded(self, tmp_path: Path):
        path = wav(tmp_path / "x.wav", np.zeros((4_000_000, 8), np.int16), 192_000)

        async def attempt(memory_bytes: int) -> int:
            decoders = DecoderProcesses(memory_bytes)
            decoder = await decoders.decode(path)
            try:
                return sum([len(chunk) for chunk in await chunks_of(decoder)])
            finally:
                await decoder.close()
                await decoders.close()

        assert play(lambda: attempt(MEMORY)) == 4_000_000
        with pytest.raises(AudioError, match="the recording"):
            play(lambda: attempt(2**18))

    def test_the_process_knows_no_key(self, monkeypatch: pytest.MonkeyPatch):
        from kiku.serve.decoder import _environment

        monkeypatch.setenv("KIKU_API_KEY", "secret")
        assert "secret" not in _environment().values()
        assert "PATH" in _environment()


DOORS = ["/v1/audio/transcriptions", "/v1/listen", "/api/asr-streaming"]


def posted(service: Running, door: str, data: bytes, **form: str) -> httpx.Response:
    """The answer to a recording that is sent."""
    body: dict[str, Any] = {"content": data}
    if door == DOORS[0]:
        body = {"files": {"file": ("x.wav", data)}, "data": {"model": "demo", **form}}
    return httpx.post(service.http + door, timeout=PATIENCE_S, **body)


def test_recordings_that_outlast_the_end_are_told(
    demo: kiku.Recognizer, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    data = wav(tmp_path / "long.wav", np.zeros((40 * 60 * 8_000, 1), np.int16), 8_000).read_bytes()
    answers: dict[str, httpx.Response] = {}

    def send(name: str, door: str, **form: str) -> None:
        answers[name] = posted(service, door, data, **form)

    threads = [threading.Thread(target=send, args=(door, door)) for door in DOORS]
    threads.append(
        threading.Thread(target=send, args=("events", DOORS[0]), kwargs={"stream": "true"})
    )
    with running(demo, drain_s=0.1) as service:
        for thread in threads:
            thread.start()
        until = time.monotonic() + PATIENCE_S
        while demo.free_slots:
            assert time.monotonic() < until
            time.sleep(0.02)
    for thread in threads:
        thread.join(PATIENCE_S)
    for door in DOORS:
        assert answers[door].status_code == 503, door
        assert int(answers[door].headers["retry-after"]) > 0
    assert "error" in answers[DOORS[0]].json()
    assert answers["events"].status_code == 200
    assert json.loads(answers["events"].text.removeprefix("data: "))["error"]
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


@pytest.mark.parametrize("door", DOORS)
def test_a_recording_that_is_still_being_sent_at_the_end_is_told(
    demo: kiku.Recognizer, door: str, caplog: pytest.LogCaptureFixture
):
    with running(demo, drain_s=0.0) as service:
        raw = socket.create_connection(("127.0.0.1", service.port))
        kind = "multipart/form-data; boundary=x" if door == DOORS[0] else "audio/wav"
        head = f"POST {door} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
        raw.sendall(f"{head}Content-Length: 1000\r\n\r\n--x\r\n".encode())
        raw.settimeout(PATIENCE_S)
        time.sleep(0.3)  # it has begun to read
        service.call(lambda: service.app.drain(0))
        answer = raw.recv(4_096).lower()
        raw.close()
    assert answer.startswith(b"http/1.1 503")
    assert b"retry-after: 5" in answer
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


def line_of(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    """The values of an upload's line, which is written behind the answer."""
    wait_for(lambda: any(one.msg.startswith("upload ") for one in caplog.records), PATIENCE_S)
    (record,) = [one for one in caplog.records if one.msg.startswith("upload ")]
    assert isinstance(record.args, dict)
    caplog.clear()
    return dict(record.args)


PROTOCOLS = ["openai_rest", "deepgram-file", "kyutai-file"]


def num_errors(service: Running) -> Counter[str]:
    """Counted errors of uploads, by kind."""
    (family,) = service.service.metrics.errors.collect()
    found = Counter[str]()
    for one in family.samples:
        if one.name.endswith("_total") and one.labels["protocol"] in PROTOCOLS:
            found[one.labels["kind"]] += int(one.value)
    return found


def test_each_failed_upload_is_counted_once(
    demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    data = DIGITS.read_bytes()
    with running(demo, max_queue=0, max_upload_s=1.0) as service:

        def counted(*statuses: int) -> dict[str, int]:
            before = num_errors(service)
            assert [posted(service, door, given, **form).status_code for door in DOORS] == [
                *statuses
            ]
            return dict(num_errors(service) - before)

        given, form = b"", dict[str, str]()
        assert sum(counted(400, 400, 400).values()) == 3
        given = b"no sound"
        assert sum(counted(400, 400, 400).values()) == 3
        given = data  # too long; Deepgram's answer has what was heard
        assert sum(counted(400, 200, 400).values()) == 2
        form = {"keywords[]": "日本"}
        with monkeypatch.context() as full:
            full.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
            assert counted(503, 503, 503) == {"OutputError": 3}

        async def take() -> Any:
            return service.service.permit(4)

        held = service.call(take)
        assert counted(503, 503, 503) == {"Busy": 3}
        service.loop.call_soon_threadsafe(held.release)
        before = num_errors(service)
        assert posted(service, DOORS[0], data, **form).status_code == 400
        assert dict(num_errors(service) - before) in ({"400": 1}, {"ConfigError": 1})


def test_a_stream_of_events_that_ends_early_is_logged_so(
    demo: kiku.Recognizer, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", "kiku")
    with running(demo, max_upload_s=1.0) as service:
        answer = posted(service, DOORS[0], DIGITS.read_bytes(), stream="true")
        assert answer.status_code == 200
        assert "longer than 1 second" in answer.text
        assert line_of(caplog)["status"] == 400
        assert sum(num_errors(service).values()) == 1


def test_each_upload_is_counted_and_has_a_line(
    demo: kiku.Recognizer, caplog: pytest.LogCaptureFixture
):
    data, wanted = DIGITS.read_bytes(), demo.transcribe(DIGITS)
    caplog.set_level("INFO", "kiku")
    with running(demo, log_text=True) as service:
        for door, protocol in zip(DOORS, PROTOCOLS, strict=True):
            answer = posted(service, door, data)
            line = line_of(caplog)
            assert list(line) == [
                "protocol", "id", "owner", "seconds", "sound", "words", "received", "sent",
                "status", "text",
            ]  # fmt: skip
            assert (line["protocol"], line["owner"]) == (protocol, "127.0.0.1")
            assert (line["status"], line["text"]) == (200, wanted.text)
            assert line["words"] == len(wanted.words)
            assert line["sound"] == round(wanted.duration, 2)
            assert len(data) <= line["received"] <= len(data) + 1_000
            assert line["sent"] == len(answer.content)
            told = service.service.metrics.text().decode()
            for name, number in (("received", line["received"]), ("sent", line["sent"])):
                sample = f'kiku_{name}_bytes_total{{protocol="{protocol}"}} {float(number)}'
                assert sample in told, door


def test_what_became_of_an_upload_that_failed_stands_in_its_line(
    service: Running, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", "kiku")
    for door, protocol in zip(DOORS, PROTOCOLS, strict=True):
        assert posted(service, door, b"no sound").status_code == 400
        line = line_of(caplog)
        assert (line["protocol"], line["status"], line["words"]) == (protocol, 400, 0)
        with socket.create_connection(("127.0.0.1", service.port)) as raw:  # and leaves
            kind = "multipart/form-data; boundary=x"
            head = f"POST {door} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
            raw.sendall(f"{head}Content-Length: 1000\r\n\r\n--x\r\n".encode())
        line = line_of(caplog)
        assert (line["protocol"], line["status"], line["received"]) == (protocol, 499, 5)


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_full_disk_is_no_fault_of_the_client(
    service: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_folder: bool,
    caplog: pytest.LogCaptureFixture,
):  # fmt: skip
    def full(number: int, *args: Any, **kwargs: Any) -> Any:
        os.close(number)
        return open("/dev/full", *args, **kwargs)

    if is_folder:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    else:
        monkeypatch.setattr("kiku.serve.uploads.os.fdopen", full)
    for door in DOORS:
        answer = posted(service, door, DIGITS.read_bytes())
        assert answer.status_code == 503, door
        assert int(answer.headers["retry-after"]) > 0
        told = answer.json()
        if door == "/v1/listen":
            assert told["err_msg"].startswith("the upload cannot be stored now")
            assert told["request_id"] == answer.headers["dg-request-id"]
        else:
            assert "the upload cannot be stored now" in str(told["error"])
        assert "make room in" in caplog.text  # the one who runs the service
        assert "Traceback" not in caplog.text
        caplog.clear()


def test_a_recording_that_could_not_even_wait_is_refused_before_it_is_sent(demo: kiku.Recognizer):
    with running(demo, max_queue=0) as service:

        async def take() -> Any:
            return service.service.permit(4)

        held = service.call(take)
        for door in DOORS:
            with socket.create_connection(("127.0.0.1", service.port), PATIENCE_S) as raw:
                head = f"POST {door} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n"
                raw.sendall(head.encode() + b"RIFF")
                answer = raw.recv(4_096).lower()
                assert answer.startswith(b"http/1.1 503"), door
                assert b"retry-after" in answer
                assert answer.count(b"connection: close") == 1
        service.loop.call_soon_threadsafe(held.release)


@pytest.mark.parametrize("door", DOORS)
def test_a_body_that_does_not_come_on_is_answered(demo: kiku.Recognizer, door: str):
    kind = "multipart/form-data; boundary=x" if door == DOORS[0] else "audio/wav"
    with running(demo, body_s=0.3) as service:
        raw = socket.create_connection(("127.0.0.1", service.port))
        head = f"POST {door} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
        raw.sendall(f"{head}Content-Length: 1000\r\n\r\n--x\r\n".encode())
        raw.settimeout(PATIENCE_S)
        answer = b""
        while part := raw.recv(4_096):
            answer += part
        raw.close()
    begin, _, body = answer.partition(b"\r\n\r\n")
    assert begin.startswith(b"HTTP/1.1 408")
    told = json.loads(body)
    if door == "/v1/listen":
        assert "did not arrive" in told["err_msg"]
    else:
        assert "did not arrive" in str(told["error"])


@pytest.mark.parametrize("door", DOORS)
def test_a_refusal_of_what_has_come_whole_keeps_the_connection(service: Running, door: str):
    answer = posted(service, door, b"no sound here " * 99)
    assert answer.status_code == 400
    assert "connection" not in answer.headers


def test_a_damaged_form_that_has_come_whole_keeps_the_connection(service: Running):
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    broken = b"--x\r\nbroken\r\n\r\n--x--\r\n"
    answer = httpx.post(service.http + DOORS[0], headers=kind, content=broken, timeout=PATIENCE_S)
    assert answer.status_code == 400
    assert "connection" not in answer.headers


def test_languages_are_read_from_the_models_name():
    assert languages_of("kyutai/stt-1b-en_fr") == ("en", "fr")
    assert languages_of("kyutai/stt-2.6b-en") == ("en",)
    assert languages_of("demo") == ("en",)
    assert languages_of("some/folder/") == ("en",)
    assert languages_of("org/stt-1b-en_fr-candle") == ("en", "fr")


@pytest.mark.parametrize(
    ("path", "is_form"),
    [("/v1/audio/transcriptions", True), ("/v1/listen", False), ("/api/asr-streaming", False)],
)
def test_what_is_wrong_with_the_sound_stands_beside_the_answer(
    service: Running, tmp_path: Path, path: str, is_form: bool
):
    hiss = np.random.default_rng(0).integers(-1_000, 1_000, (3 * 16_000, 1)).astype(np.int16)
    data = wav(tmp_path / "hiss.wav", hiss).read_bytes()
    body: dict[str, Any] = {"content": data}
    if is_form:
        body = {"files": {"file": ("x.wav", data)}, "data": {"model": "demo"}}
    answer = httpx.post(service.http + path, timeout=PATIENCE_S, **body)
    assert answer.status_code == 200
    assert answer.headers["x-kiku-warnings"].startswith("no_words: ")
    assert "x-kiku-problem" not in answer.headers


def test_a_header_has_any_warnings_and_a_long_problem():
    warning = kiku.StreamWarning("quiet", "so qui\u00ebt\r\nx-other: 1", 0.0)
    transcript = kiku.Transcript((), 1.0, (warning, warning), TruncatedAudio("x" * 5_000), "demo")
    told = transcript_headers(transcript)
    assert told["x-kiku-warnings"] == "; ".join(["quiet: so qui?t x-other: 1"] * 2)
    assert told["x-kiku-problem"] == "x" * 1_000


def test_a_recording_that_lies_about_its_rate_is_warned_of(demo: kiku.Recognizer, tmp_path: Path):
    sound = (voice(24_000, 8) * 32_767).astype(np.int16)[:, None]
    path = wav(tmp_path / "fast.wav", sound, rate=8_000)
    assert "wrong_rate" in [one.kind for one in demo.transcribe(path).warnings]
    heard = play(lambda: heard_by(service_of(demo), path))
    assert "wrong_rate" in [one.kind for one in heard.warnings]
    heard = play(lambda: heard_by(service_of(demo), path, signal_checks=False))
    assert "wrong_rate" not in [one.kind for one in heard.warnings]


def test_a_decoder_that_is_stopped_is_waited_for_by_one_alone(monkeypatch: pytest.MonkeyPatch):
    """Who asks the system after the kill whether it has ended takes the answer from who waits."""

    async def play() -> None:
        decoders = DecoderProcesses(MEMORY)
        decoder = await decoders.decode()
        process = decoder._process
        inner: Any = process._transport._proc
        killed, asked = False, list[bool]()
        kill, poll = process.kill, inner.poll

        def killing() -> None:
            nonlocal killed
            kill()
            killed = True

        def polled() -> Any:
            asked.append(killed)
            return poll()

        monkeypatch.setattr(process, "kill", killing)
        monkeypatch.setattr(inner, "poll", polled)
        await decoder.close()
        await decoders.close()
        assert process.returncode == -9
        assert True not in asked
        assert process._transport._closed

    asyncio.run(play())


def test_raw_samples_are_stored_with_their_header():
    form, samples = AudioFormat(encoding="s16le", sample_rate=16_000), b"\0\1\2\3" * 200_000

    async def pieces() -> AsyncIterator[bytes]:
        for first in range(0, len(samples), 65_536):
            yield samples[first : first + 65_536]

    async def play() -> None:
        async with _saved(pieces(), form, MagicMock()) as upload:
            assert upload.path.read_bytes() == written_header(form, len(samples)) + samples
            assert upload.sha256 == hashlib.sha256(samples).hexdigest()
        assert not upload.path.exists()

    asyncio.run(play())


@pytest.mark.parametrize(
    ("module", "name", "path"),
    [
        (rest_deepgram, "answer", "/v1/listen"),
        (rest_kyutai, "word_messages", "/api/asr-streaming"),
    ],
)
def test_others_are_answered_while_an_answer_is_made(
    service: Running, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, path: str
):
    make, began, may_end = getattr(module, name), threading.Event(), threading.Event()

    def held(*given: Any, **named: Any) -> Any:
        began.set()
        assert may_end.wait(PATIENCE_S)
        return make(*given, **named)

    monkeypatch.setattr(module, name, held)
    with ThreadPoolExecutor(1) as others:
        answer = others.submit(
            httpx.post, service.http + path, content=DIGITS.read_bytes(), timeout=PATIENCE_S
        )
        try:
            assert began.wait(PATIENCE_S)
            assert httpx.get(f"{service.http}/health", timeout=PATIENCE_S / 2).status_code == 200
        finally:
            may_end.set()
    assert answer.result().status_code == 200
