"""Builds the library of kernels: with `CXX` if it is set, else with zig, which is a package.

    python build_library.py OUT [TARGET]

TARGET is one of `TARGETS`, to build for another system than this one; only zig can do that.
"""

import hashlib
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parent / "cpp"

# Without exceptions and the C++ library, the file needs only the C library when it runs. And
# a * b + c is rounded twice unless the source says otherwise; else GCC would choose for each
# processor.
FLAGS = (
    "-std=c++20", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti",
    "-fno-threadsafe-statics", "-ffp-contract=off", "-Wall", "-Wextra",
)  # fmt: skip

_AVX2 = ("avx2", "fma", "f16c")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni")
X86 = {
    "library.cpp": (), "processor_avx2.cpp": _AVX2, "processor_avxvnni.cpp": (*_AVX2, "avxvnni"),
    "processor_avx512.cpp": _AVX512,
}  # fmt: skip
ARM = {"library.cpp": (), "processor_neon.cpp": ("dotprod",)}
"""Source file -> the instructions that it is built with."""


@dataclass(frozen=True)
class Target:
    """A system to build for."""

    zig: str
    files: dict[str, tuple[str, ...]]
    suffix: str
    wheel: str
    """The tag of its wheels."""


TARGETS = {
    "linux-x86_64": Target("x86_64-linux-gnu.2.17", X86, ".so", "manylinux2014_x86_64"),
    "linux-aarch64": Target("aarch64-linux-gnu.2.17", ARM, ".so", "manylinux2014_aarch64"),
    "macos-arm64": Target("aarch64-macos.11.0", ARM, ".dylib", "macosx_11_0_arm64"),
    "windows-x86_64": Target("x86_64-windows-gnu", X86, ".dll", "win_amd64"),
}


class CannotBuild(Exception):
    """There is no compiler, none for this system, or it failed."""


def this_target() -> str:
    """The name of this system in `TARGETS`; another name if it is not one of them."""
    system = {"Linux": "linux", "Darwin": "macos", "Windows": "windows"}.get(platform.system(), "")
    machine = platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "arm64" if system == "macos" else "aarch64"}.get(
        machine, machine
    )
    return f"{system}-{machine}"


def own_compiler(name: str) -> str:
    """The command in `CXX` if the target is this system; "" if zig has to build it."""
    return os.environ.get("CXX", "").strip() if name == this_target() else ""


def built(name: str) -> Path:
    """Where the library for a target is kept, once it is built: the name changes with the sources,
    the flags and the compiler."""
    digest = hashlib.sha256(repr((name, FLAGS, TARGETS.get(name), os.environ.get("CXX"))).encode())
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return SOURCES.with_name("build") / f"kernels-{name}-{digest.hexdigest()[:16]}"


def build(out: Path, name: str | None = None, extra: tuple[str, ...] = ()) -> Target:
    """Build the library into the file `out`.

    Args:
        out: the file.
        name: of a target; None is this system.
        extra: more flags, for both compiling and linking.

    Raises:
        CannotBuild: it could not be built; the message says why.
    """
    name = name or this_target()
    target = TARGETS.get(name)
    if target is None:
        raise CannotBuild(
            f"no kernels are made for {name}; there are some for {', '.join(TARGETS)}"
        )
    own = own_compiler(name)
    zig = [sys.executable, "-m", "ziglang", "c++", "-target", target.zig]
    try:
        _link(shlex.split(own) if own else zig, target, out, extra, is_zig=not own)
    except (CannotBuild, ValueError) as error:  # shlex's, for a malformed command
        if own:
            raise CannotBuild(f"CXX is {own!r} (without it zig is taken): {error}") from error
        raise
    return target


def _link(
    compiler: list[str], target: Target, out: Path, extra: tuple[str, ...], *, is_zig: bool
) -> None:
    """Compile the files side by side, and link them to the library."""

    def compiled(source: str, folder: str) -> str:
        features = target.files[source]
        path = os.path.join(folder, Path(source).stem + ".o")
        chosen = _for_zig(features) if is_zig else _for_others(features, target)
        _run([*compiler, *FLAGS, *extra, *chosen, "-c", str(SOURCES / source), "-o", path])
        return path

    with tempfile.TemporaryDirectory() as folder:
        with ThreadPoolExecutor() as pool:
            objects = list(pool.map(lambda source: compiled(source, folder), target.files))
        strip = [] if extra or target.suffix == ".dylib" else ["-s"]
        without = ["-nostdlib++"] if is_zig else []
        _run([*compiler, "-shared", *strip, *without, *extra, *objects, "-o", str(out)])


def _for_zig(features: tuple[str, ...]) -> list[str]:
    return [f"-mcpu=baseline{''.join('+' + feature for feature in features)}"]


def _for_others(features: tuple[str, ...], target: Target) -> list[str]:
    if target.files is ARM:
        return ["-march=armv8.2-a+dotprod"] if features else []
    # GCC would warn of values that its own headers leave uninitialized on purpose.
    return [
        *(f"-m{feature}" for feature in features),
        "-Wno-maybe-uninitialized",
        "-Wno-uninitialized",
    ]


def _run(command: list[str]) -> None:
    """Run a compiler, whose last argument is the file that it makes."""
    shown = shlex.join(command[:4])
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=900
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotBuild(f"{command[0]} could not be run: {error}") from error
    if done.returncode != 0:
        raise CannotBuild(f"{shown} ... failed: {done.stderr.strip()[-2000:]}")
    if not Path(command[-1]).exists():
        raise CannotBuild(f"{shown} ... made no file, so it is no compiler")


if __name__ == "__main__":
    try:
        build(Path(sys.argv[1]), *sys.argv[2:3])
    except CannotBuild as error:
        sys.exit(str(error))
