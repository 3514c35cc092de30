"""What is found, and what is made of it."""

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from kiku.engine.kernels import Kernels
from kiku.measure import doctor
from kiku.measure.machine import Machine
from tests.conftest import ROOT

MACHINE = Machine("A processor", "x86_64", ("AVX2", "AVX-512", "AVX-512 VNNI"), 2, 24_000_000_000)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KIKU_CACHE", str(tmp_path))
    return tmp_path


def test_it_looks_for_what_kiku_requires() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    required = {re.split("[^a-zA-Z0-9_-]", one)[0] for one in project["dependencies"]}
    assert set(doctor.NEEDED) == required
    extras = set(project["optional-dependencies"]) - {"dev", "clients"}
    assert set(doctor.EXTRAS) == extras


def test_a_report_of_this_machine(cache: Path) -> None:
    (cache / "onnx" / "model").mkdir(parents=True)
    (cache / "onnx" / "model" / "decoder.data").write_bytes(bytes(1000))
    report = doctor.examine(bandwidth=lambda: 40e9)
    assert report.missing == []
    assert report.cache_bytes == 1000
    assert report.bandwidth_gb_s == 40
    assert {e.shape for e in report.expected} == {"1b", "2.6b"}
    assert report.to_dict()["machine"]["threads"] == report.machine.threads


def test_where_nobody_is_at_home_there_is_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIKU_CACHE", "~no-such-user-here/cache")
    report = doctor.examine(bandwidth=lambda: 40e9)
    assert (report.cache, report.cache_bytes) == (None, 0)


def test_without_memory_to_spare_nothing_is_measured() -> None:
    def fail() -> float:
        raise MemoryError

    report = doctor.examine(bandwidth=fail)
    assert report.bandwidth_gb_s is None
    assert report.expected == ()


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "NEEDED", ("numpy", "no-such-package-here"))
    monkeypatch.setattr(doctor, "EXTRAS", {"none": ("no_such_package_here",)})
    report = doctor.examine(bandwidth=lambda: 40e9)
    assert report.missing == ["no-such-package-here"]
    assert report.extras == {"none": False}


NONE = Kernels(None, "", "it could not be built")
OWN = Kernels("kernels.so", "avx512", "")


def test_kernels_follow_the_instructions() -> None:
    assert [k.instructions for k in doctor.kernels_of(MACHINE, OWN)] == [
        "AVX-512 VNNI", "AVX-512 VNNI", "AVX-512",
    ]  # fmt: skip
    arm = replace(MACHINE, instructions=("NEON", "dot product"))
    found = [k.instructions for k in doctor.kernels_of(arm, replace(OWN, processor="neon"))]
    assert found == ["dot product", "dot product", "NEON"]
    older = doctor.kernels_of(MACHINE, replace(OWN, processor="avx2"))  # as KIKU_KERNELS may ask
    assert [k.instructions for k in older] == ["AVX2", "AVX2", "AVX-512"]
    old = doctor.kernels_of(replace(MACHINE, instructions=()), NONE)
    assert all("far from real time" in kernel.note for kernel in old)
    unknown = doctor.kernels_of(replace(MACHINE, instructions=None), NONE)
    assert all("does not tell" in kernel.note for kernel in unknown)


def test_it_says_whose_kernels_are_used_and_why() -> None:
    with_own, without = doctor.kernels_of(MACHINE, OWN), doctor.kernels_of(MACHINE, NONE)
    assert [kernel.by for kernel in with_own] == ["kiku-kernels", "kiku-kernels", "ONNX Runtime"]
    assert {kernel.by for kernel in without} == {"ONNX Runtime"}
    assert not any("could not be built" in kernel.note for kernel in with_own)
    assert [kernel.note.partition("; ")[2] for kernel in with_own] == [
        "keys of 16 bits, of 8 with int8_kv8", "keys of 16 bits, of 8 with int4_kv8", "",
    ]  # fmt: skip
    assert not any("_kv8" in kernel.note for kernel in without)
    assert all("could not be built" in kernel.note for kernel in without[:2])


def test_what_is_typical_is_slower_than_the_limit() -> None:
    for slow, fast in zip(doctor.expected(20e9, OWN), doctor.expected(40e9, OWN), strict=True):
        assert slow.typical_ms > slow.limit_ms
        assert slow.limit_ms == pytest.approx(2 * fast.limit_ms, abs=0.2)
    assert not all(e.real_time for e in doctor.expected(20e9, OWN))


def test_what_is_typical_is_slower_without_the_kernels() -> None:
    typical = [
        {(e.shape, e.precision): e.typical_ms for e in doctor.expected(47e9, own)}
        for own in (OWN, NONE)
    ]
    assert all(typical[1][which] > 1.2 * ms for which, ms in typical[0].items())
    assert typical[0]["2.6b", "int8"] < 80 < typical[1]["2.6b", "int8"]


def test_a_report_expects_what_the_kernels_in_use_give(monkeypatch: pytest.MonkeyPatch) -> None:
    for own in (OWN, NONE):
        monkeypatch.setattr(doctor, "_own_kernels", lambda own=own: own)
        assert doctor.examine(bandwidth=lambda: 47e9).expected == doctor.expected(47e9, own)
