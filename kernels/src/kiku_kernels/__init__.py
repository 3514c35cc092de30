"""kiku's own operators for ONNX Runtime: one native library, and where it lies.

    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(kiku_kernels.library()))

The operators are in the domain `kiku`; the README says what each takes and gives.
"""

import ctypes
import os
import struct
from pathlib import Path

__version__ = "0.1.0"

OPERATORS = 3
"""Raised whenever an operator is added or changes: kiku takes the very number that it knows."""

PROCESSORS = ("avx512", "avxvnni", "avx2", "neon")
"""Names of kernels. A library has those of its architecture."""

_SUFFIXES = (".so", ".dylib", ".dll")

_REASON = "without_library.txt"
"""Written when the package is installed without a library: why it could not be built."""

_SEGMENT = struct.Struct("<7Q")
"""Of an ELF library: its kind, offset, two addresses, bytes in file and memory, alignment."""


class NoKernels(RuntimeError):
    """There are no kernels for this machine; the message says why."""


class BrokenLibrary(NoKernels):
    """There is a library, but it is damaged, another one, or of another system."""


def library() -> Path:
    """The native library.

    Raises:
        NoKernels: it was not built when the package was installed.
        BrokenLibrary: it is not whole.
    """
    folder = Path(__file__).parent
    for suffix in _SUFFIXES:
        path = folder / f"kernels{suffix}"
        if path.exists():
            _check_whole(path)
            return path
    try:
        why = (folder / _REASON).read_text(encoding="utf-8").partition("\n")[0]
    except OSError:
        why = f"there is none in {folder}; `pip install ./kernels` builds it"
    raise NoKernels(f"kiku-kernels was installed without its library: {why}")


def _check_whole(path: Path) -> None:
    """Refuse a library whose end is missing: Linux maps it all the same, and the process that reads
    there is killed without a word. The other systems refuse it, as they do whatever is no library.
    """
    try:
        data = path.read_bytes()
    except OSError:
        return  # who loads it says what is wrong
    size = _whole_size(data)
    if size > len(data):
        raise BrokenLibrary(
            f"{path} is cut off ({len(data):,} of {size:,} bytes): install kiku-kernels again"
        )


def _whole_size(data: bytes) -> int:
    """Where the last part of an ELF library ends, as its tables say; 0 for what is none."""
    if len(data) < 64 or data[:6] != b"\x7fELF\x02\x01":
        return 0
    segments, sections = struct.unpack_from("<2Q", data, 32)
    segment_size, num_segments, section_size, num_sections = struct.unpack_from("<4H", data, 54)
    size: int = max(segments + segment_size * num_segments, sections + section_size * num_sections)
    if size > len(data) or segment_size != _SEGMENT.size:
        return size
    for at in range(num_segments):
        _, offset, _, _, num_bytes, _, _ = _SEGMENT.unpack_from(data, segments + at * _SEGMENT.size)
        size = max(size, offset + num_bytes)
    return size


def processor() -> str:
    """Which kernels this machine uses: "avx512", "avxvnni", "avx2" or "neon".

    The environment's KIKU_KERNELS names others, for tests and comparisons.

    Raises:
        NoKernels: there is no library, or it has none for this processor.
        BrokenLibrary: it cannot be loaded, or is another one.
    """
    path = library()
    try:
        ask = ctypes.CDLL(str(path)).kiku_processor
    except OSError as error:
        raise BrokenLibrary(f"{path.name} of kiku-kernels cannot be loaded: {error}") from error
    except AttributeError:
        raise BrokenLibrary(
            f"{path} is another library, without kiku_processor: install kiku-kernels again"
        ) from None
    ask.restype = ctypes.c_char_p
    name: bytes | None = ask()
    if name is None:
        asked = os.environ.get("KIKU_KERNELS", "").strip()
        if not asked:
            raise NoKernels("it has no kernels for this processor")
        is_known = asked.lower() in PROCESSORS
        why = "which this processor does not run" if is_known else "which it does not know"
        raise NoKernels(
            f"KIKU_KERNELS asks for {asked!r}, {why}: take one of {', '.join(PROCESSORS)}, off, or "
            "leave it empty for the best"
        )
    return name.decode()
