"""Runs utterances through a model, and notes its words, when they came, and their probabilities.

By default each utterance is run as a live stream. Sound is pushed in chunks of a frame, and after
each chunk the words that the stream has emitted are noted, with the stream's own time. A clock is
used only to measure the speed. Without chunks the same sound is run as a recording, in blocks: the
words are the same, and the run is faster, but when each word would have been emitted is not known.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from time import perf_counter
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kiku.audio import read_chunks
from kiku.decoding import token_picker
from kiku.engine import StepOutput
from kiku.errors import AudioError, InputError
from kiku.evaluate.manifest import Utterance
from kiku.options import MAX_RECORDING_S, AudioFormat, StreamOptions, checked_stream_options
from kiku.recognizer import Recognizer
from kiku.scheduler import Binding, Member, Opening, Scheduler, SlotOptions
from kiku.stream import WordSession
from kiku.text import TurnEnd, TurnEndEager, Word

LIVE_CHUNK_S = 0.08
"""Seconds of a live stream's chunk: a frame of the published models."""

_RECORDED_CHUNK_S = 5.0
"""Seconds of a recording's chunk: as much as one step takes."""


@dataclass(frozen=True, slots=True)
class HeardWord:
    """A word that the model emitted."""

    text: str
    start: float
    """Seconds of the file."""
    end: float
    probability: float
    given: float | None
    """Seconds of the file that had been processed when the word was emitted; None if unknown."""


@dataclass(frozen=True, slots=True)
class HeardPart:
    """Which sound a result is of, and whether turns were detected. The id alone does not tell: its
    row may be given another part of the file, or the file may be recorded again."""

    path: str
    """Absolute."""
    size: int
    """Bytes of the file; 0 if it was gone."""
    modified_ns: int
    """When the file was last written, in nanoseconds as the system counts; 0 if it was gone."""
    start_s: float
    end_s: float | None
    turns: bool
    """Whether ends of turns were detected."""

    @classmethod
    def of(cls, utterance: Utterance, stream: StreamOptions) -> Self:
        """The part that a run would use for an utterance now."""
        # A file's name may not be valid text; as it is only compared, any spelling will do.
        path = os.path.abspath(utterance.path).encode("utf-8", "backslashreplace").decode()
        turns = bool(utterance.turns) or stream.turns is not None
        try:
            found = utterance.path.stat()
            size, modified_ns = found.st_size, found.st_mtime_ns
        except (OSError, ValueError):
            size = modified_ns = 0
        return cls(path, size, modified_ns, utterance.start_s, utterance.end_s, turns)

    def differs_from(self, wanted: "HeardPart") -> str:
        """How a result of this part differs from one of `wanted`; "" if it can be used as one. The
        same file may be in another folder by now, and turns that are not wanted do no harm."""
        pairs: dict[str, tuple[object, object]] = {
            "path": (PurePath(self.path).name, PurePath(wanted.path).name),
            "size": (self.size, wanted.size),
            "start": (self.start_s, wanted.start_s),
            "end": (self.end_s, wanted.end_s),
            "turns": (self.turns or not wanted.turns, True),
        }
        return "; ".join(f"{name} {a!r}, not {b!r}" for name, (a, b) in pairs.items() if a != b)


@dataclass(frozen=True, slots=True)
class HeardUtterance:
    """The result of one utterance."""

    id: str
    part: HeardPart
    seconds: float
    """Seconds of sound."""
    words: tuple[HeardWord, ...]
    ends: tuple[float, ...]
    """When ends of turns were emitted: seconds of the file that had been processed by then."""
    eager_ends: tuple[float, ...]
    took_s: float
    """Seconds of the machine's time: the only number that differs from run to run."""
    problem: str | None = None
    """Why the utterance was not run, or not to its end. It is not evaluated then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HearingOptions:
    """How utterances are run through the model."""

    stream: StreamOptions = field(default_factory=StreamOptions)
    """Decoding, recovery, turns and calibration work as in any stream. Which part of a file is used
    is stated by the manifest."""
    chunk_s: float | None = LIVE_CHUNK_S
    """Seconds of sound that are pushed at once; None runs utterances as recordings."""

    def __post_init__(self) -> None:
        """Raise InputError for a value that is not allowed."""
        chunk_s: Any = self.chunk_s
        is_number = isinstance(chunk_s, int | float) and not isinstance(chunk_s, bool)
        if chunk_s is not None and not (is_number and 0.01 <= chunk_s <= 10):
            raise InputError(f"chunk_s must be from 0.01 to 10 seconds, not {chunk_s!r}")
        stream = checked_stream_options(self.stream)
        object.__setattr__(self, "stream", stream)
        if (stream.start_s, stream.end_s, stream.channel, stream.track) != (0, None, "mix", None):
            raise InputError(
                "start_s, end_s, channel and track are not options of an evaluation: the "
                "manifest says which part of a file to transcribe, with its default track, mixed"
            )


Samples = NDArray[np.float32]
Clock = Callable[[], float]


def hear(
    recognizer: Recognizer,
    utterances: Sequence[Utterance],
    options: HearingOptions,
    *,
    clock: Clock = perf_counter,
) -> Iterator[HeardUtterance]:
    """Run utterances side by side in all slots; yield each result as soon as it is done.

    Args:
        recognizer: nothing else may be using it meanwhile.
        utterances: in the order in which they begin.
        options: how they are run.
        clock: gives seconds.

    Raises:
        InputError: the recognizer has open streams.
    """
    count = recognizer.scheduler.engine.num_slots
    if recognizer.free_slots < count:
        raise InputError(
            f"{recognizer!r} has open streams: close them, or load the model a second time"
        )
    live = options.chunk_s is not None
    # Live streams that keep up are stepped frame by frame.
    own = Recognizer(
        recognizer.scheduler.engine, recognizer.config, recognizer.vocabulary,
        name=recognizer.name, max_block=1 if live else None,
    )  # fmt: skip
    waiting, running = deque(utterances), list[_Hearing]()
    try:
        while waiting or running:
            before = clock()
            while waiting and len(running) < count:
                running.append(_Hearing(own, waiting.popleft(), options))
            for one in running:
                one.feed()
            while own.scheduler.step():
                for one in running:
                    one.collect()
            for one in running:
                one.collect()
            share = (clock() - before) / len(running)
            for one in running:
                one.took_s += share
            done = [one for one in running if one.is_done]
            running = [one for one in running if not one.is_done]
            for one in done:
                yield one.result()
    finally:
        for one in running:
            one.leave()


class _Hearing:
    """One utterance on its way through the model."""

    def __init__(
        self, recognizer: Recognizer, utterance: Utterance, options: HearingOptions
    ) -> None:
        self.took_s = 0.0
        self._utterance = utterance
        # Noted before the sound is read, so a file that is written meanwhile will be run again.
        self._part = HeardPart.of(utterance, options.stream)
        self._config = config = recognizer.config
        self._live = options.chunk_s is not None
        stream = replace(options.stream, signal_checks=False, format=AudioFormat())
        if self._part.turns and stream.turns is None:
            stream = replace(stream, turns=True)
        self._session = WordSession(config, recognizer.vocabulary, stream)
        self._scheduler: Scheduler = recognizer.scheduler
        self._chunks = _sound(utterance, config.sample_rate, options.chunk_s or _RECORDED_CHUNK_S)
        self._pushed = self._num_tokens = 0
        self._words: list[HeardWord] = []
        self._ends: list[float] = []
        self._eager_ends: list[float] = []
        self._problem: str | None = None
        picker = token_picker(stream.decoding, recognizer.vocabulary, config)
        slot = SlotOptions(picker, stream.decoding.num_codebooks)
        member = Member(self._session, slot, on_output=self._count)
        self._bindings: list[Binding] = self._scheduler.open(Opening([member]))

    def _count(self, out: StepOutput) -> None:
        self._num_tokens += out.tokens.shape[-1]

    def feed(self) -> None:
        """Push the next chunk; at the end of the sound, close."""
        if self._session.has_ended:
            return
        try:
            chunk = next(self._chunks, None)
        except AudioError as error:
            self._problem, chunk = str(error), None
        if chunk is None:
            self._session.close()
            return
        self._session.push(self._session.input.check(chunk))
        self._pushed += len(chunk)

    @property
    def _seconds(self) -> float:
        return self._pushed / self._config.sample_rate

    @property
    def _given(self) -> float | None:
        """Seconds of the file processed so far, silence after its end included; None for a
        recording."""
        if not self._live:
            return None
        config = self._config
        # One token comes before any frame.
        heard_s = (self._num_tokens - 1) / config.frame_rate - config.silence_prefix_s
        return round(self._utterance.start_s + max(self._seconds, heard_s), 4)

    def collect(self) -> None:
        """Note the events that have come."""
        start_s, given = self._utterance.start_s, self._given
        while self._session.events:
            match self._session.events.popleft():
                case Word(text, start, end, probability):
                    at, to = round(start_s + start, 4), round(start_s + end, 4)
                    self._words.append(HeardWord(text, at, to, round(probability, 6), given))
                case TurnEnd(time):
                    self._ends.append(round(start_s + time, 4))
                case TurnEndEager(time):
                    self._eager_ends.append(round(start_s + time, 4))
                case _:
                    pass

    @property
    def is_done(self) -> bool:
        """Whether its slot is free again."""
        return self._session.done

    def result(self) -> HeardUtterance:
        """The utterance's result."""
        failure = self._session.failure
        problem = self._problem if failure is None else str(failure)
        if problem is None and not self._pushed:
            problem = "it has no sound, or ends before the part that was asked for"
        return HeardUtterance(
            self._utterance.id, self._part, round(self._seconds, 4),
            tuple(self._words), tuple(self._ends), tuple(self._eager_ends),
            round(self.took_s, 6), problem,
        )  # fmt: skip

    def leave(self) -> None:
        """Free the slot before the utterance is done."""
        for binding in self._bindings:
            self._scheduler.release(binding)
        self._scheduler.drive(lambda: self._session.done)


def _sound(utterance: Utterance, rate: int, chunk_s: float) -> Iterator[Samples]:
    """The utterance's part of its file, in chunks."""
    first = round(utterance.start_s * rate)
    end_s = utterance.start_s + MAX_RECORDING_S if utterance.end_s is None else utterance.end_s
    last, at = round(end_s * rate), 0
    for chunk in read_chunks(utterance.path, rate, chunk_s=chunk_s):
        if at >= last:
            break
        part = chunk[max(0, first - at) : last - at]
        at += len(chunk)
        if len(part):
            yield part


def sound_of(utterance: Utterance, rate: int) -> Samples:
    """All samples [S] of an utterance.

    Raises:
        AudioError: it cannot be read.
    """
    parts = list(_sound(utterance, rate, _RECORDED_CHUNK_S))
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
