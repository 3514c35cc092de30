"""Recorded speech as one flat file of samples: decoded once, then read by slices.

Training reads the same recordings many times; decoding Opus each time would cost more than the
network.
"""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np

from kiku.errors import AudioError
from kiku.writing import in_place_of

SAMPLE_RATE = 24_000
"""Samples per second of all sound in `recipes.demo`."""

VOCABULARY = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "yes",
    "no",
    "up",
    "down",
    "left",
    "right",
    "on",
    "off",
    "stop",
    "go",
    "start",
)
"""The words that the demo model writes."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording inside a `Corpus`.

    Attributes:
        words: its transcript, lower case, without punctuation.
        begin, end: its samples in the flat file.
    """

    file: str
    words: tuple[str, ...]
    speaker: str
    group: str
    language: str
    split: str
    begin: int
    end: int

    @property
    def seconds(self) -> float:
        """Its length in seconds."""
        return (self.end - self.begin) / SAMPLE_RATE


def normalise(text: str) -> tuple[str, ...]:
    """Lower-case words of a transcript: letters and apostrophes only."""
    return tuple(re.sub(r"[^a-z' ]", " ", text.lower()).split())


def decode(path: Path) -> np.ndarray:
    """All samples of a file, mono, int16 [S] at 24 kHz.

    Raises:
        AudioError: the file holds no sound.
    """
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    parts: list[np.ndarray] = []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            parts.extend(out.to_ndarray()[0] for out in resampler.resample(frame))
        parts.extend(out.to_ndarray()[0] for out in resampler.resample(None))
    if not parts:
        raise AudioError(f"{path} holds no sound; leave it out of the list of recordings")
    return np.concatenate(parts)


class Corpus:
    """Recordings in one memory-mapped file of int16 samples."""

    def __init__(self, folder: Path) -> None:
        """Open the files that `build` wrote to `folder`."""
        self.samples = np.memmap(folder / "samples.i16", dtype=np.int16, mode="r")
        with (folder / "recordings.jsonl").open() as lines:
            rows = [json.loads(line) for line in lines]
        self.recordings = [Recording(**{**row, "words": tuple(row["words"])}) for row in rows]

    def audio(self, recording: Recording) -> np.ndarray:
        """float32 [S] in [-1, 1]."""
        return self.samples[recording.begin : recording.end].astype(np.float32) / 32768.0

    def select(self, split: str, *groups: str, language: str = "en") -> list[Recording]:
        """Recordings of one split and language, of the named groups (all if none is named)."""
        return [
            r
            for r in self.recordings
            if r.split == split and r.language == language and (not groups or r.group in groups)
        ]


def _rows(data: Path, splits: tuple[str, ...]) -> Iterator[dict[str, str]]:
    for split in splits:
        with (data / f"{split}.jsonl").open() as lines:
            for line in lines:
                yield {**json.loads(line), "split": split}


def build(
    data: Path, folder: Path, *, splits: tuple[str, ...] = ("train", "dev"), jobs: int = 2
) -> Corpus:
    """Decode every recording listed in `data/{split}.jsonl` into `folder`, once.

    Args:
        data: folder with the lists and the recordings they name.
        folder: where `samples.i16` and `recordings.jsonl` are written; reused if complete.
        splits: which lists to read.
        jobs: processes that decode.
    """
    index = folder / "recordings.jsonl"
    if index.exists():
        return Corpus(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(_rows(data, splits))
    position = 0
    lines: list[str] = []
    with (folder / "samples.i16").open("wb") as out, ProcessPoolExecutor(jobs) as pool:
        decoded = pool.map(decode, [data / row["file"] for row in rows], chunksize=64)
        for row, samples in zip(rows, decoded, strict=True):
            out.write(samples.tobytes())
            recording = Recording(
                row["file"],
                normalise(row["text"]) if row["language"] == "en" else (),
                row["speaker"],
                row["group"],
                row["language"],
                row["split"],
                position,
                position + len(samples),
            )
            position = recording.end
            lines.append(json.dumps(asdict(recording)))
    with in_place_of(index) as part:
        part.write_text("\n".join(lines) + "\n")
    return Corpus(folder)
