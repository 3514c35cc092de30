"""Benchmarks count errors of words and of turns as `kiku evaluate` does."""

import importlib
from typing import Any

import numpy as np
import pytest

from kiku import TurnEnd, TurnEndEager
from kiku.evaluate.aligning import word_errors
from kiku.evaluate.manifest import Span
from tests.conftest import ROOT


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


@pytest.mark.parametrize(
    ("said", "heard", "expected", "counts"),
    [
        ("one two one", "one two", ["one"], (2, 1, 1, 0)),
        ("one two", "two two", ["one"], (1, 0, 1, 0)),
        ("one two", "one five", ["one"], (1, 1, 1, 1)),
        ("two", "one two one", ["one"], (0, 0, 1, 2)),
        ("one", "", ["two"], (0, 0, 1, 1)),
    ],
)
def test_expected_words_and_errors_elsewhere(
    module: Any, said: str, heard: str, expected: list[str], counts: tuple[int, ...]
) -> None:
    decoding = module("decoding")
    found = decoding.count(said.split(), heard.split(), expected)
    assert (found.said, found.heard, found.others, found.wrong) == counts
    nothing = decoding.count(said.split(), heard.split(), [])
    assert nothing.wrong == word_errors(said.split(), heard.split())


def test_turns_of_all_sounds(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    people = module("people")
    turns = [Span(1.0, 2.0), Span(4.0, 5.0)]
    events = [TurnEndEager(2.3, 0.9), TurnEnd(2.5, 1), TurnEnd(4.5, 1), TurnEnd(6.0, 1)]
    monkeypatch.setattr(people, "events_of", lambda *given: events)
    sound = np.zeros(6 * people.RATE, np.float32)  # with it the last turn ends
    assert people.turns_found(None, "medium", [(sound, turns)] * 5) == {
        "turns": 10,
        "false_ends_per_100": 50.0,
        "false_eager_ends_per_100": 0.0,
        "misses_per_100": 50.0,
        "eager_s": [0.3, 0.3],
        "end_s": [0.5, 0.5],
    }
