"""Folders in common formats -> rows: LibriSpeech, Common Voice, LJSpeech, Kaldi; `.txt` files.

`lhotse` reads these too, but is not used: the caller must say which corpus it is, it takes only the
official names of parts (or a language's folder inside a release), opens every recording to find its
length, and needs soundfile, torch and seven other packages at import. Only names and texts are
needed here, which takes a screen of code for each format.

Knows folders; recordings are not opened.
"""

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

from kiku.errors import TrainingError
from kiku.manifest_rows import RECORDINGS
from kiku.train.manifest import TimedWord, TrainingRow, read_training_manifest
from kiku.writing import reason_of

Reader = Callable[[Path], Iterator[TrainingRow]]


def read_rows(
    source: Path, on_note: Callable[[str], None] = lambda line: None
) -> list[TrainingRow]:
    """The rows of a manifest, or of a folder in a known format.

    A corpus whose texts are all in capitals, as LibriSpeech's, is read in small letters: its
    capitals say nothing, and a model would learn to write them. A manifest is read as it is.

    Args:
        source: a file of JSON lines, or a folder.
        on_note: is called with a line if texts are changed.

    Raises:
        TrainingError: it is neither, or its content is invalid.
    """
    if not source.is_dir():
        return read_training_manifest(source)
    for is_shape, read in _SHAPES:
        if is_shape(source):
            try:
                rows = list(read(source))
            except OSError as error:
                raise TrainingError(f"{source} cannot be read ({reason_of(error)})") from error
            if not rows:
                raise TrainingError(f"{source} has the files of a corpus, but no recordings")
            if not _is_in_capitals(rows):
                return rows
            on_note(f"{source} has all its texts in capitals: they are read in small letters")
            return [_lower_case(row) for row in rows]
    raise TrainingError(
        f"{source} does not have the files of a known corpus: LibriSpeech has *.trans.txt in it, "
        "Common Voice validated.tsv or train.tsv, LJSpeech metadata.csv, Kaldi wav.scp and text, "
        "others a .txt beside each recording; name such a folder, or write a manifest of JSON lines"
    )


def _is_in_capitals(rows: Sequence[TrainingRow]) -> bool:
    texts = [row.text or "" for row in rows]
    some = any(letter.isupper() for text in texts for letter in text)
    return some and not any(letter.islower() for text in texts for letter in text)


def _lower_case(row: TrainingRow) -> TrainingRow:
    words = row.words and tuple(replace(word, text=word.text.lower()) for word in row.words)
    return replace(row, text=row.text and row.text.lower(), words=words)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TrainingError(
            f"{path} is not text in UTF-8 (see byte {error.start}): convert it to UTF-8"
        ) from error


def _lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """The number, the first word and the rest of each line of a table.

    Kaldi's tables and LibriSpeech's transcripts have this form.
    """
    for number, line in enumerate(_text_of(path).splitlines(), 1):
        if line.strip():
            key, *rest = line.split(None, 1)
            yield number, key, rest[0].strip() if rest else ""


def _librispeech(folder: Path) -> Iterator[TrainingRow]:
    """Rows of reader/chapter/reader-chapter.trans.txt and reader-chapter-0000.flac next to it.

    Files in a folder dev-* or test-* belong to that split.
    """
    for transcript in sorted(folder.rglob("*.trans.txt")):
        parts = [part for part in transcript.parts if part.startswith(("train-", "dev-", "test-"))]
        split = parts[-1].partition("-")[0] if parts else "train"
        chapter = transcript.name.removesuffix(".trans.txt")
        texts: dict[str, str | None] = {name: text for _, name, text in _lines(transcript)}
        found = [*transcript.parent.glob("*.flac"), *transcript.parent.glob("*.wav")]
        without_text = sorted(one.stem for one in found if one.stem.startswith(f"{chapter}-"))
        for name, text in {
            **texts,
            **{one: None for one in without_text if one not in texts},
        }.items():
            path = transcript.parent / f"{name}.flac"
            if not path.exists() and path.with_suffix(".wav").exists():
                path = path.with_suffix(".wav")
            yield TrainingRow(
                path, text, speaker=name.partition("-")[0], split=split, language="en"
            )


def _common_voice(folder: Path) -> Iterator[TrainingRow]:
    """Rows of train.tsv, dev.tsv and test.tsv (or validated.tsv alone) next to clips/."""
    named = [folder / f"{split}.tsv" for split in ("train", "dev", "test")]
    tables = [path for path in named if path.exists()] or [folder / "validated.tsv"]
    for table in tables:
        split = "train" if table.stem == "validated" else table.stem
        lines = StringIO(_text_of(table), newline="")
        rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        for row in _readable(rows, table):
            if row.get("path") is None or row.get("sentence") is None:
                raise TrainingError(f"{table} lacks the column path or sentence")
            yield TrainingRow(
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
        raise TrainingError(
            f"{table}, line {rows.line_num + 1}, cannot be read ({error}): it must be a table of "
            "cells with tabs between them"
        ) from error


def _ljspeech(folder: Path) -> Iterator[TrainingRow]:
    """Rows of metadata.csv (name|text|text with numbers in words) next to wavs/; one speaker."""
    table = folder / "metadata.csv"
    with_text: set[Path] = set()
    for number, line in enumerate(_text_of(table).splitlines(), 1):
        cells = line.split("|")
        if len(cells) < 2:
            raise TrainingError(
                f"{table}, line {number}, must contain name|text, not {line[:60]!r}"
            )
        path = folder / "wavs" / cells[0]
        path = path if path.suffix else path.with_suffix(".wav")
        with_text.add(path)
        yield TrainingRow(path, cells[-1], speaker=folder.name)
    for path in sorted(set((folder / "wavs").glob("*.wav")) - with_text):
        yield TrainingRow(path, speaker=folder.name)


def _texts_beside(folder: Path) -> Iterator[TrainingRow]:
    """Rows of a.wav and a.txt next to it; an empty text if nothing is said."""
    for path in _sounds(folder):
        beside = path.with_suffix(".txt")
        yield TrainingRow(path, " ".join(_text_of(beside).split()) if beside.exists() else None)


def _sounds(folder: Path) -> list[Path]:
    found = (one for one in folder.rglob("*") if one.suffix.lower() in RECORDINGS and one.is_file())
    return sorted(path for path in found if not path.name.startswith("."))


@dataclass(frozen=True, slots=True)
class _Segment:
    """A part of a recording."""

    recording: str
    start: float = 0.0
    end: float | None = None


def _kaldi(folder: Path) -> Iterator[TrainingRow]:
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
    # Segments without a text get a row too: packing reports them.
    for name, text in {**texts, **{one: None for one in segments if one not in texts}}.items():
        part = segments.get(name, _Segment(name))
        if part.recording not in recordings:
            raise TrainingError(
                f"{folder / 'text'} names {part.recording}, which is missing in wav.scp"
            )
        words = _words_of(name, part, times)
        fits = [one.text.casefold() for one in words] == (text or "").casefold().split()
        yield TrainingRow(
            recordings[part.recording],
            text,
            tuple(words) if words and fits else None,
            part.start,
            part.end,
            speaker=speakers.get(name),
        )


def _words_of(name: str, part: _Segment, times: dict[str, list[TimedWord]]) -> list[TimedWord]:
    """The timed words of a segment, in seconds of the recording."""
    if name in times:
        return [word.moved(part.start) for word in times[name]]
    end = math.inf if part.end is None else part.end
    return [word for word in times.get(part.recording, []) if part.start <= word.start < end]


def _recordings(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for _, name, where in _lines(folder / "wav.scp"):
        if where.endswith("|"):
            raise TrainingError(
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
            raise TrainingError(f"{path}, line {number}, must contain name recording start end")
        start, end = (_seconds(cell, path, number) for cell in cells[1:3])
        found[name] = _Segment(cells[0], start, None if end < 0 else end)  # -1 is the end
    return found


def _optional(path: Path) -> Iterator[tuple[int, str, str]]:
    return _lines(path) if path.exists() else iter(())


def _ctm(path: Path) -> dict[str, list[TimedWord]]:
    """Words by recording, in order, from lines "recording channel start duration word"."""
    found: dict[str, list[TimedWord]] = {}
    for number, name, rest in _lines(path):
        cells = rest.split()
        if len(cells) < 4:
            raise TrainingError(
                f"{path}, line {number}, must contain name channel start duration word"
            )
        start, length = (_seconds(cell, path, number) for cell in cells[1:3])
        word = TimedWord(cells[3], start, round(start + length, 4))
        found.setdefault(name, []).append(word)
    return {name: sorted(words, key=lambda word: word.start) for name, words in found.items()}


def _seconds(cell: str, path: Path, number: int) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise TrainingError(f"{path}, line {number}: {cell!r} is not a number of seconds")
    return value


_SHAPES: tuple[tuple[Callable[[Path], bool], Reader], ...] = (
    (lambda folder: (folder / "wav.scp").exists() and (folder / "text").exists(), _kaldi),
    (lambda folder: (folder / "metadata.csv").exists(), _ljspeech),
    (
        lambda folder: (folder / "validated.tsv").exists() or (folder / "train.tsv").exists(),
        _common_voice,
    ),
    (lambda folder: next(folder.rglob("*.trans.txt"), None) is not None, _librispeech),
    (
        lambda folder: any(one.with_suffix(".txt").exists() for one in _sounds(folder)),
        _texts_beside,
    ),
)
