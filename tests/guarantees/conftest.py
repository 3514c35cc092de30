"""The demo model with some slots, and recordings that everybody has."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

import kiku
from kiku.audio import read_chunks
from tests.conftest import ROOT

LONG_S = 120.0
"""Seconds after which what is waited for will not come."""


@pytest.fixture(scope="session")
def digits() -> NDArray[np.float32]:
    """[S] "seven three zero one nine four", 5.7 s."""
    return np.concatenate(list(read_chunks(str(ROOT / "examples/digits.wav"), 24_000)))


@pytest.fixture(scope="session")
def directions() -> NDArray[np.float32]:
    """[S] other words."""
    return np.concatenate(list(read_chunks(str(ROOT / "examples/directions.flac"), 24_000)))


@pytest.fixture
def load() -> Callable[..., kiku.Recognizer]:
    """Loads the demo model, on one thread."""

    def loaded(slots: int = 1) -> kiku.Recognizer:
        return kiku.load("demo", slots=slots, threads=1)

    return loaded


def texts(stream: kiku.LiveStream) -> list[str]:
    """The words of a stream, to its end; fails where it hangs."""
    found: list[str] = []
    while True:
        event = stream.next_event(LONG_S)
        assert event is not None, "the stream says nothing any more"
        if isinstance(event, kiku.Word):
            found.append(event.text)
        if isinstance(event, kiku.End):
            return found
