"""What all protocols share: the model under its names, slots, streams, uploads, metrics."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import kiku
from kiku.calibration import Calibration
from kiku.live import AsyncStream
from kiku.options import StreamOptions
from kiku.recognizer import Recognizer
from kiku.serve.admission import Admission, Busy, Permit, shutting_down
from kiku.serve.decoder import DecoderProcesses
from kiku.serve.keys import Keys
from kiku.serve.metrics import Metrics
from kiku.serve.protocols.interface import ModelCard
from kiku.serve.settings import Settings
from kiku.serve.upload_transcription import UploadTranscription

_LOG = logging.getLogger(__name__)

_STUCK_S = 10.0
"""Seconds after which a model that has work and ends no step is not ready."""

_DEAD_S = 60.0
"""Seconds after which such a model counts as dead: only another process helps."""

_BROKEN_STEPS = 3
"""Number of failed steps in a row after which a model is broken, as a GPU is after its own
errors."""

_NO_MODEL = "the model cannot be loaded: see the log"

_OPEN_S = 30.0
"""Seconds within which a permit holder gets its slot: an earlier stream may be about to leave."""

_LOOKS = 2
"""Recordings into which is looked at the same time, before they wait for a slot."""


class Service:
    """A model that answers clients. Lives in one event loop, except `load`."""

    def __init__(self, settings: Settings, recognizer: Recognizer | None = None) -> None:
        """Begin without a model until `load`, unless one is given.

        Raises:
            ConfigError: a file that the settings name cannot be read.
        """
        self.settings = settings
        self.keys = Keys(settings.keys())
        file = settings.calibration
        self._calibration = None if file is None else Calibration.load(file)
        self.metrics = Metrics()
        self.decoders = DecoderProcesses(settings.decoder_bytes)
        self.is_draining = False
        self.room_bytes = 0.0
        """Bytes of sound waiting to be heard that one stream may keep."""
        self.update_room(0.0, 1)
        self._recognizer: Recognizer | None = None
        self._has_failed = False  # the model cannot be loaded
        self._admission: Admission | None = None
        self._card: ModelCard | None = None
        self._num_open = 0
        self._limits: set[asyncio.Timeout] = set()  # of work that the end breaks off
        self._has_ended = False
        self.looks = asyncio.Semaphore(_LOOKS)
        self.num_looking = 0
        """Uploads whose channels are looked at before they wait for a slot."""
        """Held while a recording is looked into."""
        self._background: set[asyncio.Task[None]] = set()
        if recognizer is not None:
            self._use(recognizer)

    def load(self) -> None:
        """Load the model; takes a while, and may be called in any thread.

        Raises:
            KikuError: the model cannot be loaded.
        """
        settings = self.settings
        try:
            slots = settings.slots or _default_slots(settings)
            recognizer = kiku.load(
                settings.model, engine=settings.engine, device=settings.device,
                dtype=settings.dtype, slots=slots, threads=settings.threads,
                revision=settings.revision,
            )  # fmt: skip
            self._use(recognizer)
        except BaseException:
            self._has_failed = True
            raise

    def _use(self, recognizer: Recognizer) -> None:
        engine, frame_s = recognizer.scheduler.engine, recognizer.scheduler.engine.frame_s
        recognizer.scheduler.steps.on_step = lambda frames, seconds: self.metrics.stepped(
            frames, seconds, frame_s
        )
        self._card = ModelCard(
            recognizer.name,
            self.settings.model_alias,
            self.settings.languages or languages_of(recognizer.name),
            recognizer.config.text_delay_s,
            recognizer.config.lm.num_pause_heads,
            recognizer.config.sample_rate,
            kiku.__version__,
            int(time.time()),
        )
        self._admission = Admission(engine.num_slots, self.settings.max_queue)
        self.metrics.slots.set(engine.num_slots)
        self.metrics.slots_used.set_function(lambda: self.admission.num_taken)
        self.metrics.queue.set_function(lambda: self.admission.num_waiting)
        if self.settings.session_key:
            recognizer.state_key = self.settings.session_key.encode()
        if self._calibration and (warning := self._calibration.warning_for(recognizer.name)):
            _LOG.warning("%s", warning)
        self._recognizer = recognizer

    @property
    def is_loaded(self) -> bool:
        """Whether the model is there."""
        return self._recognizer is not None

    @property
    def recognizer(self) -> Recognizer:
        """The model.

        Raises:
            Busy: it is being loaded, or cannot be loaded.
        """
        if self._recognizer is None:
            raise self._no_model()
        return self._recognizer

    @property
    def admission(self) -> Admission:
        """The admission to the model's slots. Raises as `recognizer`."""
        if self._admission is None:
            raise self._no_model()
        return self._admission

    @property
    def card(self) -> ModelCard:
        """What protocols need to know of the model. Raises as `recognizer`."""
        if self._card is None:
            raise self._no_model()
        return self._card

    def _no_model(self) -> Busy:
        return Busy(_NO_MODEL if self._has_failed else "the model is being loaded", 5)

    @property
    def why_not_ready(self) -> str | None:
        """What keeps the service from taking another stream; None if nothing does."""
        if not self.is_loaded:
            return _NO_MODEL if self._has_failed else "loading"
        if self.is_draining:
            return "draining"
        if self.is_stuck:
            return f"no step of the model has finished for {_STUCK_S:g} seconds"
        if self.is_broken:
            return f"the last {_BROKEN_STEPS} steps of the model failed"
        return None

    @property
    def has_failed(self) -> bool:
        """Whether the model cannot be loaded."""
        return self._has_failed

    @property
    def is_stuck(self) -> bool:
        """Whether a round of the driver does not end, for its step or anything else in it."""
        return self._round_s > _STUCK_S

    @property
    def is_dead(self) -> bool:
        """Whether only another process helps: the model is broken, or stuck for `_DEAD_S`."""
        return self.is_broken or self._round_s > _DEAD_S

    @property
    def is_broken(self) -> bool:
        """Whether the model's last steps all failed."""
        failed = 0 if self._recognizer is None else self._recognizer.scheduler.steps.num_failed
        return failed >= _BROKEN_STEPS

    @property
    def _round_s(self) -> float:
        """Seconds since the round that is under way began."""
        began = None if self._recognizer is None else self._recognizer.scheduler.round_began
        return 0.0 if began is None else time.perf_counter() - began

    @property
    def num_open(self) -> int:
        """Number of talks and uploads that are going on."""
        return self._num_open

    def count_open(self) -> None:
        """Count a talk or upload that begins."""
        self._num_open += 1

    def count_closed(self) -> None:
        """Count a talk or upload that has ended."""
        self._num_open -= 1

    def run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work in a task of its own, which the caller does not wait for."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def update_room(self, waiting_bytes: float, num_streams: int) -> None:
        """Set `room_bytes`: half of the bytes that all streams may keep together; an even part of
        them, if the sound that waits takes more."""
        max_bytes = self.settings.read_ahead_bytes
        self.room_bytes = max_bytes / num_streams if waiting_bytes > max_bytes else max_bytes / 2

    @asynccontextmanager
    async def until_end(self) -> AsyncGenerator[None]:
        """A context for work on a request, which the end of the service breaks off.

        Raises:
            Busy: the service ends.
        """
        if self._has_ended:
            raise shutting_down()
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._limits.add(limit)
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise shutting_down() from None
        finally:
            self._limits.discard(limit)

    def break_off(self) -> None:
        """End the service now: requests whose recordings are being heard fail with `Busy`."""
        self._has_ended = True
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            limit.reschedule(now)

    # Streams.

    def permit(self, count: int = 1) -> Permit:
        """Take slots for a live stream, now.

        Raises:
            Busy: too few are free, the model is not there, or the service is ending.
        """
        self._check_open()
        return self.admission.take(count)

    def _check_open(self) -> None:
        if self.is_draining:
            raise shutting_down()

    async def open(
        self, options: StreamOptions, *, recorded: bool = False, state: bytes | None = None
    ) -> AsyncStream:
        """Open a stream, for which a permit is held; from a saved one if `state` is given."""
        options = replace(options, calibration=self._calibration)
        return await self.recognizer.astream(
            options, state=state, timeout=_OPEN_S, recorded=recorded
        )

    # Uploads.

    def check_queue(self) -> None:
        """Refuse a recording before it is sent, if it could not even wait. Raises Busy."""
        self._check_open()
        self.admission.check_queue()

    @asynccontextmanager
    async def transcribe_upload(
        self, source: Path, options: StreamOptions, protocol: str
    ) -> AsyncGenerator["UploadTranscription"]:
        """Transcribe a recording in a file, at the same time as all other streams.

        Iterate over what this gives to have each word as it is decided, and then take its
        `transcript`. Leaving the context stops the work.

        Args:
            source: the file.
            options: as of `Recognizer.transcribe`.
            protocol: name of the client's protocol, for the metrics.

        Raises:
            Busy: no slot came free in time, or the service ends before all is heard.
            AudioError: the recording cannot be read.
            ConfigError: it has more channels, each to be heard by itself, than there are slots.
        """
        self._check_open()
        self.count_open()
        self.metrics.connections.labels(protocol).inc()
        self.metrics.opened.labels(protocol).inc()
        transcription = UploadTranscription(self, source, options)
        try:
            async with self.until_end():
                await transcription.start()
                yield transcription
        finally:
            self.metrics.connections.labels(protocol).dec()
            self.count_closed()
            await transcription.close()


def languages_of(name: str) -> tuple[str, ...]:
    """The languages that stand in a model's name, as in Kyutai's ("stt-1b-en_fr"); else "en"."""
    last = name.replace("\\", "/").rstrip("/").split("/")[-1]
    for part in reversed(last.split("-")):
        codes = part.split("_")
        if all(len(code) == 2 and code.isalpha() and code.islower() for code in codes):
            return tuple(codes)
    return ("en",)


def _default_slots(settings: Settings) -> int:
    from kiku.converted import is_converted
    from kiku.engine.choice import choose_engine

    chosen = choose_engine(
        settings.engine, device=settings.device, dtype=settings.dtype,
        converted=is_converted(settings.model),
    )  # fmt: skip
    return 8 if chosen == "onnx" else 64
