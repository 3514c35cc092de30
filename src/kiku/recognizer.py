"""The public face: a model, its slots, and the one loop: file, microphone and socket end in it."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast, overload

import numpy as np
from numpy.typing import NDArray

from kiku.audio import chunks_of, read_chunks
from kiku.checkpoint import DEMO
from kiku.config import ModelConfig
from kiku.engine import Choose, Engine, StepOutput
from kiku.engine.choice import choose_engine
from kiku.errors import ConfigError, InputError
from kiku.stream import Stream
from kiku.text import Vocabulary
from kiku.transcription import Batch, Job, Transcription

Source = str | os.PathLike[str] | BinaryIO | NDArray[np.generic]
"""A path, "-" for standard input, an open binary file, or samples (all that numpy takes)."""

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
        self._stepping = False
        self._leaving: list[Stream] = []  # given up while a step was under way

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
        stream = Stream(self.config, self.vocabulary, padded=padded)
        slot, first = self.engine.open(choose)
        self._slots[stream] = slot
        if tap is not None:
            self._taps[stream] = tap
        try:
            self._deliver(stream, first)
        except BaseException:  # a tap may raise anything; nobody has the stream to release it
            self.release(stream)
            raise
        return stream

    def step(self) -> int:
        """Advance every stream that has whole frames waiting; return how many frames moved.

        Streams with a backlog move a block of frames, live ones a single frame. 0 means that all
        wait for sound. Should the engine raise, the frames that it was given are lost.
        """
        self._stepping = True
        try:
            moved = self._move()
        finally:
            self._stepping = False
            while self._leaving:
                self.release(self._leaving.pop())
        for stream in list(self._slots):
            stream.settle()
            if stream.done:
                self.release(stream)
        return moved

    def _move(self) -> int:
        """Step every stream that has whole frames waiting, and deliver what the engine says."""
        blocks: dict[int, list[Stream]] = {}
        for stream in self._slots:
            if ready := min(stream.num_ready, self.max_block):
                blocks.setdefault(1 << (ready.bit_length() - 1), []).append(stream)
        for size, members in blocks.items():
            frames = np.stack([stream.take(size) for stream in members])
            out = self.engine.step([self._slots[stream] for stream in members], frames)
            for i, stream in enumerate(members):
                self._deliver(stream, _row(out, i))
        return sum(size * len(members) for size, members in blocks.items())

    def release(self, stream: Stream) -> None:
        """Give up a stream before its end: its slot is free at once. Twice does no harm."""
        if self._stepping:
            # The garbage collector may give up a transcription at any moment.
            self._leaving.append(stream)
            return
        slot = self._slots.pop(stream, None)
        self._taps.pop(stream, None)
        if slot is not None:
            self.engine.close(slot)

    def _deliver(self, stream: Stream, out: StepOutput) -> None:
        stream.accept(out.tokens[0].tolist(), out.logprobs[0].tolist())
        if stream in self._taps:
            self._taps[stream](out)

    @property
    def max_block(self) -> int:
        """Frames that one step takes at most."""
        return self.engine.max_block

    @property
    def free_slots(self) -> int:
        """Slots that no stream holds."""
        return self.engine.free_slots

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
        collected: list[list[int]] = [[] for _ in arrays]
        waiting = deque(i for i, count in enumerate(counts) if count)
        running: list[Stream] = []
        try:
            while waiting or running:
                while waiting and (self.free_slots or not running):
                    i = waiting.popleft()
                    tap = _Collector(collected[i])
                    running.append(self.stream(padded=False, choose=choose, tap=tap))
                    # Token 0 needs no frame, so the last one wanted comes with the frame before.
                    running[-1].push(arrays[i][: (counts[i] - 1) * size])
                    running[-1].close()
                self.step()
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
            batch = Batch(self, jobs)
            return [Transcription(job, batch) for job in jobs]
        job = Job(self._sound(source, rate))  # pyright: ignore[reportArgumentType]
        return Transcription(job, Batch(self, [job]))

    def _sound_later(self, source: Source, rate: int | None) -> Iterator[NDArray[np.float32]]:
        """As `_sound`, but what is wrong at once is told by this recording, not by the call."""
        yield from self._sound(source, rate)

    def _sound(self, source: Source, rate: int | None) -> Iterator[NDArray[np.float32]]:
        sample_rate = self.config.sample_rate
        if isinstance(source, str | os.PathLike) or not hasattr(source, "__array__"):
            return read_chunks(cast("str | BinaryIO", source), sample_rate)
        return chunks_of(np.asarray(source), sample_rate if rate is None else rate, sample_rate)


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


def load(
    model: str | Path = DEMO,
    *,
    engine: str = "auto",
    device: str | None = None,
    dtype: str | None = None,
    slots: int = 1,
    threads: int | None = None,
    revision: str | None = None,
) -> Recognizer:
    """Load a model and make it ready to listen.

    For ONNX Runtime a checkpoint is converted when it is first loaded, which takes a while and is
    kept (see `kiku.checkpoint.convert`); the log says so.

    Args:
        model: "demo" (ships with kiku), a Hugging Face repository ("kyutai/stt-1b-en_fr",
            "kyutai/stt-2.6b-en", their `-candle` and `-trfs` forms, or one of the same layout), a
            local folder, or a folder that `kiku models convert` made.
        engine: "onnx" (ONNX Runtime, on the processor), "torch" (PyTorch, on any device), or
            "auto": PyTorch where `device` or `dtype` asks for it, or where it is installed and
            finds a CUDA or MPS device; else ONNX Runtime.
        device: as PyTorch names them ("cpu", "cuda", "cuda:1", "mps"); None takes the fastest there
            is.
        dtype: of the decoder's weights. ONNX Runtime: "float32", "int8", "int4"; None takes int8.
            PyTorch: "float32", "bfloat16", "float16", or "auto", which is the checkpoint's; None
            takes that too. Either takes float32 for decoders below 100 million weights. The codec
            is always float32.
        slots: how many streams can be open at once.
        threads: that compute on the processor; None takes those that this process may use. Of
            PyTorch's this is a setting of the whole process.
        revision: branch, tag or commit of the repository.

    Raises:
        CheckpointError: the model cannot be found, fetched, read or converted.
        ConfigError: an engine, a device, a dtype or a number that cannot be, or that do not go
            together.
        MissingExtra: the engine is not installed.
    """
    for what, number in (("slots", slots), ("threads", threads)):
        if number is not None and number < 1:
            raise ConfigError(f"{what} must be at least 1, not {number}")
    from kiku.checkpoint import is_converted

    converted = is_converted(model)
    if converted and revision is not None:
        raise ConfigError(f"{model} is a converted model: leave revision {revision!r} out")
    chosen = choose_engine(engine, device=device, dtype=dtype, converted=converted)
    if chosen == "onnx":
        return _load_with_onnx(model, dtype, slots, threads, revision)
    return _load_with_torch(model, device, dtype, slots, threads, revision)


def _load_with_onnx(
    model: str | Path, dtype: str | None, slots: int, threads: int | None, revision: str | None
) -> Recognizer:
    from kiku.checkpoint import convert, is_converted, open_converted
    from kiku.engine.onnx import OnnxEngine

    if is_converted(model):
        opened = open_converted(model)
        if dtype not in (None, opened.precision):
            raise ConfigError(
                f"{model} is converted to {opened.precision}, not {dtype}; leave dtype out, or "
                f"convert the checkpoint to {dtype}"
            )
    else:
        opened = convert(model, precision=dtype, revision=revision)
    onnx_engine = OnnxEngine(opened.folder, opened.config, slots=slots, threads=threads)
    return Recognizer(onnx_engine, opened.config, opened.vocabulary, name=str(model))


def _load_with_torch(
    model: str | Path,
    device: str | None,
    dtype: str | None,
    slots: int,
    threads: int | None,
    revision: str | None,
) -> Recognizer:
    import torch

    from kiku.checkpoint import load as load_checkpoint
    from kiku.engine.torch import TorchEngine, pick_device

    place = str(pick_device(device))  # before gigabytes are fetched for a device that is not there
    if threads is not None:
        torch.set_num_threads(threads)
    loaded = load_checkpoint(model, dtype=dtype, revision=revision)
    config = loaded.config
    torch_engine = TorchEngine(
        loaded.codec, loaded.lm, slots=slots, device=place, pad_id=config.pad_id
    )
    return Recognizer(torch_engine, config, loaded.vocabulary, name=str(model))
