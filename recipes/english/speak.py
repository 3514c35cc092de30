"""Sentences spoken by the voices of SVOX Pico (Apache-2.0) and flite: cheap, and with many words
that occur in no recording of people here."""

import gzip
import importlib
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np
import soxr

from kiku.errors import ConfigError
from kiku.writing import in_place_of
from recipes.demo.corpus import SAMPLE_RATE, Corpus, Recording, normalise
from recipes.demo.voices import FLITE_VOICES, flite

_PICO_VOICES = ("en-US", "en-GB")
_PICO_RATE = 16_000
_FLITE = 0.3
"""Share of sentences that a voice of flite speaks."""
_WORDS = range(3, 26)


def sentences(data: Path, seed: int) -> Iterator[str]:
    """The English sentences of the data, each once, in an order that depends on the seed."""
    with gzip.open(data / "text" / "sentences.en.txt.gz", "rt") as lines:
        every = [line.strip() for line in lines]
    for index in np.random.default_rng(seed).permutation(len(every)):
        if len(normalise(every[index])) in _WORDS:
            yield every[index]


def build_said(data: Path, folder: Path, *, hours: float, seed: int = 0, jobs: int = 2) -> Corpus:
    """Speak sentences until there are `hours` of sound, into `folder`, once.

    Raises:
        ConfigError: `py-nanotts` or flite is not installed.
    """
    index = folder / "recordings.jsonl"
    if index.exists():
        return Corpus(folder)
    folder.mkdir(parents=True, exist_ok=True)
    wanted, position = int(hours * 3600 * SAMPLE_RATE), 0
    texts = enumerate(sentences(data, seed))
    lines: list[str] = []
    with (folder / "samples.i16").open("wb") as out, ProcessPoolExecutor(jobs) as pool:
        while position < wanted and (some := list(islice(texts, 512))):
            for (number, text), (voice, samples) in zip(
                some, pool.map(_say, some, chunksize=32), strict=True
            ):
                out.write(samples.tobytes())
                words = normalise(text)
                end = position + len(samples)
                row = Recording(
                    f"said-{number}", words, voice, "en-said", "en", "train", position, end
                )
                position = end
                lines.append(json.dumps(asdict(row)))
    with in_place_of(index) as part:
        part.write_text("\n".join(lines) + "\n")
    return Corpus(folder)


def _say(numbered: tuple[int, str]) -> tuple[str, np.ndarray]:
    """The name of the voice, and int16 samples at 24 kHz, of a numbered sentence."""
    number, text = numbered
    rng = np.random.default_rng([number, 1])
    if rng.random() < _FLITE:
        voice = str(rng.choice(FLITE_VOICES))
        samples = flite(text, voice, stretch=float(rng.uniform(0.85, 1.25))).samples
        return f"flite-{voice}", (np.clip(samples, -1, 1) * 32767).astype(np.int16)
    try:
        pico = importlib.import_module("py_nanotts").NanoTTS()
    except ImportError as error:
        raise ConfigError("py-nanotts is not installed: pip install py-nanotts") from error
    voice = str(rng.choice(_PICO_VOICES))
    said = pico.speak(
        text, voice, speed=float(rng.uniform(0.75, 1.35)), pitch=float(rng.uniform(0.7, 1.5))
    )
    samples = np.frombuffer(said, np.int16)
    return f"pico-{voice}", soxr.resample(samples, _PICO_RATE, SAMPLE_RATE)
