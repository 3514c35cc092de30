"""What the GPU benchmark compiles before its parts is what these will run."""

from types import ModuleType
from typing import Any

import pytest

from tests.benchmarks.gpu_tools import Engines


def test_what_is_compiled_before_is_all_that_engines_will_run(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Engines(monkeypatch)
    parts = gpu.wanted("tiny", "tiny", "cpu", True)
    compiled: dict[str, set[Any]] = {
        part.name: asked(part.job) for part in gpu.warming(parts) if "attention" not in part.name
    }
    assert len(compiled) == 3 + 3
    assert asked.graphs == [{False}] * 6, "they run what would be recorded"
    everything = set[Any]().union(*compiled.values())
    for part in parts:
        if part.job["part"] in ("live", "saves", "bulk", "correct"):
            assert asked(part.job) <= everything, part.name
    attentions = [part for part in gpu.warming(parts) if "attention" in part.name]
    assert [case for part in attentions for case in part.job["cases"]] == parts[0].job["cases"]
    # An engine of keys in float8 has other kernels, and one of longer blocks other rings.
    large = [part.name for part in gpu.warming(gpu.wanted("1b", "2.6b", "cuda", False))]
    assert "warm 1b, float8, frames (1,)" in large
    assert {"warm 2.6b, bfloat16, frames (1,)", "warm 2.6b, bfloat16, frames (1, 16)"} < {*large}
    assert [name for name in large if "demo" in name] == ["warm demo, float32"]
