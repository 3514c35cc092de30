"""The processes of the GPU benchmark may fail, hang and say anything: what was measured is kept."""

import importlib
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from kiku.engine.gpu.capture import Graphs
from tests.benchmarks.gpu_tools import without_moshi


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
    assert len(rows) == 3, "without it a second attempt fails alike"
    table = gpu.table(parts, rows)
    assert "not measured: ImportError: no moshi here" in table
    assert table.count("not measured") == 1


# What a part may do to the run.

ROW = """
import json, subprocess, sys, time

job = json.loads(sys.argv[1])

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

    def run(does: str, **more: Any) -> list[Any]:
        (tmp_path / "gpu_parts.py").write_text(ROW + does)
        part = gpu.Wanted("live", 1.0, {"n": 1}, **more)
        rows = gpu.measured(part, {"m": 2}, 300.0, tmp_path / "gpu.log")
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


def test_what_parts_say_of_their_errors_is_kept_in_one_file(part: Any, tmp_path: Path) -> None:
    part("say(b'one\\ntwo', sys.stderr); say(row(1))")
    part("say(b'three', sys.stderr)")
    assert (tmp_path / "gpu.log").read_text() == "[live] one\n[live] two\n[live] three\n"


def unrecorded(monkeypatch: pytest.MonkeyPatch) -> str:
    """What the engine says where a call cannot be recorded."""
    for name in ("graph", "CUDAGraph", "graph_pool_handle"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    graphs = Graphs(torch.device("cpu"), enabled=True)
    graphs.add("step", MagicMock(side_effect=RuntimeError("not permitted")))
    with pytest.raises(RuntimeError) as error:
        graphs.record()
    return "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize("ends", ["sys.exit(1)", "say(row(0))"])
def test_a_part_that_cannot_be_recorded_is_run_again_without_graphs(
    ends: str, part: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it went on after that: CUDA is of no use to its process."""
    fails = (
        "\nif job.get('graphs') is False:"
        "\n    assert (job['n'], job['m']) == (1, 2) and job['begun']"
        "\n    say(row(2)); print('x', file=sys.stderr)"
        f"\nelse:\n    say({unrecorded(monkeypatch).encode()!r}, sys.stderr); {ends}"
    )
    why = "RuntimeError: not permitted; error was: RuntimeError: not permitted"
    assert part(fails) == [0 if "row" in ends else why, 2]
    log = (tmp_path / "gpu.log").read_text().splitlines()
    assert "[live] RuntimeError: not permitted" in log
    assert log[-1] == "[live, graphs off] x"
    assert part(fails.replace("is False", "is None")) == [2], "only where it is needed"


def test_a_part_that_gives_no_row_is_tried_otherwise(
    part: Any, gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    does = "say(row(1)) if job.get('compiled') is False else time.sleep(200)"
    monkeypatch.setattr(gpu, "FIRST_TRY", 0.01)
    otherwise = {"compiled": False}
    assert part(does, otherwise=otherwise) == ["took longer than 3 s", 1]
    assert part("sys.exit(3)", otherwise=otherwise) == ["ended with 3"] * 2
    assert part("say(row(1)); sys.exit(3)", otherwise=otherwise) == [1, "ended with 3"]
    missing = "raise ImportError('no moshi')"
    assert part(missing, otherwise=otherwise) == ["ImportError: no moshi"]


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


@pytest.mark.parametrize(
    ("least_s", "first_s"), [(1.0, 20.0 * 0.19 / (0.19 + 0.22)), (15.0, 15.0), (99.0, 20.0)]
)
def test_the_table_is_there_after_each_part_and_says_why_rows_are_not(
    least_s: float, first_s: float, gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time counts from the beginning, that of asking for the device's name too."""
    clock, tables, budgets = [100.0], list[str](), list[float]()

    def asked(_: str) -> str:
        clock[0] += 30
        return "a device"

    def told(part: Any, _: Any, budget_s: float, log: Path) -> Iterator[dict[str, Any]]:
        budgets.append(budget_s)
        assert log == tmp_path / "gpu.log"
        if (tmp_path / "gpu.md").exists():
            tables.append((tmp_path / "gpu.md").read_text())
        clock[0] += budget_s
        yield {"what": "fits", "streams": 2, "part": part.name}
        yield {"what": "stopped", "streams": 1, "why": "one was slow", "part": part.name}

    monkeypatch.setattr(gpu, "START_S", least_s)
    monkeypatch.setattr(gpu, "device_name", asked)
    monkeypatch.setattr(gpu.machine, "stamp", lambda: {"commit": "", "date": "today"})
    monkeypatch.setattr(gpu, "measured", told)
    monkeypatch.setattr(gpu.time, "monotonic", lambda: clock[0])
    command = ["gpu.py", "--out", str(tmp_path), "--device", "cpu", "--shape", "tiny", "--only",
               "live bfloat16,live float8", "--seconds", "50"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", command)
    gpu.main()
    assert budgets == pytest.approx([first_s, 20.0 - first_s])
    tables.append((tmp_path / "gpu.md").read_text())
    assert [one.count("its turn did not come") for one in tables] == [4, 2, 0]
    assert [one.count("not measured: 2 fit; one was slow") for one in tables] == [0, 2, 4]
    assert tables[-1].startswith("a device, commit unknown, today.")


def test_kernels_are_compiled_by_several_processes_and_what_failed_is_told(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits for the other: one after the other they would not end."""
    (tmp_path / "gpu_parts.py").write_text(
        ROW
        + f"""
from pathlib import Path
here = Path({str(tmp_path)!r})
(here / job["of"]).touch()
while len([*here.glob("part *")]) < 2:
    time.sleep(0.01)
if job["of"] == "part b":
    sys.exit(3)
print(json.dumps({{"what": "warm", "of": job["of"]}}))
"""
    )
    monkeypatch.setattr(gpu, "HERE", tmp_path)
    monkeypatch.setattr(gpu.os, "cpu_count", lambda: 16)
    parts = [gpu.Wanted(name, 0.0, {"of": name}) for name in ("part a", "part b")]
    rows = list(gpu.warmed(parts, {}, gpu.time.monotonic() + 200.0, tmp_path / "gpu.log"))
    assert {row["part"]: row.get("of", row.get("why")) for row in rows} == {
        "part a": "part a", "part b": "ended with 3",
    }  # fmt: skip


@pytest.mark.parametrize("only", ["none", "live float8"])
def test_all_kernels_are_compiled_first_into_a_folder(
    only: str, gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "")  # is put back
    monkeypatch.setattr(gpu.machine, "stamp", lambda: {"commit": "", "date": "today"})
    monkeypatch.setattr(gpu.time, "monotonic", lambda: 100.0)
    done = list[Any]()

    def noted(parts: Any, _: Any, ends: float, log: Path) -> Iterator[dict[str, Any]]:
        assert log == tmp_path / "out" / "gpu.log"
        done.extend([len(parts), ends])
        yield {"what": "failed", "part": parts[0].name, "why": "no compiler"}

    def told(part: Any, *_: Any) -> Iterator[dict[str, Any]]:
        done.append(part.name)
        yield from ()

    monkeypatch.setattr(gpu, "warmed", noted)
    monkeypatch.setattr(gpu, "measured", told)
    command = ["gpu.py", "--out", str(tmp_path / "out"), "--device", "cpu", "--shape", "tiny",
               "--warm", "--cache", str(tmp_path / "kernels"), "--only", only,
               "--seconds", "50"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", command)
    gpu.main()
    assert done == ([8, 150.0] if only == "none" else [8, 120.0, "live float8"])
    assert os.environ["TRITON_CACHE_DIR"] == str(tmp_path / "kernels")
    assert "not measured: no compiler" in (tmp_path / "out" / "gpu.md").read_text()
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {"gpu.jsonl", "gpu.md"}
