"""Run the kernels of processors that this machine is not, and compare their results bit for bit.

    python tools/kernels_emulated.py

On Linux, x86-64 with AVX2. It needs g++ and libsimde-dev, whose functions stand in for AVX-512 and
AVX-VNNI; and ziglang in this Python and qemu-aarch64-static for NEON. Takes a minute or several.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

KERNELS = Path(__file__).parents[1] / "kernels"
FLAGS = ["-std=c++20", "-O1", "-fno-exceptions", "-fno-rtti", "-ffp-contract=off"]
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
STAND_INS = [*AVX2, "-w", "-include", str(KERNELS / "check/stand_ins.hpp")]
ZIG = [sys.executable, "-m", "ziglang", "c++", "-target", "aarch64-linux-musl"]
BUILDS = {
    "avx2": (["g++"], AVX2, ["--anyway"], []),
    "avxvnni": (["g++"], STAND_INS, ["--anyway"], []),
    "avx512": (["g++"], STAND_INS, ["--anyway"], []),
    "neon": (ZIG, ["-mcpu=baseline+dotprod"], [], ["qemu-aarch64-static"]),
}
"""By processor: compiler, flags of its kernels, arguments of the checker, what runs it."""


def checked(name: str, folder: Path) -> dict[str, str]:
    """By kernel, what the checker says of this processor."""
    compiler, flags, arguments, runner = BUILDS[name]
    kernels, check = folder / f"{name}.o", folder / name
    source = KERNELS / f"cpp/processor_{name}.cpp"
    subprocess.run([*compiler, *FLAGS, *flags, "-c", source, "-o", kernels], check=True)
    checks = sorted((KERNELS / "check").glob("*.cpp"))
    subprocess.run([*compiler, *FLAGS, "-static", *checks, kernels, "-o", check], check=True)
    done = subprocess.run([*runner, check, *arguments], stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="", flush=True)
    if done.returncode != 0:
        sys.exit(f"{name}: the checker found something wrong, or ended with {done.returncode}")
    lines = [line.split(" ", 2) for line in done.stdout.splitlines()]
    return {words[1]: words[2] for words in lines if words[0] == name}


def main() -> None:
    """Check all; end with a message where one differs from AVX2."""
    with tempfile.TemporaryDirectory() as folder:
        said = {name: checked(name, Path(folder)) for name in BUILDS}
    if different := [name for name in said if said[name] != said["avx2"]]:
        sys.exit(f"not the results of avx2 bit for bit: {', '.join(different)}")
    print("all give the same results bit for bit")


if __name__ == "__main__":
    main()
