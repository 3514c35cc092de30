"""What the benchmark of the service reads from its figures."""

import importlib
from typing import Any

import pytest

from kiku.serve.metrics import Metrics
from tests.conftest import ROOT


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("serve_steps")


def test_only_the_steps_of_the_run_are_counted(steps: Any) -> None:
    metrics = Metrics()
    for _ in range(50):
        metrics.stepped(1, 3.0, 0.08)  # before
    before = steps.Steps.read(metrics.text().decode())
    for i in range(200):
        metrics.stepped(4, 0.3 if i < 3 else 0.035, 0.08)
    after = steps.Steps.read(metrics.text().decode())
    assert after.num_frames - before.num_frames == 800
    assert steps.steps_between(before, after) == {
        "steps": 200, "mean_ms": 39.0, "p50_at_most_ms": 40.0, "p99_at_most_ms": 500.0,
        "longer_than_a_frame": 0.015,
    }  # fmt: skip


def test_a_run_without_a_step_has_no_percentiles(steps: Any) -> None:
    nothing = steps.Steps.read(Metrics().text().decode())
    assert steps.steps_between(nothing, nothing) == {"steps": 0}
