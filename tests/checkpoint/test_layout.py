"""Which files belong to a checkpoint, and what is said when some are not there."""

import json
from pathlib import Path

import pytest

from kiku.checkpoint import find
from kiku.errors import CheckpointError, UnsupportedConfig
from tests.checkpoint.cached_repo import cache_repo


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
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin\); kiku only reads safetensors"):
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


OUTSIDE = [
    "file:///etc/passwd", "/etc/passwd", "../elsewhere", "sub/../../elsewhere", "..\\elsewhere",
    "C:\\elsewhere", "C:elsewhere", "~/elsewhere", "\\\\host\\share",
]  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("key", ["moshi_name", "mimi_name", "tokenizer_name", "mimi_config_name"])
def test_a_config_names_nothing_outside_of_its_folder(
    native_folder: Path, name: str, key: str
) -> None:
    (native_folder.parent / "elsewhere").write_bytes(b"{}")
    _change(native_folder / "config.json", **{key: name})
    with pytest.raises(CheckpointError, match="put the file there, and its plain name into"):
        find(native_folder)


@pytest.mark.parametrize("name", OUTSIDE[1:])
def test_an_index_names_nothing_outside_of_its_folder(transformers_folder: Path, name: str) -> None:
    (transformers_folder / "model.safetensors").rename(transformers_folder.parent / "elsewhere")
    index = transformers_folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match="is outside the checkpoint"):
        find(transformers_folder)


def test_files_in_folders_of_the_checkpoint(native_folder: Path) -> None:
    (native_folder / "sub").mkdir()
    (native_folder / "mimi.safetensors").rename(native_folder / "sub/mimi.safetensors")
    _change(native_folder / "config.json", mimi_name="sub/mimi.safetensors")
    assert find(native_folder).codec == (native_folder / "sub/mimi.safetensors",)


def test_links_stay_in_the_folder(native_folder: Path, tmp_path: Path) -> None:
    mimi, outside = native_folder / "mimi.safetensors", tmp_path / "elsewhere"
    mimi.rename(native_folder / "real")
    mimi.symlink_to("real")
    (tmp_path / "link").symlink_to(native_folder)
    assert find(tmp_path / "link").codec, "the folder itself may be a link"
    mimi.unlink()
    (native_folder / "real").rename(outside)
    mimi.symlink_to(outside)
    with pytest.raises(CheckpointError, match=r"is a link to .*elsewhere, outside of"):
        find(native_folder)
    mimi.unlink()
    (native_folder / "sub").symlink_to(tmp_path)
    _change(native_folder / "config.json", mimi_name="sub/elsewhere")
    with pytest.raises(CheckpointError, match="outside of the checkpoint's folder"):
        find(native_folder)


def test_links_into_the_cache_of_the_hub_are_its_own(native_folder: Path, tmp_path: Path) -> None:
    snapshot = cache_repo(tmp_path / "hub", native_folder)
    shared = tmp_path / "hub/shared"
    (snapshot / "tokenizer.json").resolve().rename(shared)
    (snapshot / (snapshot / "tokenizer.json").readlink()).symlink_to(shared)
    assert find(snapshot).vocabulary == snapshot / "tokenizer.json", "two repositories share it"
    assert find(snapshot).codec == (snapshot / "mimi.safetensors",)
    mimi = native_folder / "mimi.safetensors"
    mimi.unlink()
    mimi.symlink_to(snapshot / "mimi.safetensors")
    assert find(native_folder).codec == (mimi,), "somebody's own link to a download"


def _change(config: Path, **values: str) -> None:
    config.write_text(json.dumps({**json.loads(config.read_text()), **values}))
