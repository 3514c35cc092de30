"""Which engine is taken, and one sentence for what cannot be."""

import subprocess
import sys
from pathlib import Path

import pytest

from kiku import graph
from kiku.checkpoint.loading import DTYPES as TORCH_DTYPES
from kiku.engine import choice
from kiku.engine.choice import DTYPES, choose_engine
from kiku.errors import ConfigError, MissingExtra


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)


def _with_device(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(choice, "_has_torch_device", lambda: there)


def test_dtypes_are_those_of_the_engines() -> None:
    assert set(DTYPES["onnx"]) == set(graph.PRECISIONS)
    assert set(DTYPES["torch"]) == set(DTYPES["cuda"]) == {*TORCH_DTYPES, "auto"}


@pytest.mark.parametrize(
    ("asked", "has_device", "taken"),
    [
        ({}, False, "onnx"),
        ({}, True, "torch"),
        ({"device": "cpu"}, True, "onnx"),
        ({"device": "auto"}, True, "torch"),
        ({"device": "cuda:1"}, False, "torch"),
        ({"device": "mps"}, False, "torch"),
        ({"dtype": "float32"}, False, "onnx"),
        ({"dtype": "float32"}, True, "torch"),
        ({"dtype": "int8"}, True, "onnx"),
        ({"dtype": "int4", "device": "cpu"}, True, "onnx"),
        ({"dtype": "bfloat16"}, False, "torch"),
        ({"dtype": "float16", "device": "cpu"}, False, "torch"),
        ({"dtype": "auto"}, False, "torch"),
        ({"converted": True}, True, "onnx"),
        ({"engine": "onnx"}, True, "onnx"),
        ({"engine": "torch"}, False, "torch"),
        ({"engine": "torch", "device": "cpu"}, False, "torch"),
        ({"engine": "cuda"}, False, "cuda"),
        ({"engine": "cuda", "device": "cuda:1", "dtype": "bfloat16"}, True, "cuda"),
        ({"engine": "cuda", "dtype": "float32"}, True, "cuda"),
    ],
)
def test_what_is_taken(
    asked: dict[str, object], has_device: bool, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_device(monkeypatch, has_device)
    wanted = {"engine": "auto", "device": None, "dtype": None, **asked}
    assert choose_engine(**wanted) == taken  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"engine": "tpu"}, "no engine 'tpu'; use 'auto', 'onnx', 'torch' or 'cuda'"),
        ({"dtype": "int7"}, "dtype must be one of auto, bfloat16, .*, not 'int7'"),
        (
            {"engine": "onnx", "device": "cuda"},
            "device 'cuda' needs PyTorch, but engine='onnx' runs",
        ),
        (
            {"engine": "onnx", "dtype": "bfloat16"},
            "'bfloat16' needs PyTorch, but .*int8_kv8 or int4_kv8:",
        ),
        ({"engine": "torch", "dtype": "int8"}, "'int8' needs ONNX Runtime, but .*float16 or auto"),
        ({"device": "cuda", "dtype": "int8"}, "device 'cuda' needs PyTorch, but dtype 'int8'"),
        ({"engine": "cuda", "dtype": "int4"}, "'int4' needs ONNX Runtime, but engine='cuda' runs"),
        ({"converted": True, "engine": "cuda"}, "needs ONNX Runtime, but engine='cuda' runs check"),
        (
            {"converted": True, "engine": "torch"},
            "a converted model needs ONNX Runtime, but .*check",
        ),
        ({"converted": True, "dtype": "float16"}, "'float16' needs PyTorch, but a converted model"),
    ],
)
def test_what_cannot_be(asked: dict[str, object], message: str) -> None:
    wanted = {"engine": "auto", "device": None, "dtype": None, **asked}
    with pytest.raises(ConfigError, match=message) as caught:
        choose_engine(**wanted)  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_torch")
def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_sees_device", lambda: True)
    assert choose_engine("auto", device=None, dtype=None) == "onnx"
    for asked in ({"engine": "torch"}, {"engine": "cuda"}, {"device": "cuda"}, {"dtype": "auto"}):
        wanted = {"engine": "auto", "device": None, "dtype": None, **asked}
        with pytest.raises(MissingExtra, match=r"pip install '\.\[torch\]'"):
            choose_engine(**wanted)  # pyright: ignore[reportArgumentType]


def test_a_hidden_device_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(choice, "_SIGNS", (str(tmp_path),))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert choice._sees_device()
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert not choice._sees_device()


def test_on_a_plain_processor_torch_is_not_imported_to_find_out() -> None:
    program = (
        "import sys; from kiku.engine import choice; choice._SIGNS = (); sys.platform = 'linux';"
        "assert choice.choose_engine('auto', device=None, dtype=None) == 'onnx';"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
