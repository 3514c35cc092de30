"""The headers of safetensors files: the names and shapes of their tensors, and where the numbers
are.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from kiku.errors import CheckpointError

_MAX_HEADER_BYTES = 100_000_000  # the format's own limit


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of a file."""

    file: Path
    dtype: str
    """The type of its numbers, as safetensors spells it: "BF16", "F32"."""
    shape: tuple[int, ...]
    start: int
    """The offset of its first byte from the beginning of the file."""
    num_bytes: int


def read_headers(paths: Iterable[Path]) -> dict[str, Stored]:
    """The tensors of several files together, by name.

    Raises:
        CheckpointError: a file is damaged or cut short, or two files hold the same tensor.
    """
    found: dict[str, Stored] = {}
    for path in paths:
        for name, stored in read_header(path).items():
            if name in found:
                raise CheckpointError(f"{name} is both in {found[name].file} and in {path}")
            found[name] = stored
    return found


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of one file, by name.

    Raises:
        CheckpointError: it is not a safetensors file, or is cut short.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if start.startswith(b"version "):
                raise CheckpointError(
                    f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull`"
                )
            if len(start) < 8 or not 2 <= length <= _MAX_HEADER_BYTES:
                raise CheckpointError(
                    f"{path} is not a safetensors file ({size:,} bytes); download it again"
                )
            if size < 8 + length:
                raise CheckpointError(
                    f"{path} is cut short: it has {size:,} bytes, but its header alone has "
                    f"{8 + length:,}; download it again"
                )
            header: dict[str, Any] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        found = {
            name: Stored(
                path,
                str(t["dtype"]),
                tuple(t["shape"]),
                8 + length + t["data_offsets"][0],
                t["data_offsets"][1] - t["data_offsets"][0],
            )
            for name, t in header.items()
        }
        wanted = 8 + length + max((t["data_offsets"][1] for t in header.values()), default=0)
    except OSError as e:
        raise CheckpointError(f"{path} cannot be read: {e.strerror or e}") from e
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as e:
        raise CheckpointError(
            f"{path} is not a safetensors file: its header is damaged; download it again"
        ) from e
    if size != wanted:
        what = "cut short" if size < wanted else "too long"
        raise CheckpointError(
            f"{path} is {what}: it has {size:,} bytes, but its header states {wanted:,}; download "
            "it again"
        )
    # The library checks that the tensors fill the file without gap or overlap.
    open_with_library(path, framework="np")
    return found


def open_with_library(path: Path, *, framework: str) -> Any:
    """The file as `safetensors` opens it, for numpy ("np") or PyTorch ("pt").

    Raises:
        CheckpointError: it is damaged, or cannot be read.
    """
    try:
        return safe_open(path, framework=framework)  # pyright: ignore[reportNoOverloadImplementation]
    except (SafetensorError, OSError) as e:
        raise CheckpointError(f"{path} is damaged ({e}); download it again") from e
