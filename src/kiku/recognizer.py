"""The public face: a model, its slots, and every way to have it listen."""

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO, cast, overload

import numpy as np
from numpy.typing import NDArray

from kiku.audio import as_mono, chunks_of, read_chunks
from kiku.config import ModelConfig
from kiku.engine import Choose, Engine, StepOutput
from kiku.engine.steering import Chooser, Steering
from kiku.errors import InputError, NoFreeSlot
from kiku.live import AsyncStream, LiveStream, WhenFull, Worker, check_queue
from kiku.loop import Loop, Seat, Tap
from kiku.stream import NO_CARE, Care, Stream, Wishes
from kiku.stream.saved import pack, unpack
from kiku.text import Eagerness, TurnPolicy, Vocabulary
from kiku.transcription import Batch, Job, Transcription

Source = str | os.PathLike[str] | BinaryIO | NDArray[np.generic]
"""A path, "-" for standard input, an open binary file, or samples (all that numpy takes)."""

Turning = bool | Eagerness | TurnPolicy
"""Whether a stream tells turns: no, yes, how eagerly, or exactly when."""


class Recognizer:
    """A model with a number of slots, for any number of threads.

    `transcribe` is for recordings, `stream` and `astream` are for sound as it comes. `open` and
    `step` are what these stand on, for who drives the loop himself.
    """

    def __init__(
        self,
        engine: Engine,
        config: ModelConfig,
        vocabulary: Vocabulary,
        *,
        name: str,
        max_block: int | None = None,
    ) -> None:
        """Around an engine that is ready; `load` makes one from a checkpoint.

        Args:
            engine: with its slots.
            config: of the model.
            vocabulary: its text tokens.
            name: how the model was called.
            max_block: frames that one step takes at most; None leaves it to the engine.
        """
        self.engine = engine
        self.config = config
        self.vocabulary = vocabulary
        self.name = name
        self.loop = Loop(engine, max_block)
        """Through which all its streams go."""
        self._worker = Worker(self.loop)

    def stream(
        self,
        state: bytes | None = None,
        *,
        turns: Turning = False,
        partials: bool = False,
        pauses: bool = False,
        steering: Steering | None = None,
        care: Care | None = None,
        max_queue_s: float = 30.0,
        when_full: WhenFull = "block",
        timeout: float = 0.0,
    ) -> LiveStream:
        """Open a live stream: push sound into it from any thread, and iterate over its events.

        Args:
            state: what `save` of another stream gave, to go on with that; None begins a new one.
            turns: tell when somebody begins and ends a turn: "low", "medium" or "high" eagerness,
                or a `TurnPolicy`; True is "medium".
            partials: give out the pieces of a word that is still being written, as `Partial`.
            pauses: give out what the pause heads say after every frame, as `Pause`.
            steering: how text is picked; None is the model's own likeliest token, or, with
                `state`, how that stream was steered.
            care: how the stream is kept well for hours; None is the usual care.
            max_queue_s: seconds of sound that may wait to be heard.
            when_full: what `push` does when so much waits: "block" waits for room, "error" raises
                `QueueFull`.
            timeout: seconds to wait for a free slot.

        Raises:
            NoFreeSlot: all slots are held.
            ConfigError: an argument that cannot be, or that this model cannot follow.
            StreamError: the state is damaged, or of another model or engine.
        """
        check_queue(max_queue_s, when_full)
        ends = time.monotonic() + timeout
        opened = self._opening(state, turns, partials, pauses, steering, care)
        freed = _Freed(self.loop)
        try:
            while True:
                try:
                    seat = opened()
                    break
                except NoFreeSlot:
                    left = ends - time.monotonic()
                    if left <= 0:
                        raise
                    freed.wait(left)
        finally:
            freed.end()
        return self._live(seat, max_queue_s, when_full)

    async def astream(
        self,
        state: bytes | None = None,
        *,
        turns: Turning = False,
        partials: bool = False,
        pauses: bool = False,
        steering: Steering | None = None,
        care: Care | None = None,
        max_queue_s: float = 30.0,
        when_full: WhenFull = "block",
        timeout: float = 0.0,
    ) -> AsyncStream:
        """As `stream`, for tasks: nothing of it blocks the event loop."""
        check_queue(max_queue_s, when_full)
        ends = time.monotonic() + timeout
        opened = self._opening(state, turns, partials, pauses, steering, care)
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def freed() -> None:
            with suppress(RuntimeError):  # the event loop has been closed
                loop.call_soon_threadsafe(changed.set)

        end = self.loop.on_freed(freed)
        try:
            while True:
                changed.clear()
                claim = _Claim(opened, self.release)
                try:
                    seat = await asyncio.to_thread(claim.open)
                    break
                except asyncio.CancelledError:
                    claim.leave()  # the thread cannot be stopped
                    raise
                except NoFreeSlot:
                    left = ends - time.monotonic()
                    if left <= 0:
                        raise
                    try:
                        await asyncio.wait_for(changed.wait(), left)
                    except TimeoutError:
                        continue
        finally:
            end()
        return AsyncStream(self._live(seat, max_queue_s, when_full))

    def _opening(
        self,
        state: bytes | None,
        turns: Turning,
        partials: bool,
        pauses: bool,
        steering: Steering | None,
        care: Care | None,
    ) -> "_Opening":
        if turns is True:
            turns = "medium"
        policy = TurnPolicy.of(turns) if isinstance(turns, str) else (turns or None)
        wishes = Wishes(policy, partials, pauses, Care() if care is None else care)
        saved = None if state is None else unpack(state)
        if steering is None and saved is not None:
            steering = Steering.from_dict(saved["steering"])
        return _Opening(self, wishes, steering or Steering(), saved)

    def _live(self, seat: Seat, max_queue_s: float, when_full: WhenFull) -> LiveStream:
        return LiveStream(
            seat, self.loop, self._worker, max_queue_s=max_queue_s, when_full=when_full,
            save=self._save, steer=self._steer,
        )  # fmt: skip

    def _save(self, seat: Seat) -> bytes:
        with self.loop.held():
            state, slot = self.loop.save(seat)
            steering: Steering = seat.steering
            chosen = seat.choose.save() if isinstance(seat.choose, Chooser) else None
        return pack(
            {"stream": state, "slot": slot, "steering": steering.to_dict(), "choice": chosen}
        )

    def _steer(self, seat: Seat, steering: Steering | None) -> None:
        steering = steering or Steering()
        with self.loop.held():
            before = seat.choose if isinstance(seat.choose, Chooser) else None
            choose = steering.chooser(self.vocabulary, self.config, after=before)
            self.loop.steer(seat, choose, steering.num_codebooks)
            seat.steering = steering

    def open(
        self,
        *,
        padded: bool = True,
        wishes: Wishes | None = None,
        choose: Choose | None = None,
        tap: Tap | None = None,
    ) -> Stream:
        """Open a stream that nobody steps but you: push sound into it and call `step` while it
        moves.

        Args:
            padded: see `Stream`.
            wishes: see `Stream`.
            choose: picks each text token from the logits (a `Chooser` or `Sampler`, say); None is
                greedy. What `finalize` looks ahead for is picked by a deep copy of it.
            tap: is shown every output of the engine for this stream.

        Raises:
            NoFreeSlot: all slots are held.
        """
        stream = Stream(self.config, self.vocabulary, wishes or Wishes(), padded=padded)
        self.loop.seat(stream, choose, tap=tap)
        return stream

    def step(self) -> int:
        """Advance every stream that has whole frames waiting; return how many frames moved.

        Streams with a backlog move a block of frames, live ones a single frame. What else has to be
        done for a stream (see `Stream.due`) counts as one. 0 means that all wait for sound. A
        stream whose step failed ends, with the error in it; the others go on.
        """
        return self.loop.step()

    def release(self, stream: Stream) -> None:
        """Give up a stream before its end: its slot is free at once. Twice does no harm."""
        self.loop.release(stream)

    @property
    def max_block(self) -> int:
        """Frames that one step takes at most."""
        return self.loop.max_block

    @property
    def free_slots(self) -> int:
        """Slots that no stream holds."""
        return self.loop.free_slots

    @overload
    def tokens(
        self,
        samples: NDArray[np.float32],
        *,
        max_tokens: int | None = None,
        choose: Choose | None = None,
    ) -> NDArray[np.int64]: ...
    @overload
    def tokens(
        self,
        samples: Sequence[NDArray[np.float32]],
        *,
        max_tokens: int | None = None,
        choose: Choose | None = None,
    ) -> list[NDArray[np.int64]]: ...
    def tokens(
        self,
        samples: NDArray[np.float32] | Sequence[NDArray[np.float32]],
        *,
        max_tokens: int | None = None,
        choose: Choose | None = None,
    ) -> NDArray[np.int64] | list[NDArray[np.int64]]:
        """The raw text token of every frame, for research and parity.

        Nothing is put before or after the sound. Token t was chosen having heard frames 0 .. t - 1,
        so it speaks of the sound `text_delay_s` before it. These are the tokens that transformers'
        `generate` gives after the start id, and moshi's `LMGen` fed with the first frame twice.

        Args:
            samples: [S] mono at the model's rate, or several such arrays, which share the slots.
            max_tokens: stop there.
            choose: see `stream`; for one array only.

        Returns:
            [S // frame_size] token ids, or one such array for each that was given.

        Raises:
            InputError: not [S], a negative `max_tokens`, or `choose` for several arrays.
            AudioError: samples that are not finite numbers.
            NoFreeSlot: all slots are held.
        """
        if max_tokens is not None and max_tokens < 0:
            raise InputError(f"max_tokens must be at least 0, not {max_tokens}")
        if isinstance(samples, np.ndarray):
            return self._tokens([samples], max_tokens, choose)[0]
        if choose is not None:
            raise InputError("choose may remember, so it is for one array: pass them one by one")
        return self._tokens(samples, max_tokens, choose)

    def _tokens(
        self, arrays: Sequence[NDArray[np.float32]], max_tokens: int | None, choose: Choose | None
    ) -> list[NDArray[np.int64]]:
        for array in arrays:
            if np.ndim(array) != 1:
                raise InputError(f"samples must be mono [S], not {list(np.shape(array))}")
        size = self.config.frame_size
        counts = [
            len(a) // size if max_tokens is None else min(len(a) // size, max_tokens)
            for a in arrays
        ]
        for array in arrays:
            as_mono(array)  # refuses what is not finite, which a stream would make silent
        collected: list[list[int]] = [[] for _ in arrays]
        waiting = deque(i for i, count in enumerate(counts) if count)
        running: list[Stream] = []
        try:
            while waiting or running:
                while waiting and (self.free_slots or not running):
                    i = waiting.popleft()
                    tap = _Collector(collected[i])
                    running.append(self.open(padded=False, wishes=_RAW, choose=choose, tap=tap))
                    # Token 0 needs no frame, so the last one wanted comes with the frame before.
                    running[-1].push(arrays[i][: (counts[i] - 1) * size])
                    running[-1].close()
                self.step()
                for stream in running:
                    if stream.failure is not None:
                        raise stream.failure
                running = [stream for stream in running if not stream.done]
        finally:
            for stream in running:
                self.release(stream)
        return [np.array(tokens, dtype=np.int64) for tokens in collected]

    @overload
    def transcribe(self, source: Source, *, rate: int | None = None) -> Transcription: ...
    @overload
    def transcribe(
        self, source: Sequence[Source], *, rate: int | None = None
    ) -> list[Transcription]: ...
    def transcribe(
        self, source: Source | Sequence[Source], *, rate: int | None = None
    ) -> Transcription | list[Transcription]:
        """Words of a recording, as they are decided; work happens while you iterate.

        Args:
            source: a path to anything with sound in it, "-" for standard input, an open binary
                file, or samples ([S] or [S, C]). A list of such is transcribed side by side in the
                free slots.
            rate: of samples, in Hz; None means 24,000. Files know theirs.

        Returns:
            One `Transcription`, or one for each source.
        """
        if isinstance(source, list | tuple):
            jobs = [Job(self._sound_later(one, rate)) for one in source]
            batch = Batch(self.loop, jobs, self.open)
            return [Transcription(job, batch) for job in jobs]
        job = Job(self._sound(source, rate))  # pyright: ignore[reportArgumentType]
        return Transcription(job, Batch(self.loop, [job], self.open))

    def _sound_later(self, source: Source, rate: int | None) -> Iterator[NDArray[np.float32]]:
        """As `_sound`, but what is wrong at once is told by this recording, not by the call."""
        yield from self._sound(source, rate)

    def _sound(self, source: Source, rate: int | None) -> Iterator[NDArray[np.float32]]:
        sample_rate = self.config.sample_rate
        if isinstance(source, str | os.PathLike) or not hasattr(source, "__array__"):
            return read_chunks(cast("str | BinaryIO", source), sample_rate)
        return chunks_of(np.asarray(source), sample_rate if rate is None else rate, sample_rate)


_RAW = Wishes(care=NO_CARE)
"""Of a stream whose tokens are wanted as the model says them."""


class _Freed:
    """Waits for a slot to become free, in a thread."""

    def __init__(self, loop: Loop) -> None:
        # Not an Event: the garbage collector may free a slot while this thread holds its lock.
        self._freed: SimpleQueue[None] = SimpleQueue()
        self.end = loop.on_freed(lambda: self._freed.put(None))

    def wait(self, seconds: float) -> None:
        with suppress(Empty):
            self._freed.get(timeout=min(seconds, threading.TIMEOUT_MAX))


class _Claim:
    """A stream that is opened in a thread for a task, which may be cancelled at any moment."""

    def __init__(self, opened: Callable[[], Seat], release: Callable[[Stream], None]) -> None:
        self._opened, self._release = opened, release
        self._lock = threading.Lock()
        self._seat: Seat | None = None
        self._left = False

    def open(self) -> Seat:
        seat = self._opened()
        with self._lock:
            self._seat = seat
            if self._left:
                self._release(seat.stream)
        return seat

    def leave(self) -> None:
        with self._lock:
            self._left = True
            if self._seat is not None:
                self._release(self._seat.stream)


@dataclass(frozen=True)
class _Opening:
    """A stream that is to be opened, as often as it takes to find a free slot."""

    recognizer: Recognizer
    wishes: Wishes
    steering: Steering
    saved: dict[str, Any] | None

    def __call__(self) -> Seat:
        rec, saved = self.recognizer, self.saved
        stream = Stream(rec.config, rec.vocabulary, self.wishes)
        choose = self.steering.chooser(rec.vocabulary, rec.config)
        if saved is not None:
            stream.restore(saved["stream"])
            if choose is not None and saved["choice"] is not None:
                choose.restore(saved["choice"])
        seat = rec.loop.seat(
            stream, choose, num_codebooks=self.steering.num_codebooks, is_live=True,
            saved=None if saved is None else saved["slot"],
        )  # fmt: skip
        seat.steering = self.steering
        return seat


@dataclass(frozen=True)
class _Collector:
    """A tap that keeps the tokens."""

    tokens: list[int]

    def __call__(self, out: StepOutput) -> None:
        self.tokens.extend(out.tokens[0].tolist())
