"""Wyoming's own client against a running service with the demo model."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

import kiku
from kiku.audio import read_chunks
from kiku.errors import ConfigError
from kiku.serve.admission import Permit
from kiku.serve.protocols.wyoming import PATIENT_PROGRAM, PROGRAM
from kiku.serve.server import listening_socket
from kiku.serve.settings import Settings
from kiku.serve.wyoming_server import WyomingServer, check_open_to_all
from tests.serve.running import Running, running
from tests.serve.talks import wait_for
from tests.serve.wyoming_sdk import (
    AsyncTcpClient,
    AudioStart,
    AudioStop,
    Describe,
    Info,
    Ping,
    SdkEvent,
    SelectProgram,
    Transcribe,
    checked,
    chunk,
    wire,
)

EXAMPLES = Path(__file__).parents[2] / "examples"
LONG_S = 120.0
"""Nothing takes so long, unless it never comes."""

T = TypeVar("T")


@pytest.fixture(scope="module")
def port(service: Running) -> Generator[int]:
    """Where Wyoming is spoken."""

    async def start() -> WyomingServer:
        server = WyomingServer(service.app, listening_socket("127.0.0.1", 0))
        await server.start()
        return server

    server = service.call(start)
    yield server.port
    service.call(server.close)


def run(make: Callable[[], Awaitable[T]]) -> T:
    async def work() -> T:
        async with asyncio.timeout(LONG_S):
            return await make()

    return asyncio.run(work())


def sound(name: str, rate: int) -> NDArray[np.float32]:
    """[S] a recording at another rate."""
    return np.concatenate(list(read_chunks(EXAMPLES / name, rate)))


def written(samples: NDArray[np.float32], width: int = 2, channels: int = 1) -> bytes:
    """As PCM, the same in all channels."""
    if width == 1:
        values = np.round(samples * 127 + 128).astype(np.uint8)
    else:
        values = (samples * (2.0 ** (8 * width - 1) - 256)).astype(np.int64).astype("<i4")
        if width == 2:
            values = values.astype("<i2")
    one = values.tobytes()
    if width == 3:
        one = b"".join(one[i : i + 3] for i in range(0, len(one), 4))
    frames = np.frombuffer(one, np.uint8).reshape(-1, width)
    return np.repeat(frames[:, None], channels, axis=1).tobytes()


async def told(client: AsyncTcpClient) -> list[SdkEvent]:
    """All that comes up to transcript-stop or an error; each message is looked at strictly."""
    events: list[SdkEvent] = []
    while True:
        event = await client.read_event()
        assert event is not None, f"the connection ended after {[e.type for e in events]}"
        checked(wire(event))
        events.append(event)
        if event.type in ("transcript-stop", "error"):
            return events


async def say(
    client: AsyncTcpClient, pcm: bytes, rate: int, width: int = 2, channels: int = 1,
    *, piece: int = 2048, ends: bool = True,
) -> None:  # fmt: skip
    """Send an utterance in pieces."""
    await client.write_event(AudioStart(rate, width, channels).event())
    for i in range(0, len(pcm), piece):
        part = chunk(pcm[i : i + piece], rate, width, channels)
        await client.write_event(part.event())
    if ends:
        await client.write_event(AudioStop().event())


def text_of(events: list[SdkEvent]) -> str:
    """The transcript, which the chunks before it must spell."""
    kinds = [event.type for event in events]
    assert kinds[0] == "transcript-start"
    assert kinds[-2:] == ["transcript", "transcript-stop"]
    assert set(kinds[1:-2]) <= {"transcript-chunk"}
    text = events[-2].data["text"]
    assert "".join(event.data["text"] for event in events[1:-2]) == text
    return text


@pytest.fixture(scope="module")
def digits(demo: kiku.Recognizer) -> str:
    """What one recording says, as the model hears it without a service."""
    return demo.transcribe(EXAMPLES / "digits.wav").text


def test_it_says_who_it_is_also_while_the_model_works(port: int, digits: str) -> None:
    async def work() -> str:
        async with (
            AsyncTcpClient("127.0.0.1", port) as busy,
            AsyncTcpClient("127.0.0.1", port) as client,
        ):
            pcm = written(sound("digits.wav", 16_000))
            await say(busy, pcm * 3, 16_000)
            await client.write_event(Describe().event())
            event = await client.read_event()
            # Still at it: the answer did not wait for the model.
            await busy.write_event(Ping("there?").event())
            assert event is not None
            checked(wire(event))
            ours = Info.from_event(event).asr[0]
            assert ours.models[0].installed
            assert ours.models[0].languages == ["en"]
            events: list[SdkEvent] = []
            while (one := await busy.read_event()) is not None:
                events.append(one)
                if one.type == "transcript-stop":
                    break
            kinds = [one.type for one in events]
            assert kinds.index("pong") < kinds.index("transcript")
            return text_of([one for one in events if one.type != "pong"])

    assert run(work).split().count("seven") == 3


@pytest.mark.parametrize("name", ["digits.wav", "answers.mp3", "directions.flac"])
def test_the_words_are_those_of_the_model(port: int, demo: kiku.Recognizer, name: str) -> None:
    async def work() -> str:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await client.write_event(Transcribe(language="en").event())
            await say(client, written(sound(name, 24_000)), 24_000)
            return text_of(await told(client))

    assert run(work) == demo.transcribe(EXAMPLES / name).text


@pytest.mark.parametrize(
    ("rate", "width", "channels"),
    [(8_000, 2, 1), (16_000, 2, 1), (16_000, 1, 1), (16_000, 4, 2), (22_050, 2, 2), (48_000, 3, 1)],
)
def test_any_format_gives_the_same_words(
    port: int, digits: str, rate: int, width: int, channels: int
) -> None:
    async def work() -> str:
        pcm = written(sound("digits.wav", rate), width, channels)
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await say(client, pcm, rate, width, channels, piece=1001)
            return text_of(await told(client))

    assert run(work) == digits


def test_many_utterances_on_one_connection(port: int, demo: kiku.Recognizer, digits: str) -> None:
    async def work() -> list[str]:
        answers = written(sound("answers.mp3", 16_000))
        async with AsyncTcpClient("127.0.0.1", port) as client:
            texts: list[str] = []
            for pcm in (answers, b"\0" * 64_000, written(sound("digits.wav", 16_000)), b""):
                await say(client, pcm, 16_000)
                texts.append(text_of(await told(client)))
            # Two at once, whose transcripts nobody waits for in between.
            await say(client, answers, 16_000)
            await say(client, answers, 16_000)
            return [*texts, text_of(await told(client)), text_of(await told(client))]

    answers = demo.transcribe(EXAMPLES / "answers.mp3").text
    assert run(work) == [answers, "", digits, "", answers, answers]


def test_what_is_expected_reaches_the_decoder(port: int, digits: str) -> None:
    """Which says so of what its vocabulary cannot spell."""

    async def work() -> str:
        pcm = written(sound("digits.wav", 16_000))
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await client.write_event(Transcribe(transcript_terms=["bird"]).event())
            await say(client, pcm, 16_000)
            (error,) = await told(client)
            assert error.data["code"] == "invalid"
            assert "'bird'" in error.data["text"]
            await client.write_event(Transcribe(transcript_names=["seven"]).event())
            await say(client, pcm, 16_000)
            return text_of(await told(client))

    assert run(work) == digits


async def _home_assistant(port: int, pcm: bytes) -> str:
    """As Home Assistant does: reads nothing before audio-stop, and leaves at the transcript."""
    async with AsyncTcpClient("127.0.0.1", port) as client:
        await client.write_event(Transcribe(language="en").event())
        await say(client, pcm, 16_000)
        while True:
            event = await client.read_event()
            assert event is not None
            if event.type == "transcript":
                return str(event.data["text"])


async def _newer_home_assistant(port: int, pcm: bytes) -> str:
    """As its newer versions: sends until the transcript comes, reading meanwhile."""
    async with AsyncTcpClient("127.0.0.1", port) as client:
        await client.write_event(Transcribe(language="en").event())

        async def upload() -> None:
            await say(client, pcm, 16_000, ends=False)
            while True:  # the room goes on, in its own time
                await client.write_event(chunk(b"\0" * 2560).event())
                await asyncio.sleep(0.02)

        uploading = asyncio.create_task(upload())
        try:
            while True:
                event = await client.read_event()
                assert event is not None
                if event.type == "transcript":
                    return str(event.data["text"])
        finally:
            uploading.cancel()


@pytest.mark.parametrize("way", [_home_assistant, _newer_home_assistant])
def test_home_assistants_ways(
    service: Running,
    port: int,
    digits: str,
    caplog: pytest.LogCaptureFixture,
    way: Callable[[int, bytes], Awaitable[str]],
) -> None:
    pcm = written(sound("digits.wav", 16_000))

    async def work() -> list[str]:
        return [await way(port, pcm) for _ in range(2)]

    with caplog.at_level(logging.INFO):
        assert run(work) == [digits, digits]
        until_free(service)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def until_free(service: Running) -> None:
    """Wait until nobody holds a slot."""

    async def wait() -> None:
        async with asyncio.timeout(LONG_S):
            while service.service.admission.num_taken or service.app.sockets.talks:
                await asyncio.sleep(0.01)

    service.call(wait, LONG_S)


def test_a_client_that_leaves_gives_its_slot_back(service: Running, port: int) -> None:
    async def work() -> None:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await say(client, written(sound("digits.wav", 16_000)), 16_000, ends=False)
            assert (await client.read_event()) is not None

    run(work)
    until_free(service)


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("count", [1, 2])
def test_a_client_that_ends_its_side_has_its_transcripts(
    service: Running, port: int, digits: str, count: int, ends: bool
) -> None:
    """As `nc -N` does, also without a last audio-stop."""

    async def work() -> list[str]:
        texts: list[str] = []
        async with AsyncTcpClient("127.0.0.1", port) as client:
            pcm = written(sound("digits.wav", 16_000))
            for i in range(count):
                await say(client, pcm, 16_000, ends=ends or i + 1 < count)
            assert client._writer is not None
            client._writer.write_eof()
            for _ in range(count):
                texts.append(text_of(await told(client)))
            assert await client.read_event() is None
        return texts

    assert run(work) == [digits] * count
    wait_for(lambda: service.service.admission.num_taken == 0)


def test_between_utterances_no_slot_is_held(service: Running, port: int) -> None:
    async def work() -> int:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await say(client, b"\0" * 3200, 16_000)
            await told(client)
            return service.service.admission.num_taken

    assert run(work) == 0


def test_sound_that_never_ends_is_answered(
    port: int, digits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that neither goes on nor says audio-stop, heard by the patient program."""
    from kiku.serve.protocols import wyoming

    monkeypatch.setattr(wyoming, "SILENT_S", 2.5)
    monkeypatch.setattr(wyoming.WyomingProtocol, "quiet_after_s", (wyoming.GIVE_UP_S, 2.5))

    async def work() -> str:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await client.write_event(SelectProgram(PATIENT_PROGRAM).event())
            await say(client, written(sound("digits.wav", 16_000)), 16_000, ends=False)
            return text_of(await told(client))

    assert run(work) == digits


def test_programs_pings_and_unknown_events(port: int, digits: str) -> None:
    async def work() -> str:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await client.write_event(SelectProgram(PROGRAM).event())
            await client.write_event(SdkEvent("voice-started", {"timestamp": 0}))
            await client.write_event(SdkEvent("something-else", {"a": [1]}, b"x" * 1000))
            await client.write_event(Ping("so").event())
            pong = await client.read_event()
            assert pong is not None
            assert (pong.type, pong.data) == ("pong", {"text": "so"})
            await client.write_event(SelectProgram("piper").event())
            error = await client.read_event()
            assert error is not None
            assert "select-program.name" in error.data["text"]
            await say(client, written(sound("digits.wav", 16_000)), 16_000)
            return text_of(await told(client))

    assert run(work) == digits


def test_a_client_too_many_is_told_and_served_later(
    service: Running, port: int, digits: str
) -> None:
    pcm = written(sound("digits.wav", 16_000))

    async def take_all() -> list[Permit]:
        return [service.service.permit() for _ in range(4)]

    async def work() -> str:
        permits = service.call(take_all)
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await say(client, pcm, 16_000)
            (error,) = await told(client)
            assert error.data["code"] == "busy"
            for permit in permits:
                service.loop.call_soon_threadsafe(permit.release)
            await say(client, pcm, 16_000)
            return text_of(await told(client))

    assert run(work) == digits


def test_who_waits_for_a_transcript_after_an_error_is_hung_up_on(
    service: Running, port: int
) -> None:
    async def work() -> list[str]:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await client.write_event(Transcribe(name="nobody").event())
            await say(client, b"\0" * 3200, 16_000)
            kinds: list[str] = []
            while (event := await client.read_event()) is not None:
                kinds.append(event.type)
            return kinds

    assert run(work) == ["error"]


def test_bytes_that_are_no_messages_end_their_connection_only(port: int, digits: str) -> None:
    async def work() -> str:
        async with AsyncTcpClient("127.0.0.1", port) as good:
            pcm = written(sound("digits.wav", 16_000))
            await say(good, pcm, 16_000, ends=False)
            for bad in (
                b"GET / HTTP/1.1\r\n\r\n",
                b'{"type":"audio-chunk","payload_length":4611686018427387904}\n',
                b"x" * 200_000,
                bytes(range(256)) * 100,
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(bad)
                first = await reader.readline()
                assert b'"error"' in first
                while await reader.read(1000):
                    pass
                writer.close()
            await good.write_event(AudioStop().event())
            return text_of(await told(good))

    assert run(work) == digits


def test_the_end_of_the_service_is_told(demo: kiku.Recognizer) -> None:
    async def work(one: Running, port: int) -> list[str]:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await say(client, b"\0" * 3200, 16_000, ends=False)
            first = await client.read_event()
            assert first is not None
            asyncio.run_coroutine_threadsafe(one.app.drain(0.0), one.loop)
            kinds = [first.type]
            while (event := await client.read_event()) is not None:
                kinds.append(event.type)
            return kinds

    with running(demo) as one:

        async def start() -> WyomingServer:
            server = WyomingServer(one.app, listening_socket("127.0.0.1", 0))
            await server.start()
            return server

        server = one.call(start)
        assert run(lambda: work(one, server.port)) == ["transcript-start", "error"]
        one.call(server.close)


def test_nobody_is_let_in_without_key_where_others_need_one() -> None:
    with pytest.raises(ConfigError, match="--insecure"):
        check_open_to_all(Settings(host="0.0.0.0", api_key=("a",)))
    check_open_to_all(Settings(host="0.0.0.0", api_key=("a",), insecure=True))
    check_open_to_all(Settings(api_key=("a",)))
