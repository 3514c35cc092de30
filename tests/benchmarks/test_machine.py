"""How the benchmarks count what kiku keeps."""

import importlib
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kiku.checkpoint.model_shapes import SHAPES
from kiku.engine.kernels import ONNX_RUNTIME, Kernels
from kiku.engine.networks import OnnxDecoder
from kiku.graph import PRECISIONS, SCALE_BYTES
from kiku.measure.limit import keys_bytes, window_bytes
from tests import tiny
from tests.conftest import ROOT
from tests.engine.engines import graphs, own_kernels


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("alone", [False, True], ids=["kernels", "ONNX Runtime"])
def test_keys_have_the_bits_that_the_engine_keeps(
    module: Any, monkeypatch: pytest.MonkeyPatch, precision: str, alone: bool
) -> None:
    machine = module("machine")
    used = ONNX_RUNTIME if alone else own_kernels()
    monkeypatch.setattr(machine, "kernels", lambda: used)
    config = tiny.model_config()
    memory = OnnxDecoder(graphs(precision), config, 1, 1, used).memory
    bits, name = machine.key_bits(precision), machine.key_type(precision, has_kernels=not alone)
    assert (bits, name) == (8 * memory.keys[0].itemsize, memory.keys[0].dtype.name)
    t = config.lm.transformer
    kept = sum(one[0].nbytes for one in (*memory.keys, *memory.values))
    assert kept == keys_bytes(t, memory.keys[0].shape[2], bits)


def test_a_window_of_8_bits_is_half_of_one_of_16_and_its_scales(module: Any) -> None:
    lm = SHAPES["1b"].lm
    scales = 2 * lm.transformer.num_layers * lm.transformer.num_heads * 750 * SCALE_BYTES
    assert window_bytes(lm, 8) == window_bytes(lm, 16) // 2 + scales


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--precision", "int8_kv8", "--against", "kv8"], "compared with those of decoders in"),
        (["--precision", "float32", "--against", "kv8"], "compared with those of decoders in"),
        (["--precision", "int7"], "invalid choice: 'int7'"),
    ],
)
def test_variants_that_are_none_are_refused(
    module: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], says: str,
) -> None:  # fmt: skip
    variants = module("variants")
    monkeypatch.setattr(variants, "kernels", lambda: Kernels("here", "avx2", ""))
    monkeypatch.setattr("sys.argv", ["variants.py", *arguments])
    with pytest.raises(SystemExit):
        variants.main()
    assert says in capsys.readouterr().err


def test_keys_of_8_bits_beside_onnx_runtime_are_a_variant(
    module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    variants = module("variants")
    own_kernels()
    found: list[Namespace] = []

    def sides(folder: Path, config: Any, given: Namespace) -> dict[str, Any]:
        found.append(given)
        raise InterruptedError  # nothing is measured

    monkeypatch.setattr(variants, "sides", sides)
    monkeypatch.setattr("sys.argv", ["variants.py", "--precision", "int4_kv8", "--threads", "1"])
    with pytest.raises(InterruptedError):
        variants.main()
    monkeypatch.undo()
    both = variants.sides(tmp_path, tiny.model_config(), found[0])
    types = {name: network.memory.dtype for name, network in both.items()}
    assert types == {"kernels": np.int8, "onnxruntime": np.float32}
