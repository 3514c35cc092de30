"""Recordings and a recognizer for the commands."""

import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import kiku
from kiku.cli import main
from tests.cli.simple import SimpleEngine, simple_recognizer

RATE = 24_000


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> SimpleEngine:
    """What `kiku.load` now gives a recognizer around."""
    engine = SimpleEngine()
    monkeypatch.setattr(kiku, "load", lambda model, **_: simple_recognizer(engine, model))
    return engine


@pytest.fixture
def speech() -> Callable[..., Path]:
    """`speech(path, seconds)`: a wav of something that is not silent."""

    def make(path: Path, seconds: float = 2.0) -> Path:
        noise = np.random.default_rng(0).integers(-9000, 9000, round(seconds * RATE))
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(noise.astype("<i2").tobytes())
        return path

    return make


class Ran:
    """What came of a command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """`run("transcribe", path, ...)`: kiku with these arguments."""

    def call(*arguments: object) -> Ran:
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return call
