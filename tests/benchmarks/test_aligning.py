"""The parts of the benchmark of aligned times, without voices."""

import importlib
import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kiku.train.align import Aligned
from kiku.train.manifest import TimedWord, TrainingRow
from tests.conftest import ROOT


@pytest.fixture
def aligning(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("aligning")


def row(name: str, *starts: float) -> TrainingRow:
    words = tuple(TimedWord("a", start, start + 0.1) for start in starts)
    return TrainingRow(Path("somewhere") / name, "a " * len(starts), words)


def test_figures_compare_each_word_with_its_own_time(aligning: Any) -> None:
    done = Aligned([row("1.wav", 0.5, 1.0, 1.45), row("0.wav", 0.3, 0.9)])
    truth = {"0.wav": [0.3, 0.7], "1.wav": [0.3, 1.0, 1.5]}
    found = aligning.figures(done, truth)
    assert found["words"] == 5
    assert found["median_s"] == pytest.approx(0.05)
    assert found["late_s"] == pytest.approx(0.07)
    assert found["inside_median_s"] == pytest.approx(0.05)
    assert found["inside_near"] == pytest.approx(2 / 3, abs=1e-3)


def test_a_sentence_is_a_recording_and_a_line(aligning: Any, tmp_path: Path) -> None:
    sound = np.array([0.0, 0.5, -1.0, 2.0], np.float32)
    line = json.loads(aligning.write(tmp_path, 7, aligning.Spoken("One two.", sound, [0.0, 0.1])))
    assert line == {"path": "00007.wav", "text": "One two."}
    with wave.open(str(tmp_path / "00007.wav")) as file:
        assert (file.getframerate(), file.getnchannels()) == (24_000, 1)
        kept = np.frombuffer(file.readframes(9), "<i2")
    assert kept.tolist() == [0, 16383, -32767, 32767]
