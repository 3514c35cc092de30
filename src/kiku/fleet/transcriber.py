"""What one process of a batch does: a recognizer that is given recordings, side by side.

Several threads may hand it blocks at the same time: they share its slots and every step, so that
the end of one block leaves no slot idle.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kiku.errors import KikuError
from kiku.fleet.opening import opened
from kiku.fleet.rows import Row, key_of, rows_of
from kiku.fleet.settings import Request
from kiku.fleet.sources import Item
from kiku.recognizer import Recognizer
from kiku.transcription import as_done


@dataclass(frozen=True, slots=True)
class Transcribed:
    """What became of one recording."""

    path: str
    rows: list[Row]


class Transcriber:
    """Hears recordings with one model."""

    def __init__(self, request: Request, recognizer: Recognizer | None = None) -> None:
        """Load the model, unless it is given, and try it.

        Raises:
            KikuError: see `kiku.load`; or options that the model cannot follow, which would
                otherwise stand as a problem in each row.
        """
        self._request = request
        self._recognizer = recognizer or request.settings.load()
        silence = np.zeros(2_400, np.float32)
        options = replace(request.options, channel="mix", start_s=0.0, end_s=None)
        self._recognizer.transcribe(silence, options, rate=24_000)
        # What is wrong with a recording stands in its row.
        warnings.filterwarnings("ignore", "(?s).*everything before was transcribed")

    def transcribe(self, items: Sequence[Item], *, alone: bool = False) -> Iterator[Transcribed]:
        """Each recording as soon as it is done; whatever is wrong with it is in its rows.

        Args:
            items: go side by side.
            alone: it is the last time that they are asked for: what is unexpected is in their
                rows, too.

        Raises:
            Exception: something unexpected, such as a device that is gone: this process should
                hear nothing more, lest everything that it is given fails.
        """
        options = self._request.options
        with opened(items) as sources:
            several = self._recognizer.transcriptions(sources, options)
            item_of = {id(one): item for one, item in zip(several, items, strict=True)}
            for one in as_done(several):
                item = item_of[id(one)]
                transcript = one.result_or_problem()
                if not (alone or isinstance(transcript.problem, KikuError | None)):
                    raise transcript.problem
                key = key_of(item, self._request)
                rows = rows_of(key, transcript, options.channel, one.num_channels)
                yield Transcribed(item.path, rows)
