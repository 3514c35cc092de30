"""The GPU benchmark goes through on the processor, and says what it did not measure."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from kiku.errors import ConfigError
from tests.conftest import ROOT

BENCHMARKS = ROOT / "benchmarks"
LIVE = [(1, 5, "float8"), (3, 5, "float8")]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu")


def check(rows: list[dict[str, Any]]) -> None:
    """The tokens are right, and all that was to be measured was."""
    correct = {row["precision"]: row["same"] for row in rows if row["what"] == "correct"}
    assert correct["float32"] == 1.0
    assert correct.keys() == {"float32", "bfloat16", "keys in float8"}
    live = [row for row in rows if row["what"] == "live"]
    assert [(row["streams"], row["steps"], row["kv"]) for row in live] == LIVE


def test_parts_go_through_on_the_processor(
    gpu: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = importlib.import_module("gpu_parts")
    for part in gpu.wanted("tiny", "tiny", "cpu", True):
        if part.name in ("correct", "live float8"):
            job = {"device": "cpu", "steps": 5, "budget_s": 200.0, **part.job}
            parts.main([json.dumps(job)])
    check([json.loads(line) for line in capsys.readouterr().out.splitlines()])


def test_a_part_is_on_the_device_that_it_measures(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, chosen = importlib.import_module("gpu_parts"), list[str]()
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for device in ("cpu", "cuda", "cuda:1"):
        parts.Part({"device": device, "budget_s": 1.0, "steps": 1})
    assert chosen == ["cuda:1"]


def test_streams_that_do_not_fit_are_tried_until_none_are_left(
    gpu: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, tried = importlib.import_module("gpu_parts"), list[int]()

    def fails(*_: Any, slots: int, **__: Any) -> None:
        tried.append(slots)
        raise ConfigError(f"{slots} slots do not fit: {slots if len(tried) < 9 else 0} do; no")

    monkeypatch.setattr(parts, "cuda_engine", fails)
    job = {"device": "cpu", "steps": 5, "budget_s": 200.0, "part": "live", "shape": "tiny",
           "kv": "float8", "sizes": [1, 100]}  # fmt: skip
    with pytest.raises(ConfigError):
        parts.main([json.dumps(job)])
    assert tried == [100, 99, 89, 80, 72, 64, 57, 51, 45]
    told = [json.loads(line)["streams"] for line in capsys.readouterr().out.splitlines()]
    assert told == tried[1:]


def without_moshi(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts, which are processes of their own, cannot import moshi."""
    (folder / "moshi.py").write_text("raise ImportError('no moshi here')")
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{ROOT / 'src'}")


def test_a_part_that_fails_loses_only_its_own_rows(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_moshi(tmp_path, monkeypatch)
    parts = [one for one in gpu.wanted("tiny", "tiny", "cpu", True)
             if one.name in ("live float8", "moshi")]  # fmt: skip
    common = {"device": "cpu", "steps": 5}
    named = {"what": "live", "engine": "cuda, graphs off", "shape": "tiny", "kv": "float8"}
    rows = [{**named, "streams": n, "p50_ms": n, "p99_ms": n, "steps": 5} for n in (1, 3)]
    rows += gpu.measured(parts[1], common, 100.0)
    table = gpu.table(parts, rows)
    assert "not measured: ImportError: no moshi here" in table
    assert table.count("not measured") == 1


@pytest.mark.heavy
def test_a_dry_run_on_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole command: each of its parts imports PyTorch anew."""
    without_moshi(tmp_path, monkeypatch)
    command = [
        sys.executable, str(BENCHMARKS / "gpu.py"), "--out", str(tmp_path),
        "--device", "cpu", "--shape", "tiny", "--only", "attention,correct,live float8,moshi",
        "--seconds", "200",
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert ran.returncode == 0, ran.stderr
    check([json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()])
    table = (tmp_path / "gpu.md").read_text()
    assert table in ran.stdout
    assert "not measured: ImportError: no moshi here" in table
    # Triton's kernels run on GPUs, and are asked for by name here.
    assert table.count("not measured: kiku.errors.ConfigError: attention='triton' does not") == 2
    assert table.count("not measured") == 3
