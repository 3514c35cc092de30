"""`Transcription`: a recording that is being transcribed, as its caller sees it."""

import math
import os
import sys
import time
import warnings
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from kiku.audio import StreamWarning
from kiku.errors import InputError
from kiku.text import Word
from kiku.transcription.batch import RecordingBatch
from kiku.transcription.recording import RecordingTask
from kiku.transcription.transcript import IncompleteTranscript, Transcript

_PACKAGE = str(Path(__file__).parents[1]) + os.sep


def _caller_level() -> int:
    """The `stacklevel` with which a warning names the caller's line, the first outside of kiku."""
    level, frame = 1, sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level


class Transcription:
    """A recording that is being transcribed.

    Iterate to get each word as soon as it is decided; `result` waits for the end. If the sound
    stops in the middle (a truncated file), all words before are given, the transcript's `problem`
    holds the error, and after the last word there is a warning (`IncompleteTranscript`). If the
    sound cannot be read at all, iterating raises the error.
    """

    def __init__(self, recording: RecordingTask, batch: RecordingBatch, model: str) -> None:
        """`Recognizer.transcription` makes one."""
        self._recording, self._batch, self._model = recording, batch, model
        self._finalizer = weakref.finalize(self, batch.abandon, recording)
        self._finalizer.atexit = False
        self._warned = False

    def __repr__(self) -> str:
        state = "done" if self._recording.so_far.done else "in progress"
        return f"<Transcription {self.heard_s:.1f} s heard, {len(self.so_far)} words, {state}>"

    def __reduce__(self) -> NoReturn:
        raise InputError(
            "a transcription in progress cannot be copied or sent to another process: send its "
            "result()"
        )

    def __iter__(self) -> Iterator[Word]:
        """Iterate over all words from the first, and wait for those that are not decided yet."""
        yield from self._each()
        self._warn_of_problem()

    def _each(self) -> Iterator[Word]:
        index, so_far = 0, self._recording.so_far
        while True:
            while index < len(so_far.words):
                yield so_far.words[index]
                index += 1
            if so_far.done:
                break
            self._batch.advance()
        self._finalizer.detach()  # a Ctrl-C during finalization would be lost
        if so_far.failure is not None:
            raise so_far.failure

    def _warn_of_problem(self) -> None:
        """Warn once if the sound stopped before its end; to be called when all words are
        decided."""
        so_far = self._recording.so_far
        problem = so_far.problem
        if problem is None or self._warned:
            return
        self._warned = True
        message = f"{problem}; everything before was transcribed"
        warning = IncompleteTranscript(message, so_far.transcript(self._model))
        warnings.warn(warning, stacklevel=_caller_level())

    def stop(self) -> list[Word]:
        """Stop before the end of the recording, and free its slot.

        Returns:
            The word that was unfinished, if there was one. It is in `so_far`, too. Iterating again
            ends after the words of `so_far`.
        """
        return self._batch.stop(self._recording)

    @property
    def so_far(self) -> list[Word]:
        """The words decided so far, without waiting."""
        return list(self._recording.so_far.words)

    @property
    def heard_s(self) -> float:
        """Seconds of sound processed so far, without waiting."""
        return self._recording.so_far.duration

    @property
    def num_channels(self) -> int:
        """Number of channels of the sound, silent ones included; 0 before any sound was read."""
        return self._recording.num_channels

    @property
    def done(self) -> bool:
        """Whether nothing more will come, without waiting."""
        return self._recording.so_far.done

    @property
    def warnings(self) -> list[StreamWarning]:
        """The warnings so far, without waiting (see `Transcript.warnings`)."""
        return list(self._recording.so_far.warnings)

    @property
    def problem(self) -> Exception | None:
        """The error that stopped the sound before its end; None if there was none so far."""
        return self._recording.so_far.problem

    def result(self) -> Transcript:
        """Wait for the end, and return the whole transcript.

        Raises:
            Exception: the error that stopped the transcription.
            IncompleteTranscript: the sound stopped before its end, and the program makes warnings
                errors. The warning holds the transcript, which the next call returns.
        """
        for _ in self._each():
            pass
        self._warn_of_problem()
        return self._recording.so_far.transcript(self._model)

    def result_or_problem(self) -> Transcript:
        """As `result`, but an error that stopped the transcription is not raised and gives no
        warning: the transcript's `problem` holds it."""
        try:
            for _ in self._each():
                pass
        except Exception as error:
            if self._recording.so_far.failure is not error:
                raise
        return self._recording.so_far.transcript(self._model)

    @property
    def is_any_heard(self) -> bool:
        """Whether a recording of the same call has its slots and is not done."""
        return self._batch.is_any_heard

    def advance(self) -> None:
        """Transcribe a step further, together with all recordings of the same call.

        Raises:
            NoFreeSlot: see `Recognizer.transcribe`.
        """
        self._batch.advance()


def as_done(
    several: Sequence[Transcription], every_s: float = 0.0
) -> Iterator[list[Transcription]]:
    """Iterate over the recordings of one `Recognizer.transcriptions` in the order in which they are
    done: a long one does not keep a short one waiting.

    Args:
        several: the recordings.
        every_s: seconds between two lists at least, while some recordings are being heard. If they
            only wait for slots, which may take long, nothing is held back.

    Yields:
        The recordings that are done and were in no list before; at least one.
    """
    pending, given_at = list(several), -math.inf
    while pending:
        done = [one for one in pending if one.done]
        is_all = len(done) == len(pending) or not pending[0].is_any_heard  # of its batch
        if done and (is_all or time.monotonic() - given_at >= every_s):
            pending = [one for one in pending if one not in done]
            given_at = time.monotonic()
            yield done
        else:
            next(one for one in pending if not one.done).advance()
