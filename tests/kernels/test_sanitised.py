"""The kernels under the sanitisers of the compiler: every read and write, every whole number."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[2] / "kernels"
FLAGS = [
    "-std=c++20", "-O1", "-fno-exceptions", "-fno-rtti", "-ffp-contract=off",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
]  # fmt: skip
OWN = {
    "x86_64": ("avx2", ["-mavx2", "-mfma", "-mf16c"]),
    "aarch64": ("neon", ["-march=armv8.2-a+dotprod"]),
}
"""By machine: the kernels that nearly every one of them runs, and their flags."""


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.heavy
def test_the_checker_finds_nothing_under_the_sanitisers(tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("there is no g++ here")
    if platform.system() != "Linux" or platform.machine() not in OWN:
        pytest.skip(f"made for Linux on {' and '.join(OWN)}")
    name, flags = OWN[platform.machine()]
    kernels = tmp_path / "kernels.o"
    _run("g++", *FLAGS, *flags, "-c", KERNELS / f"cpp/processor_{name}.cpp", "-o", kernels)
    checks = sorted((KERNELS / "check").glob("*.cpp"))
    _run("g++", *FLAGS, *checks, kernels, "-o", tmp_path / "check")
    said = _run(tmp_path / "check", name)
    if f"{name} is not this machine" in said:
        pytest.skip(f"this machine does not run {name}")
    assert said.endswith("1 checked, 0 wrong\n")
