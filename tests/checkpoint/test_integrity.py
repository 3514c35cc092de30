"""`verify` says of each thing whether it is in order."""

import hashlib
from pathlib import Path

import pytest

from kiku.checkpoint import integrity, verify
from kiku.checkpoint.integrity import Finding


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
