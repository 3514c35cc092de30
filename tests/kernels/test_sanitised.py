"""The kernels under the sanitisers of the compiler: every read and write, every whole number."""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent
KERNELS = HERE.parents[1] / "kernels"
FLAGS = [
    "-std=c++20", "-O1", "-fno-exceptions", "-fno-rtti", "-ffp-contract=off",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
]  # fmt: skip
CALLING = ("attention", "embed", "hostile", "product", "search", "taps")
"""Tests that call the operators as ONNX Runtime does."""


def _builder() -> ModuleType:
    """The script that builds the library: it knows the sources and their instructions."""
    spec = importlib.util.spec_from_file_location("_build", KERNELS / "build_library.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


BUILDER = _builder()


def _sources() -> dict[str, tuple[str, ...]]:
    """Kernels of this architecture -> their instructions."""
    target = BUILDER.TARGETS.get(BUILDER.this_target())
    if platform.system() != "Linux" or target is None or shutil.which("g++") is None:
        return {}
    files = target.files.items()
    return {
        name.removeprefix("processor_").removesuffix(".cpp"): used for name, used in files if used
    }


def _run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=1200, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.heavy
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["avx512", "avxvnni", "avx2", "neon"])
def test_the_checker_finds_nothing_under_the_sanitisers(name: str, tmp_path: Path) -> None:
    if name not in (sources := _sources()):
        pytest.skip(f"there is no Linux, no g++ or no {name} here")
    flags = BUILDER._for_others(sources[name], BUILDER.TARGETS[BUILDER.this_target()])
    kernels = tmp_path / "kernels.o"
    _run("g++", *FLAGS, *flags, "-c", KERNELS / f"cpp/processor_{name}.cpp", "-o", kernels)
    checks = sorted((KERNELS / "check").glob("*.cpp"))
    _run("g++", *FLAGS, *checks, kernels, "-o", tmp_path / "check")
    said = _run(tmp_path / "check", name)
    if f"{name} is not this machine" in said:
        pytest.skip(f"this machine does not run {name}")
    assert said.endswith("1 checked, 0 wrong\n")


@pytest.mark.heavy
@pytest.mark.timeout(3600)
def test_the_whole_library_finds_nothing_under_the_sanitisers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ONNX Runtime loads and calls it, with inputs that fit and inputs that do not."""
    if not _sources():
        pytest.skip("there is no Linux or no g++ here")
    monkeypatch.setenv("CXX", "g++")
    library = tmp_path / "kernels.so"
    BUILDER.build(library, extra=(*FLAGS[1:2], "-g", *FLAGS[5:]))
    runtimes = [_run("g++", f"-print-file-name=lib{one}.so").strip() for one in ("asan", "ubsan")]
    said = _run(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", "600",
        *(HERE / f"test_{name}.py" for name in CALLING),
        LD_PRELOAD=" ".join(runtimes), ASAN_OPTIONS="detect_leaks=0",  # Python leaves much behind
        KIKU_KERNELS_LIBRARY=str(library),
    )  # fmt: skip
    assert " passed" in said
    assert "failed" not in said
