"""The tiny checkpoints of the checkpoint room, and a cache for each test."""

from pathlib import Path

import pytest

from tests.checkpoint.conftest import _written, native_folder, transformers_folder

__all__ = ["_written", "native_folder", "own_cache", "transformers_folder"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("KIKU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "onnx"
