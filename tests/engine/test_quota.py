"""The number of threads where nobody says one: processors, quota, OMP_NUM_THREADS."""

import os
from pathlib import Path

import pytest

import kiku
from kiku.engine.choice import usable_threads
from kiku.engine.quota import quota_of_processors

V2, V1 = "0::/kube/pod\n", "3:cpuset:/a\n2:cpu,cpuacct:/docker/ab\n1:memory:/m\n"


def _root(tmp_path: Path, groups: str | None, **files: str) -> Path:
    """A file system; the names of files are paths below /sys/fs/cgroup, `__` between folders."""
    written = {f"sys/fs/cgroup/{name.replace('__', '/')}": text for name, text in files.items()}
    if groups is not None:
        written["proc/self/cgroup"] = groups
    for name, text in written.items():
        name = name.replace("cpu_max", "cpu.max").replace("cpu_cfs", "cpu.cfs")
        path = tmp_path / name.replace("cpu_cpuacct", "cpu,cpuacct")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def _v1(folder: str, quota: str, period: str = "100000\n") -> dict[str, str]:
    return {f"{folder}__cpu_cfs_quota_us": quota, f"{folder}__cpu_cfs_period_us": period}


CASES: dict[str, tuple[str | None, dict[str, str], int | None]] = {
    "nothing at all": (None, {}, None),
    "v2": (V2, {"kube__pod__cpu_max": "200000 100000\n"}, 2),
    "v2, a part of a processor": (V2, {"kube__pod__cpu_max": "250000 100000\n"}, 3),
    "v2, less than one": (V2, {"kube__pod__cpu_max": "10000 100000\n"}, 1),
    "v2, no limit": (V2, {"kube__pod__cpu_max": "max 100000\n"}, None),
    "v2, of the group around it": (
        V2, {"kube__pod__cpu_max": "max 100000", "kube__cpu_max": "400000 100000"}, 4,
    ),
    "v2, the least of both": (
        V2, {"kube__pod__cpu_max": "800000 100000", "kube__cpu_max": "400000 100000"}, 4,
    ),
    "v2, seen from inside": ("0::/\n", {"cpu_max": "200000 100000\n"}, 2),
    "v2, with the way of the outside": (V2, {"cpu_max": "200000 100000\n"}, 2),
    "v2, beside the top": ("0::/../other\n", {"cpu_max": "200000 100000\n"}, 2),
    "v2, without /proc": (None, {"cpu_max": "200000 100000\n"}, 2),
    "v2, damaged": (V2, {"kube__pod__cpu_max": "many\n"}, None),
    "v2, of no length": (V2, {"kube__pod__cpu_max": "100000 0\n"}, None),
    "v1": (V1, _v1("cpu_cpuacct__docker__ab", "300000\n"), 3),
    "v1, by its short name": (V1, _v1("cpu__docker__ab", "300000\n"), 3),
    "v1, with the way of the outside": (V1, _v1("cpu_cpuacct", "300000\n", "50000\n"), 6),
    "v1, no limit": (V1, _v1("cpu_cpuacct__docker__ab", "-1\n"), None),
    "v1, without /proc": (None, _v1("cpu", "100000\n"), 1),
    "both": (V1 + "0::/x\n", {**_v1("cpu", "900000"), "unified__x__cpu_max": "200000 100000"}, 2),
}  # fmt: skip


@pytest.mark.parametrize(("groups", "files", "wanted"), CASES.values(), ids=CASES)
def test_quota(
    groups: str | None, files: dict[str, str], wanted: int | None, tmp_path: Path
) -> None:
    assert quota_of_processors(_root(tmp_path, groups, **files)) == wanted


@pytest.fixture
def processors(monkeypatch: pytest.MonkeyPatch) -> int:
    """So many that the process may run on."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return 8


@pytest.mark.parametrize(
    ("openmp", "wanted"),
    [
        ("3", 3), (" 2 ", 2), ("4,2", 4), ("64", 8), ("0", 8), ("-1", 8), ("all", 8), ("", 8),
        pytest.param("1" * 5000, 8, id="long"),
    ],
)  # fmt: skip
def test_openmp(
    openmp: str, wanted: int, processors: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert usable_threads(tmp_path) == processors
    monkeypatch.setenv("OMP_NUM_THREADS", openmp)
    assert usable_threads(tmp_path) == wanted


def test_the_least_of_all_counts(
    processors: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = _root(tmp_path, V2, kube__pod__cpu_max="500000 100000")
    assert usable_threads(root) == 5 < processors
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert usable_threads(root) == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert usable_threads(root) == 5


def test_pytorch_keeps_to_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless a number is given, or it computes with fewer anyway."""
    import torch

    chosen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr("kiku.loading.usable_threads", lambda: 2)
    kiku.load(engine="torch", device="cpu")
    assert chosen == [2]
    kiku.load(engine="torch", device="cpu", threads=5)
    assert chosen == [2, 5]
    monkeypatch.setattr("kiku.loading.usable_threads", lambda: 8)
    kiku.load(engine="torch", device="cpu")
    assert chosen == [2, 5]
