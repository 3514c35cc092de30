"""`RecordingBatch`: the recordings of one call, side by side in the slots that are free."""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from kiku.errors import NoFreeSlot, StreamError
from kiku.scheduler import Opening, Scheduler
from kiku.text import Word
from kiku.transcription.progress import BatchProgress, OnProgress
from kiku.transcription.recording import RecordingTask


class RecordingBatch:
    """Recordings that are transcribed side by side, in the slots that are free."""

    def __init__(
        self,
        scheduler: Scheduler,
        recordings: Sequence[RecordingTask],
        timeout: float | None,
        progress: OnProgress | None = None,
    ) -> None:
        """Nothing is opened or read yet.

        Args:
            scheduler: steps the recordings.
            recordings: in the order in which they get slots.
            timeout: how many seconds the first one waits for its slot; None waits as long as
                others hold it.
            progress: called with how far all of them are together.
        """
        self._scheduler, self._timeout = scheduler, timeout
        self._waiting = deque(recordings)
        self._opening: RecordingTask | None = None
        self._running: list[RecordingTask] = []
        self._progress = None if progress is None else BatchProgress(progress, recordings)

    @property
    def is_any_heard(self) -> bool:
        """Whether one of the recordings has its slots and is not done."""
        return bool(self._running)

    def advance(self) -> None:
        """Open the next recording, push sound, step until there is news, collect words, and report
        progress.

        Raises:
            NoFreeSlot: there is no slot for the first recording.
            BaseException: what the progress callback raised; it ends all recordings.
        """
        if self._progress is None:
            self._advance()
            return
        self._progress.look_up_lengths()
        self._advance()
        try:
            self._progress.report(self._pending)
        except BaseException as error:
            self._fail_all(error)
            raise

    @property
    def _pending(self) -> list[RecordingTask]:
        """The recordings that have not ended."""
        opening = [] if self._opening is None else [self._opening]
        return [*self._running, *opening, *self._waiting]

    def _fail_all(self, error: BaseException) -> None:
        """End all recordings, because the progress callback raised `error`."""
        why = StreamError(
            f"the transcription was stopped by its progress callback ({error!r}): `so_far` has "
            "the words until then; transcribe again to have all"
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
            for recording in list(self._running):
                recording.collect()
                if recording.so_far.failure is not None:
                    self.abandon(recording)
                elif recording.so_far.done:
                    self._drop(recording)
        except NoFreeSlot:
            raise
        except BaseException as error:
            # The error may have interrupted their step, so that their state cannot be trusted.
            for recording in [*self._running, *([self._opening] if self._opening else [])]:
                self._fail(recording, error)
            raise

    def _open_next(self) -> None:
        while self._opening is None and (recording := self._next_in_line()) is not None:
            try:
                opening = recording.begin()
            except Exception as error:  # an unreadable file ends its own recording only
                recording.so_far.fail(error)
                continue
            except BaseException as error:  # an interruption while the first chunk was read
                self._fail(recording, error)
                raise
            self._opening = recording
            self._scheduler.request(opening)

    def _next_in_line(self) -> RecordingTask | None:
        try:
            return self._waiting.popleft()
        except IndexError:  # none was left, or the collector has taken the last one just now
            return None

    def _wait(self) -> None:
        """Step until there is news of a recording, and take the slots of the one that waits for
        some."""
        wanted = None if self._opening is None else self._opening.opening
        scheduler = self._scheduler
        if wanted is not None and not self._running:  # until then its own call holds slots
            wanted.timeout = self._timeout

        def news() -> bool:
            if wanted is not None and (wanted.done or wanted.cancelled):
                return True
            if self._running:  # they will free a slot for the one that waits
                return any(one.has_news for one in self._running)
            return wanted is None or scheduler.is_stuck(wanted)

        found = scheduler.drive(news, None if wanted is None else wanted.wait_s)
        recording = self._opening
        if recording is None or wanted is None or wanted.cancelled:  # the collector freed it
            self._opening = None
        elif wanted.done or (not self._running and (not found or scheduler.is_stuck(wanted))):
            self._take_slots(recording, wanted)

    def _take_slots(self, recording: RecordingTask, opening: Opening) -> None:
        """Take the slots of the recording that waited for them, or the error that it got
        instead."""
        try:
            self._scheduler.take_slots(opening)
        except Exception as error:
            self._opening = None
            recording.so_far.fail(error)
            if isinstance(error, NoFreeSlot) and not self._running:
                raise
            return
        self._running.append(recording)
        self._opening = None

    def _feed(self, recording: RecordingTask) -> None:
        try:
            recording.feed()
        except Exception as error:  # an error of a caller's own file ends its own recording only
            self._fail(recording, error)

    def _fail(self, recording: RecordingTask, error: BaseException) -> None:
        if not isinstance(error, Exception):  # Ctrl-C is raised once, not again when words are read
            error = StreamError(
                "the transcription was interrupted: `so_far` has the words until then; "
                "transcribe again to have all"
            )
        if recording.sessions:
            recording.collect()
        recording.so_far.fail(error)
        self.abandon(recording)

    def stop(self, recording: RecordingTask) -> list[Word]:
        """End a recording where it is, and return the word that was unfinished."""
        known = len(recording.so_far.words)
        given = [] if recording.opening is None else recording.opening.given
        if not recording.so_far.done and given:
            for binding in given:
                self._scheduler.release(binding, cut=True)
            self._scheduler.drive(lambda: all(one.done for one in recording.sessions))
            recording.collect()
        recording.so_far.done = True
        self.abandon(recording)
        return recording.so_far.words[known:]

    def abandon(self, recording: RecordingTask) -> None:
        """Give a recording's slots back, as nothing refers to its words any more. The garbage
        collector may call this at any moment."""
        self._drop(recording)
        if recording is self._opening:
            self._opening = None
        if recording.opening is not None:
            self._scheduler.give_up(recording.opening)

    def _drop(self, recording: RecordingTask) -> None:
        """Take a recording out of those that wait or run. The collector may have done so between
        any two lines."""
        for several in (self._waiting, self._running):
            with suppress(ValueError):
                several.remove(recording)
