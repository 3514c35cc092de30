"""What tests of several benchmarks share."""

import importlib
from types import ModuleType

import pytest

from tests.conftest import ROOT


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The GPU benchmark; modules beside it can be imported, too."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("gpu")
