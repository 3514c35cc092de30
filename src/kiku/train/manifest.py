"""A manifest, the list of recordings to learn from: a JSON object a line for each (part of) one.

    {"path": "a.wav", "words": [["hello", 0.32, 0.71], ["you", 0.80, 1.02]], "speaker": "ann"}

    path        path of the recording, relative to the manifest's folder
    words       each with its start and end in seconds of the recording, or an object with text,
                start and end; [] where nobody speaks
    text        the text, if the times of its words are not known yet
    start, end  seconds, if only a part of the recording is used
    language, speaker, split    the split is "train" if none is given
    keep        true if the model should keep the output that it had before training; this row
                needs no words: without any, its text is what the model writes by itself

Other keys are for other commands, as the groups of `kiku evaluate`, and are kept as they are.

Knows rows; does not open recordings.
"""

import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from unicodedata import normalize

from kiku.errors import TrainingError
from kiku.manifest_rows import (
    PATHS,
    SECONDS,
    TEXTS,
    BadRow,
    flag_in,
    path_in,
    row_of,
    seconds_in,
    text_in,
    words_in,
)
from kiku.train.letters import letters_of
from kiku.writing import reason_of

_KEYS = (*PATHS, *TEXTS, "words", "start", "end", "language", "speaker", "split", "keep")
"""Keys that are read here."""
_OTHERS = ("id", "turns", *SECONDS)
"""Keys that other commands read."""
_TOUCHING_S = 0.01
"""Seconds; parts that overlap by no more only touch: their times were rounded."""

_ALIKE = 0.8
"""Similarity to a key from which an unknown key counts as a misspelling of it."""


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word, and when it is spoken, in seconds."""

    text: str
    start: float
    end: float

    def moved(self, seconds: float, speed: float = 1.0) -> "TimedWord":
        """The word in a sound that is played `speed` times as fast, then moved by `seconds`."""
        return TimedWord(self.text, self.start / speed + seconds, self.end / speed + seconds)


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One recording, or part of one, and what is spoken in it."""

    path: Path
    text: str | None = None
    words: tuple[TimedWord, ...] | None = None
    """None if no times are known. Times count from the beginning of the file."""
    start: float = 0.0
    end: float | None = None
    """None is the end of the file."""
    language: str | None = None
    speaker: str | None = None
    split: str = "train"
    keep: bool = False
    """With `loss.keep` the model keeps the output that it had for this row before training."""
    others: Mapping[str, Any] = field(default_factory=dict[str, Any], compare=False)
    """Values in the line for other commands, unchanged."""
    fault: str = ""
    """Why the row of a folder cannot be used; empty if it can."""

    @property
    def label(self) -> str:
        """Name of the row in reports."""
        part = f" from {self.start:g} s" if self.start or self.end is not None else ""
        return f"{self.path}{part}"

    @property
    def has_no_text(self) -> bool:
        """Whether the row has no text, so that the model's own output takes its place."""
        return self.keep and self.words is None and self.text is None

    def to_dict(self) -> dict[str, Any]:
        """The values of a manifest's line, with the whole path."""
        found: dict[str, Any] = {"path": str(self.path.absolute())}
        if self.words is not None:
            found["words"] = [[word.text, word.start, word.end] for word in self.words]
        if self.text is not None:
            found["text"] = self.text
        if self.start:
            found["start"] = self.start
        for name in ("end", "language", "speaker"):
            if getattr(self, name) is not None:
                found[name] = getattr(self, name)
        found["split"] = self.split
        return {**found, "keep": True} if self.keep else found


def read_training_manifest(path: Path) -> list[TrainingRow]:
    """The rows of a file of JSON lines.

    Raises:
        TrainingError: the file cannot be read, or a line is no row; the error names it.
    """
    rows: list[TrainingRow] = []
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    rows.append(_row(line, path.parent))
                except BadRow as error:
                    raise TrainingError(f"{path}, line {number}: {error}") from error
    except OSError as error:
        raise TrainingError(f"{path} cannot be read ({reason_of(error)})") from error
    except UnicodeDecodeError as error:
        raise TrainingError(f"{path} is not text in UTF-8: it must contain JSON lines") from error
    if not rows:
        raise TrainingError(
            f"{path} contains no rows: write one JSON object on a line for each recording"
        )
    return rows


def write_manifest(rows: Iterable[TrainingRow], path: Path) -> None:
    """Write one line for each row.

    Raises:
        TrainingError: it cannot be written.
    """
    from kiku.train.atomic_files import durable

    with durable(path) as beside, beside.open("w", encoding="utf-8") as file:
        for row in rows:
            values = {**row.others, **row.to_dict()}
            file.write(json.dumps(values, ensure_ascii=False) + "\n")


def refuse_shared_splits(rows: Sequence[TrainingRow]) -> None:
    """Check that no speaker, and no part of a recording, is in two splits.

    Raises:
        TrainingError: something is; the error names it.
    """
    _refuse_shared_speakers(rows)
    _refuse_shared_sound(rows)


def _refuse_shared_speakers(rows: Sequence[TrainingRow]) -> None:
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.speaker is not None:
            splits[row.speaker].add(row.split)
    shared = sorted(speaker for speaker, found in splits.items() if len(found) > 1)
    if shared:
        named = ", ".join(f"{one} ({' and '.join(sorted(splits[one]))})" for one in shared[:10])
        more = f" and {len(shared) - 10} more" if len(shared) > 10 else ""
        raise TrainingError(
            f"these speakers are in two splits: {named}{more}; put each speaker in one split, or "
            "the figures on the held-out ones mean nothing"
        )


def _refuse_shared_sound(rows: Sequence[TrainingRow]) -> None:
    files: defaultdict[str, list[TrainingRow]] = defaultdict(list)
    for row in rows:
        files[os.path.abspath(row.path)].append(row)
    for parts in files.values():
        ends: dict[str, float] = {}  # of the parts so far, by split
        for row in sorted(parts, key=lambda one: one.start):
            begins = row.start + _TOUCHING_S
            other = next((s for s, end in ends.items() if s != row.split and begins < end), None)
            if other is not None:
                raise TrainingError(
                    f"{row.label} is in two splits, {other} and {row.split}: put each part of a "
                    "recording in one split, or the figures on the held-out ones mean nothing"
                )
            end = math.inf if row.end is None else row.end
            ends[row.split] = max(end, ends.get(row.split, 0.0))


def refuse_untimed(rows: Sequence[TrainingRow]) -> None:
    """Check that every text has times of its words: training needs them.

    Raises:
        TrainingError: rows have a text without times.
    """
    untimed = [row for row in rows if row.words is None and (row.text or "").strip()]
    if untimed:
        raise TrainingError(
            f"{len(untimed)} of {len(rows)} rows have a text but no times of its words (the first "
            f"is {untimed[0].label}): give words as [[word, start, end], ...], or first run  kiku "
            "train align  on the manifest"
        )


def _row(line: str, folder: Path) -> TrainingRow:
    """The row of a line; raises BadRow."""
    given = row_of(line)
    for key in given:
        if (meant := _slip_of(key, given)) is not None:
            raise BadRow(f"has a key {key!r} that is not known; did you mean {meant!r}?")
    start, end, words = seconds_in(given, "start") or 0.0, seconds_in(given, "end"), words_in(given)
    if end is not None and end <= start:
        raise BadRow(f"ends at {end:g} s, which is not after its start at {start:g} s")
    return TrainingRow(
        folder / path_in(given),
        text_in(given, TEXTS),
        None if words is None else tuple(TimedWord(*word) for word in words),
        start,
        end,
        text_in(given, ["language"]),
        text_in(given, ["speaker"]),
        _split_in(given),
        flag_in(given, "keep"),
        {name: value for name, value in given.items() if name not in _KEYS},
    )


def _slip_of(key: str, given: Mapping[str, Any]) -> str | None:
    """The known key that an unknown one seems to be a misspelling of; else None."""
    if key in (*_KEYS, *_OTHERS):
        return None
    near = get_close_matches(key.lower(), _KEYS, 1, _ALIKE)
    # speaker_id and sentence_id are names of their own; so is any name if the known key is given.
    if not near or near[0] in given or key.startswith(f"{near[0]}_"):
        return None
    return near[0]


def _split_in(given: Mapping[str, Any]) -> str:
    """The split of a row; raises BadRow."""
    split = text_in(given, ["split"]) or "train"
    if not re.fullmatch(r"\w[\w.-]*", split):  # names of files begin with it
        raise BadRow(f"has the split {split!r}: use only letters, digits, _ - and .")
    return split


def problem_of(row: TrainingRow) -> str | None:
    """What is wrong with a row, as far as this shows without its sound; None if nothing is."""
    if row.fault:
        return row.fault
    if row.has_no_text:
        return None
    if row.words is None:
        return None if (row.text or "").strip() == "" and row.text is not None else "no transcript"
    if not row.words and (row.text or "").strip():
        return "a text, but an empty list of words: leave the list out, or the text"
    if (row.text or "").strip() and (differs := _differs(row.text or "", row.words)) is not None:
        return f"{differs}: correct one of the two, or leave the text out if the words are right"
    before: TimedWord | None = None
    for word in row.words:
        if not word.text.strip():
            return f"an empty word at {word.start:g} s"
        if word.end <= word.start:
            return f"{word.text!r} ends at {word.end:g} s, not after its start at {word.start:g} s"
        if before is not None and word.start < before.start:
            return (
                f"words out of order: {word.text!r} begins at {word.start:g} s, "
                f"before {before.text!r} at {before.start:g} s"
            )
        if word.start < row.start or (row.end is not None and word.start >= row.end):
            return (
                f"{word.text!r} at {word.start:g} s is outside the part of the recording that the "
                "row is about"
            )
        before = word
    return None


def _differs(text: str, words: Sequence[TimedWord]) -> str | None:
    """How words differ from a text in more than spaces, case and punctuation; None if they do not.

    Such words would be taught in the place of the text.
    """
    wanted, at = letters_of(normalize("NFC", text)), 0
    for word in words:
        letters = letters_of(normalize("NFC", word.text))
        if not wanted.startswith(letters, at):
            return f"{word.text!r} at {word.start:g} s is not the next word of its text"
        at += len(letters)
    if at == len(wanted):
        return None
    return f"its text goes on after {words[-1].text!r}, its last word"
