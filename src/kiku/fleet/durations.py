"""Read the lengths that some recordings state, in a separate process.

A recording that is made to crash decoders then crashes only this process, and no batch.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, cast

from kiku.audio import duration_s
from kiku.fleet.opening import open_items
from kiku.fleet.sources import Item

_AT_ONCE = 16
_PATIENCE_S = 300.0


def probe_durations(items: Sequence[Item]) -> list[float | None]:
    """Seconds of each recording; None if it states none, or if the process crashed before."""
    if not items:
        return []
    given = "".join(json.dumps([item.path, item.size]) + "\n" for item in items)
    path = os.pathsep.join(filter(None, sys.path))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "kiku.fleet.durations"],
            input=given.encode(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path}, timeout=_PATIENCE_S, check=False,
        )  # fmt: skip
        output = done.stdout
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
    found: dict[int, float | None] = {}
    for line in output.split(b"\n")[:-1]:
        number, seconds = json.loads(line)
        found[number] = seconds
    return [found.get(number) for number in range(len(items))]


def main(given: BinaryIO, out: int) -> None:
    """Answer each line of `given` with its number and its seconds, in any order."""
    items = [Item(path, size) for path, size in map(json.loads, given)]

    def probe(number: int) -> None:
        with open_items([items[number]]) as (source,):
            seconds = duration_s(cast("str | BinaryIO", source))
        os.write(out, (json.dumps([number, seconds]) + "\n").encode())

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(probe, range(len(items))))


if __name__ == "__main__":
    answers = os.dup(1)
    os.dup2(2, 1)  # output that libraries print must not be taken for an answer
    main(sys.stdin.buffer, answers)
