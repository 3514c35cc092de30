"""kiku's own operators for ONNX Runtime: one native library, and where it lies.

    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(kiku_kernels.library()))

The operators are in the domain `kiku`; the README says what each takes and gives.
"""

import ctypes
import os
from pathlib import Path

__version__ = "0.1.0"

OPERATORS = 2
"""Raised whenever an operator is added or changes: kiku takes the very number that it knows."""

_SUFFIXES = (".so", ".dylib", ".dll")

_REASON = "without_library.txt"
"""Written when the package is installed without a library: why it could not be built."""


class NoKernels(RuntimeError):
    """There are no kernels for this machine; the message says why."""


def library() -> Path:
    """The native library.

    Raises:
        NoKernels: it was not built when the package was installed.
    """
    folder = Path(__file__).parent
    for suffix in _SUFFIXES:
        path = folder / f"kernels{suffix}"
        if path.exists():
            return path
    try:
        why = (folder / _REASON).read_text(encoding="utf-8").partition("\n")[0]
    except OSError:
        why = f"there is none in {folder}; `pip install ./kernels` builds it"
    raise NoKernels(f"kiku-kernels was installed without its library: {why}")


def processor() -> str:
    """Which kernels this machine uses: "avx512", "avxvnni", "avx2" or "neon".

    The environment's KIKU_KERNELS names others, for tests and comparisons.

    Raises:
        NoKernels: there is no library, it cannot be loaded, or it has none for this processor.
    """
    path = library()
    try:
        native = ctypes.CDLL(str(path))
    except OSError as error:
        raise NoKernels(f"{path.name} of kiku-kernels cannot be loaded: {error}") from error
    native.kiku_processor.restype = ctypes.c_char_p
    name: bytes | None = native.kiku_processor()
    if name is None:
        asked = os.environ.get("KIKU_KERNELS")
        which = f"no {asked!r}, as KIKU_KERNELS asks," if asked else "none"
        raise NoKernels(f"kiku-kernels has {which} for this processor")
    return name.decode()
