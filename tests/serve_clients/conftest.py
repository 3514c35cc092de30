"""Programs of others with the service: LiveKit, Pipecat, Kyutai's scripts, Unmute, granian.

`make clients` installs what can be installed, into an environment of its own. Elsewhere these tests
are skipped.
"""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

# These are fixtures.
from tests.serve.conftest import demo, nobody_is_left, service  # noqa: F401

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What these programs warn of, and leave open at their end, is not ours."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(autouse=True)
def gathered() -> Iterator[None]:
    """What they leave open is found while that is ignored."""
    yield
    gc.collect()
