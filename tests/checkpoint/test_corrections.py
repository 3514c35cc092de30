"""Each known flaw is corrected once, with a warning; sane values pass untouched."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from kiku.checkpoint import CorrectedValue, Files, load, read_config
from kiku.checkpoint.config_native import write_native
from kiku.checkpoint.config_transformers import write_preprocessor, write_transformers
from kiku.config import ModelConfig
from tests.checkpoint.models import one_b, two_b


def _files(folder: Path, layout: Any, config: dict[str, Any], timing: dict[str, Any]) -> Files:
    """The config files alone; shapes and weights are not looked at here."""
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(timing))
    return Files(
        name=str(folder),
        layout=layout,
        config=folder / "config.json",
        lm=(_head(folder, config),) if layout == "transformers" else (),
        codec=(),
        vocabulary=None,
        preprocessor=folder / "preprocessor_config.json" if layout == "transformers" else None,
    )


def _head(folder: Path, config: dict[str, Any]) -> Path:
    """A text head as narrow as possible, whose last row is zero."""
    head = torch.ones(config["vocab_size"], 1)
    head[-1] = 0
    save_file({"lm_head.weight": head}, folder / "head.safetensors")
    return folder / "head.safetensors"


def _as_published(model: ModelConfig) -> dict[str, Any]:
    """config.json as the conversion script left it."""
    return write_transformers(model) | {
        "sliding_window": 375, "bos_token_id": 48000, "audio_pad_token_id": 69569,
    }  # fmt: skip


def test_the_published_1b(tmp_path: Path) -> None:
    files = _files(tmp_path, "transformers", _as_published(one_b()), write_preprocessor(one_b()))
    with pytest.warns(CorrectedValue) as caught:
        config = read_config(files)
    assert config == one_b()
    messages = [str(w.message) for w in caught]
    assert len(messages) == 3
    assert all(str(tmp_path / "config.json") in m for m in messages)
    assert any("sliding_window is 375, 750 is used" in m for m in messages)
    assert any("bos_token_id is 48000, 8000 is used" in m and "lm_head" in m for m in messages)
    assert any("audio_pad_token_id is 69569, 73569 is used" in m for m in messages)


def test_the_published_2_6b_has_a_right_window_and_pad_row(tmp_path: Path) -> None:
    files = _files(tmp_path, "transformers", _as_published(two_b()), write_preprocessor(two_b()))
    with pytest.warns(CorrectedValue) as caught:
        config = read_config(files)
    assert config == two_b()
    assert len(caught) == 1
    assert "bos_token_id is 48000, 4000 is used" in str(caught[0].message)


@pytest.mark.parametrize("model", [one_b(), two_b()])
@pytest.mark.parametrize("layout", ["native", "transformers"])
def test_what_kiku_writes_needs_no_correction(
    model: ModelConfig, layout: str, tmp_path: Path
) -> None:
    if layout == "native":
        values = write_native(model, mimi_name="m", tokenizer_name="t")
        files = _files(tmp_path, layout, values, {})
    else:
        files = _files(tmp_path, layout, write_transformers(model), write_preprocessor(model))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_config(files) == model


@pytest.mark.parametrize("model", [one_b(), two_b()])
def test_timing_that_the_published_files_lack(model: ModelConfig, tmp_path: Path) -> None:
    native = write_native(model, mimi_name="m", tokenizer_name="t")
    del native["stt_config"], native["max_period"], native["context"]
    with pytest.warns(CorrectedValue) as caught:
        assert read_config(_files(tmp_path, "native", native, {})) == model
    assert len(caught) == 4
    files = _files(tmp_path, "transformers", write_transformers(model), {})
    with pytest.warns(CorrectedValue) as caught:
        assert read_config(files) == model
    assert len(caught) == 2
    assert "preprocessor_config.json: audio_delay_seconds is missing" in str(caught[0].message)


def test_a_fine_tune_keeps_its_own_delay(tmp_path: Path) -> None:
    timing = write_preprocessor(one_b()) | {"audio_delay_seconds": 5.0}
    files = _files(tmp_path, "transformers", write_transformers(one_b()), timing)
    assert read_config(files).text_delay_s == 5.0


def _edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))


def test_theta_that_was_lost(transformers_folder: Path) -> None:
    _edit(transformers_folder, rope_theta=..., rope_parameters=...)
    with pytest.warns(CorrectedValue, match="rope_parameters is missing"):
        config = load(transformers_folder).config
    assert config.lm.transformer.rope_theta == 100_000.0


@pytest.mark.parametrize(
    "spelling",
    [
        {"rope_theta": 5000.0, "rope_parameters": ...},
        {"rope_theta": ..., "rope_parameters": {"rope_type": "default", "rope_theta": 5000}},
    ],
)
def test_a_stated_theta_is_kept_in_either_spelling(
    spelling: dict[str, Any], transformers_folder: Path
) -> None:
    _edit(transformers_folder, **spelling)
    assert load(transformers_folder).config.lm.transformer.rope_theta == 5000.0


def test_someones_own_small_window_is_kept(transformers_folder: Path) -> None:
    _edit(transformers_folder, sliding_window=375)
    assert load(transformers_folder).config.lm.transformer.window == 375


def test_a_last_row_that_is_not_zero_is_a_text(transformers_folder: Path) -> None:
    path = transformers_folder / "model.safetensors"
    tensors = load_file(path)
    rows = len(tensors["lm_head.weight"])
    tensors["lm_head.weight"][-1, 3] = 0.5
    save_file(tensors, path)
    loaded = load(transformers_folder)
    assert loaded.config.lm.text_vocab_size == rows
    assert loaded.config.lm.initial_text_id == rows - 1
    assert loaded.lm.text_head.weight[-1, 3] == 0.5


def test_a_start_id_inside_the_vocabulary_keeps_a_zero_row_too(transformers_folder: Path) -> None:
    _edit(transformers_folder, bos_token_id=1)
    lm = load(transformers_folder).config.lm
    assert lm.initial_text_id == 1
    assert lm.text_vocab_size == lm.text_rows
