"""One service with the demo model for all tests of a worker, and what the recordings say."""

from collections.abc import Generator
from pathlib import Path

import pytest

import kiku
from tests.serve.running import Running, running
from tests.serve.talks import wait_for

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def demo() -> kiku.Recognizer:
    """The demo model with four slots."""
    return kiku.load("demo", slots=4)


@pytest.fixture(scope="session")
def service(demo: kiku.Recognizer) -> Generator[Running]:
    """A service that lets everybody in."""
    with running(demo, ahead=True) as one:
        yield one


@pytest.fixture(autouse=True)
def nobody_is_left(request: pytest.FixtureRequest) -> Generator[None]:
    """A test that uses the shared service gives back its slots: another may need all of them."""
    used = "service" in request.fixturenames
    service: Running | None = request.getfixturevalue("service") if used else None
    yield
    if service is not None:
        wait_for(lambda: service.service.admission.num_taken == 0, 30)
