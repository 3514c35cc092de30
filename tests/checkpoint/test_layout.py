"""Which files belong to a checkpoint, and what is said when some are not there."""

import json
from pathlib import Path

import pytest

from kiku.checkpoint import find
from kiku.errors import CheckpointError, UnsupportedConfig


def test_native(native_folder: Path) -> None:
    files = find(native_folder)
    assert files.layout == "native"
    assert [p.name for p in files.weights] == ["model.safetensors", "mimi.safetensors"]
    assert files.codec_config == native_folder / "mimi_config.json"
    assert files.vocabulary == native_folder / "tokenizer.json"


def test_transformers(transformers_folder: Path) -> None:
    files = find(str(transformers_folder))
    assert files.layout == "transformers"
    assert files.lm == files.codec == files.weights
    assert files.preprocessor == transformers_folder / "preprocessor_config.json"


def test_every_missing_file_is_listed(native_folder: Path) -> None:
    (native_folder / "mimi.safetensors").unlink()
    (native_folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError) as caught:
        find(native_folder)
    message = str(caught.value)
    assert "tokenizer.json, mimi.safetensors missing" in message
    assert "model.safetensors" in message.split("there are:")[1]


def test_without_weights_they_are_not_asked_for(native_folder: Path) -> None:
    (native_folder / "model.safetensors").unlink()
    assert find(native_folder, weights=False).weights == ()


def test_missing_shards_are_listed(transformers_folder: Path) -> None:
    (transformers_folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"index\.json and its shards\) missing"):
        find(transformers_folder)
    index = transformers_folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"m-1\.safetensors, m-2\.safetensors missing"):
        find(transformers_folder)
    index.write_text(json.dumps({"weight_map": {"a": ["m-1.safetensors"]}}))
    with pytest.raises(CheckpointError, match=r"the name of a shard, not \['m-1\.safetensors'\]"):
        find(transformers_folder)
    index.write_text("{}")
    with pytest.raises(CheckpointError, match="no weight_map"):
        find(transformers_folder)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json is missing \(the folder is empty\)"):
        find(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin\); only safetensors are read"):
        find(tmp_path)


@pytest.mark.parametrize("kind", ["whisper", "moshi", None])
def test_another_kind_of_model(kind: str | None, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(UnsupportedConfig, match=f"of type {kind!r}"):
        find(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", "\udce4", '{"a":' * 200_000])
def test_a_config_that_is_not_json(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        find(tmp_path)


def test_addresses_in_a_native_config(native_folder: Path, tmp_path: Path) -> None:
    """`file://` as Kyutai's loader understands it."""
    moved = tmp_path / "elsewhere.safetensors"
    (native_folder / "mimi.safetensors").rename(moved)
    config = native_folder / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "mimi_name": f"file://{moved}"}))
    assert find(native_folder).codec == (moved,)
    config.write_text(json.dumps({**values, "mimi_name": "file:///nowhere/at/all"}))
    with pytest.raises(CheckpointError, match="points to file:///nowhere/at/all"):
        find(native_folder)
