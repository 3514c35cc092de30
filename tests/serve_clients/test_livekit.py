"""LiveKit's plugins for OpenAI, Deepgram and Kyutai, as a LiveKit agent uses them."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import kiku
from tests.serve.running import Running
from tests.serve_clients.spoken import PATIENCE_S, RECORDINGS, plain, spoken, without_errors

_WHY = "LiveKit's plugins are not installed: make clients does that"


def _imported(name: str) -> Any:
    return pytest.importorskip(name, reason=_WHY, exc_type=ImportError)


aiohttp = _imported("aiohttp")
rtc = _imported("livekit.rtc")
agents = _imported("livekit.agents")
deepgram = _imported("livekit.plugins.deepgram")
openai = _imported("livekit.plugins.openai")
lasuite = _imported("lasuite.plugins.kyutai")

AT_ONCE = agents.APIConnectOptions(max_retry=0)
"""A connection that fails is an error, and is not tried again."""

LIVE: dict[str, tuple[int, Callable[[Running, Any], Any]]] = {
    "openai": (
        24_000,
        lambda service, _: openai.STT(
            base_url=f"{service.http}/v1", api_key="none", use_realtime=True
        ),
    ),
    "deepgram": (
        16_000,
        lambda service, http: deepgram.STT(
            base_url=f"{service.http}/v1/listen", api_key="none", http_session=http
        ),
    ),
    "deepgram v2": (
        16_000,
        lambda service, http: deepgram.STTv2(
            base_url=f"{service.ws}/v2/listen", api_key="none", http_session=http
        ),
    ),
    "deepgram v2, eager": (
        16_000,
        lambda service, http: deepgram.STTv2(
            base_url=f"{service.ws}/v2/listen", api_key="none", http_session=http,
            eager_eot_threshold=0.4,
        ),
    ),
    "lasuite": (
        24_000,
        lambda service, http: lasuite.STT(
            base_url=f"{service.ws}/api/asr-streaming", api_key="none", http_session=http
        ),
    ),
}  # fmt: skip
"""The rate that a plugin wants, and how it is made."""

ENDLESS = ("openai", "lasuite")
"""Plugins whose streams wait for more until they are closed."""

RECORDED: dict[str, Callable[[Running, Any], Any]] = {
    "openai": lambda service, _: openai.STT(
        base_url=f"{service.http}/v1", api_key="none", use_realtime=False
    ),
    "deepgram": lambda service, http: deepgram.STT(
        base_url=f"{service.http}/v1/listen", api_key="none", http_session=http
    ),
}


class Listener:
    """Reads a plugin's stream to its end."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.words: list[str] = []
        """Of final transcripts."""
        self.kinds: list[str] = []
        self._news = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for event in self._stream:
                self.kinds.append(event.type.value)
                if event.type == agents.stt.SpeechEventType.FINAL_TRANSCRIPT:
                    self.words += plain(event.alternatives[0].text)
                self._news.set()
        finally:
            self._news.set()

    async def has(self, count: int) -> None:
        """Wait until there are so many words, or no more come."""
        while len(self.words) < count and not self._reading.done():
            self._news.clear()
            await self._news.wait()

    async def ended(self) -> None:
        """Wait for the end. Raises what the stream ended with."""
        await self._reading


@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.parametrize("plugin", LIVE)
def test_a_live_plugin_has_all_words(
    service: Running, demo: kiku.Recognizer, plugin: str, name: str
) -> None:
    rate, make = LIVE[plugin]
    sound = spoken(demo, name, rate)
    errors: list[Any] = []

    async def play(http: Any) -> Listener:
        stt = make(service, http)
        stt.on("error", errors.append)
        async with stt, stt.stream(conn_options=AT_ONCE) as stream:
            listener = Listener(stream)
            for piece in sound.pieces(0.05):
                stream.push_frame(rtc.AudioFrame(piece, rate, 1, len(piece) // 2))
            await listener.has(len(sound.words))
            stream.end_input()
            if plugin not in ENDLESS:
                await listener.ended()
        return listener

    with without_errors(service):
        listener = asyncio.run(_with_session(play))
    assert listener.words == sound.words
    assert errors == []
    if plugin != "lasuite":
        assert listener.kinds[0] == "start_of_speech"
        assert {"interim_transcript", "end_of_speech"} <= set(listener.kinds)
    if not plugin.endswith("eager"):
        assert "preflight_transcript" not in listener.kinds
    elif name == "answers.mp3":  # the other turns end where they may have ended at the earliest
        assert "preflight_transcript" in listener.kinds


@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.parametrize("plugin", RECORDED)
def test_a_plugin_for_recordings_has_all_words(
    service: Running, demo: kiku.Recognizer, plugin: str, name: str
) -> None:
    sound = spoken(demo, name, 16_000)
    errors: list[Any] = []

    async def play(http: Any) -> str:
        stt = RECORDED[plugin](service, http)
        stt.on("error", errors.append)
        frames = [rtc.AudioFrame(one, 16_000, 1, len(one) // 2) for one in sound.pieces(0.5)]
        async with stt:
            event = await stt.recognize(frames, conn_options=AT_ONCE)
        return event.alternatives[0].text

    with without_errors(service):
        text = asyncio.run(_with_session(play))
    assert plain(text) == sound.words
    assert errors == []


async def _with_session(play: Callable[[Any], Any]) -> Any:
    """As within an agent's job, which has one session for all plugins."""
    async with (
        asyncio.timeout(PATIENCE_S),
        agents.utils.http_context.open(),
        aiohttp.ClientSession() as http,
    ):
        return await play(http)
