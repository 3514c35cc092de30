"""A program that has a batch heard on Ray, for tests that kill it or its actors.

    python ray_driver.py JOB OUT

JOB is a JSON file: `sources`, and perhaps `rows` in a part at most. It prints a line for each
recording that is done, and at the end those that killed their process. A recording whose name
begins with "deadly" kills whoever opens it.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import kiku.audio.source
from kiku import fleet
from kiku.fleet import on_ray, store


class Actor(on_ray._Actor):  # pyright: ignore[reportPrivateUsage]
    """Dies of some recordings."""

    def __init__(self, request: Any) -> None:
        plain = kiku.audio.source._open_path  # pyright: ignore[reportPrivateUsage]

        def open_path(path: Path) -> Any:
            if path.name.startswith("deadly"):
                os.kill(os.getpid(), signal.SIGSEGV)
            return plain(path)

        kiku.audio.source._open_path = open_path  # pyright: ignore[reportPrivateUsage]
        super().__init__(request)


def main(job: str, output: str) -> None:
    """See the top of this file."""
    on_ray._Actor = Actor  # pyright: ignore[reportPrivateUsage]
    wanted = json.loads(Path(job).read_text())
    store.MOST_ROWS = wanted.get("rows", 1_000)
    report = fleet.transcribe(
        wanted["sources"],
        output,
        model=fleet.ModelSettings(threads=1, slots=4),
        run=fleet.Run(actors=2),
        on_progress=lambda progress: print(progress.files, flush=True),
    )
    print(json.dumps({"files": report.progress.files, "killed": report.killed}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
