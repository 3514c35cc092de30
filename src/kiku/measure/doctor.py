"""What is installed here, which of the processor's instructions are used, and what speed to expect.

This module looks and measures; it prints nothing.
"""

import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kiku
from kiku.checkpoint.model_shapes import SHAPES
from kiku.errors import CheckpointError
from kiku.measure.limit import limit
from kiku.measure.machine import Machine, read_bandwidth, this_machine

if TYPE_CHECKING:
    from kiku.engine.kernels import Kernels

NEEDED = (
    "av", "filelock", "huggingface_hub", "kiku-kernels", "numpy", "onnxruntime", "protobuf", "rich",
    "safetensors", "sentencepiece", "soxr", "tokenizers", "typer",
)  # fmt: skip
"""Packages without which kiku does not work."""

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "torch": ("torch",),
    "train": ("torch", "matplotlib"),
    "mic": ("sounddevice",),
    "serve": ("msgpack", "msgspec", "prometheus_client", "starlette", "uvicorn", "websockets"),
    "evaluate": ("jiwer", "whisper_normalizer"),
    "fleet": ("fsspec", "ray", "redis"),
}
"""Extra -> the packages that it brings."""

TYPICAL_SHARE = {"int8": 0.85, "int4": 0.75}
"""How much of the memory's limit a step of the 1B's decoder is taken to reach with kiku-kernels: an
estimate from what `benchmarks/peers.py` measured elsewhere (share_of_limit)."""

SHARE_WITHOUT_KERNELS = {"int8": 0.65, "int4": 0.5}
"""The same with ONNX Runtime's operators alone."""

_MICROPHONE = "sounddevice"

_INSTRUCTIONS = {
    "avx512": "AVX-512 VNNI", "avxvnni": "AVX-VNNI", "avx2": "AVX2", "neon": "dot product",
}  # fmt: skip
"""Name of kiku's kernels -> the instructions that they multiply with."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """How matrices of one precision are multiplied here."""

    precision: str
    instructions: str
    by: str
    """Whose operators multiply: "kiku-kernels" or "ONNX Runtime"."""
    note: str


@dataclass(frozen=True, slots=True)
class Expected:
    """Milliseconds of one stream's decoder for a frame of 80 ms."""

    shape: str
    precision: str
    limit_ms: float
    """The time to read the weights from memory, and for nothing else."""
    typical_ms: float
    """The time at the usual share of the limit: `TYPICAL_SHARE` or `SHARE_WITHOUT_KERNELS`."""

    @property
    def real_time(self) -> bool:
        """Whether live speech can be followed."""
        return self.typical_ms < 80


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """All that `examine` finds."""

    kiku: str
    python: str
    system: str
    packages: dict[str, str | None]
    """Needed package -> its version, None where it is missing."""
    extras: dict[str, bool]
    machine: Machine
    kernels: tuple[Kernel, ...]
    bandwidth_gb_s: float | None
    expected: tuple[Expected, ...]
    cache: str | None
    """The folder for converted models; None if there is none."""
    cache_bytes: int
    microphones: int | None
    """How many converted models there are; None if the package for them is not installed."""

    @property
    def missing(self) -> list[str]:
        """Needed packages that are not installed."""
        return [name for name, version in self.packages.items() if version is None]

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return {**asdict(self), "missing": self.missing}


def examine(*, bandwidth: Callable[[], float] | None = None) -> DoctorReport:
    """Examine this installation and machine, and read the memory for half a second.

    Args:
        bandwidth: measures bytes a second; None is `read_bandwidth` over 256 MiB.
    """
    machine, own = this_machine(), _own_kernels()
    try:
        measured = (bandwidth or _quick_bandwidth)()
    except MemoryError:
        measured = None
    folder = _cache_folder()
    return DoctorReport(
        kiku=kiku.__version__,
        python=f"{platform.python_version()} ({sys.executable})",
        system=f"{platform.system()} {platform.release()} {machine.architecture}",
        packages={name: _version(name) for name in NEEDED},
        extras={extra: all(map(_is_there, names)) for extra, names in EXTRAS.items()},
        machine=machine,
        kernels=kernels_of(machine, own),
        bandwidth_gb_s=None if measured is None else round(measured / 1e9, 1),
        expected=() if measured is None else expected(measured, own),
        cache=None if folder is None else str(folder),
        cache_bytes=0 if folder is None else _folder_bytes(folder),
        microphones=_microphones(),
    )


def kernels_of(machine: Machine, own: "Kernels") -> tuple[Kernel, ...]:
    """For each precision the instructions that multiply matrices, and whose operators use them.

    Args:
        machine: this machine.
        own: kiku's operators, or the reason why there are none.
    """
    by, reason = ("kiku-kernels", "") if own.library else ("ONNX Runtime", f"; {own.reason}")
    keys = "; keys of 16 bits, of 8 with {}_kv8" if own.library else ""
    has = machine.instructions
    if has is None:
        unknown = f"this system does not tell which{reason}"
        told = own.processor or "unknown"
        rows = [Kernel(p, told, by, unknown + keys.format(p)) for p in ("int8", "int4")]
        return (*rows, Kernel("float32", "unknown", "ONNX Runtime", unknown))
    known = ("AVX-512 VNNI", "AVX-VNNI", "AVX-512", "AVX2", "dot product", "NEON")
    whole = _INSTRUCTIONS.get(own.processor) or _first(has, known)
    floats = _first(has, ("AVX-512", "AVX2", "NEON"))
    one = "products of 8-bit numbers in one instruction"
    several = "8-bit products in several instructions: blocks and many streams are slower"
    slow = "no fast instructions: expect to be far from real time"
    note = one if whole in ("AVX-512 VNNI", "AVX-VNNI", "dot product") else several
    note = (note if whole else slow) + reason
    return (
        *(Kernel(p, whole or "plain", by, note + keys.format(p)) for p in ("int8", "int4")),
        Kernel(
            "float32", floats or "plain", "ONNX Runtime",
            "four times the memory of int8" if floats else slow,
        ),
    )  # fmt: skip


def expected(bandwidth: float, own: "Kernels") -> tuple[Expected, ...]:
    """Expected times of the published models, if memory is read at `bandwidth` bytes a second, with
    kiku's operators or without."""
    shares = TYPICAL_SHARE if own.library else SHARE_WITHOUT_KERNELS
    found: list[Expected] = []
    for shape, config in SHAPES.items():
        for precision, share in shares.items():
            at_best = limit(config.lm, precision, bandwidth).ms
            found.append(Expected(shape, precision, round(at_best, 1), round(at_best / share, 1)))
    return tuple(found)


def _cache_folder() -> Path | None:
    """Where converted models are kept; None where there is no such folder."""
    from kiku import converted

    try:
        return converted.cache_folder()
    except CheckpointError:
        return None


def _own_kernels() -> "Kernels":
    from kiku.engine.kernels import kernels as found

    return found()


def _quick_bandwidth() -> float:
    return read_bandwidth(1 << 28, seconds=0.5)


def _first(has: tuple[str, ...], wanted: tuple[str, ...]) -> str:
    return next((name for name in wanted if name in has), "")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_there(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _folder_bytes(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(root) / name).lstat().st_size
            except OSError:  # gone meanwhile
                continue
    return total


def _microphones() -> int | None:
    if not _is_there(_MICROPHONE):
        return None
    try:
        devices = importlib.import_module(_MICROPHONE).query_devices()
        return sum(1 for device in devices if device["max_input_channels"] > 0)
    except Exception:  # without a sound system it may raise anything
        return 0
