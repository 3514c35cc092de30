"""The GPU benchmark goes through on the processor, and says what it did not measure."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from kiku.engine import cuda
from kiku.engine.gpu.attention import attend_plainly
from kiku.errors import ConfigError
from tests import tiny
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
    assert correct["float32"] == correct["float32, drawn"] == 1.0
    assert correct.keys() == {"float32", "float32, drawn", "bfloat16", "keys in float8"}
    assert all(row["attention"] == "plain" for row in rows if row["what"] in ("correct", "live"))
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


@pytest.mark.parametrize(
    ("decoder", "codec", "told"),
    [("plain", "plain", "plain"), ("kernel", "kernel", "kernels"),
     ("plain", "kernel", "plain, the codec's kernels")],
)  # fmt: skip
def test_by_which_attention_it_was_is_told(
    decoder: str, codec: str, told: str, gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU heads that have no kernel are computed in the plain form."""
    forms = {"plain": attend_plainly, "kernel": lambda *given: attend_plainly(*given)}
    picked = iter((forms[decoder], forms[codec]))
    monkeypatch.setattr(cuda, "pick_attend", lambda *_, **__: next(picked))
    engine = cuda.cuda_engine(tiny.codec(), tiny.lm(), device="cpu")
    assert importlib.import_module("gpu_parts").attention_of(engine) == told
    rows: list[dict[str, Any]] = [
        {"what": "correct", "model": "m", "precision": "p", "frames": 9, "same": 1.0},
        {"what": "live", "shape": "tiny", "engine": "cuda", "streams": 1, "memory_gb": 1.5},
        {"what": "bulk", "shape": "tiny", "kv": "float8", "files": 2, "sound_s_per_s": 2,
         "step_ms": 1, "block": 16, "pass_ms": 1, "accepted": 5, "accepted_by": "plain"},
    ]  # fmt: skip
    table = gpu.table([], [{**row, "attention": told} for row in rows])
    assert [line.endswith(f"; attention: {told} |") for line in table.splitlines()[2:]] == [
        True
    ] * 3


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


# What a part may do to the run.

ROW = """
import json, subprocess, sys, time

def row(n):
    return json.dumps({"what": "live", "streams": n}).encode() + b"\\n"

def say(words, to=sys.stdout):
    to.buffer.write(words)
    to.flush()
"""

HANGS = {
    "half a line of errors": ("say(b'Loading: 50%', sys.stderr); say(row(1))", [1]),
    "half a line": ("say(row(1) + row(2)[:9])", [1]),
    "two rows at once": ("say(row(1) + row(2))", [1, 2]),
    "closed pipes": ("import os; say(row(1)); os.close(1); os.close(2)", [1]),
}


@pytest.fixture
def part(gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The streams of the rows, and the reason at last, of a part that does this."""

    def run(does: str) -> list[Any]:
        (tmp_path / "gpu_parts.py").write_text(ROW + does)
        rows = gpu.measured(gpu.Wanted("live", 1.0, {}), {}, 300.0)
        return [row.get("streams", row.get("why")) for row in rows]

    monkeypatch.setattr(gpu, "HERE", tmp_path)
    return run


@pytest.mark.parametrize("name", HANGS)
def test_a_part_that_hangs_is_ended_and_its_rows_are_there(
    name: str, part: Any, gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Impatient(gpu.Watched):
        """Out of time once there was a row."""

        def lines(self) -> Iterator[tuple[bool, str]]:
            for line in super().lines():
                self.ends = 0.0
                yield line

    monkeypatch.setattr(gpu, "Watched", Impatient)
    does, streams = HANGS[name]
    assert part(does + "; time.sleep(200)") == [*streams, "took longer than 300 s"]


@pytest.mark.parametrize(
    "does",
    [
        "say(row(1)); print({'a': 1}); print('{\"a\": 1}', flush=True); say(row(2))",
        "say(row(1)); say(b'\\xff\\xfe', sys.stderr); say(b'\\xff\\xfe\\n'); say(row(2)[:-1])",
    ],
)
def test_whatever_a_part_says_loses_no_row(does: str, part: Any) -> None:
    assert part(does) == [1, 2]


def test_the_last_that_a_part_says_is_why_it_failed(part: Any) -> None:
    fails = "say(row(1)); say(b'no\\n10%\\r90%\\r no \\xff device', sys.stderr); sys.exit(3)"
    assert part(fails) == [1, "no \ufffd device"]
    assert part("sys.exit(3)") == ["ended with 3"]


def test_why_a_part_failed_is_its_error_and_not_the_advice_after_it(part: Any) -> None:
    fails = (
        "say(b'KeyError: 1\\nRuntimeError: CUDA error: no\\nFor debugging\\n', sys.stderr);"
        "say(b'while it was recorded; the first error was: ValueError: x\\n', sys.stderr);"
        "say(b'Compile with TORCH_USE_CUDA_DSA\\n', sys.stderr); sys.exit(1)"
    )
    assert part(fails) == ["RuntimeError: CUDA error: no; error was: ValueError: x"]


def test_what_a_part_says_of_its_errors_is_kept(gpu: ModuleType, tmp_path: Path, part: Any) -> None:
    del part  # runs other parts in its place
    (tmp_path / "gpu_parts.py").write_text(ROW + "say(b'one\\ntwo', sys.stderr); say(row(1))")
    log = tmp_path / "live.log"
    assert len(list(gpu.measured(gpu.Wanted("live", 1.0, {}), {}, 300.0, log))) == 1
    assert log.read_text() == "one\ntwo\n"


def test_one_thing_that_fails_leaves_the_others_of_its_part(
    gpu: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = importlib.import_module("gpu_parts")
    make = parts.cuda_engine

    def fails(*given: Any, options: Any, **more: Any) -> Any:
        if options.kv == "bfloat16":
            raise RuntimeError("not here")
        return make(*given, options=options, **more)

    monkeypatch.setattr(parts, "cuda_engine", fails)
    job = {"part": "correct", "models": ["tiny"], "device": "cpu", "steps": 1, "budget_s": 9.0}
    parts.main([json.dumps(job)])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    told = [row.get("precision", row.get("why")) for row in rows]
    assert told == ["float32", "float32, drawn", "RuntimeError: not here", "keys in float8"]


def test_a_child_that_a_part_left_is_not_waited_for(
    part: Any, gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("gpu_processes"), "REST_S", 0.1)
    later = 'import time; time.sleep(6); print(\'{"what": 0, "streams": 2}\')'
    assert part(f"say(row(1)); subprocess.Popen([sys.executable, '-c', {later!r}])") == [1]


def test_without_time_a_part_is_not_begun(gpu: ModuleType) -> None:
    rows = list(gpu.measured(gpu.Wanted("live", 1.0, {}), {}, -3.0))
    assert rows == [{"what": "failed", "part": "live", "why": "no time was left"}]


def test_a_device_that_does_not_answer_is_not_waited_for(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "NAME_S", 0.0)
    assert gpu.device_name("cuda") == "a device that did not tell its name in 0 s"
    assert gpu.device_name("cpu") == "the processor"


@pytest.mark.parametrize("error", [FileNotFoundError("git"), subprocess.TimeoutExpired("git", 20)])
def test_a_machine_without_git_is_measured_too(
    error: Exception, gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", fails)
    assert gpu.machine._git("describe") == ""


def test_the_table_is_there_after_each_part_and_says_why_rows_are_not(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time counts from the beginning, that of asking for the device's name too."""
    clock, tables, budgets = [100.0], list[str](), list[float]()

    def asked(_: str) -> str:
        clock[0] += 30
        return "a device"

    def told(part: Any, _: Any, budget_s: float, log: Path) -> Iterator[dict[str, Any]]:
        budgets.append(budget_s)
        assert log.name in ("live-bfloat16.log", "live-float8.log")
        if (tmp_path / "gpu.md").exists():
            tables.append((tmp_path / "gpu.md").read_text())
        clock[0] += budget_s
        yield {"what": "fits", "streams": 2, "part": part.name}
        yield {"what": "stopped", "streams": 1, "why": "one was slow", "part": part.name}

    monkeypatch.setattr(gpu, "device_name", asked)
    monkeypatch.setattr(gpu.machine, "stamp", lambda: {"commit": "", "date": "today"})
    monkeypatch.setattr(gpu, "measured", told)
    monkeypatch.setattr(gpu.time, "monotonic", lambda: clock[0])
    command = ["gpu.py", "--out", str(tmp_path), "--device", "cpu", "--shape", "tiny", "--only",
               "live bfloat16,live float8", "--seconds", "50"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", command)
    gpu.main()
    assert budgets == [pytest.approx(10.0)] * 2
    tables.append((tmp_path / "gpu.md").read_text())
    assert [one.count("its turn did not come") for one in tables] == [4, 2, 0]
    assert [one.count("not measured: 2 fit; one was slow") for one in tables] == [0, 2, 4]
    assert tables[-1].startswith("a device, commit unknown, today.")


def test_why_more_streams_were_not_tried_is_told(
    gpu: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = importlib.import_module("gpu_parts")
    monkeypatch.setattr(parts, "TOO_SLOW_MS", 0.0)
    (part,) = (one for one in gpu.wanted("tiny", "tiny", "cpu", True) if one.name == "live float8")
    parts.main([json.dumps({"device": "cpu", "steps": 1, "budget_s": 9.0, **part.job})])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["what"], row["streams"]) for row in rows] == [("live", 1), ("stopped", 1)]
    assert rows[1]["why"] == "the 99th percentile with 1 streams was beyond 0 ms"


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
    assert table.count("not measured: ConfigError: attention='triton' does not") == 2
    assert table.count("not measured") == 3
