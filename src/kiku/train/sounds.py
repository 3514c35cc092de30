"""A recording and its words -> pieces of limited length, cut where nobody speaks.

Only the current piece of a recording is kept in memory.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kiku.audio import read_chunks
from kiku.train.manifest import TimedWord, TrainingRow

Samples = NDArray[np.float32]

_LATE_S = 0.25
"""Seconds that a word may start after the end of its recording: times are not exact."""


@dataclass(frozen=True, slots=True)
class SpokenPiece:
    """Sound and the words in it; their times count from its first sample."""

    samples: Samples
    words: tuple[TimedWord, ...]
    from_s: float = 0.0
    """Seconds from the beginning of the recording to the piece."""


class UnusableRow(Exception):
    """A row cannot be used for training; the message says why."""


def pieces_of(row: TrainingRow, rate: int, most_s: float) -> Iterator[SpokenPiece]:
    """The sound of a row, piece by piece.

    Args:
        row: the recording, or part of one, and its words.
        rate: samples a second of the pieces.
        most_s: seconds in a piece at most. A longer one is cut in the widest pause of its second
            half or, if the times of words are not known, where that half is softest.

    Raises:
        AudioError: the recording cannot be read.
        BadRow: a word starts after its end, or lasts longer than a piece.
    """
    waiting = [word.moved(-row.start) for word in row.words or ()]
    most, at = int(most_s * rate), 0
    held: Samples = np.zeros(0, np.float32)
    for chunk in _part(row, rate):
        held = np.concatenate([held, chunk])
        while len(held) > most:
            untimed = row.words is None
            cut_s = _softest_s(held[:most], rate) if untimed else _cut_s(waiting, most_s)
            cut = int(cut_s * rate)
            if not cut:
                raise _too_long(most_s)
            inside = [word for word in waiting if word.end <= cut_s]
            yield SpokenPiece(held[:cut].copy(), _within(inside, cut / rate), row.start + at / rate)
            held, at = held[cut:], at + cut
            waiting = [word.moved(-cut / rate) for word in waiting[len(inside) :]]
    length_s = len(held) / rate
    late = [word for word in waiting if word.start > length_s + _LATE_S]
    if late:
        raise UnusableRow(
            f"{late[0].text!r} begins {late[0].start - length_s:.2f} s after the end of the sound"
        )
    if len(held):
        yield SpokenPiece(held, _within(waiting, length_s), row.start + at / rate)


def join_pieces(pieces: Sequence[SpokenPiece], gaps: Sequence[int], rate: int) -> SpokenPiece:
    """Several pieces one after the other, as one piece.

    Args:
        pieces: at least one.
        gaps: samples of silence before each, and after the last: one more than there are pieces.
        rate: samples a second.
    """
    parts: list[Samples] = []
    words: list[TimedWord] = []
    at = 0
    for gap, piece in zip(gaps, pieces, strict=False):
        at += gap
        words += [word.moved(at / rate) for word in piece.words]
        parts += [np.zeros(gap, np.float32), piece.samples]
        at += len(piece.samples)
    silence = np.zeros(gaps[-1], np.float32)
    return SpokenPiece(np.concatenate([*parts, silence]), tuple(words), pieces[0].from_s)


def _within(words: Sequence[TimedWord], length_s: float) -> tuple[TimedWord, ...]:
    """The words, with times limited to those of the sound."""
    bounds = [(min(max(0.0, w.start), length_s), min(w.end, length_s)) for w in words]
    return tuple(
        TimedWord(word.text, start, max(start, end))
        for word, (start, end) in zip(words, bounds, strict=True)
    )


def _part(row: TrainingRow, rate: int) -> Iterator[Samples]:
    """The samples of the row's part of its recording."""
    first = round(row.start * rate)
    last = None if row.end is None else round(row.end * rate)
    at = 0
    for chunk in read_chunks(row.path, rate):
        part = chunk[max(0, first - at) : None if last is None else max(0, last - at)]
        at += len(chunk)
        if len(part):
            yield part
        if last is not None and at >= last:
            return


def _cut_s(words: Sequence[TimedWord], most_s: float) -> float:
    """Where to cut: the middle of the widest pause in the second half, or else of the last pause.

    If the only pause is before the first word, the cut is where that word begins, so that the next
    cut does not halve the rest of the pause again.
    """
    pauses: list[tuple[float, float]] = []
    spoken_s = 0.0
    for word in words:
        pauses.append((spoken_s, word.start))
        spoken_s = max(spoken_s, word.end)
    pauses.append((spoken_s, math.inf))
    found = [
        (end - begin, min(most_s, (begin + end) / 2), begin)
        for begin, end in pauses
        if begin < most_s and end >= begin and end > 0
    ]
    late = [one for one in found if one[1] >= most_s / 2]
    if late:
        return max(late)[1]
    between = [middle for _, middle, begin in found if begin > 0]
    if between:
        return max(between)
    if not found:
        raise _too_long(most_s)
    return words[0].start


def _too_long(most_s: float) -> UnusableRow:
    return UnusableRow(
        f"there is no pause between words for {most_s:g} s: a word is that long, or words overlap"
    )


def _softest_s(samples: Samples, rate: int) -> float:
    """The middle of the softest tenth of a second in the second half."""
    first, wide = len(samples) // 2, max(1, rate // 10)
    sums = np.concatenate([[0.0], np.cumsum(np.square(samples[first:], dtype=np.float64))])
    if len(sums) <= wide:
        return len(samples) / rate
    power = sums[wide:] - sums[:-wide]
    last = len(power) - 1 - int(power[::-1].argmin())  # the last of equals: silence is cut late
    return (first + last + wide // 2) / rate
