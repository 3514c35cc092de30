"""The work of one process of a batch: a recognizer transcribes several recordings at once.

Several threads may call it with blocks at the same time: they share its slots and every step, so
that the end of one block leaves no slot idle.

Results are given in lists. Handing one over costs its process and the one that takes it some
milliseconds each, so short recordings, of which dozens are done in a second, wait for one another.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kiku.errors import KikuError
from kiku.fleet.opening import open_items
from kiku.fleet.rows import ResultRow, row_key, rows_of
from kiku.fleet.settings import BatchRequest
from kiku.fleet.sources import Item
from kiku.recognizer import Recognizer
from kiku.transcription import as_done

EVERY_S = 1.0
"""Seconds between two lists of a block at least: the longest that a result waits."""


@dataclass(frozen=True, slots=True)
class Transcribed:
    """The result of one recording."""

    path: str
    rows: list[ResultRow]
    took_s: float = 0.0
    """Seconds since its block was begun."""


class Transcriber:
    """Transcribes recordings with one model."""

    def __init__(self, request: BatchRequest, recognizer: Recognizer | None = None) -> None:
        """Load the model, unless it is given, and try it.

        Raises:
            KikuError: see `kiku.load`; or the model cannot follow the options, which would
                otherwise be reported as a problem in each row.
        """
        self._request = request
        self._recognizer = recognizer or request.settings.load()
        silence = np.zeros(2_400, np.float32)
        options = replace(request.options, channel="mix", start_s=0.0, end_s=None)
        self._recognizer.transcribe(silence, options, rate=24_000)

    def transcribe(
        self, items: Sequence[Item], *, alone: bool = False
    ) -> Iterator[list[Transcribed]]:
        """Give recordings within a second after they are done; their problems are in their rows.

        Args:
            items: recordings that are transcribed at the same time.
            alone: whether this is the last attempt: unexpected errors are in the rows, too.

        Raises:
            Exception: an unexpected error, such as a device that is gone. This process should then
                stop, because all further recordings would fail as well.
        """
        options, begun = self._request.options, time.monotonic()
        with open_items(items) as sources:
            several = self._recognizer.transcriptions(sources, options)
            item_of = {id(one): item for one, item in zip(several, items, strict=True)}
            for group in as_done(several, EVERY_S):
                done: list[Transcribed] = []
                failure: Exception | None = None
                for one in group:
                    transcript = one.result_or_problem()
                    if not (alone or isinstance(transcript.problem, KikuError | None)):
                        failure = transcript.problem
                        continue
                    key = row_key(item_of[id(one)], self._request)
                    rows = rows_of(key, transcript, options.channel, one.num_channels)
                    done.append(Transcribed(key.path, rows, time.monotonic() - begun))
                if done:
                    yield done
                if failure is not None:
                    raise failure
