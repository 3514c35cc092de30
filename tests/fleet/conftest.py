"""Recordings, and processes that hear them in this one."""

import wave
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from kiku.audio import duration_s
from kiku.fleet.batch import Broken, Round, Run
from kiku.fleet.planning import Block
from kiku.fleet.settings import BatchRequest
from kiku.fleet.sources import Item
from kiku.fleet.transcriber import Transcribed, Transcriber
from tests.cli.simple import SimpleBackend, simple_recognizer

RATE = 24_000

MakeSpeech = Callable[..., Path]


@pytest.fixture
def speech() -> MakeSpeech:
    """`speech(path, seconds)`: a wav that is not silent; with several `channels`, as many alike,
    but for those that are `silent`."""

    def make(
        path: Path, seconds: float = 1.0, channels: int = 1, silent: Sequence[int] = ()
    ) -> Path:
        noise = np.random.default_rng(0).integers(-9000, 9000, (round(seconds * RATE), channels))
        noise[:, list(silent)] = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(channels)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(noise.astype("<i2").tobytes())
        return path

    return make


@pytest.fixture
def calls(speech: MakeSpeech, tmp_path: Path) -> Path:
    """A folder with six recordings, of 0.8 to 2 s."""
    for number in range(6):
        speech(tmp_path / "calls" / str(number % 2) / f"{number}.wav", 0.8 + 0.24 * number)
    return tmp_path / "calls"


class Processes:
    """What Ray does, here: processes that hear, and die of some recordings."""

    def __init__(self, *, slots: int = 2) -> None:
        self.slots, self.lanes = slots, 2
        self.deadly: list[str] = []
        """Parts of names: whoever hears such a recording dies."""
        self.dies_at: int | None = None
        """The first process dies when so many recordings are done, whichever they are."""
        self.breaks_at: int | None = None
        """A round breaks off when so many recordings are done."""
        self.twice = False
        """Every recording is answered twice."""
        self.rounds: list[tuple[Round, list[list[str]]]] = []
        """The stage of each, and the names in its blocks."""
        self.heard: list[str] = []
        """Names, each as often as it was heard."""

    @contextmanager
    def make(self, request: BatchRequest, run: Run) -> "Generator[Processes]":
        """For `run_batch`."""
        backend = SimpleBackend(self.slots)
        self._transcriber = Transcriber(request, simple_recognizer(backend, request.settings.model))
        yield self

    def transcribe(self, blocks: Sequence[Block], stage: Round) -> Iterator[Transcribed]:
        """See `Workers.transcribe`."""
        names = [[Path(item.path).name for item in block] for block in blocks]
        self.rounds.append((stage, names))
        for block, inside in zip(blocks, names, strict=True):
            if any(part in name for part in self.deadly for name in inside):
                continue  # with all that it had
            for heard in chain.from_iterable(self._transcriber.transcribe(block)):
                if self.dies_at is not None and len(self.heard) >= self.dies_at:
                    self.dies_at = None
                    break
                if len(self.heard) == self.breaks_at:
                    raise Broken("the cluster is gone")
                self.heard.append(Path(heard.path).name)
                yield heard
                if self.twice:
                    yield heard


@pytest.fixture
def probes_are_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started to see how long recordings are."""

    def look(items: Sequence[Item]) -> list[float | None]:
        return [duration_s(item.path) for item in items]

    monkeypatch.setattr("kiku.fleet.planning.probe_durations", look)


@pytest.fixture
def processes() -> Processes:
    """Processes that hear."""
    return Processes()
