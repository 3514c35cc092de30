"""Which engine runs a model: decided before anything is fetched, and before PyTorch is imported."""

import importlib.util
import logging
import os
import sys
from pathlib import Path
from typing import Any, Literal

from kiku.engine.quota import quota_of_processors
from kiku.errors import ConfigError, MissingExtra
from kiku.serial import MAX_INT

EngineName = Literal["onnx", "torch", "cuda"]

DTYPES: dict[EngineName, tuple[str, ...]] = {
    "onnx": ("float32", "int8", "int4", "int8_kv8", "int4_kv8"),
    "torch": ("float32", "bfloat16", "float16", "auto"),
    "cuda": ("float32", "bfloat16", "float16", "auto"),
}
"""Dtypes in which each engine can keep a decoder's weights; "auto" is the checkpoint's own."""

_logger = logging.getLogger(__name__)

# Files that exist where a driver of an NVIDIA or AMD device is loaded.
_SIGNS = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


def choose_engine(
    engine: str, *, device: str | None, dtype: str | None, converted: bool = False
) -> EngineName:
    """Choose the engine that runs a model.

    "auto" is ONNX Runtime, which is the fastest on a processor. It is PyTorch if the device or the
    dtype needs that, or if PyTorch is installed and has a device to run on. "cuda" is taken only
    if it is asked for.

    Args:
        engine: "auto", "onnx", "torch" or "cuda".
        device: as for `kiku.load`.
        dtype: as for `kiku.load`.
        converted: whether the model was converted for ONNX Runtime.

    Raises:
        ConfigError: the arguments contradict each other, or there is no such engine or dtype.
        MissingExtra: the engine needs PyTorch, which is not installed.
    """
    if engine not in ("auto", "onnx", "torch", "cuda"):
        raise ConfigError(f"there is no engine {engine!r}; use 'auto', 'onnx', 'torch' or 'cuda'")
    known = sorted({name for names in DTYPES.values() for name in names})
    if dtype is not None and dtype not in known:
        raise ConfigError(f"dtype must be one of {', '.join(known)}, not {dtype!r}")
    for_torch = _reason_for_torch(device, dtype)
    for_onnx = _reason_for_onnx(dtype, converted)
    if for_torch and for_onnx:
        raise ConfigError(f"{for_torch}, but {for_onnx}: leave one of them out")
    if for_torch and engine == "onnx":
        raise ConfigError(
            f"{for_torch}, but engine='onnx' runs on the processor, in {_listed('onnx')}: leave "
            "one of them out"
        )
    if for_onnx and (engine == "torch" or engine == "cuda"):
        raise ConfigError(
            f"{for_onnx}, but engine={engine!r} runs checkpoints, in {_listed(engine)}: leave one "
            "of them out"
        )
    if for_onnx or engine == "onnx":
        return "onnx"
    if for_torch or engine in ("torch", "cuda"):
        if not _has_torch():
            raise MissingExtra("running a model with PyTorch", "torch")
        return "cuda" if engine == "cuda" else "torch"
    return "torch" if device != "cpu" and _has_torch_device() else "onnx"


def _reason_for_torch(device: str | None, dtype: str | None) -> str:
    if device not in (None, "auto", "cpu"):
        return f"device {device!r} needs PyTorch"
    return "" if dtype in (None, *DTYPES["onnx"]) else f"dtype {dtype!r} needs PyTorch"


def _reason_for_onnx(dtype: str | None, converted: bool) -> str:
    if converted:
        return "a converted model needs ONNX Runtime"
    return "" if dtype in (None, *DTYPES["torch"]) else f"dtype {dtype!r} needs ONNX Runtime"


def _listed(engine: EngineName) -> str:
    *first, last = DTYPES[engine]
    return f"{', '.join(first)} or {last}"


def _has_torch() -> bool:
    try:
        return importlib.util.find_spec("torch") is not None
    except ModuleNotFoundError:
        return False


def _has_torch_device() -> bool:
    """Whether PyTorch is installed and has a device other than the processor.

    Importing it takes a second or more, so that is done only where there are signs of a device.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None:
        if not _sees_device() or not _has_torch():
            return False
        import torch
    return bool(torch.cuda.is_available() or torch.backends.mps.is_available())


def _sees_device() -> bool:
    """Whether this machine shows signs of a device that PyTorch could use."""
    if sys.platform == "darwin":
        return os.uname().machine == "arm64"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return False
    if sys.platform == "win32":
        system = Path(os.environ.get("SYSTEMROOT", "C:/Windows")) / "System32"
        return (system / "nvcuda.dll").exists()
    return any(Path(sign).exists() for sign in _SIGNS)


def usable_threads(root: Path = Path("/")) -> int:
    """Processors that this process may use: those it may run on, no more than a container's or a
    service's quota gives it, and no more than `OMP_NUM_THREADS` says.

    Args:
        root: of the file system in which the quota is looked up.
    """
    return min(_usable_processors(root), _asked_of_openmp() or MAX_INT)


def usable_of(threads: int, root: Path = Path("/")) -> int:
    """As many threads as were asked for, but no more than there are processors for: threads beyond
    these wait for one another, hundreds of them for ever. A smaller number is logged as a warning.

    Args:
        threads: how many were asked for; `OMP_NUM_THREADS` is not looked at.
        root: of the file system in which the quota is looked up.
    """
    most = _usable_processors(root)
    if threads <= most:
        return threads
    _logger.warning(
        "%d threads were asked for, but this process may use %d processors: it computes with %d "
        "threads",
        threads, most, most,
    )  # fmt: skip
    return most


def _usable_processors(root: Path) -> int:
    try:
        number = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        number = os.cpu_count() or 1
    return min(number, quota_of_processors(root) or number)


def _asked_of_openmp() -> int | None:
    """`OMP_NUM_THREADS`, or its first number where it lists one for each level."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    # Nine digits are more than any machine has; Python refuses to convert thousands of digits.
    number = int(first[:9]) if first.isdecimal() else 0
    return number if number > 0 else None
