"""Manifests and folders -> utterances, which are recordings with their texts, and the problems of
the other rows.

A manifest has a JSON object on each line; folders are read by `kiku.corpus_folders`. A row that
cannot be used becomes a `Problem`, and the others are evaluated all the same. No sound is opened
here: whether a recording can be read turns out when it is run.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from kiku.corpus_folders import BadCorpus, CorpusRow, read_corpus
from kiku.errors import InputError
from kiku.manifest_rows import (
    PATHS,
    TEXTS,
    BadRow,
    path_in,
    row_of,
    seconds_in,
    shown,
    text_in,
    words_in,
)
from kiku.writing import reason_of

_OWN = {*PATHS, *TEXTS, "id", "words", "turns", "start", "end"}
"""Fields of a row by which no groups are made."""

MAX_WORDS = 100_000
"""Words, or turns, that one row may have."""


@dataclass(frozen=True, slots=True)
class Span:
    """The time during which something is said, in seconds of the file."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """A word of a reference, with the time at which it is said."""

    text: str
    start: float
    """Seconds of the file."""
    end: float


@dataclass(frozen=True, slots=True)
class Utterance:
    """A recording, or a part of one, and what is said in it."""

    id: str
    """Unique in all manifests of a run."""
    path: Path
    text: str
    """Empty where nothing is said."""
    start_s: float = 0.0
    """Where in the file it begins."""
    end_s: float | None = None
    """Where it ends; None is the end of the file."""
    words: tuple[SpokenWord, ...] = ()
    """The words with their times, if these are known."""
    turns: tuple[Span, ...] = ()
    """When each speaker's turn begins and ends, if that is known."""
    fields: Mapping[str, str] = field(default_factory=dict[str, str])
    """The other fields of the row, such as language, speaker and split, to make groups by."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be evaluated, and why."""

    where: str
    """A row of a manifest, or an utterance's id."""
    message: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """All rows of some manifests."""

    utterances: tuple[Utterance, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    """What a user should know about how folders were read."""


def read_manifests(
    paths: Sequence[str | Path], *, only: Mapping[str, str] | None = None
) -> Manifest:
    """Read manifests, in order.

    Args:
        paths: files of JSON lines, or folders as LibriSpeech, Common Voice, LJSpeech or Kaldi have
            them, or with a `.txt` beside each recording.
        only: fields and the values that they must have.

    Raises:
        InputError: a path does not exist, or is neither of these; or no row can be used (the error
            says why the first cannot).
    """
    found: dict[str, Utterance] = {}
    problems: list[Problem] = []
    notes: list[str] = []
    num_left_out, only = 0, only or {}
    if "" in paths:  # which would be the current folder
        raise InputError("the name of the manifest is empty: name a file or folder")
    for path in map(Path, paths):
        for item in _rows(path, only, notes):
            if isinstance(item, Problem):
                problems.append(item)
            elif any(item.fields.get(name) != value for name, value in only.items()):
                num_left_out += 1
            elif item.id in found:
                why = "occurs twice: leave one out, or give each an id of its own"
                problems.append(Problem(item.id, why))
            else:
                found[item.id] = item
    if not found:
        raise InputError(_nothing(paths, problems, num_left_out))
    return Manifest(tuple(found.values()), tuple(problems), tuple(notes))


def _nothing(paths: Sequence[str | Path], problems: Sequence[Problem], num_left_out: int) -> str:
    named = ", ".join(map(str, paths)) or "no manifest was named"
    found: list[str] = []
    if num_left_out:
        found.append(f"none of {num_left_out} rows has the values that were asked for")
    if problems:
        found.append(
            f"none of {len(problems)} {'other ' if found else ''}rows can be evaluated; the first, "
            f"{problems[0].where}: {problems[0].message}"
        )
    if found:
        return f"{named}: {'; '.join(found)}"
    return f"{named}: there are no rows in it"


def _rows(path: Path, only: Mapping[str, str], notes: list[str]) -> Iterator[Utterance | Problem]:
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if is_folder:
        yield from _from_folder(path, only, notes)
        return
    if not exists:
        raise InputError(f"{path}: no such manifest or folder; check the name")
    yield from _from_lines(path)


def _from_folder(
    folder: Path, only: Mapping[str, str], notes: list[str]
) -> Iterator[Utterance | Problem]:
    """The rows of a folder; faults of rows that are not asked for are left out."""
    try:
        corpus = read_corpus(folder)
    except BadCorpus as error:
        raise InputError(str(error)) from error
    notes += corpus.notes
    for row in corpus.rows:
        fields = _corpus_fields(row)
        inside = row.path.is_relative_to(folder)
        name = (row.path.relative_to(folder) if inside else row.path).as_posix()
        row_id = _part_id(name, row.start, row.end)
        if row.fault:
            if all(fields.get(key, value) == value for key, value in only.items()):
                yield Problem(row_id, row.fault)
            continue
        words = tuple(SpokenWord(*word) for word in row.words or ())
        yield Utterance(row_id, row.path, row.text or "", row.start, row.end, words, fields=fields)


def _corpus_fields(row: CorpusRow) -> dict[str, str]:
    known = {"speaker": row.speaker, "language": row.language, "split": row.split}
    return {name: value for name, value in known.items() if value}


def _from_lines(path: Path) -> Iterator[Utterance | Problem]:
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: is not text ({error.reason} at byte {error.start}); a manifest has a JSON "
            "object on each line"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason_of(error)})") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _row(line, path.parent)
        except BadRow as error:
            yield Problem(f"{path.name}, line {number}", str(error))


def _row(line: str, folder: Path) -> Utterance:
    row = row_of(line)
    name = path_in(row)
    path = folder / name
    _check_file(path, name)
    words = tuple(_words(row))
    text = text_in(row, TEXTS)
    if text is None and words:
        text = " ".join(word.text for word in words)
    if text is None:
        raise BadRow('has no text: write "text": "" where nothing is said')
    start_s = seconds_in(row, "start") or 0.0
    end_s = seconds_in(row, "end")
    if end_s is not None and end_s <= start_s:
        raise BadRow(f"ends at {end_s} s, which is not after its start at {start_s} s")
    return Utterance(
        id=_id(row, name, start_s, end_s), path=path, text=text.strip(), start_s=start_s,
        end_s=end_s, words=words, turns=tuple(_turns(row.get("turns"))), fields=_fields(row),
    )  # fmt: skip


def _check_file(path: Path, name: str) -> None:
    try:
        path.stat()
        is_file = path.is_file()
    except FileNotFoundError:
        is_file = False
    except (OSError, ValueError) as error:
        raise BadRow(f"{shown(name)} cannot be read ({error})") from error
    if not is_file:
        raise BadRow(f"there is no file {name}; paths are relative to the manifest")


def _id(row: Mapping[str, Any], name: str, start_s: float, end_s: float | None) -> str:
    given = row.get("id")
    if given is not None:
        if not (isinstance(given, str | int) and str(given).strip()):
            raise BadRow(f'"id" must be a name, not {shown(given)}')
        return str(given)
    return _part_id(name, start_s, end_s)


def _part_id(name: str, start_s: float, end_s: float | None) -> str:
    if not start_s and end_s is None:
        return name
    return f"{name} {_exact(start_s)}-{'' if end_s is None else _exact(end_s)}"


def _exact(seconds: float) -> str:
    """Seconds with all their digits, so that neighbouring parts have different ids."""
    return repr(seconds).removesuffix(".0")


def _items(value: Any, name: str) -> list[Mapping[str, Any]]:
    if value is None:
        return []
    items = cast("list[Any]", value if isinstance(value, list) else [None])
    if not all(isinstance(one, dict) for one in items) or len(items) > MAX_WORDS:
        raise BadRow(f'"{name}" must be a list of at most {MAX_WORDS} objects')
    return items


def _span(one: Mapping[str, Any], what: str) -> tuple[float, float]:
    start, end = seconds_in(one, "start"), seconds_in(one, "end")
    if start is None or end is None:
        raise BadRow(f"{what} has no times: it needs start and end")
    if end < start:
        raise BadRow(f"{what} ends at {end} s, before its start at {start} s")
    return start, end


def _words(row: Mapping[str, Any]) -> Iterator[SpokenWord]:
    before = 0.0
    words = words_in(row) or []
    if len(words) > MAX_WORDS:
        raise BadRow(f'"words" must have at most {MAX_WORDS} items, not {len(words)}')
    for number, (text, start, end) in enumerate(words, 1):
        if not text.strip():
            raise BadRow(f"word {number} has no text")
        if end < start:
            raise BadRow(f"word {number} ({text}) ends at {end} s, before its start at {start} s")
        if start < before:
            raise BadRow(
                f"word {number} ({text}) begins at {start} s, before the word before it at "
                f"{before} s: words must be in the order of time"
            )
        before = start
        yield SpokenWord(text.strip(), start, end)


def _turns(value: Any) -> Iterator[Span]:
    before = 0.0
    for number, one in enumerate(_items(value, "turns"), 1):
        start, end = _span(one, f"turn {number}")
        if start < before:
            raise BadRow(f"turn {number} begins at {start} s, before the end of the last turn")
        before = end
        yield Span(start, end)


def _fields(row: Mapping[str, Any]) -> dict[str, str]:
    """Fields to make groups by: those whose values are text or numbers."""
    return {
        str(name): str(value)
        for name, value in row.items()
        if name not in _OWN and isinstance(value, str | int | float)
    }
