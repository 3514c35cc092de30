"""`kiku.load`: the real engines on tiny checkpoints, and what it refuses."""

import gc
import re
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kiku
from kiku.converted import convert
from kiku.engine.kernels import ONNX_RUNTIME
from kiku.errors import CheckpointError, ConfigError
from tests.checkpoint.models import write_native_folder, write_transformers_folder
from tests.conftest import ROOT, without_torch
from tests.tiny import PIECES

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint."""
    return write_native_folder(tmp_path_factory.mktemp("load") / "tiny")


def _sound() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.3, 4000).astype(np.float32)


def _is_onnx(recognizer: kiku.Recognizer) -> bool:
    return recognizer.scheduler.engine.description.startswith("onnx")


def test_the_gpu_engine_runs_on_a_processor_where_it_is_told_to(native: Path) -> None:
    gpu, torch = (kiku.load(native, engine=name, device="cpu") for name in ("cuda", "torch"))
    assert gpu.scheduler.engine.description == "cuda float32, keys in float32, on cpu"
    tokens = gpu.tokens(_sound())
    assert len(tokens) > 3
    assert np.array_equal(tokens, torch.tokens(_sound()))
    with pytest.raises(ConfigError, match="engine='cuda' runs checkpoints"):
        kiku.load(native, engine="cuda", dtype="int8")


def test_both_engines_say_the_same(native: Path, tmp_path: Path) -> None:
    for folder in (native, write_transformers_folder(tmp_path / "transformers")):
        onnx, torch = (kiku.load(folder, engine=name, device="cpu") for name in ("onnx", "torch"))
        assert _is_onnx(onnx)
        assert torch.scheduler.engine.description == "torch float32 on cpu"
        assert onnx.config == torch.config
        assert onnx.name == torch.name == str(folder)
        assert len(onnx.vocabulary) == len(torch.vocabulary) == len(PIECES)
        tokens = onnx.tokens(_sound())
        assert len(set(tokens.tolist())) > 2, "not a trivial model"
        assert np.array_equal(tokens, torch.tokens(_sound()))


def test_dtypes_slots_and_threads(native: Path) -> None:
    for dtype in ("float32", "int8", "int4"):
        recognizer = kiku.load(native, device="cpu", dtype=dtype, slots=3, threads=1)
        assert _is_onnx(recognizer)
        assert recognizer.free_slots == 3
        assert len(recognizer.tokens([_sound()] * 2)[1]) == 4000 // recognizer.config.frame_size
    half = kiku.load(native, device="cpu", dtype="bfloat16")
    assert half.scheduler.engine.description == "torch bfloat16 on cpu"


def test_keys_of_8_bits_that_have_32_are_told(
    native: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("kiku.engine.kernels.kernels", lambda: ONNX_RUNTIME)
    for dtype, told in (("int8", False), ("int8_kv8", True)):
        kiku.load(native, engine="onnx", dtype=dtype)
        assert ("keys and values have 32 bits" in caplog.text) == told


def test_threads_of_torch(native: Path) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        kiku.load(native, engine="torch", device="cpu", threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_converted_folder(native: Path, tmp_path: Path) -> None:
    model = convert(native, precision="int8", folder=tmp_path / "there")
    recognizer = kiku.load(model.folder)
    same = kiku.load(native, engine="onnx", dtype="int8")
    assert np.array_equal(recognizer.tokens(_sound()), same.tokens(_sound()))
    assert kiku.load(model.folder, dtype="int8").config == same.config
    with pytest.raises(ConfigError, match="converted to int8, not int4; leave dtype out"):
        kiku.load(model.folder, dtype="int4")
    with pytest.raises(ConfigError, match="is a converted model: leave revision 'v1' out"):
        kiku.load(model.folder, revision="v1")
    (model.folder / "decoder.data").unlink()
    with pytest.raises(CheckpointError, match=r"decoder\.data is damaged .missing."):
        kiku.load(model.folder)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"slots": 0}, "slots must be at least 1, not 0"),
        ({"slots": "4"}, "slots must be a whole number, at least 1, not '4'"),
        ({"slots": True}, "slots must be a whole number, at least 1, not True"),
        ({"threads": 1.5}, "threads must be a whole number, at least 1, not 1.5"),
        ({"threads": 0}, "threads must be at least 1, not 0"),
        ({"engine": "tpu"}, "no engine 'tpu'"),
        ({"device": "cuda:99"}, "no device 'cuda:99'"),
        ({"dtype": "int8", "engine": "torch"}, "needs ONNX Runtime"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_fetched(
    asked: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        kiku.load("owner/never-fetched", **asked)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("wrong", [None, b"demo", 1, ["demo"]])
def test_what_is_no_name_of_a_model_is_told_with_what_is_one(wrong: object) -> None:
    with pytest.raises(ConfigError, match=r"must be a name or a folder, not .*'demo'"):
        kiku.load(wrong)  # pyright: ignore[reportArgumentType]


def test_numbers_of_numpy_load_a_model(native: Path) -> None:
    recognizer = kiku.load(native, engine="onnx", slots=np.int64(2), threads=1.0)  # pyright: ignore
    assert recognizer.free_slots == 2


@pytest.mark.parametrize("engine", ["onnx", "torch", "cuda"])
def test_the_demo_has_no_revisions(engine: str) -> None:
    with pytest.raises(CheckpointError, match="it has no revision 'nosuch'; leave `revision` out"):
        kiku.load("demo", engine=engine, device="cpu", revision="nosuch")


@pytest.mark.parametrize("engine", ["onnx", "torch", "cuda"])
def test_a_model_that_nobody_holds_any_more_is_gone(engine: str, native: Path) -> None:
    recognizer = kiku.load(native, engine=engine, device="cpu", slots=2, threads=1)
    transcript = recognizer.transcribe(_sound(), rate=recognizer.config.sample_rate)
    with recognizer.stream() as stream:
        stream.push(_sound())
        stream.close()
        assert list(stream.events())
    held = [weakref.ref(one) for one in (recognizer, recognizer.scheduler.engine)]
    del recognizer, stream
    for thread in threading.enumerate():  # which ends with the last stream, a moment later
        if thread.name == "kiku-driver":
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
    gc.collect()
    assert [one() for one in held] == [None, None]
    assert transcript.duration > 0  # which holds nothing of it


_LISTEN = """
import kiku
recognizer = kiku.load(engine=sys.argv[1])
print(recognizer.transcribe(sys.argv[2]).text)
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize("engine", ["auto", "onnx"])
def test_the_demo_listens_without_torch(engine: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", without_torch(_LISTEN), engine, str(ROOT / "examples/digits.wav")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "seven three zero one nine four\n"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"slots": "4"}, "slots must be a whole number, at least 1, not '4'"),
        ({"threads": 1.5}, "threads must be a whole number"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        kiku.load(**given)


def test_an_empty_name_is_not_the_current_folder(
    native: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(native, folder=tmp_path)
    for folder in (native, tmp_path):
        monkeypatch.chdir(folder)
        with pytest.raises(CheckpointError, match="the name of the model is empty"):
            kiku.load("")
