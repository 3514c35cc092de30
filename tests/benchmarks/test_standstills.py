"""The process that notices when the machine stands still."""

import importlib
import os
import signal
import time
from typing import Any

import pytest

from tests.conftest import ROOT


@pytest.fixture
def standstills(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("standstills")


def test_a_process_that_is_stopped_tells_when(standstills: Any) -> None:
    with standstills.Probe() as probe:
        started = time.perf_counter()
        os.kill(probe._process.pid, signal.SIGSTOP)
        time.sleep(0.1)
        os.kill(probe._process.pid, signal.SIGCONT)
        ended = time.perf_counter()
        spans = probe.spans()
    assert any(start < started + 0.05 and end > ended - 0.05 for start, end in spans), spans


def test_steps_that_a_standstill_touches_are_counted_apart(standstills: Any) -> None:
    steps = [(float(at), at + 0.02) for at in range(100)]
    steps[7], steps[9] = (7.0, 7.5), (9.0, 9.03)
    found = standstills.marked(steps, [(6.5, 6.9), (7.1, 7.4), (9.02, 9.2), (9.5, 9.9)])
    assert found == {"steps": 2, "longest_ms": 300.0, "p99_ms_without": 20.0}
    assert standstills.marked(steps, [])["p99_ms_without"] == 500.0
    assert standstills.marked(steps[7:8], [(7.0, 8.0)])["p99_ms_without"] is None
