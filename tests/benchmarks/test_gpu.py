"""The parts of the GPU benchmark go through on the processor, and say what they did not measure."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from kiku.engine import cuda
from kiku.engine.gpu.attention import attend_plainly
from kiku.errors import ConfigError
from tests import tiny
from tests.benchmarks.gpu_tools import Engines, rows_told, run, without_moshi
from tests.conftest import ROOT

LIVE = [(1, 5, "float8"), (3, 5, "float8")]


def check(rows: list[dict[str, Any]]) -> None:
    """The tokens are right, and all that was to be measured was."""
    correct = {row["precision"]: row["same"] for row in rows if row["what"] == "correct"}
    assert correct["float32"] == correct["float32, drawn"] == 1.0
    assert correct.keys() == {"float32", "float32, drawn", "bfloat16", "keys in float8"}
    assert all(row["attention"] == "plain" for row in rows if row["what"] in ("correct", "live"))
    live = [row for row in rows if row["what"] == "live"]
    assert [(row["streams"], row["steps"], row["kv"]) for row in live] == LIVE


def test_parts_go_through_on_the_processor(
    gpu: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in gpu.wanted("tiny", "tiny", "cpu", True):
        if part.name in ("correct", "live float8"):
            run({"steps": 5, "budget_s": 200.0, **part.job})
    check(rows_told(capsys))


def test_a_part_is_on_the_device_that_it_measures(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, chosen = importlib.import_module("gpu_job"), list[str]()
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for device in ("cpu", "cuda", "cuda:1"):
        jobs.Part({"device": device, "budget_s": 1.0, "steps": 1})
    assert chosen == ["cuda:1"]


def test_what_a_part_needed_to_start_is_of_its_time(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = importlib.import_module("gpu_job")
    monkeypatch.setattr(jobs.time, "time", lambda: 1030.0)
    monkeypatch.setattr(jobs.time, "monotonic", lambda: 5.0)
    job = {"device": "cpu", "budget_s": 100.0, "steps": 1}
    assert jobs.Part(job).ends == 105.0
    assert jobs.Part({**job, "begun": 1000.0}).ends == 75.0


def test_streams_that_do_not_fit_are_tried_until_none_are_left(
    gpu: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, tried = importlib.import_module("gpu_parts"), list[int]()

    def fails(*_: Any, slots: int, **__: Any) -> None:
        tried.append(slots)
        raise ConfigError(f"{slots} slots do not fit: {slots if len(tried) < 9 else 0} do; no")

    monkeypatch.setattr(parts, "cuda_engine", fails)
    with pytest.raises(ConfigError):
        run({"part": "live", "shape": "tiny", "kv": "float8", "sizes": [1, 100]})
    assert tried == [100, 99, 89, 80, 72, 64, 57, 51, 45]
    assert [row["streams"] for row in rows_told(capsys)] == tried[1:]


@pytest.mark.parametrize(
    ("decoder", "codec", "by"),
    [("plain", "plain", "plain"), ("kernel", "kernel", "kernels"),
     ("plain", "kernel", "plain, the codec's kernels")],
)  # fmt: skip
def test_by_which_attention_it_was_is_told(
    decoder: str, codec: str, by: str, gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU heads that have no kernel are computed in the plain form."""
    forms = {"plain": attend_plainly, "kernel": lambda *given: attend_plainly(*given)}
    picked = iter((forms[decoder], forms[codec]))
    monkeypatch.setattr(cuda, "pick_attend", lambda *_, **__: next(picked))
    engine = cuda.cuda_engine(tiny.codec(), tiny.lm(), device="cpu")
    assert importlib.import_module("gpu_models").attention_of(engine) == by
    rows: list[dict[str, Any]] = [
        {"what": "correct", "model": "m", "precision": "p", "frames": 9, "same": 1.0},
        {"what": "live", "shape": "tiny", "engine": "cuda", "streams": 1, "memory_gb": 1.5,
         "beside_rings_gb": 0.5, "weights_gb": 0.3, "outside_gb": 0.7},
        {"what": "bulk", "shape": "tiny", "kv": "float8", "files": 2, "step_ms": 1, "block": 16,
         "pass_ms": 1},
        {"what": "saves", "shape": "tiny", "kv": "float8", "streams": 2, "savers": 2, "saves": 4,
         "save_ms": 3},
        {"what": "saves", "shape": "tiny", "kv": "float8", "streams": 2, "savers": 0},
        {"what": "saved", "shape": "tiny", "kv": "float8", "streams": 2, "megabytes": 1,
         "frames": 20},
        {"what": "warm", "of": "tiny", "seconds": 1},
    ]  # fmt: skip
    for off, end in (({}, ""), ({"graphs": False}, "; graphs off")):
        table = gpu.table([], [{**row, "attention": by, **off} for row in rows])
        ends = [line.endswith(f"attention: {by}{end} |") for line in table.splitlines()[2:]]
        assert ends == [True] * len(rows)
    assert "1.5 GB, of which 0.5 are no rings (weights take 0.3), and 0.7 outside" in table


def test_one_thing_that_fails_leaves_the_others_of_its_part(
    gpu: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = importlib.import_module("gpu_tokens")
    make = tokens.cuda_engine

    def fails(*given: Any, options: Any, **more: Any) -> Any:
        if options.kv == "bfloat16":
            raise RuntimeError("not here")
        return make(*given, options=options, **more)

    monkeypatch.setattr(tokens, "cuda_engine", fails)
    reference, asked = tokens.torch_engine, list[int]()
    monkeypatch.setattr(
        tokens,
        "torch_engine",
        lambda *given, **more: (asked.append(1), reference(*given, **more))[1],
    )
    run({"part": "correct", "models": ["tiny"]})
    kinds = [row.get("precision", row.get("why")) for row in rows_told(capsys)]
    assert kinds == ["float32", "float32, drawn", "RuntimeError: not here", "keys in float8"]
    assert len(asked) == 2, "the processor is asked once for each temperature"


def test_rows_say_that_nothing_was_recorded_or_compiled(
    gpu: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in gpu.wanted("tiny", "tiny", "cpu", True):
        if part.name in ("saves", "eager"):
            run({**part.job, "graphs": False})
    rows = rows_told(capsys)
    assert all(row["graphs"] is False for row in rows)
    live = [row["engine"] for row in rows if row["what"] == "live"]
    assert live == ["cuda, plain attention, graphs off", "cuda, graphs off"]


@pytest.mark.parametrize("name", ["live float8", "saves", "bulk", "correct", "eager"])
def test_an_engine_records_unless_that_failed_before(
    name: str, gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Engines(monkeypatch)
    (part,) = (one for one in gpu.wanted("tiny", "tiny", "cpu", True) if one.name == name)
    for more in ({}, {"graphs": False}):
        asked({**part.job, **more})
    first, second = asked.graphs
    assert first - {False} == {None}
    assert second == {False}


def test_why_more_streams_were_not_tried_is_told(
    gpu: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    (part,) = (one for one in gpu.wanted("tiny", "tiny", "cpu", True) if one.name == "live float8")
    run({**part.job, "limit_ms": 0.0})
    rows = rows_told(capsys)
    assert [(row["what"], row["streams"]) for row in rows] == [("live", 1), ("stopped", 1)]
    assert rows[1]["why"] == "the 99th percentile with 1 streams was beyond 0 ms"


def test_how_much_memory_is_no_ring_is_told(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = importlib.import_module("gpu_models")
    engine = cuda.cuda_engine(tiny.codec(), tiny.lm(), slots=2, device="cpu")
    assert models.memory_of(engine) == {}
    assert isinstance(engine.backend, cuda.CudaBackend)
    slots = engine.backend._slots
    # Ten gigabytes of rings, seen as if they were on a device.
    on_device = MagicMock(nbytes=5e9, device=torch.device("cuda"))
    for rings in (slots.rings, slots.codec_rings):
        monkeypatch.setattr(rings, "keys", on_device)
        monkeypatch.setattr(rings, "values", MagicMock(nbytes=0))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 13e9)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 12e9)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (6e9, 20e9))
    weights = [*tiny.codec().state_dict().values(), *tiny.lm().state_dict().values()]
    assert models.memory_of(engine) == {
        "memory_gb": 13.0, "beside_rings_gb": 3.0, "outside_gb": 2.0,
        "weights_gb": round(sum(weight.nbytes for weight in weights) / 1e9, 2),
    }  # fmt: skip


@pytest.mark.parametrize("fails", [False, True])
def test_recordings_are_told_though_the_acceptance_is_missing(
    fails: bool, gpu: ModuleType, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def accepted(_: str) -> tuple[float, str]:
        assert rows_told(capsys)[-1]["what"] == "bulk", "before the demo is loaded"
        if fails:
            raise RuntimeError("no such file")
        return 4.0, "plain"

    monkeypatch.setattr(importlib.import_module("gpu_tokens"), "acceptance", accepted)
    (part,) = (one for one in gpu.wanted("tiny", "tiny", "cpu", True) if one.name == "bulk")
    run(part.job)
    (row,) = rows_told(capsys)
    if fails:
        assert row["why"] == "the acceptance is missing: RuntimeError: no such file"
    else:
        assert part.rows[1].items() <= row.items()
        assert row["accepted"] == 4.0
        assert row["sound_s_per_s"] > 0


def test_what_is_wanted_of_a_device(gpu: ModuleType) -> None:
    parts = {part.name: part for part in gpu.wanted("1b", "2.6b", "cuda", False)}
    assert parts["live float8"].job["sizes"][-2:] == (1000, 1400)
    assert parts["live bfloat16"].job["sizes"][-1] == 1000
    assert [*parts][:3] == ["attention", "correct", "saves"]
    assert parts["correct"].job["models"] == ["demo", "tiny"]
    assert parts["moshi"].otherwise == {"compiled": False}


def test_without_graphs_attention_is_not_recorded_either(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    attention, jobs = importlib.import_module("gpu_attention"), importlib.import_module("gpu_job")
    recorded = list[bool]()
    monkeypatch.setattr(
        attention, "Graphs", lambda _, enabled: (recorded.append(enabled), MagicMock())[1]
    )
    monkeypatch.setattr(jobs.Part, "wait", lambda _: None)
    for device, more in (("cpu", {}), ("cuda", {}), ("cuda", {"graphs": False})):
        part = jobs.Part({"device": device, "budget_s": 1.0, "steps": 1, **more})
        attention._microseconds(part, lambda: None)
    assert recorded == [False, True, False]


@pytest.mark.heavy
def test_a_dry_run_on_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole command: each of its parts imports PyTorch anew."""
    without_moshi(tmp_path, monkeypatch)
    command = [
        sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--out", str(tmp_path),
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
    assert table.count("not measured: ConfigError: attention='triton' does not") == 2
    assert table.count("not measured") == 3
