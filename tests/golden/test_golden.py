"""Words, tokens, times, turns and saved states are what they were (see `make`)."""

import json
from typing import Any

import numpy as np
import pytest

from tests.golden import cases, make

TABLE: dict[str, Any] = json.loads(make.DATA.read_text())


def same(ours: Any, theirs: Any, path: str) -> None:
    """Equal; numbers within rounding: times to a microsecond, probabilities to 1e-4."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), path
        for name in theirs:
            same(ours[name], theirs[name], f"{path}.{name}")
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs), path
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            same(a, b, f"{path}[{i}]")
    elif isinstance(theirs, float):
        tolerance = 1e-4 if "probab" in path else 1e-6
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance, err_msg=path)
    else:
        assert ours == theirs, path


@pytest.mark.parametrize("engine", cases.ENGINES)
@pytest.mark.parametrize("name", cases.TINY)
def test_random_models_are_as_they_were(engine: str, name: str) -> None:
    same(make.of_a_tiny(engine, cases.TINY[name]), TABLE[name], f"{engine} {name}")


@pytest.mark.parametrize("engine", cases.ENGINES)
def test_recordings_are_as_they_were(engine: str) -> None:
    expected = {name: TABLE[name] for name in cases.RECORDINGS}
    same(make.of_recordings(engine), expected, engine)


@pytest.mark.parametrize("engine", cases.ENGINES)
def test_streams_of_the_demo_are_as_they_were(engine: str) -> None:
    same(make.of_the_demo(engine), TABLE["demo"], f"{engine} demo")


def test_nothing_else_is_kept() -> None:
    assert TABLE.keys() == {*cases.TINY, *cases.RECORDINGS, "demo"}
