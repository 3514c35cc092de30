"""Recordings on their way through the scheduler: sound in as it is needed, words out as decided."""

import math
import os
import sys
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from opcode import opmap
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, overload

from kiku.audio import ChannelChanges, Chunk, StreamWarning
from kiku.errors import AudioError, InputError, NoFreeSlot, OutputError, StreamError
from kiku.scheduler import Member, Opening, Scheduler
from kiku.stream import End, WordSession
from kiku.text import FORMATS, CaptionOptions, Segment, Word, segments
from kiku.writing import write_whole


@dataclass(frozen=True)
class Transcript:
    """What was said in a recording. Plain values: it can be pickled, compared and kept."""

    words: tuple[Word, ...]
    """In the order of their starts."""
    duration: float
    """Seconds of sound, from the recording's beginning to its end or to `end_s`."""
    warnings: tuple[StreamWarning, ...] = ()
    """What was not as it should be, in the order of time: sound that is clipped or silent for long,
    a file that is damaged or whose clock cannot be followed, a decoder that had to listen again."""
    problem: Exception | None = None
    """Why the sound stopped before its end, or could not be read at all; None if it was heard
    whole."""
    model: str | None = None
    """Which model heard it."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Transcript):
            return NotImplemented
        return self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash(self._compared())

    def _compared(self) -> tuple[object, ...]:
        # Of two errors Python knows no likeness: one that was pickled is another.
        problem = None if self.problem is None else (type(self.problem), str(self.problem))
        return self.words, self.duration, self.warnings, problem, self.model

    @property
    def text(self) -> str:
        """All words with a space between them."""
        return " ".join(word.text for word in self.words)

    @property
    def segments(self) -> list[Segment]:
        """The words in sentences and phrases (see `kiku.text.segments`)."""
        return segments(self.words)

    def __iter__(self) -> Iterator[Word]:
        # As in `segments, info = model.transcribe(...)` of faster-whisper. Python would count the
        # words, and of a recording with two of them take those for what was asked for.
        if _is_unpacked(sys._getframe(1)):  # pyright: ignore[reportPrivateUsage]
            raise InputError(
                "a transcript is one thing, and no pair of segments and info: write transcript = "
                "recognizer.transcribe(...), then transcript.segments, .words or .duration"
            )
        return iter(self.words)

    def __len__(self) -> int:
        return len(self.words)

    @overload
    def __getitem__(self, index: int) -> Word: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Word, ...]: ...
    def __getitem__(self, index: int | slice) -> Word | tuple[Word, ...]:
        name: Any = index
        if isinstance(name, str):  # as in what whisper gives
            known = hasattr(self, name)
            way = f"write transcript.{name}" if known else "to_dict() gives a dictionary"
            raise InputError(f"a transcript is no dictionary that has {name!r}: {way}")
        return self.words[index]

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        text = self.text if len(self.text) <= 60 else f"{self.text[:57]}..."
        broken = "" if self.problem is None else f", problem: {self.problem}"
        return f"<Transcript {len(self)} words in {self.duration:.1f} s: {text!r}{broken}>"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "text": self.text,
            "duration": self.duration,
            "words": [_of_word(word) for word in self.words],
            "segments": [
                {"start": one.start, "end": one.end, "text": one.text} for one in self.segments
            ],
            "warnings": [
                {"kind": one.kind, "message": one.message, "time": one.time}
                for one in self.warnings
            ],
            "problem": None if self.problem is None else str(self.problem),
            "model": self.model,
        }

    def to_srt(self) -> str:
        """SubRip captions."""
        return self._written("srt")

    def to_vtt(self) -> str:
        """WebVTT captions."""
        return self._written("vtt")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it into a file, in the format that the name ends in: txt, json, srt, vtt or tsv.

        Whoever looks sees the old file or the whole new one; a link is replaced, not followed.

        Raises:
            OutputError: there is no such format, or the file cannot be written.
        """
        ending = Path(path).suffix.lstrip(".").lower()
        if ending not in FORMATS:
            raise OutputError(
                f"{os.fspath(path)!r} names no format that is known: end it in one of "
                f"{', '.join('.' + name for name in FORMATS)}"
            )
        try:
            write_whole(Path(path), self._written(ending))
        except OSError as error:
            raise OutputError(
                f"{os.fspath(path)!r} cannot be written ({error.strerror or error}): check the "
                "folder, its permissions and the disk"
            ) from error

    def _written(self, ending: str) -> str:
        options = CaptionOptions(self.model or "")
        return FORMATS[ending](self.words, replace(options, duration=self.duration))


class IncompleteTranscript(UserWarning):
    """The sound of a recording stopped before its end. Where warnings are errors, it is raised."""

    def __init__(self, message: str, transcript: Transcript) -> None:
        """Of a transcript that holds a `problem`."""
        super().__init__(message, transcript)
        self.transcript = transcript
        """What was said until then."""

    def __str__(self) -> str:
        return self.args[0]


_UNPACK = opmap["UNPACK_SEQUENCE"]


def _is_unpacked(caller: FrameType) -> bool:
    """Whether a function is about to put parts of what it has into variables: `a, b = ...`."""
    return caller.f_code.co_code[caller.f_lasti] == _UNPACK


def _of_word(word: Word) -> dict[str, Any]:
    values: dict[str, Any] = {
        "text": word.text, "start": word.start, "end": word.end, "probability": word.probability,
    }  # fmt: skip
    return values if word.channel is None else {**values, "channel": word.channel}


def by_time(word: Word) -> tuple[float, int]:
    """Orders words of several channels the same way, however they came."""
    return word.start, word.channel or 0


_PACKAGE = str(Path(__file__).parent) + os.sep


def _caller_level() -> int:
    """The `stacklevel` of a warning that names the line outside of kiku from which it comes."""
    level, frame = 1, sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level


MakeMembers = Callable[[int], Sequence[Member]]
"""Sessions for a recording of so many channels, with what their slots need."""

OnProgress = Callable[[float, float | None], object]
"""Is told seconds heard, and of how many; None where a recording does not say how long it is."""

PROGRESS_EVERY_S = 0.2
"""So often somebody is told at most."""


_ENOUGH_S = 5.0
"""Seconds of sound that wait for the engine: as many as one step takes."""


@dataclass(eq=False)
class RecordingTask:
    """One recording on its way through its slots."""

    chunks: Iterator[Chunk]
    members: MakeMembers
    max_duration_s: float = math.inf
    start_s: float = 0.0
    """From where on it is heard."""
    end_s: float = math.inf
    """Nothing is read beyond what holds this; `duration` ends there."""
    stated_s: Callable[[], float | None] = lambda: None
    """Looks how long it says it is, as far as it is wanted; to be asked before it is opened."""
    sessions: list[WordSession] = field(default_factory=list[WordSession])
    opening: Opening | None = None
    first: Chunk | None = None
    num_channels: int = 0
    """Of the sound; 0 before any of it was read."""
    changes: ChannelChanges | None = None
    """Where its channels are heard one by one."""
    words: list[Word] = field(default_factory=list[Word])
    warnings: list[StreamWarning] = field(default_factory=list[StreamWarning])
    duration: float = 0.0
    read_s: float = 0.0
    """Of the sound, silence included."""
    is_too_long: bool = False
    """Whether it is known to go on behind `max_duration_s`, up to which it was read."""
    problem: AudioError | None = None
    failure: BaseException | None = None
    ended: bool = False
    """Whether the sound is at its end."""
    done: bool = False

    def begin(self) -> Opening:
        """Read the first of the sound, and ask for slots."""
        self.first = self._next()
        self.num_channels = 0 if self.first is None else self.first.num_channels
        num_channels = self.num_channels or 1
        members = self.members(num_channels)
        self.sessions = [member.session for member in members]  # pyright: ignore[reportAttributeAccessIssue]
        # One that is not there from the beginning is refused when it is heard.
        channels = [one.input.channel for one in self.sessions]
        if all(isinstance(channel, int) and channel < num_channels for channel in channels):
            self.changes = ChannelChanges(num_channels)
        self.opening = Opening(members)
        return self.opening

    def _next(self) -> Chunk | None:
        """The next of the sound; None at its end."""
        if self.read_s >= self.end_s - 1e-9:  # it is a sum
            self.chunks = iter(())  # which closes a file
            return None
        try:
            if self.is_too_long:
                raise self._too_long()
            chunk = next(self.chunks, None)
            if chunk is None:
                self._look_whether_begun()
                return None
            chunk = self._within_bounds(chunk)
            self.read_s += chunk.seconds
            return chunk
        except AudioError as error:
            if not self.sessions or self.sessions[0].duration == 0:
                raise
            self.problem = error
            return None

    def _look_whether_begun(self) -> None:
        """At the end of the sound, warn if that lies before `start_s`."""
        if 0 < self.read_s <= self.start_s + 1e-9:  # it is a sum
            self.warnings.append(
                StreamWarning(
                    "no_words",
                    f"the recording ends after {self.read_s:.2f} s and is heard from "
                    f"{self.start_s:g} s on, so nothing of it was: give an earlier start_s "
                    "(--start)",
                    self.read_s,
                )
            )

    def _within_bounds(self, chunk: Chunk) -> Chunk:
        """The chunk as far as `max_duration_s` lets it be heard; AudioError where none of it is."""
        left_s = self.max_duration_s - self.read_s + 1e-9  # it is a sum
        if chunk.seconds <= left_s:
            return chunk
        if left_s * chunk.rate < 1:
            raise self._too_long()
        self.is_too_long = True
        return chunk.split(left_s)[0]

    def _too_long(self) -> AudioError:
        return AudioError(
            f"the recording is longer than {self.max_duration_s:g} seconds: raise max_duration_s "
            "in StreamOptions (--max-duration) to have the rest"
        )

    @property
    def is_hungry(self) -> bool:
        """Whether it could be stepped further if it had more sound."""
        first = self.sessions[0]
        return not (self.ended or first.has_ended) and first.waiting_s < _ENOUGH_S

    def feed(self) -> None:
        """Push sound until enough waits or it ends."""
        while self.is_hungry:
            chunk, self.first = self.first or self._next(), None
            for session in self.sessions:
                if chunk is None:
                    session.close()
                else:
                    session.push(self._for(session, chunk))
            self.ended = chunk is None

    def _for(self, session: WordSession, chunk: Chunk) -> Chunk:
        """What a session is to hear of the next chunk."""
        channel = session.input.channel
        if self.changes is None or channel == "mix":
            return chunk
        hears_all = len(self.sessions) == self.changes.num_channels
        is_missing = channel >= chunk.num_channels
        if session is self.sessions[0] and (is_missing or hears_all):
            warning = self.changes.look(chunk, self.read_s - chunk.seconds)
            self.warnings += [] if warning is None else [warning]
        return chunk.of_channel(channel)

    @property
    def has_news(self) -> bool:
        """Whether `collect` would find something, or more sound is wanted."""
        sessions = self.sessions
        told = any(one.events or one.failure is not None for one in sessions)
        # One channel may be done before another, which is still to be stepped.
        return told or self.is_hungry or all(one.done for one in sessions)

    def collect(self) -> None:
        """Take over what the sessions have to say."""
        self.duration = min(self.sessions[0].duration, self.end_s)
        found: list[Word] = []
        for session in self.sessions:
            while session.events:
                match session.next_event():
                    case Word() as word:
                        found.append(word)
                    case StreamWarning() as warning:
                        self.warnings.append(warning)
                    case End(duration):
                        self.duration = min(duration, self.end_s)
                    case _:
                        pass
        if len(self.sessions) > 1:  # in the order of time, as far as they came together
            found.sort(key=lambda word: word.start)
        self.words += found
        self.failure = self.failure or next(
            (one.failure for one in self.sessions if one.failure is not None), None
        )
        self.done = self.failure is not None or all(one.done for one in self.sessions)

    def transcript(self, model: str) -> Transcript:
        """What has come of it."""
        words = sorted(self.words, key=by_time)
        problem = self.failure if isinstance(self.failure, Exception) else self.problem
        found = sorted(self.warnings, key=lambda warning: warning.time)
        return Transcript(tuple(words), self.duration, tuple(found), problem, model)


class _BatchProgress:
    """How far the recordings of one call are, all together, told now and then."""

    def __init__(self, tell: OnProgress, recordings: Sequence[RecordingTask]) -> None:
        self._tell, self._recordings = tell, list(recordings)
        self._stated: list[float | None] | None = None
        self._next_s = -math.inf

    def look(self) -> None:
        """Before the first is opened: how long they say they are."""
        if self._stated is None:
            self._stated = [one.stated_s() for one in self._recordings]

    def tell(self, pending: Sequence[RecordingTask]) -> None:
        """Tell it, unless that was a moment ago; at the end in any case.

        Args:
            pending: those that are not at their end.
        """
        now = time.monotonic()
        if pending and now < self._next_s:
            return
        self._next_s = now + PROGRESS_EVERY_S
        heard_s = sum(one.duration for one in self._recordings)
        if pending or heard_s:
            self._tell(heard_s, self._total_s(pending))

    def _total_s(self, pending: Sequence[RecordingTask]) -> float | None:
        total_s = 0.0
        for one, stated_s in zip(self._recordings, self._stated or (), strict=True):
            if not any(one is other for other in pending):
                stated_s = one.duration  # of which nothing more will come, whatever it said
            if stated_s is None:
                return None
            total_s += max(one.duration, stated_s)
        return total_s


class RecordingBatch:
    """Recordings that are transcribed side by side, in the slots that are free."""

    def __init__(
        self,
        scheduler: Scheduler,
        recordings: Sequence[RecordingTask],
        timeout: float | None,
        progress: OnProgress | None = None,
    ) -> None:
        """Of `recordings`; the first waits for its slot for `timeout` seconds, None as long as
        others hold it. `progress` is told how far they are."""
        self._scheduler, self._timeout = scheduler, timeout
        self._waiting = deque(recordings)
        self._opening: RecordingTask | None = None
        self._running: list[RecordingTask] = []
        self._progress = None if progress is None else _BatchProgress(progress, recordings)

    def advance(self) -> None:
        """Open, feed, have all stepped until there is news, collect, and tell how far it is.

        Raises:
            NoFreeSlot: there is none for the first recording.
            BaseException: whatever the progress callback raises; it ends all recordings.
        """
        if self._progress is None:
            self._advance()
            return
        self._progress.look()
        self._advance()
        try:
            self._progress.tell(self._pending)
        except BaseException as error:
            self._fail_all(error)
            raise

    @property
    def _pending(self) -> list[RecordingTask]:
        """Those that are not at their end."""
        opening = [] if self._opening is None else [self._opening]
        return [*self._running, *opening, *self._waiting]

    def _fail_all(self, error: BaseException) -> None:
        """Somebody's callback wants no more of it."""
        why = StreamError(
            f"the transcription was stopped by its progress callback ({error!r}): `so_far` has its "
            "words until then; transcribe again to have all"
        )
        why.__cause__ = error
        for recording in self._pending:
            self._fail(recording, why)

    def _advance(self) -> None:
        try:
            self._open_next()
            for recording in list(self._running):
                self._feed(recording)
            self._wait()
            self._take_slots()
            for recording in list(self._running):
                recording.collect()
                if recording.failure is not None:
                    self.abandon(recording)
                elif recording.done:
                    self._running.remove(recording)
        except NoFreeSlot:
            raise
        except BaseException as error:
            # It may have interrupted the step of these: they cannot be trusted to go on.
            for recording in [*self._running, *([self._opening] if self._opening else [])]:
                self._fail(recording, error)
            raise

    def _open_next(self) -> None:
        while self._opening is None and self._waiting:
            recording = self._waiting.popleft()
            try:
                opening = recording.begin()
            except Exception as error:  # a file that cannot be read concerns itself alone
                recording.failure, recording.done = error, True
                continue
            except BaseException as error:  # while the first of it was read
                self._fail(recording, error)
                raise
            self._opening = recording
            self._scheduler.request(opening)

    def _wait(self) -> None:
        wanted = None if self._opening is None else self._opening.opening
        scheduler = self._scheduler

        def news() -> bool:
            if wanted is not None and wanted.done:
                return True
            if self._running:  # which will free a slot for the one that waits
                return any(one.has_news for one in self._running)
            return wanted is None or scheduler.is_stuck(wanted)

        found = scheduler.drive(news, None if self._running else self._timeout)
        if wanted is None or wanted.done or self._running:
            return
        if not found or scheduler.is_stuck(wanted):
            recording, self._opening = self._opening, None
            if recording is not None and not scheduler.cancel(wanted):
                self._fail(recording, error := scheduler.no_free_slot(wanted))
                raise error

    def _take_slots(self) -> None:
        """The recording that waited has its slots, or will never have them."""
        recording = self._opening
        if recording is None or recording.opening is None or not recording.opening.done:
            return
        self._opening = None
        try:
            recording.opening.result()
        except Exception as error:
            recording.failure, recording.done = error, True
            return
        self._running.append(recording)

    def _feed(self, recording: RecordingTask) -> None:
        try:
            recording.feed()
        except Exception as error:  # whatever a caller's own file raises concerns this one alone
            self._fail(recording, error)

    def _fail(self, recording: RecordingTask, error: BaseException) -> None:
        if not isinstance(error, Exception):  # Ctrl-C interrupts once, not whenever words are read
            error = StreamError(
                "the transcription was interrupted: `so_far` has its words until then; "
                "transcribe again to have all"
            )
        if recording.sessions:
            recording.collect()
        recording.failure, recording.done = error, True
        self.abandon(recording)

    def stop(self, recording: RecordingTask) -> list[Word]:
        """End a recording where it is; the word that was open."""
        known = len(recording.words)
        given = [] if recording.opening is None else recording.opening.given
        if not recording.done and given:
            for binding in given:
                self._scheduler.release(binding, cut=True)
            self._scheduler.drive(lambda: all(one.done for one in recording.sessions))
            recording.collect()
        recording.done = True
        self.abandon(recording)
        return recording.words[known:]

    def abandon(self, recording: RecordingTask) -> None:
        """Give its slots back; nobody wants its words any more. The garbage collector may call it
        at any moment."""
        if recording in self._waiting:
            self._waiting.remove(recording)
        if recording in self._running:
            self._running.remove(recording)
        if recording is self._opening:
            self._opening = None
        if recording.opening is not None:
            recording.opening.cancelled = True
            for binding in recording.opening.given:
                self._scheduler.release(binding)


class Transcription:
    """A recording that is being transcribed.

    Iterate to have each word as soon as it is decided; `result` waits for the end. If the sound
    stops in the middle (a truncated file), the words before are all there, the transcript's
    `problem` holds the error, and a warning (`IncompleteTranscript`) says so when all words were
    given. If it cannot be read at all, iterating raises that error.
    """

    def __init__(self, recording: RecordingTask, batch: RecordingBatch, model: str) -> None:
        """`Recognizer.transcription` makes them."""
        self._recording, self._batch, self._model = recording, batch, model
        self._finalizer = weakref.finalize(self, batch.abandon, recording)
        self._finalizer.atexit = False
        self._warned = False

    def __repr__(self) -> str:
        state = "done" if self._recording.done else "going on"
        return f"<Transcription {self.heard_s:.1f} s heard, {len(self.so_far)} words, {state}>"

    def __reduce__(self) -> NoReturn:
        raise InputError(
            "a transcription under way cannot be copied or sent to another process: send its "
            "result()"
        )

    def __iter__(self) -> Iterator[Word]:
        """Every word from the first, waiting for those that are not decided yet."""
        yield from self._each()
        self._warn_of_problem()

    def _each(self) -> Iterator[Word]:
        index, recording = 0, self._recording
        while True:
            while index < len(recording.words):
                yield recording.words[index]
                index += 1
            if recording.done:
                break
            self._batch.advance()
        self._finalizer.detach()  # a Ctrl-C that comes while it is dropped would be lost there
        if recording.failure is not None:
            raise recording.failure

    def _warn_of_problem(self) -> None:
        """Warn, once, if the sound stopped before its end; all of it is decided by now."""
        problem = self._recording.problem
        if problem is None or self._warned:
            return
        self._warned = True
        message = f"{problem}; everything before was transcribed"
        warning = IncompleteTranscript(message, self._recording.transcript(self._model))
        warnings.warn(warning, stacklevel=_caller_level())

    def stop(self) -> list[Word]:
        """Give up the rest of the recording and free its slot.

        Returns:
            The word that was open, if there was one, now decided; it stands in `so_far` too.
            Iterating again ends after the words of `so_far`.
        """
        return self._batch.stop(self._recording)

    @property
    def so_far(self) -> list[Word]:
        """The words decided until now, without waiting."""
        return list(self._recording.words)

    @property
    def heard_s(self) -> float:
        """Seconds of sound taken in until now, without waiting."""
        return self._recording.duration

    @property
    def num_channels(self) -> int:
        """Channels of the sound, silent ones too; 0 before any of it was read."""
        return self._recording.num_channels

    @property
    def done(self) -> bool:
        """Whether all has come of it that will come, without waiting."""
        return self._recording.done

    @property
    def warnings(self) -> list[StreamWarning]:
        """What was not as it should be until now, without waiting."""
        return list(self._recording.warnings)

    @property
    def problem(self) -> Exception | None:
        """Why the sound stopped before its end, as far as is known."""
        return self._recording.problem

    def result(self) -> Transcript:
        """All of it, when it is done.

        Raises:
            Exception: what stopped it, if it cannot go on.
            IncompleteTranscript: the sound stopped before its end, and warnings are errors. It
                holds the transcript, and the next call gives that.
        """
        for _ in self._each():
            pass
        self._warn_of_problem()
        return self._recording.transcript(self._model)

    def result_or_problem(self) -> Transcript:
        """As `result`, but what stopped it stands in the transcript's `problem`, and nowhere
        else."""
        try:
            for _ in self._each():
                pass
            return self._recording.transcript(self._model)
        except Exception as error:
            if self._recording.failure is not error:
                raise
            return self._recording.transcript(self._model)

    def advance(self) -> None:
        """Let it, and all that go side by side with it, come a step further.

        Raises:
            NoFreeSlot: see `Recognizer.transcribe`.
        """
        self._batch.advance()


def as_done(several: Sequence[Transcription]) -> Iterator[Transcription]:
    """Each of the recordings of one `Recognizer.transcriptions` as soon as it is done: a long one
    keeps no short one waiting."""
    pending = list(several)
    while pending:
        done = [one for one in pending if one.done]
        pending = [one for one in pending if not one.done]
        yield from done
        if not done:
            pending[0].advance()
