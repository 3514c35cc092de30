"""What is said to the clients, and what must come out of them."""

import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import kiku
from kiku.audio import read_chunks
from tests.serve.running import Running

ROOT = Path(__file__).parents[2]
RECORDINGS = ("answers.mp3", "digits.wav", "directions.flac")

SILENCE_S = 4.0
"""Behind what is said: any client's turn is over by then."""

LEAD_S = 1.0
"""Of silence before it, in which clients set up their session."""

PATIENCE_S = 60.0
"""Seconds until a client must have had what it waits for."""


@dataclass(frozen=True)
class Spoken:
    """A recording as a microphone gives it."""

    samples: np.ndarray
    """[S] int16."""
    rate: int
    words: list[str]
    """What kiku transcribes of just these samples."""

    def pieces(self, seconds: float) -> list[bytes]:
        """The samples as bytes, in pieces of this length; the last one may be shorter."""
        size = 2 * round(seconds * self.rate)
        data = self.samples.astype("<i2").tobytes()
        return [data[first : first + size] for first in range(0, len(data), size)]


def spoken(demo: kiku.Recognizer, name: str, rate: int) -> Spoken:
    """One of the examples at a rate, between silences."""
    samples = np.concatenate(list(read_chunks(ROOT / "examples" / name, rate)))
    lead, tail = (np.zeros(round(seconds * rate), np.int16) for seconds in (LEAD_S, SILENCE_S))
    whole = np.concatenate([lead, np.round(samples * 32_767).astype(np.int16), tail])
    words = plain(demo.transcribe(whole, kiku.StreamOptions(), rate=rate).text)
    assert len(words) > 3
    return Spoken(whole, rate, words)


def plain(text: str) -> list[str]:
    """The words of a text, without what vendors' formats change."""
    return re.sub(r"[^\w\s']", " ", text.lower()).split()


@contextmanager
def without_errors(service: Running, connections: int = 1) -> Generator[None]:
    """The block opens so many connections or uploads, and the service counts no error."""

    def count(name: str) -> float:
        lines = service.service.metrics.text().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    names = ("kiku_errors_total", "kiku_connections_total")
    before = [count(name) for name in names]
    yield
    errors, opened = (count(name) - had for name, had in zip(names, before, strict=True))
    assert (errors, opened) == (0, connections)
