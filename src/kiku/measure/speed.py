"""How long the steps of an engine take: live streams, blocks, hours on end; in all, and for each of
its two networks.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiku.config import ModelConfig
from kiku.engine import SlotEngine
from kiku.errors import InputError
from kiku.measure.machine import resident_bytes
from kiku.measure.times import Clock, Times

Frames = NDArray[np.float32]

_MOST_ROOM = 400
"""Frames by which a stream must exceed its window until all places for keys were used, at most."""


@dataclass(frozen=True, slots=True)
class LiveTimes:
    """Steps in which every stream advances by one frame."""

    streams: int
    past: int
    """Frames that the streams had processed before."""
    step: Times
    codec: Times
    """The codec's part of `step`."""
    decoder: Times

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class BlockTimes:
    """Steps in which one stream advances by several frames."""

    size: int
    past: int
    step: Times
    """The times of whole blocks, not of single frames."""
    ms_per_frame: float
    codec_ms_per_frame: float | None
    decoder_ms_per_frame: float | None
    frames_per_pass: float | None
    """Frames that one pass of the decoder brought on average."""
    all_accepted: bool
    """Whether every guess was made to be right, so that a block costs the fewest passes."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Soak:
    """A stream that goes on for hours."""

    hours: float
    position: int
    """Frames that the stream had processed at the end."""
    after_a_minute: Times
    at_the_end: Times
    change: float
    """By how much the median grew, as a part of the earlier one: 0.05 is five percent slower."""
    resident_after_a_minute: int | None
    """Bytes of the process that are in memory."""
    resident_at_the_end: int | None

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return asdict(self)


def noise(config: ModelConfig, seconds: float = 20.0, seed: int = 0) -> NDArray[np.float32]:
    """[S] noise of changing loudness, for models that need not recognize anything."""
    random = np.random.default_rng(seed)
    count = max(1, round(seconds * config.frame_rate))
    loudness = 0.4 * random.random((count, 1), np.float32)
    frames = random.standard_normal((count, config.frame_size), np.float32) * loudness
    return frames.astype(np.float32).reshape(-1)


def full_window(config: ModelConfig) -> int:
    """Frames after which both networks remember as much as they ever will."""
    inner = config.codec.transformer
    codec = math.ceil(inner.window / inner.positions_per_frame)
    return max(config.lm.transformer.window, codec)


def full_ring(config: ModelConfig) -> int:
    """Frames after which no place for keys and values is unused, in either network: besides the
    window there is room to go back, for a block, and to move keys less often."""
    return full_window(config) + _MOST_ROOM


class Speed:
    """Measures the steps of one engine, which nothing else uses meanwhile."""

    def __init__(
        self,
        engine: SlotEngine,
        config: ModelConfig,
        sound: NDArray[np.float32] | None = None,
        *,
        clock: Clock = perf_counter,
    ) -> None:
        """Measure nothing yet.

        Args:
            engine: an engine with all slots free.
            config: the config of its model.
            sound: [S] what the streams are given, over and over; None is `noise`.
            clock: gives seconds.

        Raises:
            InputError: the sound is shorter than one frame.
        """
        self._engine, self._config, self._clock = engine, config, clock
        sound = noise(config) if sound is None else sound
        count = len(sound) // config.frame_size
        if count == 0:
            raise InputError(f"{len(sound)} samples are less than one frame; give more sound")
        self._frames = sound[: count * config.frame_size].reshape(count, config.frame_size)

    def live(self, streams: int, *, past: int = 0, count: int = 200, warmup: int = 10) -> LiveTimes:
        """Steps of `streams` simultaneous streams, one frame each.

        Args:
            streams: how many; the engine has as many slots.
            past: frames that each has processed before (`full_window` fills the memory).
            count: steps that are measured.
            warmup: steps before these that are not measured.
        """
        slots = self.listeners(streams, past)
        try:
            steps, codec, decoder = self._steps(slots, 1, past, count, warmup)
        finally:
            self._close(slots)
        return LiveTimes(streams, past, Times.of(steps), Times.of(codec), Times.of(decoder))

    def block(
        self, size: int, *, past: int = 0, count: int = 20, accept_all: bool = True
    ) -> BlockTimes:
        """Blocks of `size` frames of one stream.

        Args:
            size: at most the engine's `max_block`.
            past: frames that the stream has processed before.
            count: blocks that are measured, after two that are not.
            accept_all: make the text silence throughout, so that every guess is right: this
                measures the cost of a pass. Otherwise the text is the model's own: this measures
                the cost of real decoding.
        """
        slots = self.listeners(1, past, silent=accept_all)
        try:
            warmup = 2
            before = self._engine.num_passes
            widest = self._engine.widths.holding(self._engine.backend.width)
            with widest if accept_all else nullcontext():
                steps, codec, decoder = self._steps(slots, size, past, count, warmup)
            passes = self._engine.num_passes - before
        finally:
            self._close(slots)
        frames = size * count
        return BlockTimes(
            size=size,
            past=past,
            step=Times.of(steps),
            ms_per_frame=_each(steps, size),
            codec_ms_per_frame=_each(codec, size) if codec else None,
            decoder_ms_per_frame=_each(decoder, size) if decoder else None,
            frames_per_pass=round((frames + size * warmup) / passes, 2) if passes else None,
            all_accepted=accept_all,
        )

    def codec_bulk(self, *, count: int = 10) -> float:
        """Frames a second that the codec alone encodes of one stream, a largest block at a time."""
        slots = self.listeners(1, 0)
        size = self._engine.max_block
        seconds: list[float] = []
        try:
            for at, frames in zip(range(count + 1), self._blocks(1, size, 0), strict=False):
                started = self._clock()
                self._engine.encode(slots, *_packed(frames))
                if at:  # the first warms up
                    seconds.append(self._clock() - started)
        finally:
            self._close(slots)
        return round(size / float(np.median(seconds)), 1)

    def soak(self, hours: float = 3.0, *, count: int = 200, silent: bool = False) -> Soak:
        """One stream for hours of sound, as fast as it goes.

        Args:
            hours: hours of sound.
            count: steps that are measured after a minute, and again at the end.
            silent: see `block`: quicker, the same memory.
        """
        minute = round(60 * self._config.frame_rate)
        end = max(minute, round(hours * 3600 * self._config.frame_rate))
        slots = self.listeners(1, minute, silent=silent)
        try:
            early, _, _ = self._steps(slots, 1, minute, count, 10)
            early_resident = resident_bytes()
            self._advance(slots, minute + count + 10, end)
            late, _, _ = self._steps(slots, 1, end, count, 10)
        finally:
            self._close(slots)
        before, after = Times.of(early), Times.of(late)
        change = after.median_ms / before.median_ms - 1 if before.median_ms else 0.0
        return Soak(
            hours=hours,
            position=max(end, minute + count + 10) + count + 10,
            after_a_minute=before,
            at_the_end=after,
            change=round(change, 4),
            resident_after_a_minute=early_resident,
            resident_at_the_end=resident_bytes(),
        )

    def fill(self, slots: Sequence[int], past: int) -> None:
        """Step open slots through `past` frames, in blocks."""
        self._advance(slots, 0, past)

    def listeners(self, count: int, past: int, *, silent: bool = False) -> list[int]:
        """Open slots that have processed `past` frames.

        Their text until then was silence, which is the quickest to decode. One slot processes the
        frames, and the others copy its state.

        Args:
            count: how many slots.
            past: frames that each has processed.
            silent: make the text silence from then on, too; for one slot only.
        """
        if past == 0:
            return [self._open(silent) for _ in range(count)]
        first = self._engine.open(_Silence(self._config.pad_id))[0]
        self.fill([first], past)
        if silent:
            assert count == 1
            return [first]
        saved = self._engine.save(first)
        self._engine.close(first)
        slots = [self._open(False) for _ in range(count)]
        for slot in slots:
            self._engine.restore(slot, saved)
        return slots

    def _open(self, silent: bool) -> int:
        return self._engine.open(_Silence(self._config.pad_id) if silent else None)[0]

    def _close(self, slots: Sequence[int]) -> None:
        for slot in slots:
            self._engine.close(slot)

    def _advance(self, slots: Sequence[int], first: int, end: int) -> None:
        """Frames `first` to `end` of every slot, in the largest blocks."""
        size, at = self._engine.max_block, first
        while at < end:
            block = min(size, end - at)
            self._engine.step(slots, *_packed(next(self._blocks(len(slots), block, at))))
            at += block

    def _blocks(self, streams: int, size: int, first: int) -> Iterator[Frames]:
        """[n, size, frame_size] the frames of every stream from `first` on; each stream is at
        another place of the sound."""
        count = len(self._frames)
        offsets = np.arange(streams)[:, None] * 17 + np.arange(size)
        while True:
            yield self._frames[(offsets + first) % count]
            first += size

    def _steps(
        self, slots: Sequence[int], size: int, first: int, count: int, warmup: int
    ) -> tuple[list[float], list[float], list[float]]:
        """Seconds of each step, and of the two networks in it."""
        steps: list[float] = []
        codec: list[float] = []
        decoder: list[float] = []
        blocks = self._blocks(len(slots), size, first)
        for at, frames in zip(range(warmup + count), blocks, strict=False):
            started = self._clock()
            packed, counts = _packed(frames)
            codes = self._engine.encode(slots, packed, counts)
            between = self._clock()
            self._engine.decode(slots, codes, counts)
            ended = self._clock()
            if at >= warmup:
                codec.append(between - started)
                decoder.append(ended - between)
                steps.append(ended - started)
        return steps, codec, decoder


def _packed(frames: Frames) -> tuple[Frames, list[int]]:
    """[n, T, frame_size] -> [n * T, frame_size], and the T of each."""
    n, T, size = frames.shape
    return frames.reshape(n * T, size), [T] * n


class _Silence:
    """Picks the same token always: with the padding token every guess of a block is right."""

    def __init__(self, token: int) -> None:
        self._token = token

    def __call__(self, logits: NDArray[np.float32]) -> int:
        return self._token


def _each(seconds: Sequence[float], size: int) -> float:
    """The median in milliseconds, divided by the `size` frames."""
    return round(float(np.median(seconds)) * 1000 / size, 3)
