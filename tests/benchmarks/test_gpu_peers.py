"""How the GPU benchmark measures others, with stand-ins for them."""

import importlib
import importlib.util
import json
import os
import sys
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from tests.benchmarks.gpu_tools import rows_told, run


class Model:
    """As a model of transformers: 3 ms a step by the clock, and the codec 1 ms a frame."""

    def __init__(self, clock: list[float]) -> None:
        self.clock, self.heard = clock, 0
        self.codec_model = SimpleNamespace(encode=self.encode)

    def to(self, _: str) -> "Model":
        return self

    def encode(self, frames: int) -> None:
        self.clock[0] += frames * 1e-3

    def generate(self, input_values: Any, logits_processor: Any, do_sample: bool) -> None:
        assert not do_sample
        frames = input_values.shape[-1] // 1920
        self.codec_model.encode(frames)
        for _ in range(frames):
            self.clock[0] += 3e-3
            self.heard += 1
            logits_processor[0](None, None)


@pytest.mark.parametrize(
    ("budget_s", "steps"), [(100.0, 60 + 50 - 1 - 40), (0.3, 23), (0.0, 20), (-9.0, 20)]
)
def test_transformers_ends_where_its_time_does(
    budget_s: float, steps: int, gpu: ModuleType, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """After a full window of 40 frames and 20 more: its row tells how many were measured."""
    peers, clock = importlib.import_module("gpu_peers"), [100.0]
    model = Model(clock)
    monkeypatch.setattr(peers.children, "_transformers_model", lambda *_: model)
    for name in ("perf_counter", "monotonic"):
        monkeypatch.setattr(peers.time, name, lambda: clock[0])
    run({"part": "transformers", "shape": "tiny", "steps": 50, "budget_s": budget_s})
    (row,) = rows_told(capsys)
    assert (row["engine"], row["steps"]) == ("transformers", steps)
    assert model.heard == 40 + steps + 1
    np.testing.assert_allclose([row["p50_ms"], row["max_ms"]], 4.0)


def test_transformers_does_not_take_a_benchmark_for_a_package(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks for one called `kernels`, and would import the file of that name."""
    children: Any = importlib.import_module("children")
    monkeypatch.delitem(sys.modules, "kernels", raising=False)
    assert importlib.util.find_spec("kernels")

    def config(**_: Any) -> None:
        assert importlib.util.find_spec("kernels") is None
        raise KeyboardInterrupt

    stand_in: Any = ModuleType("transformers")
    stand_in.KyutaiSpeechToTextConfig = config
    initialization: Any = ModuleType("transformers.initialization")
    initialization.no_init_weights = None
    monkeypatch.setitem(sys.modules, "transformers", stand_in)
    monkeypatch.setitem(sys.modules, "transformers.initialization", initialization)
    with pytest.raises(KeyboardInterrupt):
        children._transformers_model(children.TINY, None)


@pytest.mark.parametrize(
    ("more", "name"), [({}, "moshi"), ({"compiled": False}, "moshi, NO_TORCH_COMPILE=1")]
)
def test_moshi_is_told_not_to_compile(
    more: dict[str, Any], name: str, gpu: ModuleType, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    peers: Any = importlib.import_module("gpu_peers")
    stand_in = MagicMock()
    for module in ("moshi", "moshi.models", "moshi.models.loaders"):
        monkeypatch.setitem(sys.modules, module, stand_in)
    monkeypatch.setattr(peers, "_randomise", lambda _: None)
    monkeypatch.setenv("NO_TORCH_COMPILE", "")
    part = SimpleNamespace(
        job={"shape": "tiny", "streams": 2, **more}, on_gpu=True, device="cpu", dtype=None,
        times=lambda *_: {"steps": 1}, tell=lambda what, **row: print(json.dumps(row)),
    )  # fmt: skip
    peers.moshi(part)
    (row,) = rows_told(capsys)
    assert row["engine"] == name
    assert os.environ["NO_TORCH_COMPILE"] == ("1" if more else "")
