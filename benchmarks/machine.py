"""What a number was measured on: the line that every result carries."""

import json
import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def processor() -> str:
    """Model name and the instruction sets that matter for matrix products."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = set(fields.get("flags", "").split())
    known = [f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile") if f in flags]
    return f"{fields.get('model name', platform.machine())} ({' '.join(known)})"


def read_bandwidth_gb_s(size: int = 1 << 28) -> float:
    """What all threads together read from memory, in GB/s: the best of five sums over 1 GiB of
    float32."""
    import torch

    numbers = torch.ones(size)
    best = 0.0
    for _ in range(5):
        started = time.perf_counter()
        numbers.sum()
        best = max(best, numbers.numel() * 4 / (time.perf_counter() - started) / 1e9)
    return round(best, 1)


def stamp() -> dict[str, Any]:
    """Commit, machine and versions."""
    root = Path(__file__).parent.parent
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True
    )
    versions = {"python": platform.python_version()}
    for package in ("torch", "transformers", "moshi", "onnxruntime", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": git.stdout.strip(),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "versions": versions,
    }


def append(name: str, row: dict[str, Any]) -> None:
    """Add one line to `results/<name>.jsonl`; lines are never changed."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.jsonl").open("a") as file:
        file.write(json.dumps({**stamp(), **row}) + "\n")
