"""A program that has a batch heard on Ray, for tests that kill it or its actors.

    python ray_driver.py JOB OUT

JOB is a JSON file: `sources`, and perhaps `rows` in a part at most. It prints a line for each
recording that is done, and at the end those that killed their process. A recording whose name
begins with "deadly" kills whoever opens it. With `machines` there are two of one processor, and
at a line "remove" on standard input the second is gone.
"""

import importlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import kiku.audio.source
from kiku import fleet
from kiku.fleet import on_ray, store
from kiku.fleet.quiet_ray import import_ray


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


@contextmanager
def two_machines() -> Iterator[None]:
    """In the block there is a Ray of two machines, both this one, the second of which may go."""
    ray = import_ray("a test")
    cluster_utils = importlib.import_module("ray.cluster_utils")
    store = 80_000_000
    cluster = cluster_utils.Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": store},
    )
    second = cluster.add_node(num_cpus=1, object_store_memory=store)
    ray.init(address=cluster.address, log_to_driver=False)

    def wait() -> None:
        if sys.stdin.readline().strip() == "remove":
            cluster.remove_node(second, allow_graceful=False)

    threading.Thread(target=wait, daemon=True).start()
    yield
    ray.shutdown()
    cluster.shutdown()


def main(job: str, output: str) -> None:
    """See the top of this file."""
    on_ray._Actor = Actor  # pyright: ignore[reportPrivateUsage]
    wanted = json.loads(Path(job).read_text())
    store.MOST_ROWS = wanted.get("rows", 1_000)
    with two_machines() if wanted.get("machines") else nullcontext():
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
