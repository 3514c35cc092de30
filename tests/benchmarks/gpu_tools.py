"""What tests of the GPU benchmark share."""

import importlib
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kiku.engine.gpu.launches import row_sizes
from tests.conftest import ROOT


def rows_told(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Rows that parts told in this process."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def without_moshi(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts, which are processes of their own, cannot import moshi."""
    (folder / "moshi.py").write_text("raise ImportError('no moshi here')")
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{ROOT / 'src'}")


class Engines:
    """Runs parts whose engines are not made but noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.graphs: list[set[bool | None]] = []
        """Of each part, whether its engines record."""

    def __call__(self, job: dict[str, Any]) -> set[Any]:
        """All calls of the engines of a part that may run kernels: their shapes, dtypes, frames and
        rows."""
        calls, graphs = set[Any](), set[bool | None]()

        def noted(codec: Any, lm: Any, *, slots: int, options: Any, **_: Any) -> None:
            shapes = [str(replace(each.config.transformer, num_layers=1)) for each in (codec, lm)]
            dtype = lm.out_norm.weight.dtype
            graphs.add(options.graphs)
            for T in options.sizes if options.attention != "plain" else ():
                rows = row_sizes(T, slots, options.rows)
                calls.update((*shapes, dtype, options.kv, max(options.sizes), T, R) for R in rows)
            raise Noted

        for room in ("gpu_parts", "gpu_saves", "gpu_tokens", "gpu_warm"):
            self._monkeypatch.setattr(importlib.import_module(room), "cuda_engine", noted)
        with suppress(Noted):
            run(job)
        self.graphs.append(graphs)
        return calls


class Noted(Exception):
    """There is no engine."""


def run(job: dict[str, Any]) -> None:
    """A part, in this process."""
    job = {"device": "cpu", "steps": 1, "budget_s": 9.0, **job}
    importlib.import_module("gpu_parts").main([json.dumps(job)])
