"""What a number was measured on: the line that every result carries.

Importing it puts the root of the repository on the path, for scripts that measure with `recipes`.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from kiku.engine.kernels import kernels
from kiku.graph.quantise import dtype_of_keys
from kiku.measure.machine import this_machine

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

sys.path.append(str(ROOT))


def key_type(precision: str, *, has_kernels: bool) -> str:
    """In what kiku's decoder keeps keys and values, with kiku-kernels or without."""
    return np.dtype(dtype_of_keys(precision)).name if has_kernels else "float32"


def key_bits(precision: str) -> int:
    """Bits of a number among the keys and values that kiku's decoder keeps here; scales of those in
    8 bits are not among them."""
    has_kernels = kernels().library is not None
    return 8 * np.dtype(key_type(precision, has_kernels=has_kernels)).itemsize


def _git(*arguments: str) -> str:
    """What git says; nothing where it is missing, or does not answer."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def stamp() -> dict[str, Any]:
    """Date, commit, machine and versions."""
    # What an earlier part of the same run has appended changes nothing that is measured.
    changes = _git("status", "--porcelain", "--untracked-files=no", ":!benchmarks/results")
    commit = _git("describe", "--always") + ("-dirty" if changes else "")
    versions = {"python": platform.python_version()}
    for package in ("kiku", "torch", "transformers", "moshi", "onnxruntime", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    if kernels().library:  # that were there and were used
        versions["kiku-kernels"] = version("kiku-kernels")
    here = this_machine()
    known = ", ".join(here.instructions or ())
    memory = f"{(here.memory_bytes or 0) / 1e9:.0f} GB"
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit,
        "machine": f"{here.processor} ({known}), {here.threads} cores, {memory}",
        "versions": versions,
    }


def append(path: Path, row: dict[str, Any]) -> None:
    """Add one line to a file of results; lines are never changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def measured(description: str, name: str, measure: Callable[[Path], dict[str, Any]]) -> None:
    """The whole of a script that measures something on a folder of recordings, prints it, and
    appends it to the results of this name."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder of recordings")
    parser.add_argument("--no-record", action="store_true", help="print only")
    given = parser.parse_args()
    row = {**stamp(), **measure(given.data)}
    print(json.dumps(row, indent=2))
    if not given.no_record:
        append(RESULTS / f"{name}.jsonl", row)
