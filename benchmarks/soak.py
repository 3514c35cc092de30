"""One stream for hours, as a client gives it sound: memory, step time, words and what is missing of
them, part by part. `live.py` runs it.

What was heard in a part is counted when the part is over, and forgotten: so if memory grows, it is
not for what is measured.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from instrumented import instrumented
from numpy.typing import NDArray
from talk import Piece, Talk

from kiku import Recognizer
from kiku.evaluate.aligning import word_errors
from kiku.measure.machine import resident_bytes
from kiku.measure.times import Clock, Times
from kiku.scheduler import Member, Opening
from kiku.stream import StreamWarning, WordSession
from kiku.text import Word

PART_S = 1800.0
PARTS_PER_HOUR = 2
CHUNK_S = 0.08
_EARLY_S = 0.3
"""A word may be placed so much before the piece in which it was said."""


@dataclass
class Part:
    """What happens in half an hour of the stream."""

    begins: float
    seconds: list[float] = field(default_factory=list)
    """Of each chunk, until nothing of it waits: a step, and a truncation where one was due."""
    pushes: list[float] = field(default_factory=list)
    words: list[tuple[str, float, float]] = field(default_factory=list)
    """Text, start and end of each that was heard."""
    warnings: Counter[str] = field(default_factory=Counter)
    pieces: list[tuple[float, tuple[str, ...]]] = field(default_factory=list)
    """Where each begins, and what is said in it."""
    speech: list[tuple[float, float]] = field(default_factory=list)
    duration: float = 0.0

    def add(self, piece: Piece, seconds: float) -> None:
        """One more piece of so many seconds."""
        at = self.begins + self.duration
        self.pieces.append((at, piece.words))
        self.speech += [(at + begin, at + end) for begin, end in piece.speech]
        self.duration += seconds


def errors_of(part: Part) -> int:
    """Of all pieces: a word belongs to the piece in which it starts."""
    heard: list[list[str]] = [[] for _ in part.pieces]
    begins = np.array([at for at, _ in part.pieces])
    for text, start, _ in part.words:
        heard[max(0, int(np.searchsorted(begins, start + _EARLY_S, "right")) - 1)].append(text)
    return sum(word_errors(said, got) for (_, said), got in zip(part.pieces, heard, strict=True))


def longest_gap(part: Part) -> float:
    """Seconds of speech between two words heard one after the other, at most. Where nobody speaks
    no time passes."""
    times = np.array([part.begins, *itertools.chain(*part.speech), part.begins + part.duration])
    spoken = np.zeros(len(times))
    spoken[2::2] = [end - begin for begin, end in part.speech]
    passed = np.cumsum(spoken)
    starts = [start for _, start, _ in part.words] + [float(times[-1])]
    ends = [float(times[0])] + [end for _, _, end in part.words]
    gaps = np.interp(starts, times, passed) - np.interp(ends, times, passed)
    return round(float(gaps.max()), 2)


class Soak:
    """One stream, and what becomes of it."""

    def __init__(
        self,
        recognizer: Recognizer,
        talk: Talk,
        *,
        clock: Clock = perf_counter,
        resident: Callable[[], int | None] = resident_bytes,
    ) -> None:
        """Open the stream, which is kept as streams usually are."""
        self._rec, self._notes = instrumented(recognizer, clock=clock)
        self._talk, self._clock, self._resident = talk, clock, resident
        self._rate = recognizer.config.sample_rate
        self._session = WordSession(recognizer.config, recognizer.vocabulary)
        (self._binding,) = self._rec.scheduler.open(Opening([Member(self._session)]))
        self._heard_s = 0.0

    def part(self, seconds: float) -> dict[str, Any]:
        """So many seconds of the talk, and then its row of results."""
        part = Part(self._heard_s)
        for chunk in self._chunks(part, seconds):
            started = self._clock()
            self._session.push(self._session.input.check(chunk))
            part.pushes.append(self._clock() - started)
            self._step(part)
        self._heard_s += part.duration
        return self._row(part)

    def _chunks(self, part: Part, seconds: float) -> Iterator[NDArray[np.float32]]:
        size = round(CHUNK_S * self._rate)
        rest = np.zeros(0, np.float32)
        for piece in self._talk.part(seconds):
            part.add(piece, len(piece.sound) / self._rate)
            sound = np.concatenate([rest, piece.sound])
            whole = len(sound) // size * size
            rest = sound[whole:]
            yield from sound[:whole].reshape(-1, size)
        if len(rest):
            yield rest

    def _step(self, part: Part) -> None:
        started = self._clock()
        while self._rec.scheduler.step():
            pass
        part.seconds.append(self._clock() - started)
        while (event := self._session.next_event()) is not None:
            if isinstance(event, Word):
                part.words.append((event.text, event.start, event.end))
            elif isinstance(event, StreamWarning):
                part.warnings[event.kind] += 1

    def _row(self, part: Part) -> dict[str, Any]:
        truncations, redecodes = self._notes.truncations, self._notes.redecodes
        row = {
            "until_hours": round(self._heard_s / 3600, 3),
            "step": Times.of(part.seconds).to_dict(),
            "push": Times.of(part.pushes).to_dict(),
            "said": sum(len(words) for _, words in part.pieces),
            "words": len(part.words),
            "errors": errors_of(part),
            "longest_gap_s": longest_gap(part),
            "warnings": dict(part.warnings),
            "truncations": len(truncations),
            "truncation": Times.of(truncations).to_dict() if truncations else None,
            "redecodes": len(redecodes),
        }
        self._notes.clear()
        for kept in (part.seconds, part.pushes, part.words, part.pieces, part.speech):
            kept.clear()
        return {**row, "resident_bytes": self._resident()}

    def close(self) -> None:
        """Give the stream up."""
        self._rec.scheduler.release(self._binding)
        self._rec.scheduler.step()


def soak(
    recognizer: Recognizer,
    talk: Talk,
    hours: float,
    *,
    clock: Clock = perf_counter,
    resident: Callable[[], int | None] = resident_bytes,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Hours of the talk in parts of half an hour, two at least.

    Args:
        recognizer: with a slot, all of them free.
        talk: what is heard.
        hours: of it.
        clock: gives seconds.
        resident: gives the memory of this process.
        report: is given lines of progress.
    """
    part_s = min(PART_S, hours * 3600 / 2)
    rows: list[dict[str, Any]] = []
    one = Soak(recognizer, talk, clock=clock, resident=resident)
    try:
        while len(rows) < round(hours * 3600 / part_s):
            rows.append(one.part(part_s))
            report(f"{rows[-1]['until_hours']:g} h: {rows[-1]['words']} words")
    finally:
        one.close()
    return {"hours": hours, "parts": rows, **summary(rows)}


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The end beside the beginning."""
    first, last = rows[0], rows[-1]
    known = first["resident_bytes"] is not None
    return {
        "growth_bytes": last["resident_bytes"] - first["resident_bytes"] if known else None,
        "step_ratio": _ratio(last["step"]["median_ms"], first["step"]["median_ms"]),
        "step_ratio_p99": _ratio(last["step"]["p99_ms"], first["step"]["p99_ms"]),
        "word_error_rate_first_hour": _rate(rows[:PARTS_PER_HOUR]),
        "word_error_rate_last_hour": _rate(rows[-PARTS_PER_HOUR:]),
        "longest_gap_s": max(row["longest_gap_s"] for row in rows),
        "warnings": dict(sum((Counter(row["warnings"]) for row in rows), Counter[str]())),
    }


def _ratio(after: float, before: float) -> float | None:
    return round(after / before, 3) if before else None


def _rate(rows: Sequence[dict[str, Any]]) -> float | None:
    said = sum(row["said"] for row in rows)
    return round(sum(row["errors"] for row in rows) / said, 4) if said else None
