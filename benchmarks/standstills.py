"""A process that only sleeps, beside a measurement: when it wakes late, the machine stood still.

A virtual machine is taken off its processors now and then. A step that such a moment hits is not
slow by itself, so it is counted apart. The process sleeps for a millisecond again and again; the
steps' own threads hold it up by less than `LATE_S`.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Span = tuple[float, float]
"""From one reading of `time.perf_counter` to another, which all processes share on Linux."""

LATE_S = 0.01
"""Seconds between two wakings from which on the machine counts as having stood still."""

_SLEEP_S = 0.001


class Probe:
    """The process, from `with` on to the end of its block."""

    def __enter__(self) -> "Probe":
        """Start it, and wait until it watches."""
        self._process = subprocess.Popen(
            [sys.executable, "-S", str(Path(__file__).resolve())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self._process.stdout.readline()
        return self

    def __exit__(self, *_: object) -> None:
        """End it, if `spans` has not."""
        self._process.kill()
        self._process.communicate()

    def spans(self) -> list[Span]:
        """When the machine stood still until now; the process ends."""
        out, _ = self._process.communicate("end\n")
        return [(start, end) for start, end in json.loads(out)]


def marked(steps: Sequence[Span], stood: Sequence[Span]) -> dict[str, Any]:
    """What standstills did to a row of steps.

    Args:
        steps: when each step began and ended.
        stood: when the machine stood still.

    Returns:
        How many steps a standstill touched, the longest of these standstills, and the p99 of all
        other steps (None if there are none).
    """
    from kiku.measure.times import Times  # the process that sleeps needs nothing of kiku

    touching = [[one for one in stood if one[0] < end and one[1] > start] for start, end in steps]
    rest = [end - start for (start, end), hit in zip(steps, touching, strict=True) if not hit]
    lengths = [end - start for hit in touching for start, end in hit]
    return {
        "steps": sum(map(bool, touching)),
        "longest_ms": round(max(lengths, default=0.0) * 1000, 1),
        "p99_ms_without": Times.of(rest).p99_ms if rest else None,
    }


def watch() -> None:
    """What the process does: sleep until its input ends, then print the spans."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), ended.set()), daemon=True).start()
    spans: list[Span] = []
    last, is_last = time.perf_counter(), False
    print("ready", flush=True)  # from here on nothing is missed
    while not is_last:
        is_last = ended.is_set()
        time.sleep(_SLEEP_S)
        now = time.perf_counter()
        if now - last > LATE_S:
            spans.append((last, now))
        last = now
    print(json.dumps(spans))


if __name__ == "__main__":
    watch()
