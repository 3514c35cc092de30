"""Pipecat's services for OpenAI and Deepgram, in a pipeline as a voice agent has it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import kiku
from tests.serve.running import Running
from tests.serve_clients.spoken import (
    LEAD_S,
    PATIENCE_S,
    RECORDINGS,
    plain,
    spoken,
    without_errors,
)

_WHY = "Pipecat is not installed: make clients does that"


def _imported(name: str) -> Any:
    return pytest.importorskip(name, reason=_WHY, exc_type=ImportError)


frames = _imported("pipecat.frames.frames")
pipeline = _imported("pipecat.pipeline.pipeline")
runner = _imported("pipecat.pipeline.runner")
task = _imported("pipecat.pipeline.task")
processors = _imported("pipecat.processors.frame_processor")
deepgram = _imported("pipecat.services.deepgram.stt")
flux = _imported("pipecat.services.deepgram.flux.stt")
openai = _imported("pipecat.services.openai.stt")

RATE = 16_000
PIECE_S = 0.02

SERVICES: dict[str, Callable[[Running], Any]] = {
    "openai realtime": lambda service: openai.OpenAIRealtimeSTTService(
        api_key="none", base_url=f"{service.ws}/v1/realtime"
    ),
    "openai realtime, server_vad": lambda service: openai.OpenAIRealtimeSTTService(
        api_key="none", base_url=f"{service.ws}/v1/realtime",
        turn_detection={"type": "server_vad"},
    ),
    "deepgram": lambda service: deepgram.DeepgramSTTService(api_key="none", base_url=service.ws),
    "deepgram flux": lambda service: flux.DeepgramFluxSTTService(
        api_key="none", url=f"{service.ws}/v2/listen"
    ),
}  # fmt: skip


class Listener(processors.FrameProcessor):
    """One end of a pipeline: notes what passes."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        """Of final transcripts."""
        self.num_interim = 0
        self.errors: list[str] = []
        self.news = asyncio.Event()

    async def process_frame(self, frame: Any, direction: Any) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, frames.TranscriptionFrame):
            self.words += plain(frame.text)
        elif isinstance(frame, frames.InterimTranscriptionFrame):
            self.num_interim += 1
        elif isinstance(frame, frames.ErrorFrame):
            self.errors.append(frame.error)
        self.news.set()
        await self.push_frame(frame, direction)

    async def has(self, count: int) -> None:
        """Wait until there are so many words, or an error."""
        while len(self.words) < count and not self.errors:
            self.news.clear()
            await self.news.wait()


@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.parametrize("which", SERVICES)
def test_a_pipeline_has_all_words(
    service: Running, demo: kiku.Recognizer, which: str, name: str
) -> None:
    sound = spoken(demo, name, RATE)

    async def play() -> list[Listener]:
        # Errors go to the begin of the pipeline, transcripts to its end.
        ends = [Listener(), Listener()]
        stages = pipeline.Pipeline([ends[0], SERVICES[which](service), ends[1]])
        work = task.PipelineTask(
            stages, params=task.PipelineParams(audio_in_sample_rate=RATE), idle_timeout_secs=None
        )

        async def speak() -> None:
            pieces = sound.pieces(PIECE_S)
            for i, piece in enumerate(pieces):
                if i * PIECE_S < LEAD_S:  # as from a microphone, until the session is set up
                    await asyncio.sleep(PIECE_S)
                elif (i - 1) * PIECE_S < LEAD_S:
                    await work.queue_frame(frames.VADUserStartedSpeakingFrame())
                await work.queue_frame(
                    frames.InputAudioRawFrame(audio=piece, sample_rate=RATE, num_channels=1)
                )
            await work.queue_frame(frames.VADUserStoppedSpeakingFrame())
            await ends[1].has(len(sound.words))
            await work.queue_frame(frames.EndFrame())

        async with asyncio.timeout(PATIENCE_S):
            speaking = asyncio.create_task(speak())
            await runner.PipelineRunner(handle_sigint=False).run(work)
            await speaking
        return ends

    with without_errors(service):
        ends = asyncio.run(play())
    assert ends[1].words == sound.words
    assert ends[1].num_interim > 0
    assert [error for end in ends for error in end.errors] == []
