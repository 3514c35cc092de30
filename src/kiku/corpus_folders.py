"""A folder of recordings in a common layout -> which text belongs to which recording.

Known are LibriSpeech, Common Voice, LJSpeech and Kaldi, and folders with a `.txt` beside each
recording. `kiku evaluate` and `kiku train` read these folders here, so both find the same rows, and
report the same faults in the same words.

`lhotse` reads such folders too, but is not used: the caller must say which corpus it is, it takes
only the official names of parts (or a language's folder inside a release), opens every recording to
find its length, and needs soundfile, torch and seven other packages at import. Only names and texts
are needed here, which takes a screen of code for each layout.

This module knows folders. It does not open recordings.
"""

import csv
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path

from kiku.manifest_rows import RECORDINGS
from kiku.writing import reason_of

_LISTED = ".trans.txt"
_TABLES = ("train.tsv", "dev.tsv", "test.tsv", "validated.tsv")
"""Of Common Voice; the last one has all rows of the others."""
_PART_OF_LIBRISPEECH = re.compile(r"(train|dev|test)-(clean|other)(-\d+)?")
_PARTS_OF_LIBRISPEECH = 3
"""Parts of a recording's name: speaker, chapter, utterance, as in 1688-142285-0003."""

TimedText = tuple[str, float, float]
"""A word with its start and end in seconds of the recording."""


class BadCorpus(Exception):
    """Says why a folder cannot be read as a corpus."""


@dataclass(frozen=True, slots=True)
class CorpusRow:
    """A recording, or a part of one, and its text; or what is wrong with one of them."""

    path: Path
    text: str | None = None
    """Empty if nothing is said; None only if there is a fault."""
    words: tuple[TimedText, ...] | None = None
    """None if no times are known."""
    start: float = 0.0
    end: float | None = None
    """None is the end of the file."""
    speaker: str | None = None
    language: str | None = None
    split: str | None = None
    """None if the corpus has no splits."""
    fault: str = ""
    """Why the row cannot be used; empty if it can."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """All rows of a folder."""

    rows: tuple[CorpusRow, ...]
    notes: tuple[str, ...] = field(default=())
    """What a user should know about how it was read."""


Reader = Callable[[Path], Iterator[CorpusRow]]


def read_corpus(folder: Path) -> Corpus:
    """The rows of a folder, in the order of its tables or of its files' names.

    A corpus whose texts are all in capitals, as LibriSpeech's, is read in small letters: its
    capitals say nothing, and a model would learn to write them.

    Raises:
        BadCorpus: the folder is in no known layout, or one of its tables cannot be read.
    """
    try:
        rows = _rows_of(folder)
    except OSError as error:
        raise BadCorpus(f"{folder} cannot be read ({reason_of(error)})") from error
    if rows is None:
        raise BadCorpus(
            f"{folder} does not have the files of a known corpus: LibriSpeech has *.trans.txt in "
            "it, Common Voice clips and a table such as train.tsv, LJSpeech wavs and metadata.csv, "
            "Kaldi wav.scp and text, others a .txt beside each recording; name such a folder, or "
            "write a manifest of JSON lines"
        )
    if not rows:
        raise BadCorpus(f"{folder} has the files of a corpus, but no recordings")
    if not _is_in_capitals(rows):
        return Corpus(tuple(rows))
    note = f"{folder} has all its texts in capitals: they are read in small letters"
    return Corpus(tuple(_lower_case(row) for row in rows), (note,))


def _rows_of(folder: Path) -> list[CorpusRow] | None:
    read = next((read for is_shape, read in _SHAPES if is_shape(folder)), None)
    return None if read is None else _checked(read(folder))


def _checked(rows: Iterator[CorpusRow]) -> list[CorpusRow]:
    """The rows with single spaces in their texts; those that cannot be used have a fault."""
    found: list[CorpusRow] = []
    seen: set[tuple[Path, float, float | None, str | None]] = set()
    for row in rows:
        if row.text is not None:
            row = replace(row, text=" ".join(row.text.split()))
        part = (row.path, row.start, row.end, row.split)  # several splits: see `kiku.train`
        if not row.fault:
            row = replace(row, fault=_fault_of(row, is_second=part in seen))
            seen.add(part)
        found.append(replace(row, text=None, words=None) if row.fault else row)
    return found


def _fault_of(row: CorpusRow, *, is_second: bool) -> str:
    try:
        if not row.path.is_file():
            return "there is no such file, but a text of it"
    except OSError as error:  # its name may be too long
        return f"cannot be read ({reason_of(error)})"
    if row.end is not None and row.end <= row.start:
        return f"ends at {row.end:g} s, which is not after its start at {row.start:g} s"
    return "has two texts: leave one out" if is_second else ""


def _is_in_capitals(rows: Sequence[CorpusRow]) -> bool:
    """Whether most letters are capitals, which many scripts do not have, and none is small."""
    letters = [one for row in rows for one in row.text or "" if one.isalpha() and one != "ß"]
    num_capitals = sum(map(str.isupper, letters))
    return 2 * num_capitals > len(letters) and not any(map(str.islower, letters))


def _lower_case(row: CorpusRow) -> CorpusRow:
    words = row.words and tuple((text.lower(), start, end) for text, start, end in row.words)
    return replace(row, text=row.text and row.text.lower(), words=words)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadCorpus(
            f"{path} is not text in UTF-8 (see byte {error.start}): convert it to UTF-8"
        ) from error
    except OSError as error:
        raise BadCorpus(f"{path} cannot be read ({reason_of(error)})") from error


def _lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """The number, the first word and the rest of each line of a table.

    Kaldi's tables and LibriSpeech's transcripts have this form.
    """
    for number, line in enumerate(_text_of(path).split("\n"), 1):
        if line.strip():
            key, *rest = line.split(None, 1)
            yield number, key, rest[0].strip() if rest else ""


def _files(folder: Path) -> list[Path]:
    """All but those that are hidden, or in a hidden folder."""
    found = (one for one in folder.rglob("*") if one.is_file())
    shown = (one for one in found if not f"/{one.relative_to(folder).as_posix()}".count("/."))
    return sorted(shown)


def _is_recording(path: Path) -> bool:
    return path.suffix.lower() in RECORDINGS


def _is_text(path: Path) -> bool:
    return path.suffix.lower() == ".txt" and not path.name.endswith(_LISTED)


def _text_beside(path: Path) -> Path:
    """Where the text of a recording is, or should be."""
    capital = path.with_suffix(".TXT")
    return capital if capital.is_file() else path.with_suffix(".txt")


def _texts(folder: Path) -> Iterator[CorpusRow]:
    """Rows of LibriSpeech's lists, then of the other recordings with a `.txt` beside them."""
    files = _files(folder)
    sounds = {path.with_suffix(""): path for path in files if _is_recording(path)}
    listed: set[Path] = set()
    for path in files:
        if path.name.endswith(_LISTED):
            rows = _listed(path, folder, sounds)
            listed |= {row.path for row in rows}
            yield from rows
    for path in files:
        if _is_recording(path) and path not in listed:
            yield _with_text_beside(path)
        elif _is_text(path) and path.with_suffix("") not in sounds:
            yield CorpusRow(path, fault="is a text without a recording")


def _listed(path: Path, folder: Path, sounds: dict[Path, Path]) -> list[CorpusRow]:
    """Rows of reader/chapter/reader-chapter.trans.txt and reader-chapter-0000.flac next to it.

    Files in a folder dev-* or test-* belong to that split; above the corpus's own folder only the
    names count that LibriSpeech gives its parts.
    """
    try:
        lines = list(_lines(path))
    except BadCorpus as error:
        return [CorpusRow(path, fault=str(error))]
    whole = folder.resolve()
    inside = (whole.name, *path.relative_to(folder).parts)
    parts = [part for part in whole.parts[:-1] if _PART_OF_LIBRISPEECH.fullmatch(part)]
    parts += [part for part in inside if part.startswith(("train-", "dev-", "test-"))]
    split = parts[-1].partition("-")[0] if parts else None
    rows: list[CorpusRow] = []
    for _, name, text in lines:
        sound = sounds.get(path.parent / name, path.parent / f"{name}.flac")
        cells = name.split("-")
        speaker = cells[0] if len(cells) == _PARTS_OF_LIBRISPEECH else None
        rows.append(CorpusRow(sound, text, speaker=speaker, split=split, language="en"))
    return rows


def _with_text_beside(path: Path) -> CorpusRow:
    """The row of a.wav and a.txt next to it; an empty text if nothing is said."""
    beside = _text_beside(path)
    if not beside.is_file():
        why = f"has no text: write what is said to {beside.name}, and nothing if nothing is said"
        return CorpusRow(path, fault=why)
    try:
        return CorpusRow(path, _text_of(beside))
    except BadCorpus as error:
        return CorpusRow(path, fault=str(error))


def _common_voice(folder: Path) -> Iterator[CorpusRow]:
    """Rows of train.tsv, dev.tsv and test.tsv (or validated.tsv alone) next to clips/."""
    *named, whole = (folder / name for name in _TABLES)
    tables = [path for path in named if path.exists()] or [whole]
    for table in tables:
        split = None if table.stem == "validated" else table.stem
        lines = StringIO(_text_of(table), newline="")
        rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        for row in _readable(rows, table):
            if row.get("path") is None or row.get("sentence") is None:
                raise BadCorpus(f"{table}, line {rows.line_num}, lacks the column path or sentence")
            yield CorpusRow(
                folder / "clips" / row["path"],
                row["sentence"],
                speaker=row.get("client_id"),
                split=split,
                language=row.get("locale") or row.get("lang"),
            )


def _readable(rows: "csv.DictReader[str]", table: Path) -> Iterator[dict[str, str]]:
    try:
        yield from rows
    except csv.Error as error:
        raise BadCorpus(
            f"{table}, line {rows.line_num + 1}, cannot be read ({error}): it must be a table of "
            "cells with tabs between them"
        ) from error


def _ljspeech(folder: Path) -> Iterator[CorpusRow]:
    """Rows of metadata.csv (name|text|text with numbers in words) next to wavs/; one speaker. The
    second text may be empty, and further cells are not texts."""
    table, speaker = folder / "metadata.csv", folder.absolute().name
    with_text: set[Path] = set()
    for number, line in enumerate(_text_of(table).split("\n"), 1):
        if not line.strip():
            continue
        cells = line.split("|")
        if len(cells) < 2:
            raise BadCorpus(f"{table}, line {number}, must contain name|text, not {line[:60]!r}")
        name = cells[0] if _is_recording(Path(cells[0])) else f"{cells[0]}.wav"
        path = folder / "wavs" / name
        with_text.add(path)
        texts = [cell for cell in cells[1:3] if cell.strip()]
        yield CorpusRow(path, texts[-1] if texts else "", speaker=speaker)
    for path in sorted(set((folder / "wavs").glob("*.wav")) - with_text):
        yield CorpusRow(path, speaker=speaker, fault="has no text: metadata.csv does not name it")


@dataclass(frozen=True, slots=True)
class _Segment:
    """A part of a recording."""

    recording: str
    start: float = 0.0
    end: float | None = None


def _kaldi(folder: Path) -> Iterator[CorpusRow]:
    """Rows of wav.scp, text and, if they exist, utt2spk, segments and ctm (times of words).

    Times of a ctm that names segments count from the beginning of the segment, those of one that
    names recordings from the beginning of the recording. If its words differ from the text's, the
    text is kept and the times are dropped.
    """
    recordings = _recordings(folder)
    speakers = {name: who for _, name, who in _optional(folder / "utt2spk")}
    segments = _segments(folder / "segments") or {name: _Segment(name) for name in recordings}
    times = _ctm(folder / "ctm") if (folder / "ctm").exists() else {}
    texts: dict[str, str | None] = {name: text for _, name, text in _lines(folder / "text")}
    # Segments without a text get a row too, so that they are reported.
    for name, text in {**texts, **{one: None for one in segments if one not in texts}}.items():
        part = segments.get(name, _Segment(name))
        if part.recording not in recordings:
            raise BadCorpus(
                f"{folder / 'text'} names {part.recording}, which is missing in wav.scp"
            )
        words = _words_of(name, part, times)
        fits = [one.casefold() for one, _, _ in words] == (text or "").casefold().split()
        yield CorpusRow(
            recordings[part.recording],
            text,
            tuple(words) if words and fits else None,
            part.start,
            part.end,
            speaker=speakers.get(name),
            fault=f"has no text: there is no line {name} in text" if text is None else "",
        )


def _words_of(name: str, part: _Segment, times: dict[str, list[TimedText]]) -> list[TimedText]:
    """The timed words of a segment, in seconds of the recording."""
    if name in times:
        return [(word, part.start + start, part.start + end) for word, start, end in times[name]]
    last = math.inf if part.end is None else part.end
    return [word for word in times.get(part.recording, []) if part.start <= word[1] < last]


def _recordings(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for _, name, where in _lines(folder / "wav.scp"):
        if where.endswith("|"):
            raise BadCorpus(
                f"{folder / 'wav.scp'} makes {name} with a command ({where[:40]}...): write it to "
                "a file and name that"
            )
        found[name] = folder / where
    return found


def _segments(path: Path) -> dict[str, _Segment]:
    """Segments by name, from lines "name recording start end"."""
    found: dict[str, _Segment] = {}
    for number, name, rest in _optional(path):
        cells = rest.split()
        if len(cells) < 3:
            raise BadCorpus(f"{path}, line {number}, must contain name recording start end")
        start = _seconds(cells[1], path, number)
        end = _seconds(cells[2], path, number, least=-math.inf)
        found[name] = _Segment(cells[0], start, None if end < 0 else end)  # -1 is the end
    return found


def _optional(path: Path) -> Iterator[tuple[int, str, str]]:
    return _lines(path) if path.exists() else iter(())


def _ctm(path: Path) -> dict[str, list[TimedText]]:
    """Words by recording, in order, from lines "recording channel start duration word"."""
    found: dict[str, list[TimedText]] = {}
    for number, name, rest in _lines(path):
        cells = rest.split()
        if len(cells) < 4:
            raise BadCorpus(f"{path}, line {number}, must contain name channel start duration word")
        start, length = (_seconds(cell, path, number) for cell in cells[1:3])
        found.setdefault(name, []).append((cells[3], start, round(start + length, 4)))
    return {name: sorted(words, key=lambda word: word[1]) for name, words in found.items()}


def _seconds(cell: str, path: Path, number: int, *, least: float = 0.0) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < least:
        wanted = f" from {least:g} on" if math.isfinite(least) else ""
        raise BadCorpus(f"{path}, line {number}: {cell!r} is not a number of seconds{wanted}")
    return value


def _has(folder: Path, sounds: str, *tables: str) -> bool:
    """Whether there is a folder of this name, and one of the tables beside it. Folders of other
    layouts may have a table of such a name, too."""
    return (folder / sounds).is_dir() and any((folder / table).exists() for table in tables)


def _has_texts(folder: Path) -> bool:
    return any(
        path.name.endswith(_LISTED) or (_is_recording(path) and _text_beside(path).is_file())
        for path in _files(folder)
    )


_SHAPES: tuple[tuple[Callable[[Path], bool], Reader], ...] = (
    (lambda folder: (folder / "wav.scp").exists() and (folder / "text").exists(), _kaldi),
    (lambda folder: _has(folder, "wavs", "metadata.csv"), _ljspeech),
    (lambda folder: _has(folder, "clips", *_TABLES), _common_voice),
    (_has_texts, _texts),
)
