"""Words, tokens, times, turns and saved states are what they were (see `make`)."""

import json
from collections.abc import Collection
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


def of_table(name: str, only: Collection[str] | None) -> dict[str, Any]:
    """What is kept of a model, or a part of it."""
    kept: dict[str, Any] = TABLE[name]
    return kept if only is None else {case: kept[case] for case in ("tokens", *only)}


WHICH = pytest.mark.parametrize(
    ("engine", "only"),
    [
        pytest.param("onnx", None, id="onnx"),
        pytest.param("torch", cases.FEW, id="torch"),
        pytest.param("torch", None, id="torch, all", marks=pytest.mark.heavy),
    ],
)


@WHICH
@pytest.mark.parametrize("name", cases.TINY)
def test_random_models_are_as_they_were(
    engine: str, only: Collection[str] | None, name: str
) -> None:
    found = make.of_a_tiny(engine, cases.TINY[name], only)
    same(found, of_table(name, only), f"{engine} {name}")


@WHICH
def test_recordings_are_as_they_were(engine: str, only: Collection[str] | None) -> None:
    names = cases.RECORDINGS if only is None else cases.RECORDINGS[:1]
    same(make.of_recordings(engine, names), {name: TABLE[name] for name in names}, engine)


@WHICH
def test_streams_of_the_demo_are_as_they_were(engine: str, only: Collection[str] | None) -> None:
    same(make.of_the_demo(engine, only), of_table("demo", only), f"{engine} demo")


def test_nothing_else_is_kept() -> None:
    assert TABLE.keys() == {*cases.TINY, *cases.RECORDINGS, "demo"}
