"""Recordings on their way through the loop: sound in as it is needed, words out as decided."""

import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kiku.errors import AudioError, StreamError
from kiku.stream import End, Stream, Warning
from kiku.text import Segment, Word, segments


class Loop(Protocol):
    """What a batch asks of a recognizer."""

    @property
    def free_slots(self) -> int:
        """Slots that no stream holds."""
        ...

    @property
    def max_block(self) -> int:
        """Frames that one step takes at most."""
        ...

    def step(self) -> int:
        """Advance every stream that has whole frames waiting."""
        ...

    def release(self, stream: Stream) -> None:
        """Give up a stream before its end."""
        ...

    def guard(self, stream: Stream) -> AbstractContextManager[Any]:
        """Nobody else touches the stream meanwhile: another thread may step it."""
        ...


@dataclass(eq=False)
class Job:
    """One recording on its way through a slot."""

    sound: Iterator[NDArray[np.float32]]
    stream: Stream | None = None
    words: list[Word] = field(default_factory=list[Word])
    warnings: list[Warning] = field(default_factory=list[Warning])
    duration: float = 0.0
    problem: AudioError | None = None
    failure: Exception | None = None
    ended: bool = False
    """Whether the sound is at its end."""
    done: bool = False

    def feed(self, enough: int, loop: Loop) -> None:
        """Push sound until `enough` frames wait or it ends."""
        stream = self.stream
        assert stream is not None
        while not self.ended and stream.num_waiting < enough:
            try:
                sound = next(self.sound, None)
            except AudioError as error:
                if stream.duration == 0:
                    raise
                self.problem = error
                warnings.warn(f"{error}; everything before was transcribed", stacklevel=2)
                sound = None
            with loop.guard(stream):
                if sound is None:
                    self.ended = True
                    stream.close()
                else:
                    stream.push(sound)

    def collect(self) -> None:
        """Take over what the stream has to say."""
        assert self.stream is not None
        self.duration = self.stream.duration
        while self.stream.num_events:
            match self.stream.next_event():
                case Word() as word:
                    self.words.append(word)
                case Warning() as warning:
                    self.warnings.append(warning)
                case End():
                    self.done = True
                case _:
                    pass


class Batch:
    """Recordings that share the free slots of a recognizer."""

    def __init__(self, loop: Loop, jobs: list[Job], opened: Callable[[], Stream]) -> None:
        """Of `jobs`, each in a stream that `opened` gives in a free slot."""
        self._loop, self._open = loop, opened
        self._waiting = deque(jobs)
        self._running: list[Job] = []

    def advance(self) -> None:
        """One round of the loop: open what has room, feed, step, collect."""
        while self._waiting and (self._loop.free_slots or not self._running):
            stream = self._open()  # may raise: the job then waits on
            job = self._waiting.popleft()
            job.stream = stream
            self._running.append(job)
        try:
            for job in list(self._running):
                self._feed(job)
            self._loop.step()
        except BaseException as error:
            # The frames of a step that broke off are gone: these recordings cannot go on.
            for job in list(self._running):
                self._fail(job, error)
            raise
        for job in list(self._running):
            assert job.stream is not None
            with self._loop.guard(job.stream):
                job.collect()
            failure = job.stream.failure
            if failure is not None and not job.done:
                self._fail(job, failure)
            elif job.done:
                self._running.remove(job)

    def _feed(self, job: Job) -> None:
        try:
            job.feed(self._loop.max_block, self._loop)
        except Exception as error:  # whatever a caller's own file raises concerns this one alone
            self._fail(job, error)

    def _fail(self, job: Job, error: BaseException) -> None:
        if not isinstance(error, Exception):  # Ctrl-C interrupts once, not whenever words are read
            error = StreamError(
                "the transcription was interrupted: `so_far` has its words until then; "
                "transcribe again to have all"
            )
        job.failure, job.done = error, True
        self.abandon(job)

    def stop(self, job: Job) -> list[Word]:
        """End a recording where it is; the word that was open."""
        self.abandon(job)
        job.done = True
        known = len(job.words)
        if job.stream is not None:
            with self._loop.guard(job.stream):
                job.stream.cut()
            job.collect()
        return job.words[known:]

    def abandon(self, job: Job) -> None:
        """Give its slot back; nobody wants its words any more."""
        if job in self._waiting:
            self._waiting.remove(job)
        if job in self._running:
            self._running.remove(job)
        if job.stream is not None:
            self._loop.release(job.stream)


class Transcription:
    """The words of one recording.

    Iterate to have each as soon as it is decided; the properties wait for the end.

    If the sound stops in the middle (a truncated file), the words before are all there, a warning
    says so, and `problem` holds the error. If it cannot be read at all, iterating raises that
    error.
    """

    def __init__(self, job: Job, batch: Batch) -> None:
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

    def stop(self) -> list[Word]:
        """Give up the rest of the recording and free its slot.

        Returns:
            The word that was open, if there was one, now decided; it stands in `so_far` too.
            Iterating again ends after the words of `so_far`.
        """
        return self._batch.stop(self._job)

    def _finish(self) -> Job:
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
    def warnings(self) -> list[Warning]:
        """What was not as it should be: sound that is clipped or silent for long, a decoder that
        had to listen again (see `kiku.stream.Warning`)."""
        return list(self._finish().warnings)

    @property
    def problem(self) -> AudioError | None:
        """Why the sound stopped before its end; None if it did not."""
        return self._finish().problem
