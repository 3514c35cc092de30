"""Short pieces of sound as text that a page can contain, and where an utterance's errors lie."""

import base64
import io
import wave
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kiku.audio.encode import encoded
from kiku.evaluate.aligning import WordPair
from kiku.evaluate.scoring import Scored

CLIP_RATE = 16_000
"""Samples a second: enough to understand words."""

_BITS_PER_S = 32_000

WHOLE_S = 15.0
"""Seconds up to which a whole utterance is one excerpt."""

AROUND_S = 2.0
"""Seconds before and after an error that an excerpt of a longer utterance has."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A part of an utterance, and the words in it."""

    start: float
    """Seconds of the file."""
    end: float
    pairs: tuple[WordPair, ...]


def excerpts(scored: Scored) -> list[Excerpt]:
    """The parts of an utterance that contain its errors; none if it has no errors."""
    first = scored.utterance.start_s
    last = first + scored.heard.seconds
    if not scored.errors:
        return []
    if last - first <= WHOLE_S:
        return [Excerpt(first, last, scored.pairs)]
    places = _places(scored, first, last)
    windows: list[tuple[float, float]] = []
    for pair, (start, end) in zip(scored.pairs, places, strict=True):
        if pair.kind == "equal":
            continue
        start, end = max(first, start - AROUND_S), min(last, end + AROUND_S)
        if windows and start <= windows[-1][1]:
            start, end = windows[-1][0], max(windows.pop()[1], end)
        windows.append((start, end))
    return [
        Excerpt(start, end, tuple(_inside(scored.pairs, places, start, end)))
        for start, end in windows
    ]


def _inside(
    pairs: Sequence[WordPair], places: Sequence[tuple[float, float]], start: float, end: float
) -> list[WordPair]:
    return [
        pair
        for pair, (begins, ends) in zip(pairs, places, strict=True)
        if (begins < end and ends > start) or start <= begins <= end
    ]


def _places(scored: Scored, first: float, last: float) -> list[tuple[float, float]]:
    """Start and end of each pair: those of the recognized word, else of the reference word, else
    between its neighbours. They never go back in time."""
    known: list[tuple[float, float] | None] = []
    for pair in scored.pairs:
        tokens = [] if pair.heard is None else [scored.found[pair.heard]]
        tokens += [] if pair.reference is None else [scored.reference[pair.reference]]
        spans = [(t.start, t.end) for t in tokens if t.start is not None and t.end is not None]
        known.append(spans[0] if spans else None)
    places: list[tuple[float, float]] = []
    before = first
    for index, span in enumerate(known):
        if span is None:
            after = next((one[0] for one in known[index:] if one is not None), last)
            span = (before, max(before, after))
        start = min(max(span[0], before), last)
        places.append((start, min(max(span[1], start), last)))
        # A pair between two known words begins where the first of them ends.
        before = places[-1][1] if known[index] is not None else places[-1][0]
    return places


def data_uri(samples: NDArray[np.float32], rate: int) -> str:
    """Sound as a data URI: MP3, which every browser plays, or WAV if this build of FFmpeg cannot
    write MP3.

    Args:
        samples: [S] in [-1, 1].
        rate: of the samples, in Hz.
    """
    data, kind = encoded(samples, rate, "mp3", _BITS_PER_S), "mpeg"
    if not data:
        data, kind = _wav(samples, rate), "wav"
    return f"data:audio/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _wav(samples: NDArray[np.float32], rate: int) -> bytes:
    integers = (np.clip(samples, -1, 1) * 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, rate, len(samples), "NONE", ""))
        file.writeframes(integers.tobytes())
    return buffer.getvalue()
