"""What tests of several rooms share."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The folder that holds README.md, docs and examples."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Recordings of people, which are not part of the project; the test is skipped without them."""
    path = Path(os.environ.get("KIKU_DATA", ROOT.parent / "shared" / "data"))
    if not (path / "clips.jsonl").is_file():
        pytest.skip(f"no recordings of people in {path}; say where they are in KIKU_DATA")
    return path
