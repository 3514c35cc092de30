"""How far the times of `kiku train align` are off in fluent speech.

    python benchmarks/aligning.py --data DATA                                # an hour of sound
    python benchmarks/aligning.py --data DATA --minutes 2 --steps 50 --no-record  # does it work?

Voices of espeak-ng speak sentences of DATA (the folder that `recipes.demo` reads) without pauses
between the words, and say when each word begins. `kiku train align` gets the recordings and the
texts, and the times that it finds are compared. One row is appended to results/teach.jsonl.
"""

import argparse
import json
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from machine import RESULTS, append, stamp

from kiku.checkpoint import DEMO
from kiku.checkpoint.loading import load
from kiku.train.align import Aligned, AlignOptions, align
from kiku.train.letters import spoken_words
from kiku.train.manifest import read_training_manifest
from recipes.demo.corpus import SAMPLE_RATE
from recipes.demo.voices import ACCENTS, VARIANTS, espeak
from recipes.english.speak import sentences

_LEAD_S = 0.3
"""Seconds of silence before and after each sentence."""
_NEAR_S = 0.1
"""Words that begin within this of the truth are counted: a frame of the decoder is 0.08 s."""


class Spoken(NamedTuple):
    """A sentence, its sound [S] at 24 kHz, and when each word begins, in seconds."""

    text: str
    samples: np.ndarray
    starts_s: list[float]


def spoken(data: Path, seconds: float, seed: int = 0) -> Iterator[Spoken]:
    """Sentences until there are `seconds` of sound; those left out whose words the voice counts
    otherwise (numbers, abbreviations)."""
    rng = np.random.default_rng(seed)
    left = seconds
    for text in sentences(data, seed):
        variant = str(rng.choice(VARIANTS))
        voice = str(rng.choice(ACCENTS)) + (f"+{variant}" if variant else "")
        said = espeak().say(
            text, voice, words_per_minute=int(rng.integers(130, 200)),
            pitch=int(rng.integers(20, 85)), pitch_range=int(rng.integers(20, 80)),
        )  # fmt: skip
        if len(said.starts_s) != len(spoken_words(text)):
            continue
        samples = np.pad(said.samples, int(_LEAD_S * SAMPLE_RATE))
        yield Spoken(text, samples, [start + _LEAD_S for start in said.starts_s])
        left -= len(samples) / SAMPLE_RATE
        if left <= 0:
            return


def write(folder: Path, number: int, one: Spoken) -> str:
    """Write the sound; gives the sentence's line of a manifest."""
    path = folder / f"{number:05}.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, len(one.samples), "NONE", ""))
        file.writeframes((np.clip(one.samples, -1, 1) * 32767).astype("<i2").tobytes())
    return json.dumps({"path": path.name, "text": one.text})


def figures(done: Aligned, truth: dict[str, list[float]]) -> dict[str, Any]:
    """How far the beginnings of words are off; the first word of a sentence follows silence."""
    off: list[float] = []
    fluent: list[float] = []
    for row in done.rows:
        found = [word.start for word in row.words or ()]
        errors = [a - b for a, b in zip(found, truth[row.path.name], strict=True)]
        off += errors
        fluent += errors[1:]
    late, inside = np.array(off), np.abs(fluent)
    return {
        "words": len(off),
        "median_s": round(float(np.median(np.abs(late))), 3),
        "p95_s": round(float(np.quantile(np.abs(late), 0.95)), 3),
        "late_s": round(float(late.mean()), 3),
        "inside_median_s": round(float(np.median(inside)), 3),
        "inside_p95_s": round(float(np.quantile(inside, 0.95)), 3),
        "inside_near": round(float((inside <= _NEAR_S).mean()), 3),
    }


def main() -> None:
    """Speak, align, compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with text/")
    parser.add_argument("--minutes", type=float, default=60.0, help="of sound")
    parser.add_argument("--steps", type=int, default=AlignOptions().steps)
    parser.add_argument("--no-record", action="store_true")
    arguments = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        lines: list[str] = []
        truth: dict[str, list[float]] = {}
        for number, one in enumerate(spoken(arguments.data, arguments.minutes * 60)):
            lines.append(write(folder, number, one))
            truth[f"{number:05}.wav"] = one.starts_s
        (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
        rows = read_training_manifest(folder / "manifest.jsonl")
        began = time.process_time()
        done = align(
            rows, load(DEMO), AlignOptions(steps=arguments.steps),
            on_progress=lambda line: print(line, flush=True),
        )  # fmt: skip
        row = {
            "what": "aligning", "minutes": arguments.minutes, "steps": arguments.steps,
            "sentences": done.timed, "left_out": len(done.left_out),
            "doubtful": len(done.doubtful), "loss": round(done.loss, 3),
            **figures(done, truth), "processor_s": round(time.process_time() - began),
        }  # fmt: skip
    print(json.dumps(row, indent=2))
    if not arguments.no_record:
        append(RESULTS / "teach.jsonl", {**stamp(), **row})


if __name__ == "__main__":
    main()
