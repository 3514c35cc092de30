"""What is held: sounds, how they are pushed, and what is wanted of them; no word of kiku's API.

A script is a list of steps: `["push", first, last]` of the case's sound in samples, `["finalize",
cut]`, `["save"]` (and go on with the restored stream). Wishes are plain values that `hall` spells
in the API of the day.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ENGINES = ("onnx", "torch")
FEW = ("frames", "truncate", "redecode", "codebooks", "all at once")
"""Cases in which an engine does all that engines do: frames and blocks, saving, going back, reading
again, sampling, fewer codebooks. What is above the engines is the same in all cases."""
RECORDINGS = ("digits.wav", "directions.flac", "answers.mp3")

TINY = {f"tiny {seed}": {"seed": seed, "heads": heads} for seed, heads in ((0, 4), (1, 4), (2, 0))}
"""Random models."""


def tiny_sound(frames: int = 90) -> NDArray[np.float32]:
    """[S] noise and tones, for models with frames of 80 samples at 1 kHz."""
    t = np.arange(frames * 80)
    noise = np.random.default_rng(5).standard_normal(t.size) * 0.2
    return (noise + 0.3 * np.sin(t * 0.2) * (t // 800 % 2)).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """One stream."""

    name: str
    wishes: dict[str, Any] = field(default_factory=dict[str, Any])
    script: list[list[Any]] = field(default_factory=list[list[Any]])


def whole(size: int) -> list[list[Any]]:
    """One push."""
    return [["push", 0, size]]


def pieces(size: int, step: int, *, first: int = 0) -> list[list[Any]]:
    """Pushes of `step` samples."""
    return [["push", at, min(at + step, size)] for at in range(first, size, step)]


def stream_cases(size: int, frame: int) -> list[Case]:
    """For a sound of `size` samples and a frame of `frame`."""
    half = size // 2
    turns = {"turns": "medium", "partials": True}
    middle = [["push", 0, half], ["finalize", False], *pieces(size, 3 * frame, first=half)]
    return [
        Case("whole", turns, whole(size)),
        Case("frames", turns, pieces(size, frame)),
        Case("odd", turns, [["push", 0, 1], *pieces(size, 7 * frame // 3, first=1)]),
        Case("pauses", {"pauses": True, "turns": "high"}, pieces(size, 5 * frame)),
        Case("finalize", turns, middle),
        Case("cut", turns, [["push", 0, half], ["finalize", True], ["push", half, size]]),
        Case("save", turns, [["push", 0, half], ["save"], ["push", half, size]]),
        Case("truncate", turns | {"truncate": [32, 20]}, pieces(size, 2 * frame)),
        Case("redecode", turns | {"redecode": [48, 30]}, whole(size)),
        Case("plain", {"recovery": False}, whole(size)),
        Case("sampled", {"temperature": 0.7, "top_k": 20, "seed": 3}, whole(size)),
        Case("codebooks", {"num_codebooks": 2}, whole(size)),
        Case("hotwords", {"hotwords": [["one", 6.0], ["go", 8.0]]}, whole(size)),
        Case(
            "all at once",
            turns | {"temperature": 0.5, "seed": 1, "hotwords": [["one", 3.0]]},
            [*pieces(half, 2 * frame), ["save"], ["finalize", False], ["push", half, size]],
        ),
    ]
