"""Short recordings of tones, and what is said in them: enough to tell one word from another."""

import json
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RATE = 1000
"""Of the tiny codec."""

TONES = {"one": 90.0, "two": 150.0, "three": 230.0, "go": 330.0}
"""The frequency that stands for a word."""

Timed = Sequence[tuple[str, float, float]]


def spoken(words: Timed, seconds: float, rate: int = RATE) -> NDArray[np.float32]:
    """A tone for each word, a faint hiss elsewhere."""
    rng = np.random.default_rng(len(words))
    sound = rng.normal(0, 0.002, int(seconds * rate)).astype(np.float32)
    for word, start, end in words:
        first, last = int(start * rate), int(end * rate)
        time = np.arange(last - first) / rate
        sound[first:last] += 0.3 * np.sin(2 * np.pi * TONES[word] * time)
    return sound


def write_wav(path: Path, samples: NDArray[np.float32], rate: int = RATE) -> Path:
    """16 bits, mono."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, len(samples), "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def some_words(seed: int, seconds: float) -> list[tuple[str, float, float]]:
    """Random words with pauses between them."""
    rng = np.random.default_rng(seed)
    words: list[tuple[str, float, float]] = []
    at = float(rng.uniform(0.1, 0.5))
    while at + 0.4 < seconds:
        word = list(TONES)[rng.integers(len(TONES))]
        words.append((word, round(at, 3), round(at + 0.3, 3)))
        at += float(rng.uniform(0.45, 1.0))
    return words


def write_manifest(folder: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """manifest.jsonl of these rows."""
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_corpus(
    folder: Path, count: int, *, seconds: float = 3.0, dev: int = 0, marked: int = 0
) -> Path:
    """`count` recordings to train on and `dev` others, with a manifest; every row whose number
    `marked` divides is to be kept."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Mapping[str, object]] = []
    for i in range(count + dev):
        words = some_words(i, seconds)
        name = f"{i:03}.wav"
        write_wav(folder / name, spoken(words, seconds))
        split = "train" if i < count else "dev"
        row = {"path": name, "words": words, "speaker": f"s{i}", "split": split}
        rows.append({**row, "keep": True} if marked and i % marked == 0 else row)
    return write_manifest(folder, rows)
