"""`verify` says of each thing whether it is in order."""

import hashlib
import json
from pathlib import Path

import pytest

from kiku.checkpoint import find, integrity, verify
from kiku.checkpoint.integrity import Finding
from kiku.checkpoint.reading import open_files
from kiku.errors import CheckpointError


def _wrong(findings: list[Finding]) -> list[Finding]:
    return [f for f in findings if not f.ok]


def test_whole(native_folder: Path, transformers_folder: Path) -> None:
    for folder in (native_folder, transformers_folder):
        findings = verify(folder)
        assert not _wrong(findings)
        assert {f.what for f in findings} >= {"files", "model.safetensors", "tokenizer.json"}


def test_not_a_checkpoint(tmp_path: Path) -> None:
    (finding,) = verify(tmp_path)
    assert not finding.ok
    assert "config.json is missing" in finding.detail


def test_damaged_weights(native_folder: Path) -> None:
    path = native_folder / "mimi.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    wrong = _wrong(verify(native_folder))
    assert {f.what for f in wrong} == {"mimi.safetensors", "tensors"}
    assert "cut short" in wrong[0].detail


def test_a_damaged_vocabulary(native_folder: Path) -> None:
    (native_folder / "tokenizer.json").write_text("{")
    assert [f.what for f in _wrong(verify(native_folder))] == ["tokenizer.json"]


def test_checksums(native_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = native_folder / "mimi.safetensors"
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(integrity._KNOWN_SHA256, path.name, right)
    assert Finding(path.name, True, "the checksum of the published file") in verify(native_folder)
    monkeypatch.setitem(integrity._KNOWN_SHA256, path.name, "0" * 64)
    (wrong,) = _wrong(verify(native_folder))
    assert right in wrong.detail
    assert not _wrong(verify(native_folder, checksums=False))


def test_known_by_its_size(native_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (native_folder / "model.safetensors").stat().st_size
    monkeypatch.setitem(integrity._KNOWN_BY_SIZE, size, ("something", "0" * 64))
    assert [f.what for f in _wrong(verify(native_folder))] == ["model.safetensors"]


HUGE = [
    ("config.json", ("num_layers",)), ("config.json", ("extra_heads_num_heads",)),
    ("config.json", ("existing_text_padding_id",)), ("mimi_config.json", ("quantizer", "n_q")),
    ("mimi_config.json", ("seanet", "n_residual_layers")),
    ("mimi_config.json", ("transformer", "num_layers")),
]  # fmt: skip


@pytest.mark.parametrize("number", [10**9, 10**30])
@pytest.mark.parametrize(("file", "keys"), HUGE)
def test_a_huge_number_is_one_finding(
    file: str, keys: tuple[str, ...], number: int, native_folder: Path
) -> None:
    _set(native_folder / file, keys, number)
    bad = _wrong(verify(native_folder))
    assert len(bad) == 1
    assert f"{file}: " in bad[0].detail
    assert "must be at most" in bad[0].detail


def test_a_model_of_another_size_is_not_listed_tensor_by_tensor(native_folder: Path) -> None:
    _set(native_folder / "config.json", ("num_layers",), 1000)
    bad = _wrong(verify(native_folder))
    assert len(bad) == 51
    assert bad[-1].detail.startswith("and 5,9")
    with pytest.raises(CheckpointError, match=r"\(\d+ differ\)(.|\n)*\n  and 5,9\d\d more\n"):
        open_files(find(native_folder)).refuse_problems()


@pytest.mark.parametrize("null", [True, False])
def test_a_codec_without_layer_scale_is_one_error(null: bool, native_folder: Path) -> None:
    _set(native_folder / "mimi_config.json", ("transformer", "layer_scale"), None)
    if not null:
        path = native_folder / "mimi_config.json"
        path.write_text(path.read_text().replace('"layer_scale": null,', ""))
    bad = _wrong(verify(native_folder))
    assert [f.what for f in bad] == ["tensors"]
    assert "a codec without layer_scale is not supported" in bad[0].detail


@pytest.mark.parametrize("name", ["config.json", "mimi_config.json", "tokenizer.json"])
def test_deep_json_is_one_error(name: str, native_folder: Path) -> None:
    (native_folder / name).write_text("[" * 200_000)
    bad = _wrong(verify(native_folder))
    assert len(bad) == 1
    assert name in bad[0].detail + bad[0].what


def test_a_deep_header_is_one_error(native_folder: Path) -> None:
    deep = b"[" * 200_000
    path = native_folder / "mimi.safetensors"
    path.write_bytes(len(deep).to_bytes(8, "little") + deep)
    bad = _wrong(verify(native_folder))
    assert "its header is damaged" in bad[0].detail


def _set(path: Path, keys: tuple[str, ...], value: object) -> None:
    values = json.loads(path.read_text())
    section = values
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = value
    path.write_text(json.dumps(values))
