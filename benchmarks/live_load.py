"""Live streams through the real loop: what a round costs, how long a frame waits, and how soon the
words are there after `finalize`.

Unlike in `speed`, words, clients and the driver are part of what is measured.
"""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import count as numbers
from time import perf_counter
from typing import Any, Literal

import numpy as np
from instrumented import Script, instrumented
from numpy.typing import NDArray

from kiku.engine import StepOutput
from kiku.live import LiveStream
from kiku.measure.speed import full_window, noise
from kiku.measure.times import Clock, Times
from kiku.options import Recovery, StreamOptions
from kiku.recognizer import Recognizer
from kiku.scheduler import Binding, Member, Opening, SlotOptions
from kiku.stream import ContextPolicy, Finalized, WordSession
from kiku.text import Word

Window = Literal["empty", "kept", "full"]
"""How much streams remember: next to nothing; what the usual truncation leaves, with each stream at
another point between two truncations; or all that they can, without truncation."""

WINDOWS: tuple[Window, ...] = ("empty", "kept", "full")

_STAGGER = 37
"""Frames by which one stream of a full window is older than the next."""

_KEPT = 0.9
"""Share of the window that the oldest stream has filled when measuring begins, with "kept"."""


@dataclass(frozen=True, slots=True)
class LiveLoad:
    """What a load of several live streams costs: in step, and out of step."""

    streams: int
    window: Window
    step: Times
    """In step, every stream has one new frame: until all are processed, words included."""
    codec: Times | None
    """The codec's part of `step`, if the engine can tell."""
    decoder: Times | None
    delay: Times
    """Out of step, the frames of all streams are spread evenly over the length of a frame: from
    when a frame is there until it has been processed."""
    frames_per_step: float
    """Out of step."""
    busy: float
    """Out of step: the scheduler's share of the time. Near 1 there are too many streams, and
    `delay` grows for as long as is measured."""
    truncation: Times | None
    """Times of the pieces of truncations meanwhile, each part of a step; None if there were
    none."""

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


class _Streams:
    """Streams in their slots, and the sound that is pushed into them."""

    def __init__(
        self, recognizer: Recognizer, sound: NDArray[np.float32] | None, clock: Clock
    ) -> None:
        self.rec, self.notes = instrumented(recognizer, clock=clock)
        self.config, self.clock = recognizer.config, clock
        self.sessions: list[WordSession] = []
        self.bindings: list[Binding] = []
        self.heard: list[int] = []
        size = self.config.frame_size
        sound = noise(self.config) if sound is None else sound
        self._frames = sound[: len(sound) // size * size].reshape(-1, size)
        self._next: list[int] = []

    def enter(self, streams: int, window: Window) -> None:
        """Open `streams` streams, and let them remember what `window` asks for."""
        recovery = Recovery([ContextPolicy()]) if window == "kept" else None
        options = StreamOptions(recovery=recovery)
        script = Script(self.config.pad_id)  # silence is the quickest to decode
        for i in range(streams):
            session = WordSession(self.config, self.rec.vocabulary, options)
            self.sessions.append(session)
            self.heard.append(0)
            self._next.append(17 * i)  # each begins at another place of the sound
            member = Member(session, SlotOptions(script), on_output=self._count(i))
            self.bindings += self.rec.scheduler.open(Opening([member]))
        past, engine = full_window(self.config), self.rec.scheduler.engine
        if window == "full":
            # One processes the sound, the others copy its state.
            self.push(0, past)
            self._drain()
            for binding in self.bindings[1:]:
                engine.restore(binding.slot, engine.save(self.bindings[0].slot))
                self.push(0, _STAGGER)
                self._drain()
        elif window == "kept":
            for i in range(streams):
                self.push(i, round(_KEPT * past * (i + 1) / streams))
        self._drain()
        for binding in self.bindings:
            binding.set_decoding(SlotOptions())

    def _count(self, i: int) -> Any:
        def on_output(out: StepOutput) -> None:
            self.heard[i] += len(out.tokens)

        return on_output

    def leave(self) -> None:
        for binding in self.bindings:
            self.rec.scheduler.release(binding)
        self.rec.scheduler.step()

    def push(self, i: int, count: int) -> None:
        """Push `count` frames into one stream."""
        which = np.arange(self._next[i], self._next[i] + count) % len(self._frames)
        self._next[i] += count
        session = self.sessions[i]
        session.push(session.input.check(self._frames[which].reshape(-1)))

    def _drain(self) -> None:
        while self.rec.scheduler.step():
            pass
        for session in self.sessions:
            session.events.clear()

    def in_step(self, count: int, warmup: int) -> tuple[list[float], list[float], list[float]]:
        """Seconds of each round, and of the two networks in it."""
        steps: list[float] = []
        codec: list[float] = []
        decoder: list[float] = []
        for at in range(warmup + count):
            if at == warmup:
                self.notes.clear()
            for i in range(len(self.sessions)):
                self.push(i, 1)
            before = len(self.notes.codec)
            started = self.clock()
            self._drain()
            if at >= warmup:
                steps.append(self.clock() - started)
                if self.notes.codec:
                    codec.append(sum(self.notes.codec[before:]))
                    decoder.append(sum(self.notes.decoder[before:]))
        return steps, codec, decoder

    def out_of_step(self, count: int) -> tuple[list[float], int, float]:
        """Seconds that each frame took, how many steps there were, and the scheduler's share of the
        time. Nothing sleeps: if no frame waits, the time jumps to that of the next one."""
        streams, frame_s = len(self.sessions), 1 / self.config.frame_rate
        coming = deque((k * streams + i, i) for k in range(count) for i in range(streams))
        waiting: list[deque[float]] = [deque() for _ in self.sessions]
        delays: list[float] = []
        now = busy = 0.0
        steps = 0
        while coming or any(waiting):
            while coming and (at := coming[0][0] * frame_s / streams) <= now:
                i = coming.popleft()[1]
                self.push(i, 1)
                waiting[i].append(at)
            before = list(self.heard)
            started = self.clock()
            moved = self.rec.scheduler.step()
            taken = self.clock() - started
            if not moved:
                if not coming:
                    break  # a stream has failed
                now = coming[0][0] * frame_s / streams
                continue
            now, busy, steps = now + taken, busy + taken, steps + 1
            for i, session in enumerate(self.sessions):
                delays += [now - waiting[i].popleft() for _ in range(self.heard[i] - before[i])]
                session.events.clear()
        return delays, steps, busy / now


def live_load(
    recognizer: Recognizer,
    streams: int,
    window: Window = "empty",
    *,
    sound: NDArray[np.float32] | None = None,
    count: int = 200,
    warmup: int = 10,
    clock: Clock = perf_counter,
) -> LiveLoad:
    """Measure `streams` live streams.

    Args:
        recognizer: with as many slots, all free.
        streams: how many.
        window: how much they remember.
        sound: [S] pushed into them, over and over; None is noise.
        count: frames of each that are measured, in step and again out of step.
        warmup: frames before these that are not measured.
        clock: gives seconds.
    """
    live = _Streams(recognizer, sound, clock)
    try:
        live.enter(streams, window)
        steps, codec, decoder = live.in_step(count, warmup)
        delays, num_steps, busy = live.out_of_step(count)
    finally:
        live.leave()
    truncations = live.notes.truncations
    return LiveLoad(
        streams=streams,
        window=window,
        step=Times.of(steps),
        codec=Times.of(codec) if codec else None,
        decoder=Times.of(decoder) if decoder else None,
        delay=Times.of(delays),
        frames_per_step=round(len(delays) / num_steps, 2),
        busy=round(busy, 3),
        truncation=Times.of(truncations) if truncations else None,
    )


@dataclass(frozen=True, slots=True)
class Flushes:
    """What `finalize` costs, measured until `Finalized`."""

    total: Times
    codec: Times | None
    """All work of the codec for one finalize, if the engine can tell."""
    decoder: Times | None
    passes: float | None
    """Passes of the decoder for one finalize, on average."""
    words: float
    """Words that came with one finalize, on average; those that seemed unfinished count too."""
    sooner_s: float
    """Seconds by which the text would have come later without finalize: the model's delay."""

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def flushes(
    recognizer: Recognizer,
    sounds: Iterable[NDArray[np.float32]],
    *,
    script: Script | None = None,
    says: Sequence[int] = (),
    past: int = 0,
    clock: Clock = perf_counter,
) -> Flushes:
    """Push sound into a live stream, wait until it is processed, and finalize; again and again.

    Args:
        recognizer: with at least one slot; all are free.
        sounds: [S] each; after each of them `finalize` is called. The first warms up.
        script: gives the text in place of the model; None takes the model's own.
        says: the tokens that the script has for the frames of each finalize; then it is silent.
        past: frames that the stream processes before the first sound.
        clock: gives seconds.
    """
    rec, notes = instrumented(recognizer, script=script, clock=clock)
    config, random = rec.config, np.random.default_rng(0)
    taken: list[tuple[float, float, float, int, int]] = []
    with rec.stream(StreamOptions(recovery=None)) as live:
        minute = np.resize(noise(config), past * config.frame_size)
        for first in range(0, len(minute), 8 * config.frame_size):
            live.push(minute[first : first + 8 * config.frame_size])
        for number, sound in zip(numbers(), sounds, strict=False):
            live.push(sound)
            if script is not None:  # people stop anywhere in a frame
                live.push(np.zeros(random.integers(config.frame_size), np.float32))
            _until_heard(rec, live)
            notes.clear()
            if script is not None:
                script.next.extend(says)
            passes, started = notes.passes, clock()
            live.finalize()
            words = _until_finalized(live)
            ended = clock()
            if number:
                codec, decoder = sum(notes.codec), sum(notes.decoder)
                taken.append((ended - started, codec, decoder, notes.passes - passes, words))
    total, codec_s, decoder_s, num_passes, num_words = map(list, zip(*taken, strict=True))
    known = any(num_passes)
    return Flushes(
        total=Times.of(total),
        codec=Times.of(codec_s) if known else None,
        decoder=Times.of(decoder_s) if known else None,
        passes=round(float(np.mean(num_passes)), 2) if known else None,
        words=round(float(np.mean(num_words)), 2),
        sooner_s=config.text_delay_s,
    )


def _until_heard(rec: Recognizer, live: LiveStream) -> None:
    """Wait until only a part of a frame is left and the step under way is over; drop the events."""
    while live.waiting_s >= 1 / rec.config.frame_rate:
        time.sleep(0.001)
    rec.scheduler.call(live.poll)


def _until_finalized(live: LiveStream) -> int:
    """How many words come until `Finalized`."""
    words = 0
    for event in live.events():
        words += isinstance(event, Word)
        if isinstance(event, Finalized):
            return words + (event.open_word is not None)
    raise AssertionError("a stream ended that was finalized")
