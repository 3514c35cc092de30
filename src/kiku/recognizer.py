"""The public face: a model, its slots, and the one loop that file, microphone and socket all end
in."""

import os
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, overload

import numpy as np
from numpy.typing import NDArray

from kiku.audio import chunks_of, read_chunks
from kiku.config import ModelConfig
from kiku.engine import Choose, Engine, StepOutput
from kiku.errors import AudioError, ConfigError, MissingExtra, UnsupportedConfig
from kiku.stream import End, Stream
from kiku.text import Segment, Vocabulary, Word, segments

Source = str | os.PathLike[str] | BinaryIO | NDArray[np.generic]
"""A path, "-" for standard input, an open binary file, or samples."""

Tap = Callable[[StepOutput], None]
"""Is shown everything that the engine says about one stream, one row at a time (n = 1)."""


class Recognizer:
    """A model with a number of slots. Not for several threads at once."""

    def __init__(
        self, engine: Engine, config: ModelConfig, vocabulary: Vocabulary, *, name: str
    ) -> None:
        """Around an engine that is ready; `load` makes one from a checkpoint."""
        self.engine = engine
        self.config = config
        self.vocabulary = vocabulary
        self.name = name
        self._slots: dict[Stream, int] = {}
        self._taps: dict[Stream, Tap] = {}

    def stream(
        self, *, padded: bool = True, choose: Choose | None = None, tap: Tap | None = None
    ) -> Stream:
        """Open a live stream in a free slot. Push sound into it and call `step` while it moves.

        Args:
            padded: see `Stream`.
            choose: picks each text token from the logits (`kiku.lm.Sampler` is one); None is
                greedy.
            tap: is shown every output of the engine for this stream.

        Raises:
            NoFreeSlot: all slots are held.
        """
        slot, first = self.engine.open(choose)
        stream = Stream(self.config, self.vocabulary, padded=padded)
        self._slots[stream] = slot
        if tap is not None:
            self._taps[stream] = tap
        self._deliver(stream, first)
        return stream

    def step(self) -> int:
        """Advance every stream that has whole frames waiting; return how many frames moved.

        Streams with a backlog move a block of frames, live ones a single frame. 0 means that all
        wait for sound.
        """
        blocks: dict[int, list[Stream]] = {}
        for stream in self._slots:
            if ready := min(stream.num_ready, self.engine.max_block):
                blocks.setdefault(1 << (ready.bit_length() - 1), []).append(stream)
        for size, members in blocks.items():
            frames = np.stack([stream.take(size) for stream in members])
            out = self.engine.step([self._slots[stream] for stream in members], frames)
            for i, stream in enumerate(members):
                self._deliver(stream, _row(out, i))
        for stream in list(self._slots):
            stream.settle()
            if stream.done:
                self.release(stream)
        return sum(size * len(members) for size, members in blocks.items())

    def release(self, stream: Stream) -> None:
        """Give up a stream before its end; its slot is free at once. Nothing happens if it has none
        any more."""
        slot = self._slots.pop(stream, None)
        self._taps.pop(stream, None)
        if slot is not None:
            self.engine.close(slot)

    def _deliver(self, stream: Stream, out: StepOutput) -> None:
        stream.accept(out.tokens[0].tolist(), out.logprobs[0].tolist())
        if stream in self._taps:
            self._taps[stream](out)

    @property
    def free_slots(self) -> int:
        """Slots that no stream holds."""
        return self.engine.num_slots - len(self._slots)

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
        """The raw text token of every frame, for research and parity: nothing is put before or
        after the sound.

        Token t was chosen having heard frames 0 .. t - 1, so it speaks of the sound `text_delay_s`
        before it. These are the tokens that transformers' `generate` gives after the start id, and
        moshi's `LMGen` where the first frame is fed twice.

        Args:
            samples: [S] mono at the model's rate, or several such arrays, which share the slots.
            max_tokens: stop there.
            choose: see `stream`; for one array only.

        Returns:
            [S // frame_size] token ids, or one such array for each that was given.
        """
        if isinstance(samples, np.ndarray):
            return self._tokens([samples], max_tokens, choose)[0]
        return self._tokens(samples, max_tokens, choose)

    def _tokens(
        self, arrays: Sequence[NDArray[np.float32]], max_tokens: int | None, choose: Choose | None
    ) -> list[NDArray[np.int64]]:
        size = self.config.frame_size
        counts = [
            len(a) // size if max_tokens is None else min(len(a) // size, max_tokens)
            for a in arrays
        ]
        collected: list[list[int]] = [[] for _ in arrays]
        waiting = deque(i for i, count in enumerate(counts) if count)
        running: list[Stream] = []
        while waiting or running:
            while waiting and (self.free_slots or not running):
                tap = _Collector(collected[waiting[0]])
                stream = self.stream(padded=False, choose=choose, tap=tap)
                i = waiting.popleft()
                # Token 0 needs no frame, so the last one wanted comes with the frame before.
                stream.push(arrays[i][: (counts[i] - 1) * size])
                stream.close()
                running.append(stream)
            self.step()
            running = [stream for stream in running if not stream.done]
        return [np.array(tokens, dtype=np.int64) for tokens in collected]

    @overload
    def transcribe(self, source: Source, *, rate: int | None = None) -> "Transcription": ...
    @overload
    def transcribe(
        self, source: Sequence[Source], *, rate: int | None = None
    ) -> "list[Transcription]": ...
    def transcribe(
        self, source: Source | Sequence[Source], *, rate: int | None = None
    ) -> "Transcription | list[Transcription]":
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
            jobs = [_Job(self._sound(one, rate)) for one in source]
            batch = _Batch(self, jobs)
            return [Transcription(job, batch) for job in jobs]
        job = _Job(self._sound(source, rate))  # pyright: ignore[reportArgumentType]
        return Transcription(job, _Batch(self, [job]))

    def _sound(self, source: Source, rate: int | None) -> Iterator[NDArray[np.float32]]:
        if isinstance(source, np.ndarray):
            return chunks_of(source, rate or self.config.sample_rate, self.config.sample_rate)
        return read_chunks(source, self.config.sample_rate)


def _row(out: StepOutput, i: int) -> StepOutput:
    row = slice(i, i + 1)
    return StepOutput(
        out.tokens[row],
        out.logprobs[row],
        None if out.pauses is None else out.pauses[row],
        None if out.logits is None else out.logits[row],
    )


@dataclass(frozen=True)
class _Collector:
    """A tap that keeps the tokens."""

    tokens: list[int]

    def __call__(self, out: StepOutput) -> None:
        self.tokens.extend(out.tokens[0].tolist())


@dataclass(eq=False)
class _Job:
    """One recording on its way through a slot."""

    sound: Iterator[NDArray[np.float32]]
    stream: Stream | None = None
    words: list[Word] = field(default_factory=list[Word])
    duration: float = 0.0
    problem: AudioError | None = None
    failure: BaseException | None = None
    done: bool = False

    def feed(self, enough: int) -> None:
        """Push sound until `enough` frames wait or it ends."""
        stream = self.stream
        assert stream is not None
        try:
            while stream.num_ready < enough:
                stream.push(next(self.sound))
        except StopIteration:
            stream.close()
        except AudioError as error:
            if stream.duration == 0:
                raise
            self.problem = error
            warnings.warn(f"{error}; everything before was transcribed", stacklevel=2)
            stream.close()

    def collect(self) -> None:
        """Take over what the stream has to say."""
        assert self.stream is not None
        self.duration = self.stream.duration
        for event in self.stream.events():
            if isinstance(event, End):
                self.done = True
            else:
                self.words.append(event)


class _Batch:
    """Recordings that share the free slots of a recognizer."""

    def __init__(self, recognizer: Recognizer, jobs: list[_Job]) -> None:
        self._recognizer = recognizer
        self._waiting = deque(jobs)
        self._running: list[_Job] = []

    def advance(self) -> None:
        """One round of the loop: open what has room, feed, step, collect."""
        while self._waiting and (self._recognizer.free_slots or not self._running):
            stream = self._recognizer.stream()  # may raise: the job then waits on
            job = self._waiting.popleft()
            job.stream = stream
            self._running.append(job)
        for job in list(self._running):
            try:
                job.feed(self._recognizer.engine.max_block)
            except BaseException as error:
                self._fail(job, error)
                if not isinstance(error, AudioError):
                    raise
        self._recognizer.step()
        for job in list(self._running):
            job.collect()
            if job.done:
                self._running.remove(job)

    def _fail(self, job: _Job, error: BaseException) -> None:
        job.failure, job.done = error, True
        self.abandon(job)

    def abandon(self, job: _Job) -> None:
        """Give its slot back; nobody wants its words any more."""
        if job in self._waiting:
            self._waiting.remove(job)
        if job in self._running:
            self._running.remove(job)
        if job.stream is not None:
            self._recognizer.release(job.stream)


class Transcription:
    """The words of one recording. Iterate to have each as soon as it is decided; the properties
    wait for the end.

    If the sound stops in the middle (a truncated file), the words before are all there, a warning
    says so, and `problem` holds the error. If it cannot be read at all, iterating raises that
    error.
    """

    def __init__(self, job: _Job, batch: _Batch) -> None:
        """`Recognizer.transcribe` makes them."""
        self._job = job
        self._batch = batch
        weakref.finalize(self, batch.abandon, job)

    def __iter__(self) -> Iterator[Word]:
        """Every word from the first, waiting for those that are not decided yet."""
        index = 0
        while True:
            while index < len(self._job.words):
                yield self._job.words[index]
                index += 1
            if self._job.done:
                break
            self._batch.advance()
        if self._job.failure is not None:
            raise self._job.failure

    def _finish(self) -> _Job:
        for _ in self:
            pass
        return self._job

    @property
    def so_far(self) -> list[Word]:
        """The words decided until now, without waiting."""
        return list(self._job.words)

    @property
    def heard_s(self) -> float:
        """Seconds of sound taken in until now, without waiting."""
        return self._job.duration

    @property
    def words(self) -> list[Word]:
        """All words."""
        return list(self._finish().words)

    @property
    def text(self) -> str:
        """All words with a space between them."""
        return " ".join(word.text for word in self._finish().words)

    @property
    def segments(self) -> list[Segment]:
        """The words in sentences and phrases (see `kiku.text.segments`)."""
        return segments(self._finish().words)

    @property
    def duration(self) -> float:
        """Seconds of sound."""
        return self._finish().duration

    @property
    def problem(self) -> AudioError | None:
        """Why the sound stopped before its end; None if it did not."""
        return self._finish().problem


def load(
    model: str | Path = "demo",
    *,
    engine: str = "auto",
    device: str | None = None,
    dtype: str | None = None,
    slots: int = 1,
    revision: str | None = None,
) -> Recognizer:
    """Load a model and make it ready to listen.

    Args:
        model: "demo" (ships with kiku), a Hugging Face repository ("kyutai/stt-1b-en_fr",
            "kyutai/stt-2.6b-en", their `-candle` and `-trfs` forms, or one of the same layout), or
            a local folder.
        engine: "torch", or "auto", which takes the best there is.
        device: as PyTorch names them ("cpu", "cuda", "cuda:1", "mps"); None takes the fastest there
            is.
        dtype: of the decoder's weights: "float32", "bfloat16", "float16"; None takes the
            checkpoint's, but float32 for decoders below 100 million weights. The codec is always
            float32.
        slots: how many streams can be open at once.
        revision: branch, tag or commit of the repository.

    Raises:
        CheckpointError: the model cannot be found, fetched or read.
        MissingExtra: the engine is not installed.
    """
    if engine == "onnx":
        raise UnsupportedConfig("this version has no ONNX engine; use engine='torch'")
    if engine not in ("auto", "torch"):
        raise ConfigError(f"there is no engine {engine!r}; use 'auto' or 'torch'")
    if slots < 1:
        raise ConfigError(f"slots must be at least 1, not {slots}")
    try:
        import torch  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ModuleNotFoundError as error:
        raise MissingExtra("running a model with PyTorch", "torch") from error
    from kiku.checkpoint import load as load_checkpoint
    from kiku.engine.torch import TorchEngine

    loaded = load_checkpoint(model, dtype=dtype, revision=revision)
    torch_engine = TorchEngine(loaded.codec, loaded.lm, slots=slots, device=device)
    return Recognizer(torch_engine, loaded.config, loaded.vocabulary, name=str(model))
