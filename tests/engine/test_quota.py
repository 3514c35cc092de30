"""The number of threads where nobody says one: processors, quota, OMP_NUM_THREADS."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kiku
from kiku.compat.faster_whisper import WhisperModel
from kiku.engine.choice import usable_of, usable_threads
from kiku.engine.onnx import OnnxBackend
from kiku.engine.quota import quota_of_processors
from kiku.fleet import ModelSettings

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


def test_pytorch_keeps_to_it_too(processors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless a number is given that is no more than there are processors, or it computes with fewer
    anyway."""
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
    kiku.load(engine="torch", device="cpu", threads=10_000)
    assert chosen == [2, 5, processors]


def test_more_threads_than_processors_are_not_taken(
    processors: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They would wait for one another; `OMP_NUM_THREADS` is no number of processors."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert [usable_of(n, tmp_path) for n in (1, 7, processors)] == [1, 7, processors]
    assert not caplog.records
    assert usable_of(10_000, tmp_path) == processors
    quota = _root(tmp_path, V2, kube__pod__cpu_max="500000 100000")
    assert [usable_of(n, quota) for n in (5, 6)] == [5, 5]
    told = [(one.name.partition(".")[0], one.getMessage()) for one in caplog.records]
    message = "threads were asked for, but this process may use"
    assert told == [
        ("kiku", f"10000 {message} 8 processors: it computes with 8 threads"),
        ("kiku", f"6 {message} 5 processors: it computes with 5 threads"),
    ]


def test_every_door_keeps_to_the_processors(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    made: list[int] = []
    real = OnnxBackend.__init__

    def noted(self: OnnxBackend, *args: Any, **settings: Any) -> None:
        real(self, *args, **settings)
        made.append(self.threads)

    monkeypatch.setattr(OnnxBackend, "__init__", noted)
    doors: list[Callable[[], object]] = [
        lambda: kiku.load(engine="onnx", threads=2),
        lambda: WhisperModel("demo", device="cpu", cpu_threads=2),
        lambda: ModelSettings("demo", device="cpu", threads=2).load(),
    ]
    for door in doors:
        caplog.clear()
        door()
        assert [one.levelname for one in caplog.records if "asked for" in one.message] == [
            "WARNING"
        ]
    assert made == [1] * len(doors)
