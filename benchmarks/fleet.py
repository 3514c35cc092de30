"""Clients of two replicas behind a balancer while those are restarted one by one, or one is killed.

    python benchmarks/fleet.py                                   # both balancers, both ways
    python benchmarks/fleet.py --balancer haproxy --how restart --streams 8
    python benchmarks/fleet.py --session-store redis://127.0.0.1:6379

Replicas, balancer (nginx or HAProxy with the files of deploy/, and TLS) and clients run on this
machine. The clients are those of `kiku loadtest --come-back`; each text is compared with that of a
client alone. Processor time of the balancer is read from the system. One line is appended to
results/fleet.jsonl; with --no-record it is only printed.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import local_fleet
import machine
from local_fleet import Fleet, wait_until
from serve import sounds
from serve_steps import processor_s

from kiku.serve.loadtest import FRAME, RATE
from kiku.serve.loadtest_sessions import SessionLoad

SOUND_S = 15.0
"""Seconds of each recording."""

_BEGIN_S = 8.0
"""Clients speak for so long before the first replica goes."""


def restart(fleet: Fleet) -> None:
    """All replicas, one after the other, as a rolling update does."""
    time.sleep(_BEGIN_S)
    for one in fleet.replicas:
        one.drain()
        one.wait()
        one.start()
        wait_until(lambda one=one: one.is_ready, "the restart of a replica")
        time.sleep(2.0)


def kill(fleet: Fleet) -> None:
    """One replica, without a word."""
    time.sleep(_BEGIN_S)
    fleet.replicas[0].kill()


HOW: dict[str, Callable[[Fleet], None]] = {"restart": restart, "kill": kill}


def balancer_s(program: str) -> float:
    """Seconds of processor time of all processes of a program that this one began, at any depth."""
    parents: dict[int, tuple[int, str]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        parents[int(path.parent.name)] = (int(rest.split()[1]), name)

    def is_ours(pid: int) -> bool:
        while pid in parents and pid != os.getpid():
            pid = parents[pid][0]
        return pid == os.getpid()

    found = [pid for pid, (_, name) in parents.items() if name == program and is_ours(pid)]
    return sum(processor_s(pid) for pid in found)


def measure(balancer: str, how: str, given: argparse.Namespace) -> dict[str, Any]:
    """One run."""
    options = ["--threads", "1", "--slots", str(given.streams), "--drain-s", str(given.drain_s)]
    if given.session_store:
        options += ["--session-store", given.session_store]
    with (
        tempfile.TemporaryDirectory() as folder,
        local_fleet.fleet(balancer, Path(folder), *options) as fleet,
    ):
        os.environ["SSL_CERT_FILE"] = str(fleet.certificate)
        load = SessionLoad(fleet.https, sounds(SOUND_S))

        async def run() -> dict[str, Any]:
            await load.listen()
            used = balancer_s(balancer)
            disturbing = asyncio.create_task(asyncio.to_thread(HOW[how], fleet))
            report = await load.run(given.streams, given.seconds)
            await disturbing
            num_frames = report.sessions * SOUND_S * RATE / FRAME
            return {
                "balancer": balancer, "how": how, "drain_s": given.drain_s,
                "session_store": (given.session_store or "none").partition(":")[0],
                **report.to_dict(),
                "balancer_us_a_frame": round(1e6 * (balancer_s(balancer) - used) / num_frames, 1),
            }  # fmt: skip

        try:
            return asyncio.run(run())
        finally:
            del os.environ["SSL_CERT_FILE"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--balancer", choices=local_fleet.BALANCERS, action="append")
    parser.add_argument("--how", choices=HOW, action="append")
    parser.add_argument("--streams", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=45.0)
    parser.add_argument("--drain-s", type=float, default=2.0)
    parser.add_argument("--session-store", help="of kiku serve; none given is none")
    parser.add_argument("--no-record", action="store_true")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for balancer in given.balancer or local_fleet.BALANCERS:
        for how in given.how or HOW:
            rows.append(measure(balancer, how, given))
            print(json.dumps(rows[-1], indent=2), flush=True)
    if not given.no_record:
        row = {**machine.stamp(), "what": "fleet", "runs": rows}
        machine.append(machine.RESULTS / "fleet.jsonl", row)


if __name__ == "__main__":
    main()
