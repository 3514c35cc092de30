"""A bank of snippets: short pieces of speech with the start and end of each vocabulary word."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kiku.writing import in_place_of
from recipes.demo.corpus import SAMPLE_RATE, VOCABULARY, Corpus, Recording

MARGIN_BEFORE_S = 0.10
MARGIN_AFTER_S = 0.14
"""Seconds of sound kept before and after a word, as far as the recording has them."""

_HOP = 240
WORD_INDEX = {word: i for i, word in enumerate(VOCABULARY)}


@dataclass(frozen=True, slots=True)
class WordSpan:
    """A vocabulary word and where it is, in seconds."""

    word: int
    start_s: float
    end_s: float

    def moved(self, by_s: float, *, speed: float = 1.0) -> "WordSpan":
        """The span in sound that is played `speed` times as fast, then delayed by `by_s`."""
        return WordSpan(self.word, self.start_s / speed + by_s, self.end_s / speed + by_s)


@dataclass(frozen=True, slots=True)
class Snippet:
    """A piece of speech in a `Bank`.

    Attributes:
        kind: "whole" (recordings of single words, untrimmed), "real" and "voice" (single words of
            people, of synthetic voices), "usual" (single words of default synthetic voices), "cut"
            (words inside sentences), "said" (several words by a synthetic voice), "other" (speech
            without vocabulary words).
        begin, end: range of its samples in the bank's file.
        spans: the vocabulary words in it.
    """

    kind: str
    speaker: str
    begin: int
    end: int
    spans: tuple[WordSpan, ...]

    @property
    def seconds(self) -> float:
        """Its length in seconds."""
        return (self.end - self.begin) / SAMPLE_RATE


class Bank:
    """Snippets and their samples, int16 (float16 would not clip, but takes time to convert)."""

    def __init__(self, snippets: list[Snippet], samples: np.ndarray) -> None:
        """`samples` is int16 [S]."""
        self.snippets, self.samples = snippets, samples

    def audio(self, snippet: Snippet) -> np.ndarray:
        """float32 [S] in [-1, 1]."""
        return self.samples[snippet.begin : snippet.end].astype(np.float32) / 32768.0

    def save(self, folder: Path) -> None:
        """Write `snippets.i16` and, when that is complete, `snippets.jsonl`.

        Without `snippets.jsonl` there is no bank, so an old one is never read with other samples.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "snippets.jsonl").unlink(missing_ok=True)
        with in_place_of(folder / "snippets.i16") as part:
            self.samples.tofile(part)
        with in_place_of(folder / "snippets.jsonl") as part:
            part.write_text("".join(json.dumps(_row(s)) + "\n" for s in self.snippets))

    @classmethod
    def load(cls, folder: Path) -> "Bank":
        """Read what `save` wrote; the samples stay on disk."""
        rows = [json.loads(line) for line in (folder / "snippets.jsonl").read_text().splitlines()]
        snippets = [
            Snippet(
                r["kind"],
                r["speaker"],
                r["begin"],
                r["end"],
                tuple(WordSpan(**p) for p in r["places"]),
            )
            for r in rows
        ]
        path = folder / "snippets.i16"
        if not path.stat().st_size:  # no snippets: nothing to map
            return cls(snippets, np.zeros(0, np.int16))
        return cls(snippets, np.memmap(path, dtype=np.int16, mode="r"))


def _row(snippet: Snippet) -> dict[str, Any]:
    """A line of `snippets.jsonl`, where the spans are called places."""
    row = asdict(snippet)
    row["places"] = row.pop("spans")
    return row


def joined(banks: list[Bank]) -> Bank:
    """One bank of all snippets of `banks`, of which there is at least one."""
    snippets: list[Snippet] = []
    shift = 0
    for bank in banks:
        snippets += [
            Snippet(s.kind, s.speaker, s.begin + shift, s.end + shift, s.spans)
            for s in bank.snippets
        ]
        shift += len(bank.samples)
    return Bank(snippets, np.concatenate([bank.samples for bank in banks]))


class BankWriter:
    """Collects snippets."""

    def __init__(self) -> None:
        """Begin empty."""
        self._snippets: list[Snippet] = []
        self._parts: list[np.ndarray] = []
        self._position = 0

    def add(self, kind: str, speaker: str, samples: np.ndarray, spans: Iterable[WordSpan]) -> None:
        """Add float32 samples [S], scaled to a peak of 0.7, and the words in them."""
        peak = float(np.abs(samples).max(initial=0.0))
        if peak < 1e-4:
            return
        data = (samples * (0.7 * 32767.0 / peak)).astype(np.int16)
        self._parts.append(data)
        end = self._position + len(data)
        self._snippets.append(Snippet(kind, speaker, self._position, end, tuple(spans)))
        self._position = end

    def finish(self) -> Bank:
        """The bank."""
        return Bank(
            self._snippets, np.concatenate(self._parts) if self._parts else np.zeros(0, np.int16)
        )


def find_word(samples: np.ndarray) -> tuple[float, float] | None:
    """Find the single word of a recording by its energy.

    Args:
        samples: float32 [S].

    Returns:
        start and end in seconds, or None if no stretch of speech stands out, or if it touches the
        recording's beginning (the recording is then cut off).
    """
    count = len(samples) // _HOP
    if count < 12:
        return None
    power = np.mean(samples[: count * _HOP].reshape(count, _HOP) ** 2, axis=1)
    level = 10 * np.log10(np.convolve(power, np.ones(3) / 3, "same") + 1e-9)
    floor, peak = np.percentile(level, 10), level.max()
    if peak - floor < 10:
        return None
    loud = level > max(peak - 32, floor + 0.2 * (peak - floor))
    runs = _runs(loud)
    merged: list[list[int]] = []
    for first, last in runs:
        if merged and first - merged[-1][1] <= 16:  # the closure of a stop, as in "eight" or "six"
            merged[-1][1] = last
        else:
            merged.append([first, last])
    first, last = max(merged, key=lambda run: power[run[0] : run[1]].sum())
    if last - first < 12 or last - first > 110 or (first == 0 and level[0] > peak - 15):
        return None
    return max(0.0, (first - 1) * 0.01), min(count, last + 1) * 0.01


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def cut(
    samples: np.ndarray,
    spans: list[WordSpan],
    *,
    before_s: float = MARGIN_BEFORE_S,
    after_s: float = MARGIN_AFTER_S,
) -> tuple[np.ndarray, list[WordSpan]]:
    """The samples from the first span to the last, with a margin, and the spans within them."""
    first = max(0, int((spans[0].start_s - before_s) * SAMPLE_RATE))
    last = min(len(samples), int((spans[-1].end_s + after_s) * SAMPLE_RATE))
    return samples[first:last], [span.moved(-first / SAMPLE_RATE) for span in spans]


def single_words(corpus: Corpus, recordings: list[Recording]) -> Bank:
    """Recordings of one vocabulary word each, trimmed."""
    writer = BankWriter()
    for recording in recordings:
        if len(recording.words) != 1 or recording.words[0] not in WORD_INDEX:
            continue
        sound = corpus.audio(recording)
        found = find_word(sound)
        if found is not None:
            piece, spans = cut(sound, [WordSpan(WORD_INDEX[recording.words[0]], *found)])
            writer.add("real", recording.speaker, piece, spans)
    return writer.finish()


def whole_words(corpus: Corpus, recordings: list[Recording]) -> Bank:
    """Recordings of one vocabulary word each, untrimmed: with all the sound around the word."""
    writer = BankWriter()
    for recording in recordings:
        if len(recording.words) != 1 or recording.words[0] not in WORD_INDEX:
            continue
        sound = corpus.audio(recording)
        found = find_word(sound)
        if found is not None and recording.seconds < 2.5:
            writer.add(
                "whole",
                recording.speaker,
                sound,
                [WordSpan(WORD_INDEX[recording.words[0]], *found)],
            )
    return writer.finish()
