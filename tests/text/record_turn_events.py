"""Writes down what the endpointer tells of random frames, so that it can be made faster unchanged.

    python tests/text/record_turn_events.py

The frames are drawn from numbered seeds and need not be kept; `turn_events.json.gz` holds the
events of each seed. Record them anew only where turns are meant to be told otherwise.
"""

import gzip
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kiku.text import Endpointer, TurnEvent, TurnPolicy, Word

RECORD = Path(__file__).with_name("turn_events.json.gz")
SEEDS = range(120)
FRAME_S = 0.08
SPOKEN = ["right", "left", "and", "five", "le", "555", "12,", "double", "go.", "plus", "B", "O"]
LEVELS = ["low", "medium", "high"]


def recorded(seed: int, endpointer: type[Endpointer] = Endpointer) -> list[list[Any]]:
    """The events of one seed, each as the number of its frame and its kind, time, probability.

    A seed also picks the eagerness, whether there are heads, and how often text is forced out.
    """
    draw = random.Random(seed).random  # the same on every machine and version
    heads, delay_s = seed // 3 % 2 == 0, (0.5, 2.5)[seed // 6 % 2]
    policy = TurnPolicy.of(LEVELS[seed % 3])  # pyright: ignore[reportArgumentType]
    turns = endpointer(policy, frame_rate=1 / FRAME_S, delay_s=delay_s)
    told: list[list[Any]] = []
    time = -1.0 if draw() < 0.3 else 0.0
    frame = 0
    while frame < 600:
        # One stretch of sound: pauses, level and words are about the same in it.
        pause, level = draw(), (-math.inf, -70.0, -52.0, -45.0, -20.0, math.nan)[int(draw() * 6)]
        talks = (0.0, 0.05, 0.3)[int(draw() * 3)]
        for _ in range(int(1 + draw() ** 2 * 60)):
            frame, time = frame + 1, time + FRAME_S
            words = [_word(draw, time, delay_s) for _ in range(int(draw() < talks) * _few(draw))]
            told += _events(frame, turns.push(
                time, _pauses(draw, pause) if heads and draw() < 0.99 else None,
                level + draw() * 3, words, draw() < talks / 2,
            ))  # fmt: skip
            if draw() < (0.2 if turns.wants_text else 0.002):
                words = [_word(draw, time, 0.1)] if draw() < 0.3 else []
                told += _events(frame, turns.finalized(max(0.0, time - draw()), words))
    told += _events(frame, turns.finish(time))
    said = " ".join(word.text for word in turns.words)
    return [*told, [frame, "said", said, None]]


def _few(draw: Any) -> int:
    return 1 + int(draw() * 1.3)


def _word(draw: Any, time: float, delay_s: float) -> Word:
    end = max(0.0, time - delay_s * draw())
    return Word(SPOKEN[int(draw() * len(SPOKEN))], max(0.0, end - draw()), end, draw())


def _pauses(draw: Any, pause: float) -> Sequence[float]:
    """Heads of ever longer pauses, which say ever less; now and then damaged."""
    heads = [max(0.0, min(1.0, pause * 1.2 - 0.15 * i + (draw() - 0.5) * 0.1)) for i in range(4)]
    if draw() < 0.01:
        heads[int(draw() * 4)] = math.nan
    return heads[: 1 + int(draw() * 4)] if draw() < 0.02 else heads


def _events(frame: int, events: Sequence[TurnEvent]) -> list[list[Any]]:
    return [
        [frame, type(event).__name__, event.time, getattr(event, "probability", None)]
        for event in events
    ]


def main() -> None:
    """Write `turn_events.json.gz`."""
    lines = {seed: recorded(seed) for seed in SEEDS}
    data = json.dumps(lines, separators=(",", ":"), allow_nan=False).encode()
    RECORD.write_bytes(gzip.compress(data, mtime=0))


if __name__ == "__main__":
    main()
