"""How many processors a container, or a service, may use: the quota of its control group."""

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_FILES = Path("sys/fs/cgroup")


def quota_of_processors(root: Path = Path("/")) -> int | None:
    """Processors that Linux gives to this process at most, rounded up; None if it sets no limit.

    A group's limit holds for all groups in it, so the smallest on the path to the top counts. In a
    container the path is often the one outside the container, of which only the top can be seen.
    """
    quotas = [quota for folder in _groups(root) if (quota := _quota_in(folder)) is not None]
    return max(1, math.ceil(min(quotas))) if quotas else None


def _groups(root: Path) -> Iterator[Path]:
    """Folders of the groups that this process is in, in either version of control groups."""
    try:
        lines = (root / "proc/self/cgroup").read_text(errors="replace").splitlines()
    except OSError:
        lines = ["0::/", "1:cpu:/"]
    for line in lines:
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers == "":  # version 2; in "unified" where both are in use
            tops = [root / _FILES, root / _FILES / "unified"]
        elif "cpu" in controllers.split(","):
            tops = [root / _FILES / controllers, root / _FILES / "cpu"]
        else:
            continue
        way = PurePosixPath("/") / path
        if ".." in way.parts:  # a group outside the top that can be seen
            way = PurePosixPath("/")
        for top in tops:
            yield from (top / group.relative_to("/") for group in (way, *way.parents))


def _quota_in(folder: Path) -> float | None:
    """Processors by the files of one group; None where it sets no limit, or has no such files."""
    try:
        both = (folder / "cpu.max").read_text().split()
    except OSError:
        try:
            both = [(folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")]
        except OSError:
            return None
    try:
        quota, period = map(int, both)  # "max" and -1 are no limit
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None
