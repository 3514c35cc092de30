"""Folders of common shapes -> rows: LibriSpeech, Common Voice, LJSpeech, Kaldi.

`lhotse` reads these, too, and was looked at: it wants to be told which corpus it is, takes only the
official names of parts (or a language's folder inside a release), opens every recording to find its
length, and needs soundfile, torch and seven other packages at import. What is needed here is
names and texts, a screen of code for each shape.

Knows folders; recordings are not opened.
"""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from kiku.errors import TrainingError
from kiku.train.manifest import Row, TimedWord, read_manifest
from kiku.writing import reason_of

Reader = Callable[[Path], Iterator[Row]]


def read_rows(source: Path) -> list[Row]:
    """The rows of a manifest, or of a folder whose shape is known.

    Raises:
        TrainingError: it is neither, or what it says cannot be.
    """
    if not source.is_dir():
        return read_manifest(source)
    for is_shape, read in _SHAPES:
        if is_shape(source):
            try:
                rows = list(read(source))
            except OSError as error:
                raise TrainingError(f"{source} cannot be read ({reason_of(error)})") from error
            if not rows:
                raise TrainingError(f"{source} has the files of a corpus, but no recordings")
            return rows
    raise TrainingError(
        f"{source} is no folder of a known shape: LibriSpeech has *.trans.txt in it, Common Voice "
        "validated.tsv or train.tsv, LJSpeech metadata.csv, Kaldi wav.scp and text; or write a "
        "manifest of JSON lines"
    )


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The first word of each line, and the rest: Kaldi's tables, LibriSpeech's transcripts."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            key, _, rest = line.strip().partition(" ")
            yield key, rest.strip()


def _librispeech(folder: Path) -> Iterator[Row]:
    """reader/chapter/reader-chapter.trans.txt beside reader-chapter-0000.flac; what stands in a
    folder dev-* or test-* is of that split."""
    for transcript in sorted(folder.rglob("*.trans.txt")):
        parts = [part for part in transcript.parts if part.startswith(("train-", "dev-", "test-"))]
        split = parts[-1].partition("-")[0] if parts else "train"
        for name, text in _lines(transcript):
            path = transcript.parent / f"{name}.flac"
            if not path.exists() and path.with_suffix(".wav").exists():
                path = path.with_suffix(".wav")
            yield Row(path, text, speaker=name.partition("-")[0], split=split, language="en")


def _common_voice(folder: Path) -> Iterator[Row]:
    """train.tsv, dev.tsv, test.tsv (or validated.tsv alone) beside clips/."""
    named = [folder / f"{split}.tsv" for split in ("train", "dev", "test")]
    tables = [path for path in named if path.exists()] or [folder / "validated.tsv"]
    for table in tables:
        split = "train" if table.stem == "validated" else table.stem
        with table.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            for row in rows:
                if row.get("path") is None or row.get("sentence") is None:
                    raise TrainingError(f"{table} lacks the column path or sentence")
                yield Row(
                    folder / "clips" / row["path"],
                    row["sentence"],
                    speaker=row.get("client_id"),
                    split=split,
                    language=row.get("locale") or row.get("lang"),
                )


def _ljspeech(folder: Path) -> Iterator[Row]:
    """metadata.csv (name|text|text with numbers in words) beside wavs/; one speaker."""
    for line in (folder / "metadata.csv").read_text(encoding="utf-8").splitlines():
        cells = line.split("|")
        if len(cells) < 2:
            raise TrainingError(
                f"{folder / 'metadata.csv'} must hold lines of name|text, not {line[:60]!r}"
            )
        path = folder / "wavs" / cells[0]
        yield Row(path if path.suffix else path.with_suffix(".wav"), cells[-1], speaker=folder.name)


def _kaldi(folder: Path) -> Iterator[Row]:
    """wav.scp, text and, where they are, utt2spk, segments and ctm (times of words)."""
    recordings: dict[str, Path] = {}
    for name, where in _lines(folder / "wav.scp"):
        if where.endswith("|"):
            raise TrainingError(
                f"{folder / 'wav.scp'} makes {name} with a command ({where[:40]}...): write it to "
                "a file and name that"
            )
        recordings[name] = folder / where
    speakers = _optional(folder / "utt2spk")
    segments = _optional(folder / "segments")
    times = _ctm(folder / "ctm") if (folder / "ctm").exists() else {}
    for name, text in _lines(folder / "text"):
        recording, start, end = name, 0.0, None
        if name in segments:
            recording, first, last = segments[name].split()[:3]
            start, end = float(first), float(last)
        if recording not in recordings:
            raise TrainingError(f"{folder / 'text'} speaks of {recording}, which wav.scp lacks")
        words = times.get(name) or [
            word for word in times.get(recording, []) if start <= word.start < (end or word.end + 1)
        ]
        yield Row(
            recordings[recording],
            text,
            tuple(words) if words else None,
            start,
            end,
            speaker=speakers.get(name),
        )


def _optional(path: Path) -> dict[str, str]:
    return dict(_lines(path)) if path.exists() else {}


def _ctm(path: Path) -> dict[str, list[TimedWord]]:
    """recording channel start duration word, by recording, in order."""
    found: dict[str, list[TimedWord]] = {}
    for name, rest in _lines(path):
        cells = rest.split()
        if len(cells) < 4:
            raise TrainingError(f"{path} must hold lines of name channel start duration word")
        start = float(cells[1])
        word = TimedWord(cells[3], start, round(start + float(cells[2]), 4))
        found.setdefault(name, []).append(word)
    return {name: sorted(words, key=lambda word: word.start) for name, words in found.items()}


_SHAPES: tuple[tuple[Callable[[Path], bool], Reader], ...] = (
    (lambda folder: (folder / "wav.scp").exists() and (folder / "text").exists(), _kaldi),
    (lambda folder: (folder / "metadata.csv").exists(), _ljspeech),
    (
        lambda folder: (folder / "validated.tsv").exists() or (folder / "train.tsv").exists(),
        _common_voice,
    ),
    (lambda folder: next(folder.rglob("*.trans.txt"), None) is not None, _librispeech),
)
