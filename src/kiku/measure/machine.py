"""The processor, its instructions, and how fast the memory is read."""

import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiku.engine.choice import usable_threads
from kiku.measure.times import Clock

_FLAGS = {  # as /proc/cpuinfo and sysctl spell them -> as people do
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_tile": "AMX",
    "amx_int8": "AMX int8",
    "asimd": "NEON",
    "asimddp": "dot product",
    "i8mm": "i8mm",
    "bf16": "BF16",
}
_APPLE = {"FEAT_DotProd": "dot product", "FEAT_I8MM": "i8mm", "FEAT_BF16": "BF16"}


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine, as programs find it."""

    processor: str
    architecture: str
    instructions: tuple[str, ...] | None
    """Instruction sets that matter for products of matrices; None where the system does not
    tell."""
    threads: int
    """Processors that this process may use."""
    memory_bytes: int | None

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return asdict(self)


def this_machine() -> Machine:
    """This machine, as the system describes it."""
    name, instructions = _processor()
    return Machine(name, platform.machine(), instructions, usable_threads(), _memory_bytes())


def instructions_of(cpuinfo: str) -> tuple[str, tuple[str, ...]]:
    """Name and instruction sets from the text of /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    name = fields.get("model name") or fields.get("Model") or platform.machine()
    return name, tuple(said for flag, said in _FLAGS.items() if flag in flags)


def _processor() -> tuple[str, tuple[str, ...] | None]:
    try:
        return instructions_of(Path("/proc/cpuinfo").read_text())
    except OSError:
        pass
    if sys.platform == "darwin" and (name := _sysctl("machdep.cpu.brand_string")):
        if platform.machine() == "arm64":
            known = [s for key, s in _APPLE.items() if _sysctl(f"hw.optional.arm.{key}") == "1"]
            return name, ("NEON", *known)
        leaf = (_sysctl("machdep.cpu.leaf7_features") or "").lower().split()
        return name, tuple(_FLAGS[flag] for flag in ("avx2", "avx512f") if flag in leaf)
    return platform.processor() or platform.machine(), None


def _sysctl(key: str) -> str | None:
    try:
        ran = subprocess.run(
            ["/usr/sbin/sysctl", "-n", key], capture_output=True, text=True, check=False, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ran.stdout.strip() or None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on every system
        return None


def resident_bytes() -> int | None:
    """Bytes of this process that are in memory, mapped files included; None if the system does not
    tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def private_bytes() -> int | None:
    """Bytes of this process alone, without mapped files; None if the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
    except (OSError, StopIteration, IndexError, ValueError):
        return None


class MemoryReader:
    """Reads memory with all threads, to measure how fast that is at the moment: on a shared machine
    the speed changes from minute to minute."""

    def __init__(
        self, size: int = 1 << 30, *, threads: int | None = None, clock: Clock = perf_counter
    ) -> None:
        """Write the memory that will be read.

        Args:
            size: bytes that are read: many times the processor's caches.
            threads: how many threads read; None takes as many as this process may use.
            clock: gives seconds.
        """
        self._size, self._clock = size, clock
        self._parts = np.array_split(np.ones(size // 4, np.float32), threads or usable_threads())

    def bandwidth(self, seconds: float = 2.0) -> float:
        """Bytes a second that all threads together read: the best of as many rounds as fit into
        the time, but of at least one round for each way of reading."""
        best, rounds, began = 0.0, 0, self._clock()
        with ThreadPoolExecutor(len(self._parts)) as pool:  # numpy lets other threads run
            while rounds < len(_READERS) or self._clock() - began < seconds:
                reader = _READERS[rounds % len(_READERS)]
                started = self._clock()
                list(pool.map(reader, self._parts))
                best = max(best, self._size / max(self._clock() - started, 1e-9))
                rounds += 1
        return best


def read_bandwidth(
    size: int = 1 << 30,
    *,
    seconds: float = 2.0,
    threads: int | None = None,
    clock: Clock = perf_counter,
) -> float:
    """Bytes a second that all threads together read from memory now: see `MemoryReader`."""
    return MemoryReader(size, threads=threads, clock=clock).bandwidth(seconds)


def _largest(part: NDArray[np.float32]) -> float:
    return float(part.max())


def _sum(part: NDArray[np.float32]) -> float:
    return float(part.sum())


def _whole_sum(part: NDArray[np.float32]) -> int:
    return int(part[: len(part) // 2 * 2].view(np.int64).sum())


_READERS = (_largest, _sum, _whole_sum)
"""Ways of reading. Which is the fastest depends on the processor; all of them read for longer than
they compute."""
