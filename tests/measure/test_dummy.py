"""Random models on the real engine, and what is measured of them in other processes."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kiku.config import ModelConfig
from kiku.engine.kernels import ONNX_RUNTIME, Kernels
from kiku.engine.onnx import OnnxBackend, onnx_engine
from kiku.errors import CheckpointError, ConfigError
from kiku.measure import subprocesses
from kiku.measure.dummy import (
    is_dummy_model,
    open_dummy_model,
    open_model,
    shape_of,
    write_dummy_model,
)
from kiku.measure.limit import weight_bytes
from kiku.measure.speed import Speed, full_ring, noise
from tests import tiny


def _config() -> ModelConfig:
    """As the tiny models, but for heads that ONNX Runtime can rotate."""
    codec = tiny.codec_config()
    return ModelConfig(
        replace(codec, transformer=replace(codec.transformer, head_dim=16)),
        replace(tiny.lm_config(), transformer=tiny.transformer(head_dim=16, dim=128, ffn_dim=128)),
        text_delay_s=0.5,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dummy_model(tmp_path_factory.mktemp("dummy") / "tiny", _config(), "int8")


def test_it_listens(folder: Path) -> None:
    assert is_dummy_model(folder)
    model = open_model(folder, slots=2, threads=1)
    assert model.config == _config()
    tokens = model.tokens(noise(model.config, 4.0))
    assert len(set(tokens.tolist())) > 2
    found = Speed(model.scheduler.engine, model.config).live(2, past=10, count=3, warmup=1)
    assert found.step.count == 3


def test_it_is_written_once(folder: Path) -> None:
    before = (folder / "decoder.data").stat().st_mtime_ns
    write_dummy_model(folder, _config(), "int8")
    assert (folder / "decoder.data").stat().st_mtime_ns == before


def test_other_numbers_are_written_anew(tmp_path: Path) -> None:
    write_dummy_model(tmp_path, _config(), "int8")
    write_dummy_model(tmp_path, _config(), "float32")
    assert json.loads((tmp_path / "dummy_model.json").read_text())["precision"] == "float32"


@pytest.mark.parametrize("precision", ["int8", "float32", "int8_kv8"])
def test_its_weights_weigh_what_is_said(tmp_path: Path, precision: str) -> None:
    import onnx

    config = _config()
    write_dummy_model(tmp_path, config, precision)
    graph = onnx.load(str(tmp_path / "decoder.onnx"), load_external_data=False).graph
    read = 0
    for tensor in graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if place and "embedding" not in tensor.name:
            read += int(place["length"])
    assert weight_bytes(config.lm, precision) == pytest.approx(read, rel=0.05)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    assert not is_dummy_model(tmp_path)
    with pytest.raises(CheckpointError, match="no random model"):
        open_dummy_model(tmp_path)


def test_it_cannot_be_written_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_dummy_model(tmp_path / "file", _config(), "int8")


def test_shapes_have_names() -> None:
    assert shape_of("1b").lm.transformer.num_layers == 16
    with pytest.raises(ConfigError, match="choose one of 1b"):
        shape_of("7b")


def _in_process(command: Sequence[str]) -> str:
    """Run the child's program here."""
    assert list(command[:3]) == [sys.executable, "-m", "kiku.measure.subprocesses"]
    import contextlib
    import io

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        subprocesses.main(command[3:])
    return said.getvalue()


def test_memory_is_told(folder: Path) -> None:
    found = subprocesses.memory(str(folder), threads=1, runner=_in_process)
    if found is not None:  # not every system tells
        assert found.after_load >= found.libraries > 0
        assert found.to_dict()["per_slot"] == found.per_slot


def test_a_slot_takes_what_several_full_slots_take_more_than_one() -> None:
    asked: list[int] = []

    def runner(command: Sequence[str]) -> str:
        slots = json.loads(command[3])["slots"]
        asked.append(slots)
        rows = {"libraries": 1, "after_load": 100, "after_a_minute": 190, "private": 90}
        return json.dumps({**rows, "full": 1000 + 116 * slots})

    found = subprocesses.memory("demo", runner=runner)
    assert found is not None
    assert (found.per_slot, found.after_a_minute, found.private) == (116, 190, 90)
    assert asked == [1, found.slots]
    assert found.slots >= 4


def test_all_slots_are_filled_before_memory_is_compared(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: dict[int, int] = {}
    monkeypatch.setattr(
        Speed,
        "fill",
        lambda _, slots, past: steps.update((s, steps.get(s, 0) + past) for s in slots),
    )
    job = {"model": str(folder), "precision": None, "threads": 1, "slots": 3}
    if subprocesses._measure_memory(job) is not None:  # not every system tells
        assert len(steps) == 3
        assert min(steps.values()) >= full_ring(_config())


@pytest.mark.parametrize("used", [ONNX_RUNTIME, None], ids=["plain", "kernels"])
def test_a_full_ring_has_no_unused_place(folder: Path, used: Kernels | None) -> None:
    engine = onnx_engine(folder, _config(), used=used, threads=1)
    backend = engine.backend
    assert isinstance(backend, OnnxBackend)
    Speed(engine, _config()).fill(engine.open(lambda _: _config().pad_id)[:1], full_ring(_config()))
    for memory in (backend._codec.memory, backend._decoder.memory):
        for kept in (*memory.keys, *memory.values):
            assert kept[0].any(axis=(0, 2)).all()


def test_the_start_is_told(folder: Path, tmp_path: Path) -> None:
    import wave

    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 1000, 0, "NONE", ""))
        file.writeframes((np.random.default_rng(0).normal(0, 3000, 3000)).astype("<i2").tobytes())
    found = subprocesses.start(str(folder), tmp_path / "a.wav", threads=1, runner=_in_process)
    assert 0 < found.loaded_s <= found.first_tokens_s
    assert found.first_word_s is None or found.first_word_s >= found.first_tokens_s


def test_a_child_that_fails_is_told() -> None:
    with pytest.raises(subprocesses.ChildFailed, match=r"exit code 3: too bad"):
        subprocesses.run_child(
            [sys.executable, "-c", "import sys; print('too bad', file=sys.stderr); sys.exit(3)"]
        )
    with pytest.raises(subprocesses.ChildFailed, match="no result"):
        subprocesses.memory("demo", runner=lambda _: "nothing\n")
