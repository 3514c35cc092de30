"""The sound of one recording, read no further than it is wanted: `RecordingSound`."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from kiku.audio import Chunk, StreamWarning
from kiku.errors import AudioError

_ROUNDING_S = 1e-9
"""Seconds by which a sum of seconds may be off."""


def _no_length() -> float | None:
    return None


@dataclass(eq=False)
class RecordingSound:
    """The chunks of one recording, from its beginning up to the end that was asked for."""

    chunks: Iterator[Chunk]
    start_s: float = 0.0
    """Second at which transcription begins. All before it is read, too."""
    end_s: float = math.inf
    """Second at which transcription ends. Nothing is read after the chunk that holds it."""
    max_duration_s: float = math.inf
    """Seconds after which a longer recording is an error."""
    look_up_s: Callable[[], float | None] = _no_length
    """Looks up how many seconds the whole recording says it has; None if it does not say."""
    on_warning: Callable[[StreamWarning], object] = lambda warning: None
    """Called with what is wrong with the sound as a whole."""
    read_s: float = field(default=0.0, init=False)
    """Seconds read so far, silence included."""
    _is_too_long: bool = field(default=False, init=False)

    def stated_s(self) -> float | None:
        """How many seconds will be transcribed, by what the recording says of its length; None if
        it does not say. To be called before the first chunk is read."""
        whole_s = self.look_up_s()
        return None if whole_s is None else min(whole_s, self.end_s, self.max_duration_s)

    def next(self) -> Chunk | None:
        """Read the next chunk; None at the end.

        Raises:
            AudioError: the sound cannot be read, or goes on after `max_duration_s`.
        """
        if self.read_s >= self.end_s - _ROUNDING_S:
            self.chunks = iter(())  # which closes a file
            return None
        if self._is_too_long:
            raise self._too_long()
        chunk = next(self.chunks, None)
        if chunk is None:
            self._warn_if_never_begun()
            return None
        chunk = self._within_bounds(chunk)
        self.read_s += chunk.seconds
        return chunk

    def _warn_if_never_begun(self) -> None:
        """Warn if the sound has ended before `start_s`."""
        if 0 < self.read_s <= self.start_s + _ROUNDING_S:
            self.on_warning(
                StreamWarning(
                    "no_words",
                    f"the recording ends after {self.read_s:.2f} s, before start_s "
                    f"(--start) {self.start_s:g}, so nothing of it was transcribed: give an "
                    "earlier start_s (--start)",
                    self.read_s,
                )
            )

    def _within_bounds(self, chunk: Chunk) -> Chunk:
        """The part of the chunk before `max_duration_s`; AudioError if there is none."""
        left_s = self.max_duration_s - self.read_s + _ROUNDING_S
        if chunk.seconds <= left_s:
            return chunk
        if left_s * chunk.rate < 1:
            raise self._too_long()
        self._is_too_long = True
        return chunk.split(left_s)[0]

    def _too_long(self) -> AudioError:
        return AudioError(
            f"the recording is longer than {self.max_duration_s:g} seconds: raise max_duration_s "
            "in StreamOptions (--max-duration) to have the rest"
        )
