"""Recordings that say what they should, and a model that hears exactly that."""

import json
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kiku import Recognizer
from kiku.evaluate.hearing import HeardPart, HeardUtterance, HeardWord
from kiku.evaluate.manifest import Utterance
from kiku.evaluate.normalising import basic
from kiku.evaluate.scoring import Scored, score
from tests import tiny
from tests.fakes import PAD, EchoEngine, spoken

CONFIG = tiny.model_config()
FRAME_S = 1 / CONFIG.frame_rate
TOKENS = {name: tiny.PIECES.index(f"▁{name}") for name in ("one", "two", "three", "four", "go")}

PART = HeardPart("/calls/a.wav", 10, 1, 0.0, None, turns=False)
"""Of what is heard of no sound at all."""

Say = Callable[..., Path]


def tokens_of(words: str, gap: int = 2) -> list[int]:
    """The first word in frame 2, and `gap` frames of silence behind each."""
    return [PAD, PAD, *(token for word in words.split() for token in (TOKENS[word], *[PAD] * gap))]


@pytest.fixture
def say(tmp_path: Path) -> Say:
    """`say("a.wav", "one two")`: a recording in which this is said, one word in three frames."""

    def make(name: str, words: str, gap: int = 2) -> Path:
        samples = spoken(tokens_of(words, gap), CONFIG.frame_size)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, CONFIG.sample_rate, len(samples), "NONE", ""))
            file.writeframes(np.round(samples * 32768).astype("<i2").tobytes())
        return path

    return make


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[..., Path]:
    """`manifest({...}, {...})`: a file with these rows, beside the recordings."""

    def make(*rows: object, name: str = "dev.jsonl") -> Path:
        path = tmp_path / name
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("\n".join([*lines, ""]), encoding="utf-8")
        return path

    return make


def echo(slots: int = 2) -> Recognizer:
    """Hears what `say` says."""
    return Recognizer(EchoEngine(slots), CONFIG, tiny.vocabulary(), name="echo")


def scored(
    text: str,
    heard: str | Sequence[HeardWord],
    *,
    name: str = "a.wav",
    seconds: float = 3.0,
    normalise: Callable[[str], str] = basic,
    **of_utterance: Any,
) -> Scored:
    """An utterance that was heard so, without any sound."""
    words = (
        [HeardWord(word, i, i + 0.5, 0.9, None) for i, word in enumerate(heard.split())]
        if isinstance(heard, str)
        else heard
    )
    utterance = Utterance(name, Path(name), text, **of_utterance)
    return score(
        utterance, HeardUtterance(name, PART, seconds, tuple(words), (), (), 0.1), normalise
    )
