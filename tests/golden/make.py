"""Writes what the present code gives on the reference backend (`python -m tests.golden.make`).

Only where a change of words or tokens is meant; the difference then belongs into its commit.
"""

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiku import Recognizer
from tests.golden import cases, hall

DATA = Path(__file__).with_name("data.json")


def of_a_tiny(
    engine: str, model: dict[str, int], only: Collection[str] | None = None
) -> dict[str, Any]:
    """What a random model gives, by what was asked."""
    return _rows(hall.tiny(engine, **model), cases.tiny_sound(), 80, only)


def of_recordings(engine: str, names: Iterable[str] = cases.RECORDINGS) -> dict[str, Any]:
    """What the demo model gives, by recording."""
    rec = hall.demo(engine)
    return {name: hall.words(rec, cases.EXAMPLES / name) for name in names}


def of_the_demo(engine: str, only: Collection[str] | None = None) -> dict[str, Any]:
    """What the demo model gives, by what was asked."""
    return _rows(hall.demo(engine), hall.samples(cases.EXAMPLES / "digits.wav"), 1920, only)


def _rows(
    rec: Recognizer, sound: NDArray[np.float32], frame: int, only: Collection[str] | None
) -> dict[str, Any]:
    rows = {
        case.name: hall.events(rec, sound, case)
        for case in cases.stream_cases(len(sound), frame)
        if only is None or case.name in only
    }
    return {"tokens": hall.tokens(rec, sound), **rows}


def found(engine: str) -> dict[str, Any]:
    """All of an engine: by model or recording, by what was asked."""
    tiny = {name: of_a_tiny(engine, model) for name, model in cases.TINY.items()}
    return {**tiny, **of_recordings(engine), "demo": of_the_demo(engine)}


def main() -> None:
    """Write the file."""
    DATA.write_text(json.dumps(_rounded(found("torch")), separators=(",", ":")) + "\n")


def _rounded(value: Any) -> Any:
    """Floats to seven places, which is less than what is compared."""
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return round(value, 7) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
