"""The GPU benchmark goes through on the processor, and says what it did not measure."""

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def test_a_dry_run_on_the_processor(tmp_path: Path) -> None:
    command = [
        sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--out", str(tmp_path),
        "--device", "cpu", "--shape", "tiny", "--only", "attention,correct,live float8,moshi",
        "--seconds", "200",
    ]  # fmt: skip
    # A part that fails loses only its own rows.
    (tmp_path / "moshi.py").write_text("raise ImportError('no moshi here')")
    paths = f"{tmp_path}:{ROOT / 'src'}"
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=280,
        env=env,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    rows = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    correct = {row["precision"]: row["same"] for row in rows if row["what"] == "correct"}
    assert correct["float32"] == 1.0
    assert correct.keys() == {"float32", "bfloat16", "keys in float8"}
    live = [row for row in rows if row["what"] == "live"]
    assert [(row["streams"], row["steps"], row["kv"]) for row in live] == [
        (1, 5, "float8"), (3, 5, "float8"),
    ]  # fmt: skip
    table = (tmp_path / "gpu.md").read_text()
    assert table in ran.stdout
    assert "not measured: ImportError: no moshi here" in table
    # Triton's kernels run on GPUs, and are asked for by name here.
    assert table.count("not measured: kiku.errors.ConfigError: attention='triton' does not") == 2
    assert table.count("not measured") == 3
