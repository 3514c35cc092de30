"""Writes what the present code gives on the reference backend (`python -m tests.golden.make`).

Only where a change of words or tokens is meant; the difference then belongs into its commit.
"""

import json
from pathlib import Path
from typing import Any

from tests.golden import cases, hall

DATA = Path(__file__).with_name("data.json")


def of_a_tiny(engine: str, model: dict[str, int]) -> dict[str, Any]:
    """What a random model gives, by what was asked."""
    sound, rec = cases.tiny_sound(), hall.tiny(engine, **model)
    rows = {case.name: hall.events(rec, sound, case) for case in cases.stream_cases(7200, 80)}
    return {"tokens": hall.tokens(rec, sound), **rows}


def of_recordings(engine: str) -> dict[str, Any]:
    """What the demo model gives, by recording."""
    rec = hall.demo(engine)
    return {name: hall.words(rec, cases.EXAMPLES / name) for name in cases.RECORDINGS}


def of_the_demo(engine: str) -> dict[str, Any]:
    """What the demo model gives, by what was asked."""
    rec, sound = hall.demo(engine), hall.samples(cases.EXAMPLES / "digits.wav")
    size = len(sound)
    rows = {case.name: hall.events(rec, sound, case) for case in cases.stream_cases(size, 1920)}
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
