"""Tiny checkpoints, one of each layout, written once and copied for whoever damages them."""

import shutil
from pathlib import Path

import pytest

from tests.checkpoint.cached_repo import fake_hub as fake_hub
from tests.checkpoint.cached_repo import hub_cache as hub_cache
from tests.checkpoint.models import write_native_folder, write_transformers_folder


@pytest.fixture(scope="session")
def _written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    write_native_folder(folder / "native")
    write_transformers_folder(folder / "transformers")
    return folder


@pytest.fixture
def native_folder(_written: Path, tmp_path: Path) -> Path:
    """A copy of a tiny checkpoint in Kyutai's layout."""
    return Path(shutil.copytree(_written / "native", tmp_path / "native"))


@pytest.fixture
def transformers_folder(_written: Path, tmp_path: Path) -> Path:
    """A copy of a tiny checkpoint in transformers' layout."""
    return Path(shutil.copytree(_written / "transformers", tmp_path / "transformers"))
