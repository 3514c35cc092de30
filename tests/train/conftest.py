"""A tiny checkpoint, for all tests of the room."""

from pathlib import Path

import pytest

from kiku.checkpoint import Loaded, load
from tests.checkpoint.models import write_native_folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_native_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def loaded(tiny_folder: Path) -> Loaded:
    return load(tiny_folder)
