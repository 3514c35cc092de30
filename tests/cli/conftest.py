"""Recordings and a recognizer for the commands."""

import wave
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import typer

import kiku
from kiku.cli import main
from tests.cli.simple import SimpleBackend, simple_recognizer

RATE = 24_000


@pytest.fixture(scope="session", autouse=True)
def _made_once() -> Iterator[None]:
    """typer makes its commands anew for every call, and a process that is kiku makes but one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", cache(typer.main.get_command))
        yield


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> SimpleBackend:
    """What `kiku.load` now gives a recognizer around."""
    backend = SimpleBackend()

    def load(model: str, *, slots: int, **_: object) -> kiku.Recognizer:
        backend.num_slots = slots
        return simple_recognizer(backend, model)

    monkeypatch.setattr(kiku, "load", load)
    return backend


@pytest.fixture
def speech() -> Callable[..., Path]:
    """`speech(path, seconds)`: a wav of something that is not silent; with `silent_s`, of as many
    channels as there are numbers in it, each of which is silent for so long at first."""

    def make(path: Path, seconds: float = 2.0, silent_s: Sequence[float] = (0.0,)) -> Path:
        shape = round(seconds * RATE), len(silent_s)
        noise = np.random.default_rng(0).integers(-9000, 9000, shape)
        for channel, begins_s in enumerate(silent_s):
            noise[: round(begins_s * RATE), channel] = 0
        with wave.open(str(path), "wb") as file:
            file.setnchannels(len(silent_s))
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
